//! The transformer, part by part and whole, against the reference.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use kinora_wan::dit::{Dit, DitConfig, Rotary, TokenTimes, sinusoids};
use kinora_wan::ops::{Place, Products};
use kinora_wan::weights::Weights;

use crate::golden::{Disturbed, Golden, model, targets};

/// The CPU with its own operations.
pub fn place() -> Place<'static> {
    Place::new(Products::F32, &Device::Cpu)
}

/// Goldens and the folder of the transformer that they are of.
fn transformers() -> [(Golden, PathBuf); 3] {
    [
        (Golden::read("ti2v/dit.safetensors"), model("ti2v").join("transformer")),
        (Golden::read("i2v/dit.safetensors"), model("i2v").join("transformer")),
        (Golden::read("i2v/dit_2.safetensors"), model("i2v").join("transformer_2")),
    ]
}

/// A case's inputs.
pub struct Case {
    pub latents: Tensor,
    pub times: TokenTimes,
    pub states: Tensor,
}

impl Case {
    pub fn of(golden: &Golden, case: &str, dit: &Dit) -> Self {
        let latents = golden.tensor(&format!("{case}.hidden_states"));
        let times = golden.tensor(&format!("{case}.timestep"));
        let [_, _, frames, height, width] = latents.dims().try_into().unwrap();
        let [_, high, wide] = dit.config().patch_size;
        let times = match times.dims() {
            [1] => TokenTimes::same(
                times.to_vec1::<f32>().unwrap()[0],
                frames * (height / high) * (width / wide),
            ),
            _ => TokenTimes::of_tokens(&times.squeeze(0).unwrap().to_vec1::<f32>().unwrap()),
        };
        Self { latents, times, states: golden.tensor(&format!("{case}.encoder_hidden_states")) }
    }

    pub fn grid(&self) -> [usize; 3] {
        self.latents.dims()[2..].try_into().unwrap()
    }

    pub fn out(&self, dit: &Dit) -> Tensor {
        let clip = dit.clip(self.grid()).unwrap();
        let text = dit.project_text(&self.states).unwrap();
        dit.forward(&clip, &self.latents, &self.times, &text, &|| false).unwrap()
    }
}

#[test]
fn angles_are_the_references() {
    for name in ["ti2v", "i2v"] {
        let golden = Golden::read(&format!("{name}/rope.safetensors"));
        let config = DitConfig::read(&model(name).join("transformer/config.json")).unwrap();
        for case in golden.cases() {
            let size = golden.tensor(&format!("{case}.size")).to_vec1::<i64>().unwrap();
            let grid: Vec<usize> =
                size.iter().zip(config.patch_size).map(|(side, patch)| *side as usize / patch).collect();
            let rotary = Rotary::new(&config, grid.try_into().unwrap(), &Device::Cpu).unwrap();
            for (which, half) in [("cos", &rotary.cos), ("sin", &rotary.sin)] {
                // The reference writes each value twice in a row.
                let (tokens, pairs) = half.dims2().unwrap();
                let twice = half.unsqueeze(2).unwrap().expand((tokens, pairs, 2)).unwrap();
                let name = format!("{case}.{which}");
                golden.assert_close(&name, &twice.reshape((tokens, 2 * pairs)).unwrap());
                let shifted = twice.reshape((tokens, 2 * pairs)).unwrap().roll(1, 0).unwrap();
                assert!(golden.overshoot(&name, &shifted) > 1.0, "a shift by one token shows");
            }
        }
    }
}

#[test]
fn embedded_times_are_the_references() {
    for target in targets(Products::F32) {
        for name in ["ti2v", "i2v"] {
            let golden = Golden::read(&format!("{name}/time.safetensors"));
            let dit = Dit::load(&model(name).join("transformer"), target.place()).unwrap();
            let times = golden.tensor("timestep").to_vec1::<f32>().unwrap();
            let embedded = |times: &[f32]| {
                let width = dit.config().freq_dim;
                let waves = sinusoids(times, width);
                let waves = Tensor::from_vec(waves, (times.len(), width), &Device::Cpu).unwrap();
                let (temb, table) = dit.time_embedding(times).unwrap();
                [("sinusoid", waves), ("temb", temb), ("proj", table.flatten_from(1).unwrap())]
            };
            for (part, got) in embedded(&times) {
                golden.assert_close(part, &got);
            }
            let late: Vec<f32> = times.iter().map(|time| time + 1.0).collect();
            for (part, got) in embedded(&late) {
                assert!(golden.overshoot(part, &got) > 1.0, "{part} a unit of time later");
            }
        }
    }
}

#[test]
fn every_block_is_the_references() {
    for target in targets(Products::F32) {
        for (golden, folder) in transformers() {
            let dit = Dit::load(&folder, target.place()).unwrap();
            for case in golden.cases() {
                let inputs = Case::of(&golden, &case, &dit);
                let text = dit.project_text(&inputs.states).unwrap();
                golden.assert_close(&format!("{case}.text"), &text.unsqueeze(0).unwrap());
                let taps = dit
                    .taps(&dit.clip(inputs.grid()).unwrap(), &inputs.latents, &inputs.times, &text)
                    .unwrap();
                let blocks = (0..dit.config().num_layers).map(|index| format!("{case}.block_{index}"));
                let names: Vec<String> = std::iter::once(format!("{case}.patches")).chain(blocks).collect();
                assert_eq!(names.len(), taps.len());
                for (name, got) in names.iter().zip(&taps) {
                    golden.assert_close(name, &got.unsqueeze(0).unwrap());
                }
            }
        }
    }
}

#[test]
fn velocities_are_the_references() {
    for target in targets(Products::F32) {
        for (golden, folder) in transformers() {
            let dit = Dit::load(&folder, target.place()).unwrap();
            for case in golden.cases() {
                golden.assert_close(&format!("{case}.out"), &Case::of(&golden, &case, &dit).out(&dit));
            }
        }
    }
}

#[test]
fn every_weight_shows_in_the_velocity() {
    for (golden, folder) in transformers() {
        let weights = Weights::open(&folder).unwrap();
        let inputs = Case::of(&golden, "a", &Dit::load(&folder, place()).unwrap());
        for tensor in weights.names() {
            let disturbed = Disturbed::new(&folder, tensor);
            let dit = Dit::load(disturbed.folder(), place()).unwrap();
            let overshoot = golden.overshoot("a.out", &inputs.out(&dit));
            assert!(overshoot > 1.0, "{tensor} disturbed gives {overshoot} of the tolerance");
        }
    }
}

#[test]
fn runs_of_tokens_and_sides_of_the_clip_are_not_mixed_up() {
    let (golden, folder) = &transformers()[0];
    let dit = Dit::load(folder, place()).unwrap();
    let inputs = Case::of(golden, "a", &dit);
    assert_eq!(inputs.times.times.len(), 2, "the first latent frame has a time of its own");
    let swapped =
        TokenTimes { times: inputs.times.times.iter().rev().copied().collect(), ..inputs.times.clone() };
    let swapped = Case { times: swapped, latents: inputs.latents.clone(), states: inputs.states.clone() };
    assert!(golden.overshoot("a.out", &swapped.out(&dit)) > 1.0);
    let [_, _, _, height, width] = inputs.latents.dims().try_into().unwrap();
    assert_ne!(height, width, "a clip on its side is another");
}

#[test]
fn a_cancel_is_heard_between_blocks() {
    let (golden, folder) = &transformers()[0];
    let dit = Dit::load(folder, place()).unwrap();
    let inputs = Case::of(golden, "a", &dit);
    let text = dit.project_text(&inputs.states).unwrap();
    let asked = std::cell::Cell::new(0);
    let second = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    let clip = dit.clip(inputs.grid()).unwrap();
    let result = dit.forward(&clip, &inputs.latents, &inputs.times, &text, &second);
    assert!(matches!(result, Err(kinora_wan::WanError::Cancelled)));
}

#[test]
fn what_does_not_fit_is_told_before_it_is_computed() {
    let folder = model("ti2v").join("transformer");
    let dit = Dit::load(&folder, place()).unwrap();
    let odd = dit.clip([1, 3, 4]).unwrap_err().to_string();
    assert!(odd.contains("1x3x4") && odd.contains("[1, 2, 2]"), "{odd}");
    let long = dit.clip([1, 2, 130]).unwrap_err().to_string();
    assert!(long.contains("65 tokens") && long.contains("64"), "{long}");
    let nowhere = Dit::load(Path::new("/nowhere"), place()).unwrap_err().to_string();
    assert!(nowhere.contains("/nowhere/config.json"), "{nowhere}");
}
