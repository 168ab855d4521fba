//! The whole pipeline: picture and words to 8-bit frames, against the reference from the same noise.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use kinora_engine::{
    ClipDuration, Engine as _, EngineError, FrameSink, GenerateSpec, Monitor, Picture, Progress, SinkError,
};
use kinora_wan::condition::{Condition, Family};
use kinora_wan::device::Target;
use kinora_wan::model::{Adapters, Model, Residency};
use kinora_wan::ops::{Products, Set};
use kinora_wan::picture::{Size, to_tensor};
use kinora_wan::pipeline::Pipeline;
use kinora_wan::{Settings, WanEngine, WanError};

use crate::golden::{Golden, json, model, path, picture, pixel_error, targets};

/// Model and case of every golden run.
const RUNS: [(&str, &str); 5] =
    [("ti2v", "a"), ("ti2v", "b"), ("i2v", "a"), ("i2v", "b"), ("ti2v-bf16", "a")];

/// What a golden run was asked.
#[derive(serde::Deserialize)]
pub struct Question {
    prompt: String,
    negative_prompt: String,
    height: usize,
    width: usize,
    num_frames: usize,
    num_inference_steps: usize,
    guidance_scale: f64,
    guidance_scale_2: Option<f64>,
}

impl Question {
    pub fn of(name: &str, case: &str) -> Self {
        json(&format!("{name}/pipeline_{case}.json"))
    }

    pub fn settings(&self) -> Settings {
        Settings {
            steps: Some(self.num_inference_steps),
            guidance: Some(self.guidance_scale),
            guidance_2: self.guidance_scale_2,
            size: Some(Size { width_px: self.width, height_px: self.height }),
            frames: Some(self.num_frames),
            ..Settings::default()
        }
    }

    fn spec(&self) -> GenerateSpec {
        GenerateSpec {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            ..GenerateSpec::default()
        }
    }
}

fn still(name: &str, case: &str) -> Picture {
    let (width_px, height_px, rgb) = picture(&format!("{name}/picture_{case}.png"));
    Picture::new(width_px, height_px, rgb).unwrap()
}

/// Keeps the progress; cancels when a stage comes this far.
#[derive(Default)]
struct Watch {
    progress: Mutex<Vec<Progress>>,
    cancel_at: Option<(&'static str, u32)>,
}

impl Monitor for Watch {
    fn progress(&self, progress: Progress) {
        self.progress.lock().unwrap().push(progress);
    }

    fn is_cancelled(&self) -> bool {
        let seen = self.progress.lock().unwrap();
        self.cancel_at.is_some_and(|(stage, done)| seen.iter().any(|p| p.stage == stage && p.done >= done))
    }
}

/// Pixels of all frames, and how many frames.
#[derive(Default)]
pub struct Frames(pub Vec<u8>, usize);

impl FrameSink for Frames {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        self.0.extend_from_slice(rgb);
        self.1 += 1;
        Ok(())
    }
}

/// Latents after each step and at the end, and the frames.
fn run(name: &str, case: &str, settings: Settings) -> (Vec<Tensor>, Frames) {
    run_on(Target::cpu_f32(), name, case, settings)
}

/// The same, computed as `target` says.
pub fn run_on(target: Target, name: &str, case: &str, settings: Settings) -> (Vec<Tensor>, Frames) {
    let model = Model::open(&model(name), target).unwrap();
    let spec = Question::of(name, case).spec();
    let (mut latents, mut frames) = (Vec::new(), Frames::default());
    let mut keep = |step: &Tensor| latents.push(step.clone());
    Pipeline::new(model, settings)
        .unwrap()
        .run(&spec, &still(name, case), &mut frames, &Watch::default(), &mut keep)
        .unwrap();
    (latents, frames)
}

#[test]
fn conditions_are_the_references() {
    for target in targets(Products::F32) {
        for name in ["ti2v", "i2v", "ti2v-bf16"] {
            let golden = Golden::read(&format!("{name}/condition.safetensors"));
            let opened = Model::open(&model(name), target.clone()).unwrap();
            for case in golden.cases() {
                let rgb = golden.tensor(&format!("{case}.rgb"));
                let (height_px, width_px, _) = rgb.dims3().unwrap();
                let bytes = rgb.flatten_all().unwrap().to_vec1::<u8>().unwrap();
                let picture = to_tensor(&bytes, Size { width_px, height_px }).unwrap();
                golden.assert_close(&format!("{case}.picture"), &picture);
                let name = format!("{case}.condition");
                let latent_frames = golden.tensor(&name).dim(2).unwrap();
                let frames = (latent_frames - 1) * opened.vae.temporal_scale() + 1;
                let of = |picture: &Tensor| {
                    Condition::new(opened.family, &opened.vae, picture, frames, &|| false).unwrap()
                };
                golden.assert_close(&name, of(&picture).latents());
                let brighter = (&picture + 0.01).unwrap();
                assert!(golden.overshoot(&name, of(&brighter).latents()) > 1.0, "a brighter picture shows");
            }
        }
    }
}

#[test]
fn clips_are_the_references_from_noise_to_pixels() {
    for target in targets(Products::F32) {
        // Over the steps the tensor library's errors, which each stage keeps within its own tolerance, add up.
        let times = if target.ops.set == Set::Tensors { 3.0 } else { 1.0 };
        for (name, case) in RUNS {
            let question = Question::of(name, case);
            let noise = Some(path(&format!("{name}/noise_{case}.safetensors")));
            let (latents, frames) =
                run_on(target.clone(), name, case, Settings { noise, ..question.settings() });
            let golden = Golden::read(&format!("{name}/pipeline_{case}.safetensors"));
            assert_eq!((latents.len(), frames.1), (question.num_inference_steps + 1, question.num_frames));
            let (last, steps) = latents.split_last().unwrap();
            for (step, latents) in steps.iter().enumerate() {
                golden.assert_within(times, &format!("latents_{step}"), latents);
            }
            golden.assert_within(times, "final", last);
            golden.assert_pixels("frames", &frames.0);
        }
    }
}

#[test]
fn parts_that_take_turns_make_the_same_clip() {
    for target in targets(Products::F32) {
        let copy = Copy::of("i2v", "turns");
        let open = |residency| {
            let model =
                Model::open_adapted(&copy.0, target.clone(), &Adapters::default(), residency).unwrap();
            Pipeline::new(model, Question::of("i2v", "a").settings()).unwrap()
        };
        let clip = |pipeline: &Pipeline, watch: &Watch| {
            let (spec, mut frames) = (Question::of("i2v", "a").spec(), Frames::default());
            let made = pipeline.run(&spec, &still("i2v", "a"), &mut frames, watch, &mut |_| {});
            made.map(|_| frames.0)
        };
        let whole = clip(&open(Residency::Whole), &Watch::default()).unwrap();
        let in_turn = open(Residency::InTurn);
        assert!(clip(&in_turn, &Watch::default()).unwrap() == whole, "the same weights, the same pixels");

        let watch = Watch { cancel_at: Some(("denoise", 0)), ..Watch::default() };
        assert!(matches!(clip(&in_turn, &watch), Err(WanError::Cancelled)), "while a part is copied");
        std::fs::remove_dir_all(copy.0.join("transformer_2")).unwrap();
        let watch = Watch::default();
        let lost = clip(&in_turn, &watch).unwrap_err();
        assert!(
            matches!(lost, WanError::Read { .. }),
            "the second expert is opened when its steps come: {lost}"
        );
        let last = *watch.progress.lock().unwrap().last().unwrap();
        assert!(last.stage == "denoise" && last.done > 0 && last.done < last.total, "{last:?}");
    }
}

#[test]
fn every_setting_shows_in_the_pixels() {
    let (name, case) = ("i2v", "a");
    let asked = Question::of(name, case).settings();
    let noise = Some(path(&format!("{name}/noise_{case}.safetensors")));
    let golden = Golden::read(&format!("{name}/pipeline_{case}.safetensors"));
    let wanted = golden.tensor("frames").flatten_all().unwrap().to_vec1::<u8>().unwrap();
    for (what, settings) in [
        ("noise", Settings { noise: None, ..asked.clone() }),
        ("guidance", Settings { noise: noise.clone(), guidance: Some(4.5), ..asked.clone() }),
        ("guidance_2", Settings { noise: noise.clone(), guidance_2: None, ..asked.clone() }),
        ("steps", Settings { noise, steps: Some(3), ..asked }),
    ] {
        let psnr_db = pixel_error(&run(name, case, settings).1.0, &wanted).0;
        assert!(psnr_db < 60.0, "{what}: {psnr_db} dB");
    }
}

#[test]
fn the_first_latent_frame_of_a_clip_with_token_times_is_the_picture() {
    let zeros = Tensor::zeros((1, 7, 3, 4, 6), DType::F32, &Device::Cpu).unwrap();
    let picture = Tensor::ones((1, 7, 1, 4, 6), DType::F32, &Device::Cpu).unwrap();
    let condition = Condition::of_latents(Family::PerTokenTimes, picture);
    for blended in [condition.finish(&zeros).unwrap(), condition.model_input(&zeros).unwrap()] {
        let means: Vec<f32> = blended.mean((0, 1, 3, 4)).unwrap().to_vec1().unwrap();
        assert_eq!(means, [1.0, 0.0, 0.0]);
    }
    let times = condition.token_times(500.0, 3, 6);
    assert_eq!((times.times, times.runs), (vec![0.0, 500.0], vec![6, 12]));
}

fn small() -> Settings {
    Settings {
        steps: Some(2),
        size: Some(Size { width_px: 64, height_px: 32 }),
        frames: Some(5),
        ..Settings::default()
    }
}

#[test]
fn ten_seconds_are_two_clips_that_share_a_frame() {
    let engine = WanEngine::open(&model("ti2v"), Target::cpu_f32(), small(), 1).unwrap();
    let spec = GenerateSpec { duration: ClipDuration::TenSeconds, ..GenerateSpec::default() };
    let format = engine.clip_format(300, 300, &spec);
    assert_eq!((format.width_px, format.height_px, format.fps, format.frames_count), (64, 32, 24, 9));
    let (mut frames, watch) = (Frames::default(), Watch::default());
    let made = engine.generate(&spec, &still("ti2v", "a"), &mut frames, &watch).unwrap();
    assert_eq!(frames.1, 9);
    let names: Vec<_> = made.stages.iter().map(|stage| stage.stage).collect();
    let (first, second) =
        (["image", "denoise", "decode"], ["image, part 2", "denoise, part 2", "decode, part 2"]);
    assert_eq!(names, [&["text"], &first[..], &second].concat());
    let seen = watch.progress.into_inner().unwrap();
    for name in names {
        let of_stage: Vec<_> = seen.iter().filter(|p| p.stage == name).collect();
        let last = of_stage.last().unwrap();
        assert_eq!(last.done, last.total, "{name} is told to its end");
        assert!(of_stage.iter().all(|p| p.total == last.total), "{name} keeps its length");
    }
}

#[test]
fn memory_is_counted_for_the_largest_clip_that_a_picture_becomes() {
    let pixels = |width_px: usize, height_px: usize| width_px * height_px;
    for name in ["ti2v", "i2v"] {
        let engine = WanEngine::open(&model(name), Target::cpu_f32(), Settings::default(), 1).unwrap();
        let counted = engine.needs().unwrap().size;
        let counted_px = pixels(counted.width_px, counted.height_px);
        let pictures =
            (1..200).map(|at| (100 + 7 * at, 1500 - 7 * at)).chain([(1, 4000), (4000, 1), (16, 9)]);
        let largest_px = pictures
            .map(|(wide, high)| engine.clip_format(wide, high, &GenerateSpec::default()))
            .map(|format| pixels(format.width_px as usize, format.height_px as usize))
            .max()
            .unwrap();
        assert!(
            largest_px <= counted_px && counted_px < largest_px + largest_px / 50,
            "{largest_px} {counted_px}"
        );
    }
}

#[test]
fn a_seed_repeats_a_clip_and_another_does_not() {
    let engine = WanEngine::open(&model("i2v"), Target::cpu_f32(), small(), 1).unwrap();
    let clip = |seed| {
        let mut frames = Frames::default();
        let spec = GenerateSpec { seed, ..GenerateSpec::default() };
        engine.generate(&spec, &still("i2v", "a"), &mut frames, &Watch::default()).unwrap();
        frames.0
    };
    assert_eq!(clip(1), clip(1));
    assert_ne!(clip(1), clip(2));
}

#[test]
fn a_prompt_that_was_read_is_not_read_again() {
    let copy = Copy::new("read");
    let engine = WanEngine::open(&copy.0, Target::cpu_f32(), small(), 1).unwrap();
    let clip = |prompt: &str| {
        let spec = GenerateSpec { prompt: prompt.to_owned(), ..GenerateSpec::default() };
        let mut frames = Frames::default();
        engine.generate(&spec, &still("ti2v", "a"), &mut frames, &Watch::default()).map(|_| frames.0)
    };
    let first = clip("a boat drifts").unwrap();
    std::fs::remove_dir_all(copy.0.join("text_encoder")).unwrap();
    assert_eq!(clip("a boat drifts").unwrap(), first, "prompt and what to avoid are remembered");
    assert!(clip("a boat sinks").is_err(), "another prompt needs the encoder");
}

#[test]
fn a_cancel_ends_the_work_within_a_step_or_a_frame() {
    let engine = WanEngine::open(&model("ti2v"), Target::cpu_f32(), small(), 1).unwrap();
    for at in [("text", 0), ("image", 0), ("denoise", 1), ("decode", 1)] {
        let watch = Watch { cancel_at: Some(at), ..Watch::default() };
        let result =
            engine.generate(&GenerateSpec::default(), &still("ti2v", "a"), &mut Frames::default(), &watch);
        assert!(matches!(result, Err(EngineError::Cancelled)), "{at:?}: {result:?}");
        let last = *watch.progress.lock().unwrap().last().unwrap();
        assert_eq!((last.stage, last.done), at, "nothing was done after");
    }
}

#[test]
fn what_a_model_cannot_make_is_refused_when_it_is_opened() {
    for (settings, told) in [
        (Settings { size: Some(Size { width_px: 65, height_px: 32 }), ..small() }, "multiples of 32"),
        (Settings { frames: Some(6), ..small() }, "frames 6"),
        (Settings { steps: Some(0), ..small() }, "steps 0"),
        (Settings { shift: Some(0.0), ..small() }, "shift 0: must be from 0.01 to 100"),
        (Settings { shift: Some(f64::NAN), ..small() }, "shift NaN"),
        (Settings { shift: Some(100.5), ..small() }, "shift 100.5"),
        (Settings { guidance: Some(f64::NAN), ..small() }, "guidance"),
        (Settings { guidance_2: Some(-1.0), ..small() }, "guidance"),
        (Settings { guidance_2: Some(3.0), ..small() }, "guidance-2: this model has no second"),
        (Settings { vae_tile: Some(65), ..small() }, "multiple of 16"),
        (
            Settings { frames: Some(257), ..small() },
            "has 65 tokens along one side, and the model's limit is 64",
        ),
        (Settings { frames: Some(257), size: None, ..small() }, "has 65 tokens along one side"),
        (Settings { size: Some(Size { width_px: 32, height_px: 2080 }), ..small() }, "a smaller --size"),
    ] {
        let error = WanEngine::open(&model("ti2v"), Target::cpu_f32(), settings, 1).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let noise = path("i2v/noise_a.safetensors");
    let engine =
        WanEngine::open(&model("ti2v"), Target::cpu_f32(), Settings { noise: Some(noise), ..small() }, 1)
            .unwrap();
    let spec = GenerateSpec::default();
    let watch = Watch::default();
    let result = engine.generate(&spec, &still("ti2v", "a"), &mut Frames::default(), &watch);
    assert!(result.unwrap_err().to_string().contains("noise_a.safetensors"));
    assert_eq!(watch.progress.lock().unwrap()[..], [], "before anything is computed");
}

#[test]
fn what_is_no_number_any_more_is_no_clip() {
    let told = |folder: &Path, settings: Settings| {
        let engine = WanEngine::open(folder, Target::cpu_f32(), settings, 1).unwrap();
        let spec = GenerateSpec::default();
        let made = engine.generate(&spec, &still("ti2v", "a"), &mut Frames::default(), &Watch::default());
        made.unwrap_err().to_string()
    };
    let far = told(&model("ti2v"), Settings { guidance: Some(1e38), ..small() });
    assert!(far.starts_with("step ") && far.contains(" of 2 made numbers that are not finite"), "{far}");

    let copy = Copy::new("nan");
    let file = copy.0.join("vae/diffusion_pytorch_model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let bias = tensors.get_mut("decoder.conv_out.bias").unwrap();
    *bias = (&*bias * f64::NAN).unwrap();
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let damaged = told(&copy.0, small());
    assert!(damaged.starts_with("decoding latent frame 1 of 2 made numbers"), "{damaged}");
}

#[test]
fn a_configuration_of_sizes_that_no_model_has_is_told() {
    let copy = Copy::new("sizes");
    let config = copy.0.join("transformer/config.json");
    let sound: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    for (name, value, told) in [
        (
            "patch_size",
            serde_json::json!([1u64 << 40, 1u64 << 40, 1u64 << 40]),
            "`patch_size` must be from 1 to",
        ),
        ("num_layers", 0.into(), "`num_layers` must be from 1 to 1048576, not 0"),
        ("num_attention_heads", (1 << 20).into(), "`num_attention_heads * attention_head_dim` must be"),
    ] {
        let mut changed = sound.clone();
        changed[name] = value;
        std::fs::write(&config, changed.to_string()).unwrap();
        let error = Model::open(&copy.0, Target::cpu_f32()).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("transformer/config.json"), "{error}");
    }
}

/// A copy of a tiny model in a folder of its own, removed at the end.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        Self::of("ti2v", name)
    }

    fn of(source: &str, name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kinora-model-{name}-{}", std::process::id()));
        copy_folder(&model(source), &folder);
        Self(folder)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_told() {
    let copy = Copy::new("mixed");
    std::fs::remove_dir_all(copy.0.join("transformer")).unwrap();
    copy_folder(&model("i2v").join("transformer"), &copy.0.join("transformer"));
    let error = Model::open(&copy.0, Target::cpu_f32()).unwrap_err();
    assert!(
        matches!(&error, WanError::Config { problem, .. } if problem.contains("14 to 5 channels")),
        "{error}"
    );

    let copy = Copy::new("other");
    std::fs::write(copy.0.join("model_index.json"), r#"{"_class_name": "FluxPipeline"}"#).unwrap();
    let error = Model::open(&copy.0, Target::cpu_f32()).unwrap_err().to_string();
    assert!(error.contains("FluxPipeline"), "{error}");

    for ratio in ["0", "2", "-1"] {
        let copy = Copy::of("i2v", "boundary");
        let index = copy.0.join("model_index.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
        json["boundary_ratio"] = serde_json::from_str(ratio).unwrap();
        std::fs::write(&index, json.to_string()).unwrap();
        let error = Model::open(&copy.0, Target::cpu_f32()).unwrap_err().to_string();
        assert!(error.contains("`boundary_ratio` must be between 0 and 1"), "{error}");
    }

    let copy = Copy::new("cut");
    let engine = WanEngine::open(&copy.0, Target::cpu_f32(), small(), 1).unwrap();
    std::fs::remove_file(copy.0.join("text_encoder/model-00002-of-00002.safetensors")).unwrap();
    let spec = GenerateSpec::default();
    let late = engine.generate(&spec, &still("ti2v", "a"), &mut Frames::default(), &Watch::default());
    let late = late.unwrap_err();
    let said = late.to_string();
    assert!(matches!(late, EngineError::Files(_)) && !said.contains("safetensors"), "{said}");
    assert!(late.detail().contains("model-00002-of-00002.safetensors"), "{}", late.detail());
    let error = WanEngine::open(&copy.0, Target::cpu_f32(), small(), 1).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors"), "{error}");
}
