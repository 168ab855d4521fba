//! Normalisations over a row, with the scales and shifts that follow them.

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::simd::vectorised;
use super::slices::{from_f32, is_cpu_f32, with_f32};
use crate::WanError;

/// Scales and shifts `[R, D]`, whose row *r* serves the next `runs[r]` rows of what is normalised.
#[derive(Debug, Clone, Copy)]
pub struct Modulation<'a> {
    pub scale: &'a Tensor,
    pub shift: &'a Tensor,
    pub runs: &'a [usize],
}

/// `(x - mean) / √(variance + eps) · (1 + scale) + shift` for each row of x `[N, D]`.
pub fn modulated_layer_norm(x: &Tensor, eps: f64, by: Modulation<'_>) -> Result<Tensor, WanError> {
    if !(is_cpu_f32(x) && is_cpu_f32(by.scale) && is_cpu_f32(by.shift)) {
        return plain_modulated(x, eps, by);
    }
    let width = x.dim(1)?;
    let mut out = with_f32(x, <[f32]>::to_vec)?;
    with_f32(by.scale, |scale| {
        with_f32(by.shift, |shift| {
            out.par_chunks_mut(width).enumerate().for_each(|(row, numbers)| {
                let run = run_of_row(row, by.runs) * width;
                normalise(numbers, eps as f32, 1.0, &scale[run..][..width], &shift[run..][..width]);
            });
        })
    })??;
    Ok(from_f32(out, x.shape())?)
}

/// `(x - mean) / √(variance + eps) · weight + bias` for each row of x `[N, D]`; weight and bias are `[D]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor, WanError> {
    if !(is_cpu_f32(x) && is_cpu_f32(weight) && is_cpu_f32(bias)) {
        return plain_layer_norm(x, weight, bias, eps);
    }
    let width = x.dim(1)?;
    let mut out = with_f32(x, <[f32]>::to_vec)?;
    with_f32(weight, |weight| {
        with_f32(bias, |bias| {
            out.par_chunks_mut(width).for_each(|row| normalise(row, eps as f32, 0.0, weight, bias));
        })
    })??;
    Ok(from_f32(out, x.shape())?)
}

/// `x / √(mean of squares + eps) · weight` for each row of x `[N, D]`; weight is `[D]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, WanError> {
    if !(is_cpu_f32(x) && is_cpu_f32(weight)) {
        return plain_rms(x, weight, eps);
    }
    let width = x.dim(1)?;
    let mut out = with_f32(x, <[f32]>::to_vec)?;
    with_f32(weight, |weight| {
        out.par_chunks_mut(width).for_each(|row| normalise_by_squares(row, eps as f32, weight));
    })?;
    Ok(from_f32(out, x.shape())?)
}

vectorised! {
    /// One row to mean 0 and variance 1, times `base + scale`, plus `shift`.
    fn normalise(row: &mut [f32], eps: f32, base: f32, scale: &[f32], shift: &[f32]) {
        let count = row.len() as f32;
        let mean = lane_sum(row, |number| number) / count;
        let variance = lane_sum(row, |number| (number - mean) * (number - mean)) / count;
        let factor = 1.0 / (variance + eps).sqrt();
        for ((number, scale), shift) in row.iter_mut().zip(scale).zip(shift) {
            *number = (*number - mean) * factor * (base + scale) + shift;
        }
    }
}

vectorised! {
    fn normalise_by_squares(row: &mut [f32], eps: f32, weight: &[f32]) {
        let factor = 1.0 / (lane_sum(row, |number| number * number) / row.len() as f32 + eps).sqrt();
        for (number, weight) in row.iter_mut().zip(weight) {
            *number = *number * factor * weight;
        }
    }
}

/// Adds up a row in sixteen lanes, which is both faster and closer than one after the other.
#[inline(always)]
fn lane_sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &number) in lanes.iter_mut().zip(chunk) {
            *lane += of(number);
        }
    }
    for (lane, &number) in lanes.iter_mut().zip(rest) {
        *lane += of(number);
    }
    lanes.iter().sum()
}

/// Which run row `row` lies in.
pub(super) fn run_of_row(row: usize, runs: &[usize]) -> usize {
    let mut end = 0;
    for (index, run) in runs.iter().enumerate() {
        end += run;
        if row < end {
            return index;
        }
    }
    panic!("the runs {runs:?} cover row {row}")
}

/// `[R, D]` to `[N, D]`: row *r* repeated `runs[r]` times.
pub(super) fn spread(rows: &Tensor, runs: &[usize]) -> Result<Tensor, WanError> {
    let width = rows.dim(1)?;
    let each = runs.iter().enumerate().map(|(index, &run)| rows.narrow(0, index, 1)?.expand((run, width)));
    Ok(Tensor::cat(&each.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

pub fn plain_modulated(x: &Tensor, eps: f64, by: Modulation<'_>) -> Result<Tensor, WanError> {
    let (scale, shift) = (spread(by.scale, by.runs)?, spread(by.shift, by.runs)?);
    let normal = standardised(x, eps)?;
    let scaled = normal.mul(&(scale.to_dtype(DType::F32)? + 1.0)?)?.add(&shift.to_dtype(DType::F32)?)?;
    Ok(scaled.to_dtype(x.dtype())?)
}

pub fn plain_layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor, WanError> {
    let normal = standardised(x, eps)?;
    let scaled =
        normal.broadcast_mul(&weight.to_dtype(DType::F32)?)?.broadcast_add(&bias.to_dtype(DType::F32)?)?;
    Ok(scaled.to_dtype(x.dtype())?)
}

pub fn plain_rms(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, WanError> {
    let wide = x.to_dtype(DType::F32)?;
    let root = (wide.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let scaled = wide.broadcast_div(&root)?.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    Ok(scaled.to_dtype(x.dtype())?)
}

/// Rows of mean 0 and variance 1, in f32.
fn standardised(x: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred.broadcast_div(&deviation)
}
