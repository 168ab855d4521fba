//! Arithmetic in bf16 against the reference's own: within the stated bounds of it, and no farther from f32 than it is.
//!
//! Where an error is blown up on its way (peaked attention over words, several steps) a single tensor's distance from f32
//! is partly luck on either side: there all of a stage's tensors are taken together, or a quarter more is allowed.
//! The tensor library rounds products to bf16, as the reference does and the CPU's own operations do not; so both are equally
//! far from f32 but for luck, and a quarter more is allowed there, too.

use candle_core::{DType, Device, Tensor};
use kinora_wan::device::Target;
use kinora_wan::dit::Dit;
use kinora_wan::ops::{Products, Set};
use kinora_wan::text::TextEncoder;

use crate::dit::Case;
use crate::golden::{Golden, error, json, model, path, pixel_error, targets};
use crate::pipeline::{Question, run_on};

const MODELS: [&str; 2] = ["ti2v", "i2v"];

/// How many times as far from f32 as the reference is we may be.
fn luck(target: &Target) -> f64 {
    match target.ops.set {
        Set::Cpu => 1.0,
        Set::Tensors => 1.25,
    }
}

/// What the reference makes of the same inputs in f32, and in bf16.
struct Both {
    exact: Golden,
    narrow: Golden,
}

impl Both {
    fn read(name: &str, stage: &str) -> Self {
        let of = |ending: &str| Golden::read(&format!("{name}/{stage}{ending}.safetensors"));
        Self { exact: of(""), narrow: of("_bf16") }
    }

    /// Demands that `got` lies within the bounds around the reference in bf16, and no farther from f32 than `times` as
    /// far as that does.
    #[track_caller]
    fn assert_as_good(&self, name: &str, got: &Tensor, times: f64) {
        self.narrow.assert_close(name, got);
        let exact = self.exact.tensor(name);
        let (ours, theirs) = (error(got, &exact), error(&self.narrow.tensor(name), &exact));
        println!("{name:<28} from f32: ours {ours:.1e}, the reference's {theirs:.1e}");
        assert!(ours <= theirs * times, "{name}: {ours:e} from f32, the reference is {theirs:e}");
        assert!(ours > 1e-4, "{name}: {ours:e} from f32: was anything computed in bf16?");
    }
}

/// `‖a-b‖₂ / ‖b‖₂` of all tensors together.
fn apart(a: &[Tensor], b: &[Tensor]) -> f64 {
    let norm = |tensor: &Tensor| -> f64 {
        let squares = tensor.to_dtype(DType::F64).unwrap().sqr().unwrap();
        squares.sum_all().unwrap().to_scalar().unwrap()
    };
    let wide = |tensor: &Tensor| tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let differences: f64 = a.iter().zip(b).map(|(a, b)| norm(&(wide(a) - wide(b)).unwrap())).sum();
    (differences / b.iter().map(norm).sum::<f64>()).sqrt()
}

#[test]
fn text_states_in_bf16_are_as_good_as_the_references() {
    for target in targets(Products::Bf16) {
        for name in MODELS {
            let text = TextEncoder::load(&model(name), target.place()).unwrap();
            let both = Both::read(name, "text");
            let prompts: Vec<String> = json(&format!("{name}/prompts.json"));
            let states: Vec<_> =
                prompts.iter().map(|prompt| text.states(prompt, &|| false).unwrap()).collect();
            let names: Vec<_> = (0..prompts.len()).map(|index| format!("states_{index}")).collect();
            for (name, got) in names.iter().zip(&states) {
                both.narrow.assert_close(name, got);
            }
            let of = |golden: &Golden| names.iter().map(|name| golden.tensor(name)).collect::<Vec<_>>();
            let (ours, theirs) =
                (apart(&states, &of(&both.exact)), apart(&of(&both.narrow), &of(&both.exact)));
            println!("{name} states from f32: ours {ours:.1e}, the reference's {theirs:.1e}");
            let most = theirs * luck(&target);
            assert!(ours <= most && ours > 1e-3, "{name}: {ours:e} from f32, the reference is {theirs:e}");
            assert!(both.narrow.overshoot("states_0", &states[3]) > 1.0, "another prompt shows");
        }
    }
}

#[test]
fn velocities_in_bf16_are_as_good_as_the_references() {
    for target in targets(Products::Bf16) {
        for name in MODELS {
            let both = Both::read(name, "dit");
            let dit = Dit::load(&model(name).join("transformer"), target.place()).unwrap();
            for case in both.narrow.cases() {
                let inputs = Case::of(&both.exact, &case, &dit);
                let out = inputs.out(&dit);
                both.assert_as_good(&format!("{case}.out"), &out, luck(&target));
                let text = dit.project_text(&inputs.states).unwrap();
                let clip = dit.clip(inputs.grid()).unwrap();
                let taps = dit.taps(&clip, &inputs.latents, &inputs.times, &text).unwrap();
                let last = format!("{case}.block_{}", dit.config().num_layers - 1);
                both.assert_as_good(&last, &taps.last().unwrap().unsqueeze(0).unwrap(), luck(&target));
                let moved = out.roll(1, 4).unwrap();
                assert!(
                    both.narrow.overshoot(&format!("{case}.out"), &moved) > 1.0,
                    "a shift by a pixel shows"
                );
            }
        }
    }
}

#[test]
fn clips_in_bf16_are_as_good_as_the_references() {
    for target in targets(Products::Bf16) {
        for name in MODELS {
            let question = Question::of(name, "a");
            let noise = Some(path(&format!("{name}/noise_a.safetensors")));
            let settings = kinora_wan::Settings { noise, ..question.settings() };
            let (latents, frames) = run_on(target.clone(), name, "a", settings);
            let both = Both::read(name, "pipeline_a");
            both.assert_as_good("final", latents.last().unwrap(), 1.25 * luck(&target));
            both.narrow.assert_pixels("frames", &frames.0);
            let pixels =
                |golden: &Golden| golden.tensor("frames").flatten_all().unwrap().to_vec1::<u8>().unwrap();
            let exact = pixels(&both.exact);
            let (ours_db, theirs_db) =
                (pixel_error(&frames.0, &exact).0, pixel_error(&pixels(&both.narrow), &exact).0);
            println!("{name} frames from f32: ours {ours_db:.1} dB, the reference's {theirs_db:.1} dB");
            assert!(
                ours_db >= theirs_db - 2.0,
                "{name}: {ours_db} dB from f32, the reference is {theirs_db} dB"
            );
        }
    }
}
