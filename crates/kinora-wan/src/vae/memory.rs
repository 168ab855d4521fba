//! How much memory encoding and decoding work with, from the sizes of the layers.
//!
//! What layers remember is exact; what a level works with at a time is counted in copies of its largest features, a number
//! that a test holds against an allocator that counts.

use super::config::VaeConfig;
use super::tiles::Tiling;
use crate::ops::Set;

/// Features that a residual block has at a time: its input, what is kept for the shortcut, and what its layers make.
const COPIES: usize = 5;
/// The same, with a convolution's buffers, where layers are made of the tensor library's operations, which put the frames that a
/// kernel sees together and write a tensor at each step: in the decoder.
const TENSOR_COPIES: usize = 9;
/// For each frame in the encoder: of a frame alone, and of several at once, since kernels pass over one after the other.
const TENSOR_ENCODER_COPIES: [usize; 2] = [16, 7];
/// Copies of the frames that one latent frame becomes, until they are 8-bit: whole ones, and ones put together from tiles.
const FRAME_COPIES: [usize; 2] = [4, 6];
/// Numbers at most in each of the two buffers of a convolution.
const CONVOLUTION_NUMBERS: usize = 2 * (1 << 23);
/// Numbers of those buffers for each number of a layer's largest features.
const CONVOLUTION_COPIES: usize = 12;

/// Numbers that decoding latents of `[height, width]` works with.
pub(super) fn decoding(config: &VaeConfig, size: [usize; 2], tiling: Option<Tiling>, set: Set) -> usize {
    let scale = config.scale_factor_spatial;
    let tiled = tiling.filter(|tiling| tiling.tile / scale < size[0].max(size[1]));
    let areas: Vec<usize> = match tiled {
        None => vec![size[0] * size[1]],
        Some(tiling) => {
            let [downs, acrosses] = size.map(|length| tiling.cuts(length, scale));
            downs.iter().flat_map(|(_, tall)| acrosses.iter().map(move |(_, wide)| tall * wide)).collect()
        }
    };
    let copies = FRAME_COPIES[usize::from(tiled.is_some())];
    let frames = config.scale_factor_temporal * 3 * size[0] * size[1] * scale * scale * copies;
    let kept: usize = areas.iter().map(|area| decoder_past(config, *area)).sum();
    kept + decoder_work(config, areas.into_iter().max().unwrap_or(0), set) + frames
}

/// Features of all levels on the way up: `(inputs, outputs, pixels)`.
fn decoder_levels(config: &VaeConfig, area: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let dims = config.decoder_dims();
    let narrow = !config.is_residual;
    (0..dims.len() - 1).map(move |level| {
        let inputs = if level > 0 && narrow { dims[level] / 2 } else { dims[level] };
        (inputs, dims[level + 1], area << (2 * level))
    })
}

/// Two frames for each convolution in time.
fn decoder_past(config: &VaeConfig, area: usize) -> usize {
    let first = config.decoder_dims()[0];
    let temporal = config.temporal_downsample.iter().rev().chain([&false]);
    let levels = decoder_levels(config, area).zip(temporal).map(|((inputs, outputs, pixels), temporal)| {
        let blocks = inputs + outputs * (2 * config.num_res_blocks + 1);
        (blocks + if *temporal { outputs } else { 0 }) * pixels
    });
    let (last, pixels) =
        decoder_levels(config, area).last().map_or((0, 0), |(_, outputs, pixels)| (outputs, pixels));
    2 * ((config.z_dim + 4 * first) * area + levels.sum::<usize>() + last * pixels)
}

/// One level at work, frames of the levels before that wait for their turn, and a convolution's buffers.
fn decoder_work(config: &VaeConfig, area: usize, set: Set) -> usize {
    let widest =
        decoder_levels(config, area).map(|(inputs, outputs, pixels)| inputs.max(outputs) * pixels).max();
    let waiting = decoder_levels(config, area).map(|(_, outputs, pixels)| 2 * outputs * 4 * pixels);
    let levels = config.dim_mult.len();
    let widest = widest.unwrap_or(0);
    let layers = match set {
        Set::Cpu => COPIES * widest + convolution(widest, CONVOLUTION_COPIES),
        Set::Tensors => TENSOR_COPIES * widest,
    };
    layers + waiting.take(levels - 1).sum::<usize>()
}

/// The buffers of a convolution whose largest features have `widest` numbers.
fn convolution(widest: usize, copies: usize) -> usize {
    CONVOLUTION_NUMBERS.min(copies * widest)
}

/// Numbers that encoding frames of `[height, width]` pixels works with, `at_once` frames at a time.
pub(super) fn encoding(config: &VaeConfig, size: [usize; 2], at_once: usize, set: Set) -> usize {
    let dims = config.encoder_dims();
    let area = size[0] * size[1] / (config.patch() * config.patch());
    let levels = || dims.windows(2).enumerate().map(|(level, pair)| (pair[0], pair[1], area >> (2 * level)));
    let kept: usize = levels()
        .map(|(inputs, outputs, pixels)| (inputs + outputs * (2 * config.num_res_blocks - 1)) * pixels)
        .sum();
    let widest = levels().map(|(inputs, outputs, pixels)| inputs.max(outputs) * pixels).max().unwrap_or(0);
    // A clip's first frame has none before it; of later ones more copies are on their way at a time.
    let (past, pixels, beside) =
        if at_once > 1 { (2, 4, CONVOLUTION_COPIES) } else { (1, 2, CONVOLUTION_COPIES / 3) };
    let frames = pixels * at_once * 3 * size[0] * size[1];
    let layers = match set {
        Set::Cpu => COPIES * at_once * widest + convolution(widest, beside),
        Set::Tensors => TENSOR_ENCODER_COPIES[usize::from(at_once > 1)] * at_once * widest,
    };
    past * kept + layers + frames
}
