//! One block: attention over the video's tokens, attention to the text, a feed-forward layer.

use candle_core::{DType, Tensor};

use super::{DitConfig, Rotary};
use crate::WanError;
use crate::ops::{Linear, Modulation, Ops, Place};
use crate::weights::Weights;

/// Tokens that go through the feed-forward layer at a time, so that its wide middle never holds a whole clip.
pub(super) const FEED_FORWARD_TOKENS: usize = 2048;

#[derive(Debug)]
pub(super) struct Block {
    attn1: Attention,
    attn2: Attention,
    norm2: Option<(Tensor, Tensor)>,
    ffn: FeedForward,
    /// `[1, 6, D]`: what is learned of shift, scale and gate of the first and the last part.
    table: Tensor,
    ops: Ops,
    eps: f64,
}

impl Block {
    pub(super) fn load(
        weights: &Weights,
        config: &DitConfig,
        index: usize,
        place: Place<'_>,
    ) -> Result<Self, WanError> {
        let (prefix, width) = (format!("blocks.{index}"), config.width());
        let norm2 = match config.cross_attn_norm {
            false => None,
            true => {
                let part =
                    |part| weights.tensor(&format!("{prefix}.norm2.{part}"), width, DType::F32, place.device);
                Some((part("weight")?, part("bias")?))
            }
        };
        Ok(Self {
            attn1: Attention::load(weights, &format!("{prefix}.attn1"), config, place)?,
            attn2: Attention::load(weights, &format!("{prefix}.attn2"), config, place)?,
            norm2,
            ffn: FeedForward::load(weights, &format!("{prefix}.ffn"), config, place)?,
            table: weights.tensor(
                &format!("{prefix}.scale_shift_table"),
                (1, 6, width),
                DType::F32,
                place.device,
            )?,
            ops: place.ops,
            eps: config.eps,
        })
    }

    /// x `[N, D]`, text `[L, D]`, time table `[R, 6, D]` whose row *r* serves the next `runs[r]` tokens.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        text: &Tensor,
        time_table: &Tensor,
        runs: &[usize],
        rotary: &Rotary,
    ) -> Result<Tensor, WanError> {
        let table = self.table.broadcast_add(time_table)?; // [R, 6, D]
        // Each part is a function of its own, so that what it worked with is gone before the next begins.
        let x = {
            let look = |normed: &Tensor| self.attn1.forward(normed, normed, Some(rotary));
            self.read(&self.modulated(x, &table, 0, runs, look)?, text)?
        };
        self.modulated(&x, &table, 3, runs, |normed| self.ffn.forward(normed))
    }

    /// `x + gate · part(x normalised, scaled and shifted)`; shift, scale and gate stand in the table from `first` on.
    fn modulated(
        &self,
        x: &Tensor,
        table: &Tensor,
        first: usize,
        runs: &[usize],
        part: impl FnOnce(&Tensor) -> Result<Tensor, WanError>,
    ) -> Result<Tensor, WanError> {
        let row =
            |index| -> Result<Tensor, WanError> { Ok(table.get_on_dim(1, first + index)?.contiguous()?) };
        let (shift, scale, gate) = (row(0)?, row(1)?, row(2)?);
        let by = Modulation { scale: &scale, shift: &shift, runs };
        let out = part(&self.ops.modulated_layer_norm(x, self.eps, by)?)?;
        self.ops.gated_add(x, &out, &gate, runs)
    }

    /// x and what it reads in the text.
    fn read(&self, x: &Tensor, text: &Tensor) -> Result<Tensor, WanError> {
        let read = match &self.norm2 {
            Some((weight, bias)) => {
                self.attn2.forward(&self.ops.layer_norm(x, weight, bias, self.eps)?, text, None)?
            }
            None => self.attn2.forward(x, text, None)?,
        };
        self.ops.add(x, &read)
    }
}

#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm_q: Tensor,
    norm_k: Tensor,
    heads: usize,
    ops: Ops,
    eps: f64,
}

impl Attention {
    fn load(weights: &Weights, prefix: &str, config: &DitConfig, place: Place<'_>) -> Result<Self, WanError> {
        let width = config.width();
        let linear = |name| Linear::load(weights, &format!("{prefix}.{name}"), &[width, width], true, place);
        let norm = |name| weights.tensor(&format!("{prefix}.{name}.weight"), width, DType::F32, place.device);
        Ok(Self {
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
            norm_q: norm("norm_q")?,
            norm_k: norm("norm_k")?,
            heads: config.num_attention_heads,
            ops: place.ops,
            eps: config.eps,
        })
    }

    /// Queries from x `[N, D]`, keys and values from `source` `[L, D]`; queries and keys are turned by `rotary`.
    fn forward(&self, x: &Tensor, source: &Tensor, rotary: Option<&Rotary>) -> Result<Tensor, WanError> {
        let mut q = self.ops.rms_norm(&self.to_q.forward(x)?, &self.norm_q, self.eps)?; // across all heads at once
        let mut k = self.ops.rms_norm(&self.to_k.forward(source)?, &self.norm_k, self.eps)?;
        let v = self.to_v.forward(source)?;
        if let Some(Rotary { cos, sin }) = rotary {
            q = self.ops.rotate(&q, cos, sin)?;
            k = self.ops.rotate(&k, cos, sin)?;
        }
        let seen = self.ops.attention(&q, &k, &v, self.heads)?;
        drop((q, k, v));
        self.to_out.forward(&seen)
    }
}

#[derive(Debug)]
struct FeedForward {
    into: Linear,
    out: Linear,
    ops: Ops,
}

impl FeedForward {
    fn load(weights: &Weights, prefix: &str, config: &DitConfig, place: Place<'_>) -> Result<Self, WanError> {
        let linear = |name, outputs, inputs| {
            Linear::load(weights, &format!("{prefix}.{name}"), &[outputs, inputs], true, place)
        };
        Ok(Self {
            into: linear("net.0.proj", config.ffn_dim, config.width())?,
            out: linear("net.2", config.width(), config.ffn_dim)?,
            ops: place.ops,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, WanError> {
        let tokens = x.dim(0)?;
        let (into, out) = (self.into.at_hand()?, self.out.at_hand()?);
        let bands = (0..tokens).step_by(FEED_FORWARD_TOKENS).map(|start| {
            let band = x.narrow(0, start, FEED_FORWARD_TOKENS.min(tokens - start))?;
            out.forward(&self.ops.gelu(&into.forward(&band)?)?)
        });
        Ok(Tensor::cat(&bands.collect::<Result<Vec<_>, WanError>>()?, 0)?)
    }
}
