//! What ties a clip to its picture: two ways, by family.
//!
//! Source: `WanImageToVideoPipeline.prepare_latents` of the diffusers library.

use candle_core::{DType, Device, Tensor};

use crate::dit::TokenTimes;
use crate::vae::Vae;
use crate::{Cancel, WanError};

/// How a model takes the picture in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The picture's latents stand in the first latent frame, whose tokens have time 0 (`expand_timesteps`).
    PerTokenTimes,
    /// The clip's latents, a mask and the latents of the picture followed by grey are put side by side as channels.
    Concatenated,
}

/// A clip's condition.
#[derive(Debug)]
pub struct Condition {
    family: Family,
    /// `[1, z, 1, h, w]`, or `[1, t + z, f, h, w]` with the mask first; t is the VAE's scale in time.
    latents: Tensor,
}

impl Condition {
    /// Encodes `picture` `[1, 3, H, W]` in -1..1 for a clip of `frames` frames.
    pub fn new(
        family: Family,
        vae: &Vae,
        picture: &Tensor,
        frames: usize,
        cancel: Cancel<'_>,
    ) -> Result<Self, WanError> {
        let first = picture.unsqueeze(2)?; // [1, 3, 1, H, W]
        let latents = match family {
            Family::PerTokenTimes => vae.encode(&first, cancel)?,
            Family::Concatenated => {
                let video = first.pad_with_zeros(2, 0, frames - 1)?;
                let latents = vae.encode(&video, cancel)?; // [1, z, f, h, w]
                Tensor::cat(&[&mask(&latents, vae.temporal_scale())?, &latents], 1)?
            }
        };
        Ok(Self { family, latents })
    }

    /// A condition from its tensor, as [`Condition::latents`] gives it.
    pub fn of_latents(family: Family, latents: Tensor) -> Self {
        Self { family, latents }
    }

    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// What the transformer sees of the noisy `latents` `[1, z, f, h, w]`.
    pub fn model_input(&self, latents: &Tensor) -> Result<Tensor, WanError> {
        match self.family {
            Family::PerTokenTimes => self.blend(latents),
            Family::Concatenated => Ok(Tensor::cat(&[latents, &self.latents], 1)?),
        }
    }

    /// The times of the tokens of a clip of `frames` latent frames with `tokens` tokens each, at the step's `time`.
    pub fn token_times(&self, time: f32, frames: usize, tokens: usize) -> TokenTimes {
        match self.family {
            Family::Concatenated => TokenTimes::same(time, frames * tokens),
            Family::PerTokenTimes if frames == 1 => TokenTimes::same(0.0, tokens),
            Family::PerTokenTimes => {
                TokenTimes { times: vec![0.0, time], runs: vec![tokens, (frames - 1) * tokens] }
            }
        }
    }

    /// The clip's latents after the last step.
    pub fn finish(&self, latents: &Tensor) -> Result<Tensor, WanError> {
        match self.family {
            Family::PerTokenTimes => self.blend(latents),
            Family::Concatenated => Ok(latents.clone()),
        }
    }

    /// The picture's latent frame, then the clip's others.
    fn blend(&self, latents: &Tensor) -> Result<Tensor, WanError> {
        let frames = latents.dim(2)?;
        if frames == 1 {
            return Ok(self.latents.clone());
        }
        Ok(Tensor::cat(&[&self.latents, &latents.narrow(2, 1, frames - 1)?], 2)?)
    }
}

/// `[1, t, f, h, w]`: 1 where pixels are given, which is all of the first latent frame and nothing else.
fn mask(latents: &Tensor, temporal_scale: usize) -> Result<Tensor, WanError> {
    let (_, _, f, h, w) = latents.dims5()?;
    let given = Tensor::ones((1, temporal_scale, 1, h, w), DType::F32, &Device::Cpu)?;
    Ok(given.pad_with_zeros(2, 0, f - 1)?.to_device(latents.device())?.to_dtype(latents.dtype())?)
}
