//! The second set of operations: the tensor library's own, on whatever device the tensors lie. This is what computes on a GPU.
//!
//! Always true: tensors are f32; only what a layer multiplies is rounded to the type of its weights, and its answer is widened
//! again. Whatever attends holds the scores of some heads and queries at a time, never all of them.
//! Tests run all of it on the CPU against the reference, so what is left to a device are the library's own kernels.

use candle_core::conv::CudnnFwdAlgo;
use candle_core::{D, DType, Tensor};

use super::conv::{ConvShape, Frames, Sampling};
use super::norm::Modulation;
use super::spread::Source;
use crate::WanError;

/// Bytes of scores at a time, unless they were too few rows; their powers take as many once more.
const SCORES_BYTES: usize = 1 << 29;
/// Rows of scores at a time at least: on a GPU the library's softmax takes a row by 32 threads, and few rows leave most idle.
const SCORES_ROWS: usize = 1 << 12;
/// Queries of a head at a time before other heads join them: beside the scores of so many, reading the head's keys and values
/// again is little.
const HEAD_QUERIES: usize = 1 << 10;
/// What a pixel's length counts as at least, as in the reference's `normalize`.
const SHORTEST: f64 = 1e-12;

/// `x Wᵀ + b`: x `[N, inputs]`, weight `[outputs, inputs]` of any type, bias `[outputs]`.
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, WanError> {
    let out = x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32)?;
    Ok(match bias {
        Some(bias) => out.broadcast_add(bias)?,
        None => out,
    })
}

/// Rows of scores over `keys` keys at a time, each of one query of one head. The library's softmax counts scores in 32 bits.
fn rows_at_once(keys: usize) -> usize {
    (SCORES_BYTES / (keys * size_of::<f32>())).max(SCORES_ROWS).min(i32::MAX as usize / keys).max(1)
}

/// Bytes at most of the scores that [`attention`] of so many queries holds at a time.
pub(crate) fn scores_bytes(queries: usize, keys: usize, heads: usize) -> usize {
    rows_at_once(keys).min(queries.saturating_mul(heads)) * keys * size_of::<f32>()
}

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor, WanError> {
    let rows = rows_at_once(k.dim(0)?);
    let heads_at_once = (rows / HEAD_QUERIES.min(q.dim(0)?)).clamp(1, heads);
    attention_in_tiles([q, k, v], heads, heads_at_once, rows / heads_at_once)
}

/// So many queries of so many of the heads at a time.
fn attention_in_tiles(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    heads_at_once: usize,
    queries: usize,
) -> Result<Tensor, WanError> {
    let (tokens, width) = q.dims2()?;
    let head_width = width / heads;
    let by_head = |x: &Tensor| -> Result<Tensor, WanError> {
        Ok(x.reshape((x.dim(0)?, heads, head_width))?.transpose(0, 1)?) // [L, A·K] → [A, L, K]
    };
    let scale = 1.0 / (head_width as f64).sqrt();
    let read = {
        let (q, k, v) = (by_head(q)?, by_head(k)?.contiguous()?.t()?, by_head(v)?.contiguous()?);
        let groups = (0..heads).step_by(heads_at_once).map(|first| {
            let [q, k, v] = [&q, &k, &v].map(|x| x.narrow(0, first, heads_at_once.min(heads - first)));
            let (q, k, v) = (q?, k?, v?);
            let tiles = (0..tokens).step_by(queries).map(|start| {
                let q = (q.narrow(1, start, queries.min(tokens - start))? * scale)?;
                Ok(softmax(&q.matmul(&k)?)?.matmul(&v)?) // [a, n, L] → [a, n, K]
            });
            joined(tiles.collect::<Result<Vec<_>, WanError>>()?, 1)
        });
        joined(groups.collect::<Result<Vec<_>, WanError>>()?, 0)?
    };
    Ok(read.transpose(0, 1)?.reshape((tokens, width))?)
}

/// Softmax over the last side.
pub fn softmax(scores: &Tensor) -> Result<Tensor, WanError> {
    Ok(candle_nn::ops::softmax_last_dim(scores)?)
}

pub(super) fn modulated_layer_norm(x: &Tensor, eps: f64, by: Modulation<'_>) -> Result<Tensor, WanError> {
    by_runs(by.runs, |start, count, run| {
        let normal = standardised(&x.narrow(0, start, count)?, eps)?;
        let (scale, shift) = (by.scale.narrow(0, run, 1)?, by.shift.narrow(0, run, 1)?);
        Ok(normal.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(&shift)?)
    })
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor, WanError> {
    Ok(standardised(x, eps)?.broadcast_mul(weight)?.broadcast_add(bias)?)
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, WanError> {
    let root = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok(x.broadcast_div(&root)?.broadcast_mul(weight)?)
}

/// Rows of mean 0 and variance 1.
fn standardised(x: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred.broadcast_div(&deviation)
}

pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, WanError> {
    let (tokens, width) = x.dims2()?;
    let half = cos.dim(1)?;
    let pairs = x.reshape((tokens, width / (2 * half), half, 2))?; // [N, A, K/2, 2]
    let (a, b) = (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?);
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?); // [N, 1, K/2]
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    Ok(Tensor::stack(&[first, second], 3)?.reshape((tokens, width))?)
}

/// In its tanh form.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor, WanError> {
    Ok(x.gelu()?)
}

pub(super) fn gated_add(x: &Tensor, y: &Tensor, gate: &Tensor, runs: &[usize]) -> Result<Tensor, WanError> {
    by_runs(runs, |start, count, run| {
        let added = y.narrow(0, start, count)?.broadcast_mul(&gate.narrow(0, run, 1)?)?;
        Ok((x.narrow(0, start, count)? + added)?)
    })
}

/// What `of` makes of each run, called with its first row, its rows and its number, one after the other.
fn by_runs(
    runs: &[usize],
    of: impl Fn(usize, usize, usize) -> Result<Tensor, WanError>,
) -> Result<Tensor, WanError> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(runs.len());
    for (run, &count) in runs.iter().enumerate().filter(|(_, count)| **count > 0) {
        parts.push(of(start, count, run)?);
        start += count;
    }
    joined(parts, 0)
}

/// One after the other along `side`.
fn joined(mut parts: Vec<Tensor>, side: usize) -> Result<Tensor, WanError> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(Tensor::cat(&parts, side)?),
    }
}

pub(super) fn channel_norm(x: &Tensor, gamma: &Tensor, silu: bool) -> Result<Tensor, WanError> {
    let channels = x.dim(1)?;
    let length = x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(SHORTEST)?;
    let gamma = (gamma.reshape((1, channels, 1, 1))? * (channels as f64).sqrt())?;
    let normal = x.broadcast_div(&length)?.broadcast_mul(&gamma)?;
    Ok(if silu { normal.silu()? } else { normal })
}

pub(super) fn spread_channels(
    x: &Tensor,
    outputs: usize,
    side: usize,
    source: Source<'_>,
) -> Result<Tensor, WanError> {
    let (_, _, height, width) = x.dims4()?;
    let squares = (0..outputs).flat_map(|o| (0..side * side).map(move |at| (o, at / side, at % side)));
    let channels: Vec<u32> = squares.map(|(o, y, x)| source(o, y, x) as u32).collect();
    let channels = Tensor::from_vec(channels, outputs * side * side, x.device())?;
    let spread = x.squeeze(0)?.index_select(&channels, 0)?.reshape((outputs, side, side, height, width))?;
    Ok(spread.permute([0, 3, 1, 4, 2])?.reshape((1, outputs, height * side, width * side))?)
}

/// A convolution's weight `[O, C, kt, k, k]` as [`convolve`] takes it, `[O, kt·C, k, k]`: steps in time become channels.
pub(super) fn folded(weight: &Tensor) -> Result<Tensor, WanError> {
    let (outputs, channels, time, high, wide) = weight.dims5()?;
    Ok(weight.transpose(1, 2)?.reshape((outputs, time * channels, high, wide))?)
}

/// The layer of `shape` with weight `[O, kt·C, k, k]` and bias `[O]` over `frames`.
///
/// The frames that an output sees are channels of one two-dimensional convolution, so that each output is one sum.
pub(super) fn convolve(
    frames: Frames<'_>,
    shape: &ConvShape,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor, WanError> {
    let (_, channels, height, width) = frames.x.dims4()?;
    let mut all = Vec::new();
    if frames.zeros > 0 {
        let empty = Tensor::zeros((1, channels, height, width), frames.x.dtype(), frames.x.device())?;
        all.resize(frames.zeros, empty);
    }
    for chunk in frames.tensors() {
        all.extend(chunk.chunk(chunk.dim(0)?, 0)?);
    }
    let bias = bias.reshape((1, shape.outputs, 1, 1))?;
    let [time, space] = shape.kernel;
    let outputs = all.windows(time).step_by(shape.stride).map(|seen| {
        let seen = Tensor::cat(seen, 1)?; // [1, kt·C, H, W]
        let (seen, padding, stride) = match shape.sampling {
            Sampling::Same => (seen, space / 2, 1),
            Sampling::Halve => (seen.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?, 0, 2),
            Sampling::Double => (seen.upsample_nearest2d(height * 2, width * 2)?, space / 2, 1),
        };
        Ok(conv2d(&seen, weight, padding, stride)?.broadcast_add(&bias)?)
    });
    joined(outputs.collect::<Result<Vec<_>, WanError>>()?, 0)
}

/// By the algorithm that cuDNN takes for the fastest. It may ask for more workspace than is free, and the plainest one asks for
/// none: a clip whose steps are made must not be lost to that.
fn conv2d(x: &Tensor, weight: &Tensor, padding: usize, stride: usize) -> candle_core::Result<Tensor> {
    let by = |algorithm| x.conv2d_with_algo(weight, padding, stride, 1, 1, algorithm);
    match by(None) {
        Err(error) if x.device().is_cuda() => by(Some(CudnnFwdAlgo::ImplicitGemm)).map_err(|_| error),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    /// The goldens' clips fit one tile, those that people make do not.
    #[test]
    fn tiles_of_heads_and_queries_join_without_a_seam() {
        let numbers = |rows: usize, step: f32| {
            Tensor::arange(0f32, (rows * 12) as f32, &Device::Cpu)
                .and_then(|x| (x * f64::from(step))?.sin()?.reshape((rows, 12)))
                .unwrap()
        };
        let (q, k, v) = (numbers(23, 0.7), numbers(31, 1.3), numbers(31, 2.9));
        let of = |heads_at_once, queries| {
            let tiled = super::attention_in_tiles([&q, &k, &v], 3, heads_at_once, queries).unwrap();
            tiled.to_vec2::<f32>().unwrap()
        };
        let whole = of(3, 23);
        for heads_at_once in [1, 2, 3] {
            for queries in [1, 5, 22, 23, 40] {
                let tiled = of(heads_at_once, queries);
                let pairs = tiled.iter().flatten().zip(whole.iter().flatten());
                assert!(pairs.clone().count() == 23 * 12 && pairs.clone().all(|(a, b)| (a - b).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn scores_keep_a_gpu_busy_and_do_not_grow_beyond_that() {
        const GIB: f64 = (1u64 << 30) as f64;
        // TI2V-5B and I2V-A14B at their own sizes.
        let of = |tokens, heads| super::scores_bytes(tokens, tokens, heads) as f64 / GIB;
        assert!(of(27_280, 24) <= 0.5 && of(75_600, 40) < 1.2, "{} and {}", of(27_280, 24), of(75_600, 40));
        for keys in [512, 27_280, 75_600, 300_000, 1 << 20] {
            let rows = super::rows_at_once(keys);
            assert!(
                rows * keys <= i32::MAX as usize && (rows >= super::SCORES_ROWS || keys > 1 << 19),
                "{keys}"
            );
        }
        assert_eq!(super::scores_bytes(10, 7, 3), 10 * 7 * 3 * size_of::<f32>(), "no more than there are");
    }
}
