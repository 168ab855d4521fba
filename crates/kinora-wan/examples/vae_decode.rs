//! Times the VAE's decoder on a folder of weights, for `benches/wan/vae_decode.py`.
//!
//! Usage: `vae_decode FOLDER LATENT_HEIGHT LATENT_WIDTH LATENT_FRAMES [TILE]`; prints one line of JSON: seconds for each
//! latent frame and the largest resident size in MB.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use kinora_wan::vae::Vae;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, sizes @ ..] = &arguments[..] else { return Err("FOLDER is missing".into()) };
    let sizes = sizes.iter().map(|size| size.parse()).collect::<Result<Vec<usize>, _>>()?;
    let (&[height, width, frames], tile) = sizes.split_first_chunk().ok_or("three sizes are needed")?;
    let vae = Vae::load(Path::new(folder), &Device::Cpu, DType::F32)?;
    let latent = Tensor::randn(0f32, 1f32, (1, vae.latent_channels(), 1, height, width), &Device::Cpu)?;
    let mut decoder = vae.decoder(tile.first().copied())?;
    let mut seconds = Vec::new();
    for _ in 0..frames {
        let started = Instant::now();
        decoder.push(&latent, &|| false)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak_kb: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or("/proc/self/status tells no largest resident size")?;
    println!("{}", serde_json::json!({ "seconds": seconds, "peak_mb": peak_kb / 1024 }));
    Ok(())
}
