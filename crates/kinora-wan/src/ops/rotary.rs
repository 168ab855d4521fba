//! Turns pairs of neighbouring numbers of each head by an angle of the token.
//!
//! Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).

use candle_core::Tensor;
use rayon::prelude::*;

use super::slices::{from_f32, is_cpu_f32, with_f32};
use crate::WanError;

/// Turns `(x[2i], x[2i+1])` of every head of x `[N, A·K]` by the angle whose cosine and sine stand at `[n, i]` in `cos`
/// and `sin`, `[N, K/2]`.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, WanError> {
    if !(is_cpu_f32(x) && is_cpu_f32(cos) && is_cpu_f32(sin)) {
        return plain(x, cos, sin);
    }
    let (width, half) = (x.dim(1)?, cos.dim(1)?);
    let mut out = with_f32(x, <[f32]>::to_vec)?;
    with_f32(cos, |cos| {
        with_f32(sin, |sin| {
            let angles = cos.par_chunks(half).zip(sin.par_chunks(half));
            out.par_chunks_mut(width).zip(angles).for_each(|(row, (cos, sin))| {
                for head in row.chunks_exact_mut(2 * half) {
                    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                        let (a, b) = (pair[0], pair[1]);
                        pair[0] = a * cos - b * sin;
                        pair[1] = a * sin + b * cos;
                    }
                }
            });
        })
    })??;
    Ok(from_f32(out, x.shape())?)
}

pub fn plain(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, WanError> {
    let (tokens, width) = x.dims2()?;
    let half = cos.dim(1)?;
    let pairs = x.reshape((tokens, width / (2 * half), half, 2))?; // [N, A, K/2, 2]
    let (a, b) = (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?);
    let (cos, sin) = (cos.to_dtype(x.dtype())?.unsqueeze(1)?, sin.to_dtype(x.dtype())?.unsqueeze(1)?); // [N, 1, K/2]
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    Ok(Tensor::stack(&[first, second], 3)?.reshape((tokens, width))?)
}
