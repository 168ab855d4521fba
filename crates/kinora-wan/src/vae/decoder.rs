//! Latent frames to pictures, each frame through all levels before the next.
//!
//! Where a level makes two frames of one, the first goes on to the end before the second begins: what is causal gives the
//! same numbers either way, and only one frame's features are held besides what the layers remember.

use candle_core::Tensor;

use super::config::VaeConfig;
use super::layers::{CausalConv, Loader, MidBlock, Norm, Past, ResidualBlock, Upsample};
use super::shortcut::{Copies, unpatchify};
use crate::ops::{Ops, Place};
use crate::weights::Weights;
use crate::{Cancel, WanError, go_on};

/// The decoder and the layer before it.
#[derive(Debug)]
pub(super) struct DecoderNet {
    post_quant: CausalConv,
    conv_in: CausalConv,
    mid: MidBlock,
    levels: Vec<Level>,
    norm_out: Norm,
    conv_out: CausalConv,
    slots: usize,
}

/// Residual blocks, then a doubling but in the last level.
#[derive(Debug)]
struct Level {
    resnets: Vec<ResidualBlock>,
    up: Option<Upsample>,
    /// `[channels, time, space]` of the shortcut around the level.
    shortcut: Option<[usize; 3]>,
    ops: Ops,
}

/// What one pass shares.
struct Pass<'a> {
    past: &'a mut Past,
    cancel: Cancel<'a>,
    frames: Vec<Tensor>,
}

impl DecoderNet {
    pub(super) fn load(weights: &Weights, config: &VaeConfig, place: Place<'_>) -> Result<Self, WanError> {
        let mut loader = Loader { weights, place, slots: 0 };
        let loader = &mut loader;
        let dims = config.decoder_dims();
        let (first, last) = (dims[0], *dims.last().expect("a configuration has levels"));
        Ok(Self {
            post_quant: CausalConv::load(loader, "post_quant_conv", [config.z_dim; 2], [1, 1])?,
            conv_in: CausalConv::load(loader, "decoder.conv_in", [config.z_dim, first], [3, 3])?,
            mid: MidBlock::load(loader, "decoder.mid_block", first)?,
            levels: levels(loader, config, &dims)?,
            norm_out: Norm::load(loader, "decoder.norm_out", last, 3)?,
            conv_out: CausalConv::load(loader, "decoder.conv_out", [last, config.out_channels], [3, 3])?,
            slots: loader.slots,
        })
    }

    pub(super) fn past(&self) -> Past {
        Past::new(self.slots)
    }

    /// One latent frame `[1, z, h, w]` to `[T, C, H, W]` before patches are put together: one frame for a clip's first,
    /// else as many as the levels make of it.
    pub(super) fn forward(
        &self,
        latent: &Tensor,
        past: &mut Past,
        cancel: Cancel<'_>,
    ) -> Result<Tensor, WanError> {
        let x = self.conv_in.forward(&self.post_quant.forward(latent, past)?, past)?;
        go_on(cancel)?;
        let x = self.mid.forward(&x, past)?;
        let mut pass = Pass { past, cancel, frames: Vec::new() };
        self.descend(x, &self.levels, &mut pass)?;
        Ok(Tensor::cat(&pass.frames, 0)?)
    }

    fn descend(&self, x: Tensor, levels: &[Level], pass: &mut Pass<'_>) -> Result<(), WanError> {
        let Some((level, rest)) = levels.split_first() else {
            let x = self.norm_out.silu(&x)?;
            pass.frames.push(self.conv_out.forward(&x, pass.past)?);
            return Ok(());
        };
        for frame in level.forward(x, pass)? {
            self.descend(frame, rest, pass)?;
        }
        Ok(())
    }
}

fn levels(loader: &mut Loader<'_>, config: &VaeConfig, dims: &[usize]) -> Result<Vec<Level>, WanError> {
    let temporal: Vec<_> = config.temporal_downsample.iter().rev().copied().collect();
    let mut levels = Vec::new();
    for (index, pair) in dims.windows(2).enumerate() {
        let &[inputs, outputs] = pair else { unreachable!("windows of two") };
        let temporal = temporal.get(index).copied();
        // The first kind halves channels while it doubles pixels, the second in the next level's first block.
        let inputs = if index > 0 && !config.is_residual { inputs / 2 } else { inputs };
        let name = format!("decoder.up_blocks.{index}");
        let resnets = (0..=config.num_res_blocks)
            .map(|block| {
                let channels = [if block == 0 { inputs } else { outputs }, outputs];
                ResidualBlock::load(loader, &format!("{name}.resnets.{block}"), channels)
            })
            .collect::<Result<_, _>>()?;
        let up = match (temporal, config.is_residual) {
            (None, _) => None,
            (Some(temporal), true) => {
                Some(Upsample::load(loader, &format!("{name}.upsampler"), [outputs; 2], temporal)?)
            }
            (Some(temporal), false) => {
                let channels = [outputs, outputs / 2];
                Some(Upsample::load(loader, &format!("{name}.upsamplers.0"), channels, temporal)?)
            }
        };
        let shortcut = match temporal {
            Some(temporal) if config.is_residual => Some([outputs, if temporal { 2 } else { 1 }, 2]),
            _ => None,
        };
        levels.push(Level { resnets, up, shortcut, ops: loader.place.ops });
    }
    Ok(levels)
}

impl Level {
    /// One frame `[1, C, H, W]` to one or two.
    fn forward(&self, input: Tensor, pass: &mut Pass<'_>) -> Result<Vec<Tensor>, WanError> {
        // Only kept where it is needed again: it is as large as what the blocks work on.
        let kept = self.shortcut.is_some().then(|| input.clone());
        let mut x = input;
        for resnet in &self.resnets {
            go_on(pass.cancel)?;
            x = resnet.forward(&x, pass.past)?;
        }
        let Some(up) = &self.up else { return Ok(vec![x]) };
        let copies = match (self.shortcut, &kept) {
            (Some([outputs, time, space]), Some(input)) => {
                Some(Copies { input, outputs, factors: [time, space], ops: self.ops })
            }
            _ => None,
        };
        up.forward(&x, copies, pass.past)
    }
}

/// Puts patches together and holds the numbers in -1..1: `[T, C, H, W]` to `[1, 3, T, H, W]`.
pub(super) fn finish(x: &Tensor, patch: usize) -> Result<Tensor, WanError> {
    let pixels = unpatchify(x, patch)?;
    Ok(pixels.transpose(0, 1)?.unsqueeze(0)?.clamp(-1.0, 1.0)?.contiguous()?)
}
