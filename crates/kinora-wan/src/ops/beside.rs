//! What adapters add to a layer's output.
//!
//! Always true: it is added in place, a band of tokens at a time, so it needs room for a band and no tensor of all tokens;
//! it is multiplied in f32. On the CPU the adapters stay in their mapped files, elsewhere they lie on the device.

use candle_core::{DType, Device, Tensor};

use super::linear::add_product;
use crate::WanError;
use crate::weights::{Adapter, Matrix};

/// Tokens at a time: many enough for products of full speed, few beside those of a clip.
const BAND_TOKENS: usize = 512;

/// An adapter on a device, its scale in `up`.
#[derive(Debug)]
pub(super) struct Resident {
    down: Option<Tensor>,
    up: Tensor,
}

impl Resident {
    pub(super) fn all(adapters: &[Adapter], device: &Device) -> Result<Vec<Self>, WanError> {
        let resident = |Adapter { down, up, scale }: &Adapter| -> Result<Self, WanError> {
            let there = |matrix: &Matrix| matrix.to_tensor(DType::F32, device);
            Ok(Self { down: down.as_ref().map(there).transpose()?, up: (there(up)? * f64::from(*scale))? })
        };
        adapters.iter().map(resident).collect()
    }
}

/// Adds to `out` `[tokens, outputs]` what `adapters` make of x `[tokens, inputs]`.
pub(super) fn add_to(out: &mut [f32], adapters: &[Adapter], x: &[f32], [outputs, inputs]: [usize; 2]) {
    if adapters.is_empty() {
        return;
    }
    let bands = x.chunks(BAND_TOKENS * inputs).zip(out.chunks_mut(BAND_TOKENS * outputs));
    for (x, out) in bands {
        for Adapter { down, up, scale } in adapters {
            let Some(down) = down else {
                add_product(out, 1.0, x, up, *scale);
                continue;
            };
            let mut middle = vec![0.0; x.len() / inputs * down.rows()];
            add_product(&mut middle, 0.0, x, down, 1.0);
            add_product(out, 1.0, &middle, up, *scale);
        }
    }
}

/// The same for tensors of f32; no other tensor may share the numbers of `out`.
pub(super) fn add_to_tensor(out: Tensor, adapters: &[Resident], x: &Tensor) -> Result<Tensor, WanError> {
    if adapters.is_empty() {
        return Ok(out);
    }
    let (tokens, out) = (x.dim(0)?, out.contiguous()?);
    for start in (0..tokens).step_by(BAND_TOKENS) {
        let count = BAND_TOKENS.min(tokens - start);
        let x = x.narrow(0, start, count)?.contiguous()?;
        let mut band = out.narrow(0, start, count)?;
        for Resident { down, up } in adapters {
            let more = match down {
                Some(down) => x.matmul(&down.t()?)?.matmul(&up.t()?)?,
                None => x.matmul(&up.t()?)?,
            };
            band = (band + more)?;
        }
        out.slice_set(&band, 0, start)?;
    }
    Ok(out)
}
