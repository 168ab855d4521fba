//! The second set of operations: the tensor library's own, on whatever device the tensors lie. This is what computes on a GPU.
//!
//! Always true: tensors are f32; only what a layer multiplies is rounded to the type of its weights, and its answer is widened
//! again. Whatever attends holds the scores of some queries at a time, never all of them.
//! Tests run all of it on the CPU against the reference, so what is left to a device are the library's own kernels.

use candle_core::{D, DType, Tensor};

use super::conv::{ConvShape, Frames, Sampling};
use super::norm::Modulation;
use super::spread::Source;
use crate::WanError;

/// Bytes of scores at a time; their powers take as many once more.
pub(crate) const SCORES_BYTES: usize = 1 << 29;
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

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor, WanError> {
    let query_bytes = heads * k.dim(0)? * size_of::<f32>();
    attention_in_tiles(q, k, v, heads, (SCORES_BYTES / query_bytes).max(1))
}

/// `queries` of them at a time.
fn attention_in_tiles(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    queries: usize,
) -> Result<Tensor, WanError> {
    let (tokens, width) = q.dims2()?;
    let head_width = width / heads;
    let by_head = |x: &Tensor| -> Result<Tensor, WanError> {
        // [L, A·K] → [A, L, K]
        Ok(x.reshape((x.dim(0)?, heads, head_width))?.transpose(0, 1)?.contiguous()?)
    };
    let (k, v) = (by_head(k)?.t()?, by_head(v)?);
    let scale = 1.0 / (head_width as f64).sqrt();
    let tiles = (0..tokens).step_by(queries).map(|start| {
        let queries = queries.min(tokens - start);
        let q = by_head(&(q.narrow(0, start, queries)? * scale)?)?;
        let powers = softmax(&q.matmul(&k)?)?; // [A, n, L]
        Ok(powers.matmul(&v)?.transpose(0, 1)?.reshape((queries, width))?)
    });
    joined(tiles.collect::<Result<Vec<_>, WanError>>()?)
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
    joined(parts)
}

/// One after the other along the first side.
fn joined(mut parts: Vec<Tensor>) -> Result<Tensor, WanError> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(Tensor::cat(&parts, 0)?),
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
    let empty = Tensor::zeros((1, channels, height, width), frames.x.dtype(), frames.x.device())?;
    let mut all = vec![empty; frames.zeros];
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
        Ok(seen.conv2d(weight, padding, stride, 1, 1)?.broadcast_add(&bias)?)
    });
    joined(outputs.collect::<Result<Vec<_>, WanError>>()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    /// The goldens' clips fit one tile, those that people make do not.
    #[test]
    fn tiles_of_queries_join_without_a_seam() {
        let numbers = |rows: usize, step: f32| {
            Tensor::arange(0f32, (rows * 12) as f32, &Device::Cpu)
                .and_then(|x| (x * f64::from(step))?.sin()?.reshape((rows, 12)))
                .unwrap()
        };
        let (q, k, v) = (numbers(23, 0.7), numbers(31, 1.3), numbers(31, 2.9));
        let whole = super::attention_in_tiles(&q, &k, &v, 3, 23).unwrap().to_vec2::<f32>().unwrap();
        for queries in [1, 5, 22] {
            let tiled = super::attention_in_tiles(&q, &k, &v, 3, queries).unwrap().to_vec2::<f32>().unwrap();
            let pairs = tiled.iter().flatten().zip(whole.iter().flatten());
            assert!(pairs.clone().count() == 23 * 12 && pairs.clone().all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}
