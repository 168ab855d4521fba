//! `kinora bench wan`: seconds and memory of the neural engine's pieces, at the sizes of a real model.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use kinora_wan::device::{DeviceName, Target};
use kinora_wan::measure::{Piece, Source, measure, threads};
use kinora_wan::picture::Size;
use serde_json::{Value, json};

use super::median;
use crate::allocator::keep_large_blocks;
use crate::cli::{Failure, print_line};
use crate::library::Library;
use crate::models::Dtype;

/// Seconds and memory of pieces of the neural engine: a block of the transformer, a latent frame decoded, the text.
///
/// Random weights have the sizes of Wan2.2-TI2V-5B, with one layer of the text encoder's 24. A clip's first latent frame
/// is not timed but warms up: it becomes one frame, every later one four.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("weights").required(true).args(["random_weights", "model"])))]
pub struct BenchWan {
    /// Piece to measure; repeat for more. All of them otherwise, but for vae-480p, which takes minutes on a CPU.
    #[arg(long, value_enum, env = "KINORA_SHAPE", value_delimiter = ',')]
    shape: Vec<Shape>,
    /// Random weights of the published sizes, instead of a model.
    #[arg(long, env = "KINORA_RANDOM_WEIGHTS")]
    random_weights: bool,
    /// Wan2.2 model whose weights to use: a name from `kinora models list`, or a folder in the diffusers layout.
    #[arg(long, value_name = "NAME|DIR", env = "KINORA_MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    library: Library,
    /// Type of the numbers that are multiplied; bf16 on a GPU and f32 on the CPU otherwise.
    #[arg(long, value_name = "TYPE", env = "KINORA_DTYPE", value_enum)]
    dtype: Option<Dtype>,
    /// Where to compute: cpu, cuda for the first NVIDIA GPU, or cuda:N; GPUs need a build with the feature `cuda`.
    #[arg(long, value_name = "DEVICE", env = "KINORA_DEVICE", default_value = "cpu")]
    device: DeviceName,
    /// Rounds, after one that warms up.
    #[arg(long, value_name = "N", env = "KINORA_ROUNDS", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print one JSON object instead of a table.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
}

/// A piece of the work at a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// One block over 1 latent frame of 32 by 32 tokens.
    #[value(name = "block-1024")]
    Block1024,
    /// One block over 4 latent frames of 32 by 32 tokens.
    #[value(name = "block-4096")]
    Block4096,
    /// One latent frame decoded to four frames of 416x240.
    #[value(name = "vae-240p")]
    Vae240p,
    /// One latent frame decoded to four frames of 832x480: four times the work.
    #[value(name = "vae-480p")]
    Vae480p,
    /// The text encoder over 512 tokens.
    #[value(name = "text-512")]
    Text512,
}

impl Shape {
    /// What is measured where nothing is asked for.
    const QUICK: [Self; 4] = [Self::Block1024, Self::Block4096, Self::Vae240p, Self::Text512];

    fn piece(self) -> Piece {
        match self {
            Self::Block1024 => Piece::Block([1, 32, 32]),
            Self::Block4096 => Piece::Block([4, 32, 32]),
            Self::Vae240p => Piece::LatentFrame(Size { width_px: 416, height_px: 240 }),
            Self::Vae480p => Piece::LatentFrame(Size { width_px: 832, height_px: 480 }),
            Self::Text512 => Piece::Text(512),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl BenchWan {
    pub fn run(self) -> Result<(), Failure> {
        let source = match &self.model {
            Some(named) => Source::Folder(self.library.find(named)?),
            None => Source::Random,
        };
        let failed = |error: kinora_wan::WanError| Failure::Other(error.into());
        let dtype = Dtype::on(self.device, self.dtype);
        let target = Target::open(self.device, dtype.products()).map_err(failed)?;
        keep_large_blocks(); // as where clips are made
        let shapes = if self.shape.is_empty() { &Shape::QUICK[..] } else { &self.shape };
        let mut rows = Vec::new();
        for shape in shapes {
            let row = self.row(*shape, &source, &target)?;
            if !self.json {
                show(&row)?;
            }
            rows.push(row);
        }
        if self.json {
            print_line(json!({
                "weights": self.model.as_ref().map_or("random".into(), |model| model.display().to_string()),
                "dtype": dtype.name(), "device": self.device.to_string(), "threads": threads(), "pieces": rows,
            }))?;
        }
        Ok(())
    }

    fn row(&self, shape: Shape, source: &Source, target: &Target) -> Result<Value, Failure> {
        let mut peak = Peak::unknown();
        let rounds = measure(shape.piece(), source, target, self.rounds, || peak = Peak::begin())
            .map_err(|error| Failure::Other(error.into()))?;
        let seconds: Vec<f64> = rounds.iter().map(std::time::Duration::as_secs_f64).collect();
        Ok(json!({
            "shape": shape.name(), "median_s": median(&seconds), "seconds": seconds, "peak_mb": peak.megabytes(),
        }))
    }
}

fn show(row: &Value) -> Result<(), Failure> {
    let peak = row["peak_mb"].as_u64().map_or_else(|| "not known".to_owned(), |peak| format!("{peak} MB"));
    let name = row["shape"].as_str().unwrap_or_default();
    print_line(format!("{name:12} {:>9.3} s   peak {peak}", row["median_s"].as_f64().unwrap_or(f64::NAN)))
}

/// The largest resident size of this process since a moment, weights and all; Linux tells and resets it.
struct Peak {
    begun: bool,
}

impl Peak {
    fn unknown() -> Self {
        Self { begun: false }
    }

    fn begin() -> Self {
        Self { begun: std::fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// `None` where the system does not tell, or tells only of the whole life of the process.
    fn megabytes(&self) -> Option<u64> {
        let status = self.begun.then(|| std::fs::read_to_string("/proc/self/status").ok())??;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024 / 1_000_000)
    }
}
