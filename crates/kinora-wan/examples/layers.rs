//! Times one block of the transformer, or the text encoder, on a folder of weights, for `benches/wan/layers.py`.
//!
//! Usage: `layers block FOLDER FRAMES ROWS COLUMNS ROUNDS` (in tokens) or `layers text FOLDER TOKENS ROUNDS`; prints one
//! line of JSON: seconds of each round and the largest resident size in MB.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use kinora_wan::dit::Dit;
use kinora_wan::text::Encoder;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// L: tokens of text that a block reads.
const TEXT_TOKENS: usize = 512;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, folder, sizes @ ..] = &arguments[..] else { return Err("see the head of the source".into()) };
    let sizes = sizes.iter().map(|size| size.parse()).collect::<Result<Vec<usize>, _>>()?;
    let seconds = match (what.as_str(), &sizes[..]) {
        ("block", &[frames, rows, columns, rounds]) => {
            block(Path::new(folder), [frames, rows, columns], rounds)?
        }
        ("text", &[tokens, rounds]) => text(Path::new(folder), tokens, rounds)?,
        _ => return Err("see the head of the source".into()),
    };
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak_kb: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or("/proc/self/status tells no largest resident size")?;
    println!("{}", serde_json::json!({ "seconds": seconds, "peak_mb": peak_kb / 1024 }));
    Ok(())
}

fn block(folder: &Path, grid: [usize; 3], rounds: usize) -> Outcome<Vec<f64>> {
    let dit = Dit::load(folder, (DType::F32, &Device::Cpu))?;
    let patch = dit.config().patch_size;
    let clip = dit.clip([grid[0] * patch[0], grid[1] * patch[1], grid[2] * patch[2]])?;
    let (tokens, width) = (grid.iter().product::<usize>(), dit.config().width());
    let x = Tensor::randn(0f32, 1f32, (tokens, width), &Device::Cpu)?;
    let text = Tensor::randn(0f32, 1f32, (TEXT_TOKENS, width), &Device::Cpu)?;
    let (_, table) = dit.time_embedding(&[500.0])?;
    timed(rounds, || dit.block(0, &clip, &x, &text, (&table, &[tokens])).map(drop))
}

fn text(folder: &Path, tokens: usize, rounds: usize) -> Outcome<Vec<f64>> {
    let encoder = Encoder::load(folder, (DType::F32, &Device::Cpu))?;
    let ids: Vec<u32> = (0..tokens as u32).map(|at| at % encoder.config().vocab_size as u32).collect();
    timed(rounds, || encoder.forward(&ids, &|| false).map(drop))
}

/// Seconds of each round, after one that warms up.
fn timed(rounds: usize, mut work: impl FnMut() -> Result<(), kinora_wan::WanError>) -> Outcome<Vec<f64>> {
    work()?;
    (0..rounds)
        .map(|_| {
            let started = Instant::now();
            work()?;
            Ok(started.elapsed().as_secs_f64())
        })
        .collect()
}
