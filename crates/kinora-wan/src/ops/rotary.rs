//! Turns pairs of neighbouring numbers of each head by an angle of the token.
//!
//! Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).

use candle_core::Tensor;
use rayon::prelude::*;

use super::slices::{copied, from_f32, with_f32};
use crate::WanError;

/// [`super::Ops::rotate`] on the CPU.
pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, WanError> {
    let (width, half) = (x.dim(1)?, cos.dim(1)?);
    let mut out = copied(x)?;
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
