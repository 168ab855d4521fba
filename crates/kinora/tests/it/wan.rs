//! The neural engine on a tiny checkpoint, through the API and the command line.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kinora_engine::{
    ClipFormat, Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, Picture, Progress,
    SinkError, Unwatched,
};
use kinora_wan::device::Target;
use kinora_wan::picture::Size;
use kinora_wan::pipeline::NEGATIVE_PROMPT;
use kinora_wan::sampler::SolverName;
use kinora_wan::{Settings, WanEngine};
use serde_json::json;

use crate::cli::kinora;
use crate::process::{Process, call};
use crate::server::{BASE, TestServer, picture_bytes};

pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/models/ti2v")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_clip_with_progress_on_the_way() {
    // Long enough for the first heartbeat, which carries the progress.
    let engine = Arc::new(engine(150, 256));
    let server = TestServer::start_with(|settings| settings.engine = Some(engine)).await;
    let id = server.accepted().await;
    let record = server.until(&id, |record| record["progress"].is_object()).await;
    let stages = ["text", "image", "denoise", "decode"];
    let stage = record["progress"]["stage"].as_str().unwrap();
    assert!(stages.contains(&stage), "{record}");
    let record = server.finished(&id).await;
    assert_eq!(record["status"], "success", "{record}");
    let outcome = &record["outcome"];
    let clip = server.open(&outcome["video_url"], "GET", &[]).await;
    assert_eq!((clip.status, &clip.body[4..8]), (200, &b"ftyp"[..]));
    assert!(outcome.to_string().contains("wan"), "the answer says which engine made it: {outcome}");
    let page = server.get("/models/Kling-Image2Video-V2.1-Standard").await;
    assert!(String::from_utf8_lossy(&page.body).contains("engine `wan`"), "{:?}", page.body);
}

/// The engine, and how each of its clips went.
#[derive(Debug)]
struct Watched {
    engine: WanEngine,
    clips: Arc<Mutex<Vec<Watch>>>,
}

#[derive(Debug, Clone, Default)]
struct Watch {
    steps: u32,
    /// Of those, the ones that ended after the engine was told to stop.
    steps_too_many: u32,
    is_told: bool,
    is_cancelled: bool,
}

struct Watcher<'a> {
    monitor: &'a dyn Monitor,
    watch: Mutex<Watch>,
}

impl Monitor for Watcher<'_> {
    fn progress(&self, progress: Progress) {
        let mut watch = self.watch.lock().unwrap();
        if progress.stage == "denoise" && progress.done > watch.steps {
            watch.steps = progress.done;
            watch.steps_too_many += u32::from(watch.is_told);
        }
        self.monitor.progress(progress);
    }

    fn is_cancelled(&self) -> bool {
        let told = self.monitor.is_cancelled();
        self.watch.lock().unwrap().is_told |= told;
        told
    }
}

impl Engine for Watched {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn description(&self) -> &'static str {
        self.engine.description()
    }

    fn clip_format(&self, width_px: u32, height_px: u32, spec: &GenerateSpec) -> ClipFormat {
        self.engine.clip_format(width_px, height_px, spec)
    }

    fn generate(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        sink: &mut dyn FrameSink,
        monitor: &dyn Monitor,
    ) -> Result<Generated, EngineError> {
        let watcher = Watcher { monitor, watch: Mutex::default() };
        let made = self.engine.generate(spec, picture, sink, &watcher);
        let mut watch = watcher.watch.into_inner().unwrap();
        watch.is_cancelled = matches!(made, Err(EngineError::Cancelled));
        self.clips.lock().unwrap().push(watch);
        made
    }
}

/// An engine whose clips are 9 frames of `side_px` squared, in `steps` steps.
fn engine(steps: usize, side_px: usize) -> WanEngine {
    let settings = Settings {
        steps: Some(steps),
        size: Some(Size { width_px: side_px, height_px: side_px }),
        frames: Some(9),
        ..Settings::default()
    };
    WanEngine::open(&model(), Target::cpu_f32(), settings, 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_amid_the_steps_frees_the_engine_within_one() {
    const STEPS: u32 = 150;
    let clips = Arc::<Mutex<Vec<Watch>>>::default();
    let watched = Watched { engine: engine(STEPS as usize, 512), clips: clips.clone() };
    let server = TestServer::start_with(|settings| settings.engine = Some(Arc::new(watched))).await;
    let (first, second) = (server.accepted().await, server.accepted().await);
    let record = server.until(&first, |record| record["progress"]["stage"] == "denoise").await;
    let started = Instant::now();
    let cancelled = server.call("DELETE", &format!("{BASE}/requests/{first}"), "").await;
    assert_eq!(cancelled.json()["status"], "cancelled", "{:?}", cancelled.body);
    server.until(&second, |record| record["status"] == "processing").await;
    let took = started.elapsed();
    let watch = clips.lock().unwrap()[0].clone();
    println!("{watch:?} after {took:?}, seen at {}", record["progress"]);
    assert!(watch.is_told && watch.is_cancelled, "{watch:?}");
    assert_eq!(watch.steps_too_many, 0, "the engine ends within a step of hearing of it");
    // The whole clip would have taken several times as long as it was given.
    assert!(watch.steps < STEPS / 3, "the engine did {} of {STEPS} steps in {took:?}", watch.steps);
    assert!(took < Duration::from_secs(2), "the engine went on for {took:?}");
    assert_eq!(server.record(&first).await["outcome"], json!(null));
    // So that this test does not wait for the whole clip either.
    server.call("DELETE", &format!("{BASE}/requests/{second}"), "").await;
}

#[test]
fn a_server_without_workers_needs_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("KINORA_ENGINE", "wan"), ("KINORA_MODEL", "nowhere"), ("KINORA_NO_WORKER", "true")];
    let mut server = Process::start_with(folder.path(), &variables, None);
    let id = server.submit("5");
    let (status, models) = call(&server.address, &server.key, "GET", &format!("{BASE}/models"), "");
    assert_eq!((status, &models["models"][0]["qworkers"]), (200, &json!(0)), "{models}");
    assert_eq!(server.record(&id)["status"], "queued");
    assert_eq!(server.signal(rustix::process::Signal::TERM), Some(0));
}

#[test]
fn a_crash_amid_the_steps_returns_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let variables = |steps| {
        [
            ("KINORA_ENGINE", "wan"),
            ("KINORA_MODEL", model.to_str().unwrap()),
            ("KINORA_SIZE", "128x128"),
            ("KINORA_FRAMES", "9"),
            ("KINORA_STEPS", steps),
        ]
    };
    let mut first = Process::start_with(folder.path(), &variables("150"), None);
    let id = first.submit("5");
    let started = Instant::now();
    loop {
        let record = first.record(&id);
        let (stage, done) = (&record["progress"]["stage"], record["progress"]["done"].as_u64());
        if stage == "denoise" && done > Some(0) {
            break;
        }
        assert!(record["status"] != "success" && started.elapsed() < Duration::from_secs(60), "{record}");
        std::thread::sleep(Duration::from_millis(5));
    }
    first.signal(rustix::process::Signal::KILL);
    let second = Process::start_with(folder.path(), &variables("2"), Some(&first.key));
    let record = second.until(&id, &["success", "failed"]);
    assert_eq!((&record["status"], &record["outcome"]["engine"]), (&json!("success"), &json!("wan")));
    let attempts = std::fs::read_dir(folder.path().join("outputs").join(&id)).unwrap();
    let names: Vec<_> = attempts.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["2"], "the second attempt made the clip");
}

#[test]
fn animate_writes_clip_and_lossless_frames() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("photo.jpg"), picture_bytes()).unwrap();
    let model = model();
    let flags = ["--engine", "wan", "--model", model.to_str().unwrap(), "--steps", "2", "--size", "64x32"];
    let more = ["--frames", "5", "--frames-out", "frames", "--seed", "3", "--json", "--vae-tile", "64"];
    let output = kinora(folder.path(), &[&["animate", "photo.jpg"], &flags[..], &more].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&result["engine"], &result["frames"], &result["width"]),
        (&json!("wan"), &json!(5), &json!(64))
    );
    assert!(result["stages_s"]["denoise"].is_number(), "{result}");
    for index in 0..5 {
        let frame = image::open(folder.path().join(format!("frames/frame_{index:05}.png"))).unwrap();
        assert_eq!((frame.width(), frame.height()), (64, 32));
    }
    assert!(folder.path().join("photo.mp4").exists());

    // A folder of frames is of one clip: a shorter one would leave frames of this behind its own.
    let shorter = ["--frames", "1", "--frames-out", "frames", "-o", "shorter.mp4"];
    let output = kinora(folder.path(), &[&["animate", "photo.jpg"], &flags[..], &shorter].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("--frames-out frames") && told.contains("frame_00001.png"), "{told}");
    assert!(!folder.path().join("shorter.mp4").exists());
}

#[test]
fn the_folder_that_one_stands_in_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (photo, clip) = (folder.path().join("photo.jpg"), folder.path().join("clip.mp4"));
    std::fs::write(&photo, picture_bytes()).unwrap();
    let files = ["animate", photo.to_str().unwrap(), "-o", clip.to_str().unwrap(), "--json"];
    let flags = ["--engine", "wan", "--model", ".", "--steps", "1", "--size", "32x32", "--frames", "1"];
    let output = kinora(&model(), &[&files[..], &flags[..]].concat());
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["plan"]["model"], output.status.code()), (&json!("ti2v"), Some(0)), "{output:?}");
    let plan = json!({
        "model": "ti2v", "steps": 1, "guidance": 5.0, "solver": "unipc", "shift": 5.0, "dtype": "f32",
    });
    assert_eq!(result["plan"], plan);
}

#[test]
fn a_model_that_cannot_be_used_is_told_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("photo.jpg"), picture_bytes()).unwrap();
    let run = |flags: &[&str]| {
        let output = kinora(folder.path(), &[&["animate", "photo.jpg", "--engine", "wan"], flags].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = run(&[]);
    assert!(code == Some(2) && told.contains("--model"), "{told}");
    let (code, told) = run(&["--model", "nowhere"]);
    assert!(code == Some(2) && told.contains("nowhere is neither a folder nor"), "{told}");
    let (code, told) = run(&["--model", "."]);
    assert!(code == Some(2) && told.contains("neither model_index.json nor transformer/"), "{told}");
    let model = model();
    let (code, told) = run(&["--model", model.to_str().unwrap(), "--size", "65x64"]);
    assert!(code == Some(2) && told.starts_with("error: size 65x64") && told.contains("of 32"), "{told}");
    let (code, told) = run(&["--model", model.to_str().unwrap(), "--guidance", "-1"]);
    assert!(code == Some(2) && told.contains("--guidance") && told.contains("from 0 to 100"), "{told}");
    let (code, told) = run(&["--model", model.to_str().unwrap(), "--lora", "none.safetensors=0.5"]);
    assert!(code == Some(2) && told.contains("the adapter cannot be used: cannot read none.saf"), "{told}");
    let (code, told) = run(&["--model", model.to_str().unwrap(), "--dtype", "f16"]);
    assert!(code == Some(2) && told.contains("--dtype"), "{told}");
    let (code, told) = run(&["--model", model.to_str().unwrap(), "--device", "gpu"]);
    assert!(code == Some(2) && told.contains("cuda:N"), "{told}");
    if cfg!(not(feature = "cuda")) {
        let (code, told) = run(&["--model", model.to_str().unwrap(), "--device", "cuda:1"]);
        assert!(code == Some(2) && told.contains("cuda:1"), "{told}");
        assert_eq!(told.matches("--features cuda").count(), 1, "{told}");
    }
}

#[test]
fn doctor_tells_a_whole_model_from_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    let whole = model();
    let output = kinora(folder.path(), &["doctor", "--model", whole.to_str().unwrap(), "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["model"]["problem"]), (Some(0), &json!(null)), "{output:?}");
    assert!(report["cores"].as_u64() > Some(0) && report["model"]["size_bytes"].as_u64() > Some(1_000_000));

    let config = folder.path().join("model_index.json");
    std::fs::write(&config, std::fs::read(whole.join("model_index.json")).unwrap()).unwrap();
    let output = kinora(folder.path(), &["doctor", "--model", "."]);
    let (told, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{told}{error}");
    assert!(told.contains("cannot be used") && error.contains("scheduler_config.json"), "{told}{error}");
}

#[test]
fn doctor_tells_a_set_that_is_not_here_and_a_clip_that_cannot_be_from_a_broken_model() {
    let folder = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| {
        let output = kinora(folder.path(), &[&["doctor"], flags].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, told, error) = run(&["--model", "wan2.2-ti2v-5b", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    let problem = report["model"]["problem"].as_str().unwrap();
    assert!(code == Some(1) && problem.contains("kinora models pull") && error.contains(problem), "{report}");
    assert_eq!((&report["model"]["complete"], &report["model"]["size_bytes"]), (&json!(false), &json!(null)));

    let model = model();
    let (code, told, error) = run(&["--model", model.to_str().unwrap(), "--size", "65x64"]);
    assert!(told.contains("complete: every file") && told.contains("cannot be made: size 65x64"), "{told}");
    assert!(code == Some(1) && error.starts_with("error: size 65x64"), "{error}");

    let (code, told, _) = run(&["--size", "64x64"]);
    assert!(code == Some(0) && told.contains("clip       not looked at: --model"), "{told}");
}

#[test]
fn doctor_checks_adapters_against_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let doctor = |flag, file: &str| {
        let output = kinora(folder.path(), &["doctor", "--model", model.to_str().unwrap(), flag, file]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = doctor("--lora", "missing.safetensors=0.5");
    assert!(code == Some(1) && told.contains("missing.safetensors"), "{told}");
    let other = golden("ti2v/noise_a.safetensors");
    let (code, told) = doctor("--lora", other.to_str().unwrap());
    assert!(code == Some(1) && told.contains("noise_a.safetensors"), "{told}");
    let (code, told) = doctor("--lora-2", "missing.safetensors");
    assert!(code == Some(1) && told.contains("no second transformer"), "{told}");
}

#[test]
fn doctor_tells_whether_a_device_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let run = |flags: &[&str]| {
        let output =
            kinora(folder.path(), &[&["doctor", "--model", model.to_str().unwrap()], flags].concat());
        let (told, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), told, error)
    };
    let (code, told, _) = run(&["--device", "cpu", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (code, &report["device"]["name"], &report["device"]["problem"]),
        (Some(0), &json!("cpu"), &json!(null))
    );
    // No machine has a hundredth GPU, whatever the build.
    let (code, told, error) = run(&["--device", "cuda:99"]);
    assert_eq!(code, Some(1), "{told}{error}");
    assert!(told.contains("device     cuda:99 cannot be used") && !told.contains("clip"), "{told}");
    assert_eq!(error.matches("the device cuda:99 cannot be used").count(), 1, "{error}");
    let (code, told, _) = run(&["--device", "cuda:99", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(code == Some(1) && report["device"]["problem"].as_str().unwrap().contains("cuda:99"), "{report}");
}

/// A copy of the tiny model as `folder/model`, with `from` replaced in one of its files.
fn changed(folder: &Path, file: &str, from: &str, into: &str) -> PathBuf {
    fn copy(from: &Path, into: &Path) {
        std::fs::create_dir_all(into).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let into = into.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &into);
            } else {
                std::fs::copy(entry.path(), into).unwrap();
            }
        }
    }
    let model = folder.join("model");
    copy(&self::model(), &model);
    let text = std::fs::read_to_string(model.join(file)).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(model.join(file), text.replace(from, into)).unwrap();
    model
}

/// A copy of the tiny model whose clips may be as long as one likes.
fn unbounded(folder: &Path) -> PathBuf {
    let longer = "\"rope_max_seq_len\": 1000000";
    changed(folder, "transformer/config.json", "\"rope_max_seq_len\": 64", longer)
}

#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl FrameSink for Frames {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        self.0.push(rgb.to_vec());
        Ok(())
    }
}

/// What every clip here is asked for on the command line, and of the engine itself.
const ASKED: [&str; 6] = ["--steps", "2", "--size", "96x64", "--frames", "9"];

fn asked() -> Settings {
    let size = Some(Size { width_px: 96, height_px: 64 });
    Settings { steps: Some(2), size, frames: Some(9), ..Settings::default() }
}

/// The frames that the engine itself makes of the test's photo.
fn frames_of(model: &Path, settings: Settings, spec: &GenerateSpec) -> Vec<Vec<u8>> {
    let engine = WanEngine::open(model, Target::cpu_f32(), settings, 1).unwrap();
    let picture = kinora_media::decode(&picture_bytes()).unwrap().picture;
    let mut frames = Frames::default();
    engine.generate(spec, &picture, &mut frames, &Unwatched).unwrap();
    frames.0
}

/// The lossless frames that `kinora animate` writes of that photo.
fn animated(more: &[&str]) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("photo.jpg"), picture_bytes()).unwrap();
    let model = model();
    let flags =
        ["animate", "photo.jpg", "--engine", "wan", "--model", model.to_str().unwrap(), "--seed", "0"];
    let output = kinora(folder.path(), &[&flags, &ASKED[..], &["--frames-out", "frames"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let count = std::fs::read_dir(folder.path().join("frames")).unwrap().count();
    let frame = |index| image::open(folder.path().join(format!("frames/frame_{index:05}.png"))).unwrap();
    (0..count).map(|index| frame(index).into_rgb8().into_raw()).collect()
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens").join(path)
}

#[test]
fn animate_makes_of_a_file_of_noise_what_the_engine_makes_of_it() {
    let noise = golden("ti2v/noise_a.safetensors");
    let spec = GenerateSpec { prompt: "the boat drifts".into(), ..GenerateSpec::default() };
    // Guidance 5 is the model's own, which `cfg_scale` stands for by default.
    let settings = Settings { noise: Some(noise.clone()), guidance: Some(5.0), ..asked() };
    let there = frames_of(&model(), settings.clone(), &spec);
    assert_eq!(there.len(), 9);
    assert!(there == animated(&["--noise", noise.to_str().unwrap(), "-p", "the boat drifts"]));
    assert!(there != frames_of(&model(), Settings { noise: None, ..settings }, &spec), "the noise counts");
}

#[test]
fn a_file_of_noise_that_does_not_fit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("photo.jpg"), picture_bytes()).unwrap();
    std::fs::write(folder.path().join("text.safetensors"), "no noise").unwrap();
    let model = model();
    let flags = ["animate", "photo.jpg", "--engine", "wan", "--model", model.to_str().unwrap(), "--noise"];
    let (other, none) = (golden("i2v/noise_a.safetensors"), golden("ti2v/condition.safetensors"));
    for (noise, parts) in [
        (other.to_str().unwrap(), ["noise_a.safetensors", "not [1, 7, 3, 4, 6]"]),
        (none.to_str().unwrap(), ["condition.safetensors", "no tensor `latents`"]),
        ("text.safetensors", ["text.safetensors", "damaged"]),
        ("missing.safetensors", ["missing.safetensors", "cannot read"]),
    ] {
        let output = kinora(folder.path(), &[&flags[..], &[noise], &ASKED].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let is_told = parts.iter().all(|part| told.contains(part));
        assert!(is_told && told.contains("the noise cannot be used"), "{told}");
        assert!(told.matches("os error").count() <= 1, "the cause is told once: {told}");
    }
    assert!(!folder.path().join("photo.mp4").exists());
}

#[test]
fn solver_and_shift_are_as_a_changed_file_would_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = "scheduler/scheduler_config.json";
    let other = changed(folder.path(), file, "\"flow_shift\": 5.0", "\"flow_shift\": 3.0");
    let spec = GenerateSpec::default();
    let shifted = animated(&["--shift", "3"]);
    assert!(shifted == frames_of(&other, asked(), &spec));
    assert!(shifted != frames_of(&model(), asked(), &spec));
    let euler = animated(&["--shift", "3", "--solver", "euler"]);
    assert!(euler == frames_of(&other, Settings { solver: Some(SolverName::Euler), ..asked() }, &spec));
    assert!(euler != shifted);
    for (flags, told) in [(["--shift", "0"], "from 0.01 to 100"), (["--solver", "heun"], "euler")] {
        let output = kinora(folder.path(), &[&["animate", "photo.jpg"], &flags[..]].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(told), "{stderr}");
    }
}

#[test]
fn cfg_scale_is_guidance_and_no_negative_prompt_is_the_models_own() {
    let settings = || Settings { steps: Some(1), frames: Some(5), ..asked() };
    let spec = |cfg_scale, negative_prompt: &str| GenerateSpec {
        cfg_scale,
        negative_prompt: negative_prompt.to_owned(),
        ..GenerateSpec::default()
    };
    let guided = |guidance, negative: &str| {
        frames_of(&model(), Settings { guidance: Some(guidance), ..settings() }, &spec(0.5, negative))
    };
    let scaled = |cfg_scale, negative: &str| frames_of(&model(), settings(), &spec(cfg_scale, negative));
    for (cfg_scale, guidance) in [(0.0, 1.0), (0.25, 3.0), (0.5, 5.0), (1.0, 9.0)] {
        assert!(scaled(cfg_scale, "") == guided(guidance, ""), "{cfg_scale}");
    }
    assert!(scaled(0.5, "") != scaled(1.0, ""));
    assert!(scaled(0.5, "") == scaled(0.5, NEGATIVE_PROMPT));
    assert!(scaled(0.5, "") != scaled(0.5, "blur"));
    assert!(scaled(0.0, "") == scaled(0.0, "blur"), "without guidance nothing is avoided");
}

#[test]
fn a_clip_that_memory_cannot_hold_is_told_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("photo.jpg"), picture_bytes()).unwrap();
    unbounded(folder.path());
    let flags = ["--model", "model", "--size", "65504x65504", "--frames", "121"];
    for command in [&["animate", "photo.jpg", "--engine", "wan"][..], &["doctor"]] {
        let output = kinora(folder.path(), &[command, &flags].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_ne!(output.status.code(), Some(0), "{told}");
        for part in ["65504x65504 and 121 frames", "beside the weights", "are free", "--size"] {
            assert!(told.contains(part), "{told}");
        }
    }
    let small =
        ["doctor", "--model", "model", "--size", "64x64", "--frames", "5", "--dtype", "bf16", "--json"];
    let output = kinora(folder.path(), &small);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(report["model"]["memory"].as_str().unwrap().contains("a clip of 64x64 and 5 frames"), "{report}");
    assert!(report["model"]["working_bytes"].as_u64() > Some(100_000), "{report}");
}

#[test]
fn pieces_of_a_model_are_timed_in_both_types() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    for dtype in ["f32", "bf16"] {
        let flags = ["--model", model.to_str().unwrap(), "--shape", "text-512,block-1024", "--rounds", "2"];
        let output =
            kinora(folder.path(), &[&["bench", "wan"], &flags[..], &["--dtype", dtype, "--json"]].concat());
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &told["dtype"]), (Some(0), &json!(dtype)), "{output:?}");
        for (piece, name) in told["pieces"].as_array().unwrap().iter().zip(["text-512", "block-1024"]) {
            assert_eq!(
                (&piece["shape"], piece["seconds"].as_array().unwrap().len()),
                (&json!(name), 2),
                "{told}"
            );
            assert!(piece["median_s"].as_f64() > Some(0.0) && piece["peak_mb"].as_u64() > Some(5), "{told}");
        }
    }
    let output = kinora(folder.path(), &["bench", "wan"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("--random-weights") && told.contains("--model"), "{told}");
}
