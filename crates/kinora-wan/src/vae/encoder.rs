//! Frames to the moments of their latents, chunk by chunk.

use candle_core::Tensor;

use super::config::VaeConfig;
use super::layers::{CausalConv, Downsample, Loader, MidBlock, Norm, Past, ResidualBlock};
use super::shortcut::average_down;
use crate::ops::Place;
use crate::weights::Weights;
use crate::{Cancel, WanError, go_on};

/// The encoder and the layer after it.
#[derive(Debug)]
pub(super) struct Encoder {
    conv_in: CausalConv,
    levels: Vec<Level>,
    mid: MidBlock,
    norm_out: Norm,
    conv_out: CausalConv,
    quant: CausalConv,
    slots: usize,
}

/// Residual blocks, then a halving but in the last level.
#[derive(Debug)]
struct Level {
    resnets: Vec<ResidualBlock>,
    down: Option<Downsample>,
    /// `[channels, time, space]` of the shortcut around the level.
    shortcut: Option<[usize; 3]>,
}

impl Encoder {
    pub(super) fn load(weights: &Weights, config: &VaeConfig, place: Place<'_>) -> Result<Self, WanError> {
        let mut loader = Loader { weights, place, slots: 0 };
        let loader = &mut loader;
        let dims = config.encoder_dims();
        let last = *dims.last().expect("a configuration has levels");
        let moments = 2 * config.z_dim;
        Ok(Self {
            conv_in: CausalConv::load(loader, "encoder.conv_in", [config.in_channels, dims[0]], [3, 3])?,
            levels: levels(loader, config, &dims)?,
            mid: MidBlock::load(loader, "encoder.mid_block", last)?,
            norm_out: Norm::load(loader, "encoder.norm_out", last, 3)?,
            conv_out: CausalConv::load(loader, "encoder.conv_out", [last, moments], [3, 3])?,
            quant: CausalConv::load(loader, "quant_conv", [moments; 2], [1, 1])?,
            slots: loader.slots,
        })
    }

    pub(super) fn past(&self) -> Past {
        Past::new(self.slots)
    }

    /// One chunk `[T, C, H, W]` to `[t, 2z, h, w]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        past: &mut Past,
        cancel: Cancel<'_>,
    ) -> Result<Tensor, WanError> {
        let mut x = self.conv_in.forward(x, past)?;
        for level in &self.levels {
            x = level.forward(x, past, cancel)?;
        }
        go_on(cancel)?;
        let x = self.mid.forward(&x, past)?;
        let x = self.conv_out.forward(&self.norm_out.silu(&x)?, past)?;
        self.quant.forward(&x, past)
    }
}

/// The levels, whose tensors one kind numbers through and the other by level.
fn levels(loader: &mut Loader<'_>, config: &VaeConfig, dims: &[usize]) -> Result<Vec<Level>, WanError> {
    let mut number = 0;
    let mut levels = Vec::new();
    for (index, pair) in dims.windows(2).enumerate() {
        let &[inputs, outputs] = pair else { unreachable!("windows of two") };
        let temporal = config.temporal_downsample.get(index).copied();
        let mut flat_name = || {
            number += 1;
            format!("encoder.down_blocks.{}", number - 1)
        };
        let mut resnets = Vec::new();
        for block in 0..config.num_res_blocks {
            let name = match config.is_residual {
                true => format!("encoder.down_blocks.{index}.resnets.{block}"),
                false => flat_name(),
            };
            let channels = [if block == 0 { inputs } else { outputs }, outputs];
            resnets.push(ResidualBlock::load(loader, &name, channels)?);
        }
        let down = match temporal {
            None => None,
            Some(temporal) => {
                let name = match config.is_residual {
                    true => format!("encoder.down_blocks.{index}.downsampler"),
                    false => flat_name(),
                };
                Some(Downsample::load(loader, &name, outputs, temporal)?)
            }
        };
        let factors = [if temporal == Some(true) { 2 } else { 1 }, if temporal.is_some() { 2 } else { 1 }];
        let shortcut = config.is_residual.then_some([outputs, factors[0], factors[1]]);
        levels.push(Level { resnets, down, shortcut });
    }
    Ok(levels)
}

impl Level {
    fn forward(&self, input: Tensor, past: &mut Past, cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        let shortcut = match self.shortcut {
            Some([outputs, time, space]) => Some(average_down(&input, outputs, [time, space])?),
            None => None,
        };
        let mut x = input;
        for resnet in &self.resnets {
            go_on(cancel)?;
            x = resnet.forward(&x, past)?;
        }
        if let Some(down) = &self.down {
            x = down.forward(&x, past)?;
        }
        Ok(match shortcut {
            Some(shortcut) => (x + shortcut)?,
            None => x,
        })
    }
}
