//! Operations on each number by itself.

use candle_core::Tensor;
use rayon::prelude::*;

use super::norm::run_of_row;
use super::simd::{exp, vectorised};
use super::slices::{copied, from_f32, with_f32};
use crate::WanError;

/// Numbers that one task works on.
const CHUNK: usize = 1 << 15;
/// `√(2/π)` and the cube's share in the tanh form of GELU (Hendrycks and Gimpel, 2016).
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

/// [`super::Ops::gelu`] on the CPU.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor, WanError> {
    let mut numbers = copied(x)?;
    numbers.par_chunks_mut(CHUNK).for_each(gelu_in_place);
    Ok(from_f32(numbers, x.shape())?)
}

vectorised! {
    /// `x (1 + tanh u) / 2` is `x / (1 + e^(-2u))`.
    fn gelu_in_place(numbers: &mut [f32]) {
        for number in numbers {
            let x = *number;
            let u = GELU_SCALE * (x + GELU_CUBE * x * x * x);
            *number = x / (1.0 + exp(-2.0 * u));
        }
    }
}

/// [`super::Ops::add`] on the CPU.
pub(super) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor, WanError> {
    if x.shape() != y.shape() {
        let problem = format!("{:?} and {:?} are not added up", x.shape(), y.shape());
        return Err(candle_core::Error::Msg(problem).into());
    }
    let mut out = copied(x)?;
    with_f32(y, |y| {
        let chunks = out.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK));
        chunks.for_each(|(out, y)| out.iter_mut().zip(y).for_each(|(out, y)| *out += y));
    })?;
    Ok(from_f32(out, x.shape())?)
}

/// [`super::Ops::gated_add`] on the CPU.
pub(super) fn gated_add(x: &Tensor, y: &Tensor, gate: &Tensor, runs: &[usize]) -> Result<Tensor, WanError> {
    let width = x.dim(1)?;
    let mut out = copied(x)?;
    with_f32(y, |y| {
        with_f32(gate, |gate| {
            let rows = out.par_chunks_mut(width).zip(y.par_chunks(width)).enumerate();
            rows.for_each(|(row, (out, y))| {
                let gate = &gate[run_of_row(row, runs) * width..][..width];
                out.iter_mut().zip(y).zip(gate).for_each(|((out, y), gate)| *out += y * gate);
            });
        })
    })??;
    Ok(from_f32(out, x.shape())?)
}
