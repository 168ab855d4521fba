//! `kinora bench animate`: seconds of video per second of wall, with and without encoding, per stage.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use kinora_engine::{
    ClipDuration, Engine, FrameSink, GenerateSpec, Picture, SinkError, StageTime, Unwatched,
};
use serde_json::{Value, json};

use super::median;
use crate::cli::Failure;
use crate::cli::animate::read_picture;
use crate::models::EngineChoice;
use crate::produce::produce;

/// Seconds of video made per second, with and without encoding, and where the time goes.
///
/// Without a picture it draws one of its own. Rounds with and without encoding alternate, and medians are shown.
#[derive(Debug, Args)]
pub struct BenchAnimate {
    /// Picture file.
    image: Option<PathBuf>,
    /// What should happen, in words.
    #[arg(short, long, value_name = "TEXT", env = "KINORA_PROMPT", default_value = "slow push in")]
    prompt: String,
    /// Length in seconds.
    #[arg(long, value_name = "S", env = "KINORA_DURATION", default_value = "5", value_parser = ["5", "10"])]
    duration: String,
    #[command(flatten)]
    engine: EngineChoice,
    /// Rounds, after one that warms up.
    #[arg(long, value_name = "N", env = "KINORA_ROUNDS", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print one JSON object instead of a table.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
}

/// One round: wall time and where it went.
struct Round {
    wall: Duration,
    stages: Vec<StageTime>,
}

impl BenchAnimate {
    pub fn run(self) -> Result<(), Failure> {
        let picture = self.picture()?;
        let seconds = self.duration.parse().expect("clap let only 5 and 10 through");
        let spec = GenerateSpec {
            prompt: self.prompt.clone(),
            duration: ClipDuration::from_seconds(seconds).expect("clap let only 5 and 10 through"),
            ..GenerateSpec::default()
        };
        let opened = self.engine.load(None, 1).map_err(|e| Failure::Usage(e.into()))?;
        for warning in &opened.warnings {
            writeln!(std::io::stderr(), "{}", warning.text())?;
        }
        let engine = opened.engine;
        let (mut encoded, mut bare) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let pair = (
                with_encoding(engine.as_ref(), &spec, &picture)?,
                without(engine.as_ref(), &spec, &picture)?,
            );
            if round > 0 {
                encoded.push(pair.0);
                bare.push(pair.1);
            }
        }
        let format = engine.clip_format(picture.width_px(), picture.height_px(), &spec);
        // Of the clip as it is: the engine `wan` may be told another number of frames.
        let clip_s = f64::from(format.frames_count) / f64::from(format.fps);
        self.show(&json!({
            "engine": engine.name(), "seconds": clip_s, "width": format.width_px, "height": format.height_px,
            "rounds": self.rounds,
            "encoded": figures(&encoded, clip_s),
            "bare": figures(&bare, clip_s),
        }));
        Ok(())
    }

    fn picture(&self) -> Result<Picture, Failure> {
        match &self.image {
            Some(path) => {
                let decoded = kinora_media::decode(&read_picture(path)?);
                Ok(decoded.map_err(|e| Failure::BadInput(e.into()))?.picture)
            }
            None => Ok(test_picture()),
        }
    }

    #[expect(clippy::print_stdout, reason = "the command's result")]
    fn show(&self, result: &Value) {
        if self.json {
            println!("{result}");
            return;
        }
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        println!(
            "{:.1} s at {}x{} by the engine `{}`, median of {} rounds",
            number(&result["seconds"]),
            result["width"],
            result["height"],
            result["engine"].as_str().unwrap_or_default(),
            result["rounds"]
        );
        for (name, key) in [("with encoding", "encoded"), ("without encoding", "bare")] {
            let of = &result[key];
            println!(
                "\n{name}: {:.2} s of wall, {:.2}x real time",
                number(&of["wall_s"]),
                number(&of["realtime"])
            );
            for stage in of["stages"].as_array().into_iter().flatten() {
                println!(
                    "  {:24} {:>8.3} s",
                    stage["stage"].as_str().unwrap_or_default(),
                    number(&stage["wall_s"])
                );
            }
        }
    }
}

fn figures(rounds: &[Round], seconds: f64) -> Value {
    let wall_s = median(&rounds.iter().map(|round| round.wall.as_secs_f64()).collect::<Vec<_>>());
    let stages =
        rounds.first().map_or(&[][..], |round| &round.stages).iter().enumerate().map(|(index, stage)| {
            let times: Vec<f64> = rounds
                .iter()
                .filter_map(|round| Some(round.stages.get(index)?.duration.as_secs_f64()))
                .collect();
            json!({"stage": stage.stage, "wall_s": median(&times)})
        });
    json!({"wall_s": wall_s, "realtime": seconds / wall_s, "stages": stages.collect::<Vec<_>>()})
}

fn with_encoding(engine: &dyn Engine, spec: &GenerateSpec, picture: &Picture) -> Result<Round, Failure> {
    let output = tempfile::tempfile()?;
    let started = Instant::now();
    let made = produce(engine, spec, picture, output, &Unwatched)?;
    Ok(Round { wall: started.elapsed(), stages: made.generated.stages })
}

fn without(engine: &dyn Engine, spec: &GenerateSpec, picture: &Picture) -> Result<Round, Failure> {
    let started = Instant::now();
    let generated = engine.generate(spec, picture, &mut Nowhere, &Unwatched)?;
    Ok(Round { wall: started.elapsed(), stages: generated.stages })
}

/// Hills under a sky: something for every stage to do.
fn test_picture() -> Picture {
    const WIDTH_PX: u32 = 1600;
    const HEIGHT_PX: u32 = 1000;
    let mut rgb = Vec::with_capacity((WIDTH_PX * HEIGHT_PX * 3) as usize);
    for y in 0..HEIGHT_PX {
        for x in 0..WIDTH_PX {
            let (across, down) = (f64::from(x) / f64::from(WIDTH_PX), f64::from(y) / f64::from(HEIGHT_PX));
            let hill = 0.55 + 0.08 * (across * 9.0).sin() + 0.03 * (across * 31.0).sin();
            let grain = f64::from((x.wrapping_mul(73) ^ y.wrapping_mul(151)) % 31);
            rgb.extend(if down < hill {
                [120.0 + 90.0 * down, 170.0 + 50.0 * down, 235.0].map(|level| level as u8)
            } else {
                [60.0 + grain, 110.0 + grain + 40.0 * down, 50.0].map(|level| level as u8)
            });
        }
    }
    Picture::new(WIDTH_PX, HEIGHT_PX, rgb).expect("every pixel was drawn")
}

/// Takes frames and forgets them.
struct Nowhere;

impl FrameSink for Nowhere {
    fn frame(&mut self, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }
}
