//! `kinora animate`: one clip, no server.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use ipnet::IpNet;
use kinora_engine::{ClipDuration, Engine, EngineError, GenerateSpec, Picture};
use kinora_media::PictureLimits;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use super::frames_out::FramesOut;
use super::progress::Bar;
use super::{Failure, print_line, runtime};
use crate::artifacts::Staged;
use crate::fetch::{FetchPolicy, Fetcher};
use crate::keys::random_bytes;
use crate::models::EngineChoice;
use crate::produce::{ProduceError, Produced, produce};
use crate::submission::{check_cfg_scale, check_prompt};

/// Animate one picture and write an MP4.
///
/// The picture is a JPEG or PNG file or an http(s) URL: at most 10 MB and 50 megapixels, at least 300 pixels on each side,
/// ratio 1:2.5 to 2.5:1. The same picture, words, scale, seed and settings of the engine always give the same frames on one machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kinora animate photo.jpg --prompt \"slow push in\"\n  \
    kinora animate photo.jpg -p \"pan left, clouds drifting\" --duration 10 --seed 7 -o clip.mp4\n  \
    kinora animate photo.jpg -p \"the boat drifts away\" --engine wan --model DIR --size 320x192 --frames 25 --steps 20")]
pub struct Animate {
    /// Picture file or http(s) URL.
    #[arg(value_name = "IMAGE|URL")]
    image: String,
    /// File to write; the picture's name with .mp4 otherwise, in the current folder for a URL.
    #[arg(short, long, value_name = "OUT.mp4", env = "KINORA_OUTPUT")]
    output: Option<PathBuf>,
    /// What should happen, in words: at most 2500 characters.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        env = "KINORA_PROMPT",
        default_value = "",
        hide_default_value = true
    )]
    prompt: String,
    /// What to avoid, in words, at most 2500 characters; without them, what the model's makers advise where the engine is `wan`.
    #[arg(
        long,
        value_name = "TEXT",
        env = "KINORA_NEGATIVE_PROMPT",
        default_value = "",
        hide_default_value = true
    )]
    negative_prompt: String,
    /// Length in seconds.
    #[arg(long, value_name = "S", env = "KINORA_DURATION", default_value = "5", value_parser = ["5", "10"])]
    duration: String,
    /// How strictly to follow the prompt, from 0 (free) to 1 (strict).
    #[arg(long, value_name = "0..1", env = "KINORA_CFG_SCALE", default_value = "0.5", allow_negative_numbers = true, value_parser = parse_cfg_scale)]
    cfg_scale: f32,
    /// Repeats a result, 0 to 9007199254740991; drawn at random and reported otherwise.
    #[arg(long, value_name = "N", env = "KINORA_SEED", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(0..=GenerateSpec::SEED_MAX))]
    seed: Option<u64>,
    #[command(flatten)]
    engine: EngineChoice,
    /// Start from the noise in this safetensors file: one tensor `latents`. For the engine `wan`.
    #[arg(long, value_name = "FILE", env = "KINORA_NOISE")]
    noise: Option<PathBuf>,
    /// Also write every frame, lossless, into this folder: frame_00000.png and on. It is made where it lacks, and must not
    /// hold frames of a longer clip.
    #[arg(long, value_name = "DIR", env = "KINORA_FRAMES_OUT")]
    frames_out: Option<PathBuf>,
    /// Network that an image URL may lead to although it is not public (CIDR); repeat for more.
    #[arg(long, value_name = "NET", env = "KINORA_ALLOW_FETCH_FROM", value_delimiter = ',')]
    allow_fetch_from: Vec<IpNet>,
    /// Render nothing; print what the engine makes of words and picture: the plan, which words were understood as
    /// what and which were not, and what was found in the picture.
    #[arg(long, env = "KINORA_EXPLAIN")]
    explain: bool,
    /// Print one JSON object with the result on stdout.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
    /// Print nothing but errors, and with --json the object: no progress, no warnings, no summary, no file name.
    #[arg(short, long, env = "KINORA_QUIET")]
    quiet: bool,
}

fn parse_cfg_scale(text: &str) -> Result<f32, String> {
    check_cfg_scale(text.trim().parse().unwrap_or(f64::NAN)).map_err(|e| e.message)
}

impl Animate {
    pub fn run(self) -> Result<(), Failure> {
        let spec = self.spec().map_err(|e| Failure::BadInput(e.into()))?;
        let monitor = Bar::new(self.quiet);
        let runtime = runtime()?;
        heed_signals(&runtime, &monitor)?;
        let started = Instant::now();
        let picture = runtime.block_on(self.picture())?;
        if self.explain {
            return self.tell_plan(&spec, &picture, &monitor);
        }
        let output = self.output_path();
        self.check(&output)?;
        let opened = self.engine.load(self.noise.clone(), 1).map_err(|e| Failure::Usage(e.into()))?;
        for warning in opened.warnings.iter().filter(|_| !self.quiet) {
            writeln!(std::io::stderr(), "{}", warning.text())?;
        }
        let mut engine = opened.engine;
        if let Some(folder) = &self.frames_out {
            let format = engine.clip_format(picture.width_px(), picture.height_px(), &spec);
            engine = Arc::new(FramesOut::new(engine, folder, format.frames_count)?);
        }
        let made = make(engine.as_ref(), &spec, &picture, &output, &monitor)?;
        monitor.finish();
        self.tell(&spec, engine.name(), &made, &output, started.elapsed())
    }

    /// Refuses what can be seen to be wrong before a model is opened.
    fn check(&self, output: &Path) -> Result<(), Failure> {
        if self.noise.is_some() && self.duration == "10" {
            return Err(Failure::Usage(anyhow::anyhow!(
                "--noise: a file of noise starts one clip, not the two of --duration 10"
            )));
        }
        self.check_output(output)
    }

    fn spec(&self) -> Result<GenerateSpec, crate::submission::FieldError> {
        check_prompt("prompt", &self.prompt)?;
        check_prompt("negative_prompt", &self.negative_prompt)?;
        let seconds = self.duration.parse().expect("clap let only 5 and 10 through");
        Ok(GenerateSpec {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            cfg_scale: self.cfg_scale,
            duration: ClipDuration::from_seconds(seconds).expect("clap let only 5 and 10 through"),
            seed: self.seed.unwrap_or_else(|| u64::from_be_bytes(random_bytes()) & GenerateSpec::SEED_MAX),
        })
    }

    fn url(&self) -> Option<Url> {
        Url::parse(&self.image).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
    }

    async fn picture(&self) -> Result<Picture, Failure> {
        let bytes = match self.url() {
            Some(url) => {
                let policy = FetchPolicy { allow: self.allow_fetch_from.clone(), ..FetchPolicy::default() };
                Fetcher::new(policy).fetch(&url).await.map_err(|e| Failure::BadInput(e.into()))?
            }
            None => read_picture(Path::new(&self.image))?,
        };
        let decoded = tokio::task::spawn_blocking(move || kinora_media::decode(&bytes)).await?;
        decoded.map(|decoded| decoded.picture).map_err(|e| Failure::BadInput(e.into()))
    }

    fn output_path(&self) -> PathBuf {
        if let Some(output) = &self.output {
            return output.clone();
        }
        match self.url() {
            Some(url) => {
                let name =
                    url.path_segments().and_then(|mut segments| segments.next_back().map(str::to_owned));
                let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "clip".to_owned());
                Path::new(&name).with_extension("mp4")
            }
            None => Path::new(&self.image).with_extension("mp4"),
        }
    }

    /// Refuses a name that the finished clip could not take: hours may lie between.
    fn check_output(&self, output: &Path) -> Result<(), Failure> {
        let refused =
            |why: String| Err(Failure::Other(anyhow::anyhow!("--output {}: {why}", output.display())));
        if let Ok(found) = std::fs::metadata(output) {
            if found.is_dir() {
                return refused("this is a folder; name the file to write".to_owned());
            }
            if !found.is_file() {
                return refused("this is no plain file, which a clip could replace".to_owned());
            }
            if output.canonicalize().ok() == Path::new(&self.image).canonicalize().ok() {
                return refused("this is the picture itself".to_owned());
            }
        }
        match output.parent() {
            Some(folder) if folder != Path::new("") && !folder.is_dir() => {
                refused(format!("there is no folder {}", folder.display()))
            }
            _ => Ok(()),
        }
    }

    fn tell_plan(&self, spec: &GenerateSpec, picture: &Picture, monitor: &Bar) -> Result<(), Failure> {
        let plan = self.engine.name().explain(spec, picture, monitor).map_err(|error| match error {
            EngineError::Cancelled => Failure::Interrupted,
            error => error.into(),
        })?;
        monitor.finish();
        match plan {
            None => Err(Failure::Usage(anyhow::anyhow!(
                "--explain: this engine makes no plan of words and picture that could be printed; `motion` does"
            ))),
            Some(plan) if self.json => print_line(plan),
            Some(plan) => print_line(outline(&plan, 0).trim_end()),
        }
    }

    #[expect(clippy::print_stderr, reason = "the summary, for people")]
    fn tell(
        &self,
        spec: &GenerateSpec,
        engine: &str,
        made: &Produced,
        output: &Path,
        took: Duration,
    ) -> Result<(), Failure> {
        let format = made.info.format;
        if self.json {
            let stages: serde_json::Map<_, _> = made
                .generated
                .stages
                .iter()
                .map(|stage| (stage.stage.to_owned(), json!(stage.duration.as_secs_f64())))
                .collect();
            let result = json!({
                "output": output, "engine": engine, "seed": spec.seed,
                "width": format.width_px, "height": format.height_px, "fps": format.fps,
                "frames": format.frames_count, "duration": spec.duration.seconds().to_string(),
                "size_bytes": made.info.size_bytes, "wall_s": took.as_secs_f64(), "stages_s": stages,
                "plan": made.generated.plan,
            });
            print_line(result)?;
        } else if !self.quiet {
            print_line(output.display())?;
        }
        if !self.quiet {
            eprintln!(
                "{:.1} s at {}x{} by the engine `{}`, seed {}, made in {:.1} s",
                f64::from(format.frames_count) / f64::from(format.fps),
                format.width_px,
                format.height_px,
                engine,
                spec.seed,
                took.as_secs_f64()
            );
        }
        Ok(())
    }
}

/// Ends the work on what terminals and service managers end programs with, so that no half clip is left behind.
fn heed_signals(runtime: &Runtime, monitor: &Bar) -> std::io::Result<()> {
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let (mut signals, stop) = (signal(kind)?, monitor.stop.clone());
        runtime.spawn(async move {
            // The second one ends the program as if nobody listened.
            while signals.recv().await.is_some() {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(super::EXIT_INTERRUPTED.into());
                }
            }
        });
    }
    Ok(())
}

fn make(
    engine: &dyn Engine,
    spec: &GenerateSpec,
    picture: &Picture,
    output: &Path,
    monitor: &Bar,
) -> Result<Produced, Failure> {
    let mut part = output.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let staged = Staged::create(part.into())?;
    let file = staged.file.try_clone()?;
    let made = produce(engine, spec, picture, file, monitor).map_err(|error| match error {
        ProduceError::Cancelled => Failure::Interrupted,
        error => error.into(),
    })?;
    staged.commit(output)?;
    Ok(made)
}

/// Reads a picture file, refusing what is too large before it is read.
pub(super) fn read_picture(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable =
        |e: std::io::Error| Failure::BadInput(anyhow::anyhow!("cannot read {}: {e}", path.display()));
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let bytes_max = PictureLimits::default().bytes_max;
    if metadata.is_dir() {
        return Err(Failure::BadInput(anyhow::anyhow!("{} is a folder, not a picture", path.display())));
    }
    if metadata.len() > bytes_max as u64 {
        let size_bytes = metadata.len();
        let path = path.display();
        let error =
            anyhow::anyhow!("{path} has {size_bytes} bytes; a picture must have at most {bytes_max} (10 MB)");
        return Err(Failure::BadInput(error));
    }
    std::fs::read(path).map_err(unreadable)
}

/// A JSON value as indented lines for people.
fn outline(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let named = |name: &str, value: &Value| match value {
        Value::Array(items) if items.is_empty() => format!("{indent}{name}: none\n"),
        Value::Object(_) | Value::Array(_) => format!("{indent}{name}:\n{}", outline(value, depth + 1)),
        plain => format!("{indent}{name}: {}\n", inline(plain)),
    };
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| named(name, value)).collect(),
        Value::Array(items) => items.iter().map(|item| format!("{indent}- {}\n", inline(item))).collect(),
        plain => format!("{indent}{}\n", inline(plain)),
    }
}

/// A JSON value on one line; numbers to three digits.
fn inline(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let rounded = (number.as_f64().unwrap_or_default() * 1000.0).round() / 1000.0;
            rounded.to_string()
        }
        Value::Array(items) => items.iter().map(inline).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name} {}", inline(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        plain => plain.to_string(),
    }
}
