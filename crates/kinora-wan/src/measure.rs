//! One piece of the models' work at a time, at sizes of one's choice: what `kinora bench wan` times.
//!
//! Deliberately not here: whole clips (`kinora bench animate` times those) and any table.
//! Without a model's folder the pieces have the sizes of TI2V-5B and random weights: how long a product of matrices takes
//! does not hang on what stands in them.
//! Source of the sizes: the configurations published with Wan2.2-TI2V-5B in the diffusers layout.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::WanError;
use crate::device::Target;
use crate::dit::Dit;
use crate::picture::Size;
use crate::text::{Encoder, TOKENS_MAX};
use crate::vae::Vae;
use crate::weights::Weights;

/// A piece of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The transformer's first block, over `[latent frames, rows, columns]` of tokens and the longest text.
    Block([usize; 3]),
    /// One latent frame after a clip's first through the VAE's decoder, for frames of this size.
    LatentFrame(Size),
    /// The text encoder over so many tokens: all layers of a model, one of random weights.
    Text(usize),
}

/// Where the weights come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A model's folder.
    Folder(PathBuf),
    /// Random numbers at the sizes of TI2V-5B, with one block and one layer of text.
    Random,
}

/// Threads that the work is shared by.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Does `piece` once to warm up, calls `ready`, then does it `rounds` times and tells how long each took.
pub fn measure(
    piece: Piece,
    source: &Source,
    target: &Target,
    rounds: u32,
    ready: impl FnOnce(),
) -> Result<Vec<Duration>, WanError> {
    match piece {
        Piece::Block(grid) => {
            let (dit, inputs) = block(grid, source, target)?;
            let [x, text, table] = &inputs;
            let clip = dit.clip(std::array::from_fn(|side| grid[side] * dit.config().patch_size[side]))?;
            let tokens = grid.iter().product();
            repeat(rounds, target, ready, || dit.block(0, &clip, x, text, (table, &[tokens])).map(drop))
        }
        Piece::LatentFrame(size) => {
            let vae = vae(source, target)?;
            let scale = vae.spatial_scale();
            let (height, width) = (size.height_px / scale, size.width_px / scale);
            let shape = (1, vae.latent_channels(), 1, height, width);
            let latent = Tensor::randn(0f32, 1f32, shape, &target.device)?;
            let mut decoder = vae.decoder(None)?;
            // What warms up is the clip's first latent frame, of a quarter of the work.
            repeat(rounds, target, ready, || decoder.push(&latent, &|| false).map(drop))
        }
        Piece::Text(tokens) => {
            let encoder = encoder(source, target)?;
            let known = encoder.config().vocab_size;
            let ids: Vec<u32> = (0..tokens).map(|at| (at % known) as u32).collect();
            repeat(rounds, target, ready, || encoder.forward(&ids, &|| false).map(drop))
        }
    }
}

fn repeat(
    rounds: u32,
    target: &Target,
    ready: impl FnOnce(),
    mut work: impl FnMut() -> Result<(), WanError>,
) -> Result<Vec<Duration>, WanError> {
    // A device is told what to do and answers later.
    let mut work = || work().and_then(|()| Ok(target.device.synchronize()?));
    work()?;
    ready();
    let timed = (0..rounds).map(|_| {
        let started = Instant::now();
        work()?;
        Ok(started.elapsed())
    });
    timed.collect()
}

/// A transformer, and for its block: x `[N, D]`, text `[L, D]`, time table `[1, 6, D]`.
fn block(grid: [usize; 3], source: &Source, target: &Target) -> Result<(Dit, [Tensor; 3]), WanError> {
    let place = target.place();
    let dit = match source {
        Source::Folder(folder) => Dit::load(&folder.join("transformer"), place)?,
        Source::Random => {
            let config = json!({
                "num_attention_heads": 24, "attention_head_dim": 128, "in_channels": 48, "out_channels": 48,
                "ffn_dim": 14336, "num_layers": 1,
            });
            Dit::of(published(config), &Weights::made_up(target.ops.products.dtype()), place, &|| false)?
        }
    };
    let (tokens, width) = (grid.iter().product::<usize>(), dit.config().width());
    let normal = |rows: usize| Tensor::randn(0f32, 1f32, (rows, width), &target.device);
    let (_, table) = dit.time_embedding(&[500.0])?;
    let inputs = [normal(tokens)?, normal(TOKENS_MAX)?, table];
    Ok((dit, inputs))
}

fn vae(source: &Source, target: &Target) -> Result<Vae, WanError> {
    match source {
        Source::Folder(folder) => Vae::load(&folder.join("vae"), target.place()),
        Source::Random => {
            let config = json!({
                "z_dim": 48, "base_dim": 160, "decoder_base_dim": 256, "is_residual": true, "in_channels": 12,
                "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
                "latents_mean": vec![0.0; 48], "latents_std": vec![1.0; 48],
            });
            // The VAE counts in f32, so that is what its weights are.
            Vae::of(published(config), &Weights::made_up(DType::F32), target.place())
        }
    }
}

fn encoder(source: &Source, target: &Target) -> Result<Encoder, WanError> {
    let place = target.place();
    match source {
        Source::Folder(folder) => Encoder::load(&folder.join("text_encoder"), place),
        Source::Random => {
            let config = json!({
                "vocab_size": 1024, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 1,
            });
            Encoder::of(published(config), &Weights::made_up(target.ops.products.dtype()), place)
        }
    }
}

fn published<T: DeserializeOwned>(config: Value) -> T {
    serde_json::from_value(config).expect("the published configuration is one")
}
