//! The causal video autoencoder, of both kinds in the family: pictures to latents and latents to frames.
//!
//! Always true: widths, levels, scales, means and deviations are those of `config.json`; a clip is taken latent frame by
//! latent frame, so memory does not grow with it; latents outside this module are normalised.
//! Sources: Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models" (2025), section 4.1; the diffusers
//! library, `AutoencoderKLWan`, whose names of tensors are kept.
//! Surprising: a clip's first frame skips every layer that works in time, and those layers then begin as if it had been
//! zeros (on the way up) or that frame (on the way down).

mod config;
mod decoder;
mod encoder;
mod layers;
mod memory;
mod shortcut;
mod tiles;

use std::path::Path;

use candle_core::{Device, Tensor};

use config::CHUNK_FRAMES;
pub use config::VaeConfig;
use decoder::DecoderNet;
use encoder::Encoder;
use layers::Past;
pub use tiles::Tiling;

use crate::ops::{Place, Set};
use crate::weights::Weights;
use crate::{Cancel, WanError, go_on};

/// The autoencoder.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Encoder,
    decoder: DecoderNet,
    /// `[1, z, 1, 1]`.
    mean: Tensor,
    std: Tensor,
    device: Device,
    numbers: u64,
}

impl Vae {
    /// Opens the autoencoder in `folder`; every tensor's name and shape is checked.
    ///
    /// Products are of f32 whatever `place` says, as the reference recommends.
    pub fn load(folder: &Path, place: Place<'_>) -> Result<Self, WanError> {
        Self::of(VaeConfig::read(&folder.join("config.json"))?, &Weights::open(folder)?, place)
    }

    /// The autoencoder of `config` with `weights`.
    pub fn of(config: VaeConfig, weights: &Weights, place: Place<'_>) -> Result<Self, WanError> {
        let place = place.exact();
        let statistics = |list: &[f64]| -> Result<Tensor, WanError> {
            let numbers: Vec<f32> = list.iter().map(|&number| number as f32).collect();
            Ok(Tensor::from_vec(numbers, (1, config.z_dim, 1, 1), place.device)?)
        };
        Ok(Self {
            encoder: Encoder::load(weights, &config, place)?,
            decoder: DecoderNet::load(weights, &config, place)?,
            mean: statistics(&config.latents_mean)?,
            std: statistics(&config.latents_std)?,
            device: place.device.clone(),
            numbers: weights.numbers(),
            config,
        })
    }

    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Numbers of all weights, which are kept in f32.
    pub fn numbers(&self) -> u64 {
        self.numbers
    }

    /// Pixels to a latent pixel, along a side.
    pub fn spatial_scale(&self) -> usize {
        self.config.scale_factor_spatial
    }

    /// Frames to a latent frame, but for the first.
    pub fn temporal_scale(&self) -> usize {
        self.config.scale_factor_temporal
    }

    /// z: channels of a latent.
    pub fn latent_channels(&self) -> usize {
        self.config.z_dim
    }

    /// Encodes `frames` `[1, 3, F, H, W]` in -1..1 to the mode of their latents, normalised: `[1, z, f, h, w]` in f32.
    ///
    /// H and W divide by [`Vae::spatial_scale`]. Frames after the first are taken four at a time; as in the reference,
    /// a rest of fewer is left out. Cancels between blocks.
    pub fn encode(&self, frames: &Tensor, cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        let moments = self.moments(frames, cancel)?;
        let mode = moments.narrow(1, 0, self.config.z_dim)?;
        let scale = self.std.recip()?; // the reference multiplies by the rounded inverse
        by_channel(&mode.broadcast_sub(&self.mean)?.broadcast_mul(&scale)?)
    }

    /// What the encoder says of `frames`, as [`Vae::encode`] takes them: means and log variances, `[1, 2z, f, h, w]`.
    #[doc(hidden)]
    pub fn encode_moments(&self, frames: &Tensor, cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        by_channel(&self.moments(frames, cancel)?)
    }

    /// `[f, 2z, h, w]`.
    fn moments(&self, frames: &Tensor, cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        let (batch, colours, count, height, width) = frames.dims5()?;
        let scale = self.spatial_scale();
        if batch != 1 || colours != 3 || count == 0 || height % scale != 0 || width % scale != 0 {
            return Err(WanError::Request(format!(
                "the VAE encodes one clip of three colours whose sides divide by {scale}, not {:?}",
                frames.dims()
            )));
        }
        let mut past = self.encoder.past();
        let mut moments = Vec::new();
        let mut start = 0;
        let mut chunk = 1;
        while start + chunk <= count {
            let frames = frames.narrow(2, start, chunk)?.squeeze(0)?.transpose(0, 1)?; // [T, 3, H, W]
            let x = shortcut::patchify(&frames.to_device(&self.device)?, self.config.patch())?;
            moments.push(self.encoder.forward(&x, &mut past, cancel)?);
            start += chunk;
            chunk = CHUNK_FRAMES;
        }
        Ok(Tensor::cat(&moments, 0)?)
    }

    /// Bytes that decoding frames of `[height, width]` pixels works with by the operations of `set`, beside the weights.
    pub fn decoding_bytes(&self, size: [usize; 2], tile: Option<usize>, set: Set) -> Result<u64, WanError> {
        let tiling = tile.map(|tile| Tiling::of_size(tile, &self.config)).transpose()?;
        let latent = size.map(|side| side / self.spatial_scale());
        Ok((memory::decoding(&self.config, latent, tiling, set) * size_of::<f32>()) as u64)
    }

    /// Bytes that encoding `frames` frames of `[height, width]` pixels works with by the operations of `set`, beside
    /// weights and frames.
    pub fn encoding_bytes(&self, size: [usize; 2], frames: usize, set: Set) -> u64 {
        (memory::encoding(&self.config, size, frames.min(CHUNK_FRAMES), set) * size_of::<f32>()) as u64
    }

    /// A decoder for one clip, in tiles of `tile` pixels where given.
    pub fn decoder(&self, tile: Option<usize>) -> Result<Decoder<'_>, WanError> {
        Ok(self.decoder_in(tile.map(|tile| Tiling::of_size(tile, &self.config)).transpose()?))
    }

    /// A decoder for one clip with tiles given in full.
    pub fn decoder_in(&self, tiling: Option<Tiling>) -> Decoder<'_> {
        Decoder { vae: self, tiling, size: None, pasts: Vec::new() }
    }
}

/// `[f, C, h, w]` to `[1, C, f, h, w]`.
fn by_channel(x: &Tensor) -> Result<Tensor, WanError> {
    Ok(x.transpose(0, 1)?.unsqueeze(0)?.contiguous()?)
}

/// Decodes one clip, latent frame by latent frame.
#[derive(Debug)]
pub struct Decoder<'a> {
    vae: &'a Vae,
    tiling: Option<Tiling>,
    /// Rows and columns of the clip's latents, once one has come.
    size: Option<[usize; 2]>,
    /// What the layers remember, for each tile.
    pasts: Vec<Past>,
}

impl Decoder<'_> {
    /// The next latent frame `[1, z, 1, h, w]`, normalised, to frames `[1, 3, T, H, W]` in -1..1 and f32.
    ///
    /// T is 1 for a clip's first and [`Vae::temporal_scale`] after. Cancels between blocks; after an error or a
    /// cancellation the clip cannot be gone on with.
    pub fn push(&mut self, latent: &Tensor, cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        let vae = self.vae;
        let (batch, channels, frames, height, width) = latent.dims5()?;
        let first = self.size.is_none();
        if batch != 1
            || channels != vae.config.z_dim
            || frames != 1
            || self.size.unwrap_or([height, width]) != [height, width]
        {
            return Err(WanError::Request(format!(
                "the VAE decodes latent frames of one size with {} channels, not {:?}",
                vae.config.z_dim,
                latent.dims()
            )));
        }
        self.size = Some([height, width]);
        let latent = latent.squeeze(2)?.to_device(&vae.device)?;
        // As the reference does it: divided by the rounded inverse.
        let latent = latent.broadcast_div(&vae.std.recip()?)?.broadcast_add(&vae.mean)?;
        let x = match self.tiling {
            Some(tiling) if tiling.tile / vae.spatial_scale() < height.max(width) => {
                self.push_tiled(&latent, tiling, first, cancel)?
            }
            _ => {
                if first {
                    self.pasts = vec![vae.decoder.past()];
                }
                vae.decoder.forward(&latent, &mut self.pasts[0], cancel)?
            }
        };
        decoder::finish(&x, vae.config.patch())
    }

    fn push_tiled(
        &mut self,
        latent: &Tensor,
        tiling: Tiling,
        first: bool,
        cancel: Cancel<'_>,
    ) -> Result<Tensor, WanError> {
        let vae = self.vae;
        let (_, _, height, width) = latent.dims4()?;
        let (scale, patch) = (vae.spatial_scale(), vae.config.patch());
        let [downs, acrosses] = [height, width].map(|length| tiling.cuts(length, scale));
        if first {
            self.pasts =
                std::iter::repeat_with(|| vae.decoder.past()).take(downs.len() * acrosses.len()).collect();
        }
        let mut pasts = self.pasts.iter_mut();
        let mut rows = Vec::new();
        for &(top, tall) in &downs {
            let mut row = Vec::new();
            for &(left, wide) in &acrosses {
                go_on(cancel)?;
                let tile = latent.narrow(2, top, tall)?.narrow(3, left, wide)?.contiguous()?;
                let past = pasts.next().expect("each tile has a past");
                row.push(vae.decoder.forward(&tile, past, cancel)?);
            }
            rows.push(row);
        }
        let stride = tiling.stride / patch;
        let overlap = (tiling.tile - tiling.stride) / patch;
        tiles::join(rows, stride, overlap, [height * scale / patch, width * scale / patch])
    }
}
