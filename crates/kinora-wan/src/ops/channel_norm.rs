//! The VAE's normalisation: every pixel's channels to length √C, each times its own factor, then SiLU where asked.

use candle_core::Tensor;
use rayon::prelude::*;

use super::simd::{exp, vectorised};
use super::slices::{from_f32, with_f32, zeros};
use crate::WanError;

/// Pixels that one task works on at a time: their channels stay in a second-level cache.
const PIXELS: usize = 256;
/// What a length counts as at least, as in the reference's `normalize`.
const SHORTEST: f32 = 1e-12;

/// [`super::Ops::channel_norm`] on the CPU.
pub(super) fn channel_norm(x: &Tensor, gamma: &Tensor, silu: bool) -> Result<Tensor, WanError> {
    let (_, channels, height, width) = x.dims4()?;
    let pixels = height * width;
    let gamma = gamma.to_vec1::<f32>()?;
    let out = with_f32(x, |x| {
        let mut out = zeros(x.len());
        for (x, out) in x.chunks_exact(channels * pixels).zip(out.chunks_exact_mut(channels * pixels)) {
            normalise_frame(x, out, pixels, &gamma, silu);
        }
        out
    })?;
    Ok(from_f32(out, x.shape())?)
}

/// One frame `[C, H·W]`: factors of all pixels first, then each channel by itself.
fn normalise_frame(x: &[f32], out: &mut [f32], pixels: usize, gamma: &[f32], silu: bool) {
    let mut factors = vec![0.0; pixels];
    factors.par_chunks_mut(PIXELS).enumerate().for_each(|(chunk, factors)| {
        for plane in x.chunks_exact(pixels) {
            add_squares(factors, &plane[chunk * PIXELS..][..factors.len()]);
        }
        let length = (gamma.len() as f32).sqrt();
        factors.iter_mut().for_each(|sum| *sum = length / sum.sqrt().max(SHORTEST));
    });
    let planes = out.par_chunks_mut(pixels).zip(x.par_chunks(pixels)).zip(gamma);
    planes.for_each(|((out, x), gamma)| {
        if silu {
            scale_silu(out, x, &factors, *gamma);
        } else {
            scale(out, x, &factors, *gamma);
        }
    });
}

vectorised! {
    fn add_squares(sums: &mut [f32], numbers: &[f32]) {
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number * number;
        }
    }
}

vectorised! {
    fn scale(out: &mut [f32], x: &[f32], factors: &[f32], gamma: f32) {
        for ((out, x), factor) in out.iter_mut().zip(x).zip(factors) {
            *out = x * factor * gamma;
        }
    }
}

vectorised! {
    fn scale_silu(out: &mut [f32], x: &[f32], factors: &[f32], gamma: f32) {
        for ((out, x), factor) in out.iter_mut().zip(x).zip(factors) {
            let number = x * factor * gamma;
            *out = number / (1.0 + exp(-number));
        }
    }
}
