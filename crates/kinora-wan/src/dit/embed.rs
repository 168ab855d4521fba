//! Into and out of the transformer's tokens: patches of latents, times, text.

use candle_core::{Device, Tensor};

use super::DitConfig;
use crate::WanError;
use crate::ops::{Linear, Ops, Place};
use crate::weights::Weights;

/// The longest period of the sinusoids of time.
const MAX_PERIOD: f64 = 10_000.0;

/// Patches of latents to tokens and back.
#[derive(Debug)]
pub(super) struct Patches {
    embedding: Linear,
    patch: [usize; 3],
}

impl Patches {
    pub(super) fn load(weights: &Weights, config: &DitConfig, place: Place<'_>) -> Result<Self, WanError> {
        let [t, h, w] = config.patch_size;
        // A convolution whose steps are as long as its kernel is a matrix product of patches.
        let shape = [config.width(), config.in_channels, t, h, w];
        Ok(Self {
            embedding: Linear::load(weights, "patch_embedding", &shape, true, place)?,
            patch: config.patch_size,
        })
    }

    /// `[1, C, f, h, w]` to `[N, D]`.
    pub(super) fn forward(&self, latents: &Tensor) -> Result<Tensor, WanError> {
        let (_, channels, f, h, w) = latents.dims5()?;
        let [pt, ph, pw] = self.patch;
        let patches = latents
            .reshape(vec![channels, f / pt, pt, h / ph, ph, w / pw, pw])?
            .permute(vec![1, 3, 5, 0, 2, 4, 6])? // [f', h', w', C, pt, ph, pw]
            .reshape(((f / pt) * (h / ph) * (w / pw), channels * pt * ph * pw))?;
        self.embedding.forward(&patches)
    }

    /// `[N, pt·ph·pw·C]` to `[1, C, f, h, w]`.
    pub(super) fn assemble(&self, tokens: &Tensor, [f, h, w]: [usize; 3]) -> Result<Tensor, WanError> {
        let [pt, ph, pw] = self.patch;
        let channels = tokens.dim(1)? / (pt * ph * pw);
        Ok(tokens
            .reshape(vec![f, h, w, pt, ph, pw, channels])?
            .permute(vec![6, 0, 3, 1, 4, 2, 5])? // [C, f, pt, h, ph, w, pw]
            .reshape((1, channels, f * pt, h * ph, w * pw))?)
    }
}

/// Times to what modulates the blocks.
#[derive(Debug)]
pub(super) struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    proj: Linear,
    freq_dim: usize,
    device: Device,
}

impl TimeEmbedding {
    pub(super) fn load(weights: &Weights, config: &DitConfig, place: Place<'_>) -> Result<Self, WanError> {
        let (width, prefix) = (config.width(), "condition_embedder");
        let linear = |name: &str, outputs, inputs, place| {
            Linear::load(weights, &format!("{prefix}.{name}"), &[outputs, inputs], true, place)
        };
        // The reference keeps the first two in f32 whatever the rest is; that is how time stays as fine as it is.
        Ok(Self {
            linear_1: linear("time_embedder.linear_1", width, config.freq_dim, place.exact())?,
            linear_2: linear("time_embedder.linear_2", width, width, place.exact())?,
            proj: linear("time_proj", 6 * width, width, place)?,
            freq_dim: config.freq_dim,
            device: place.device.clone(),
        })
    }

    /// R times to `(temb [R, D], table [R, 6, D])`.
    pub(super) fn forward(&self, times: &[f32]) -> Result<(Tensor, Tensor), WanError> {
        let shape = (times.len(), self.freq_dim);
        let waves = Tensor::from_vec(sinusoids(times, self.freq_dim), shape, &self.device)?;
        let hidden = self.linear_1.forward(&waves)?.silu()?;
        let temb = self.linear_2.forward(&hidden)?; // [R, D]
        let table = self.proj.forward(&temb.silu()?)?;
        let table = table.reshape((times.len(), 6, temb.dim(1)?))?;
        Ok((temb, table))
    }
}

/// Cosines, then sines, of each time at falling frequencies: `[R, freq_dim]`.
///
/// Frequencies and angles are rounded to f32 as the reference rounds them: at a time of 999 an angle is large enough for
/// that to show.
pub fn sinusoids(times: &[f32], freq_dim: usize) -> Vec<f32> {
    let half = freq_dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|index| {
            let exponent = -(MAX_PERIOD.ln() as f32) * index as f32 / half as f32;
            f64::from(exponent).exp() as f32
        })
        .collect();
    let angles = |time: f32| frequencies.iter().map(move |frequency| f64::from(time * frequency));
    times
        .iter()
        .flat_map(|&time| angles(time).map(f64::cos).chain(angles(time).map(f64::sin)))
        .map(|wave| wave as f32)
        .collect()
}

/// Text states to the transformer's width.
#[derive(Debug)]
pub(super) struct TextProjection {
    linear_1: Linear,
    linear_2: Linear,
    ops: Ops,
}

impl TextProjection {
    pub(super) fn load(weights: &Weights, config: &DitConfig, place: Place<'_>) -> Result<Self, WanError> {
        let linear = |name: &str, inputs| {
            let name = format!("condition_embedder.text_embedder.{name}");
            Linear::load(weights, &name, &[config.width(), inputs], true, place)
        };
        Ok(Self {
            linear_1: linear("linear_1", config.text_dim)?,
            linear_2: linear("linear_2", config.width())?,
            ops: place.ops,
        })
    }

    /// `[L, text_dim]` to `[L, D]`.
    pub(super) fn forward(&self, states: &Tensor) -> Result<Tensor, WanError> {
        self.linear_2.forward(&self.ops.gelu(&self.linear_1.forward(states)?)?)
    }
}
