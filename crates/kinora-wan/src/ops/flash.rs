//! Attention on NVIDIA GPUs by a kernel that never writes scores to memory, in builds with the feature `flash-attn`.
//!
//! Always true: it is asked only for what is multiplied in bf16, as the reference multiplies there; sums, and the softmax,
//! are the kernel's own in f32.
//! Source: Dao, "FlashAttention-2" (2023), in the crate `candle-flash-attn`.

use candle_core::{DType, Tensor};

use super::Products;
use crate::WanError;

/// What the kernel loads at a time: a head's width is a multiple.
const WIDTH_STEP: usize = 8;
/// The widest head that it was written for.
const WIDTH_MAX: usize = 512;

/// Whether the kernel can serve queries that lie where `q` does, in heads of this width.
pub(super) fn serves(q: &Tensor, head_width: usize, products: Products) -> bool {
    q.device().is_cuda()
        && products == Products::Bf16
        && head_width <= WIDTH_MAX
        && head_width.is_multiple_of(WIDTH_STEP)
}

/// [`super::Ops::attention`] of f32 tensors on a GPU.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor, WanError> {
    let (tokens, width) = q.dims2()?;
    let head_width = width / heads;
    let by_head = |x: &Tensor| -> Result<Tensor, WanError> {
        // [L, A·K] → [1, L, A, K]
        Ok(x.to_dtype(DType::BF16)?.reshape((1, x.dim(0)?, heads, head_width))?)
    };
    let scale = 1.0 / (head_width as f32).sqrt();
    let out = candle_flash_attn::flash_attn(&by_head(q)?, &by_head(k)?, &by_head(v)?, scale, false)?;
    Ok(out.reshape((tokens, width))?.to_dtype(DType::F32)?) // [1, N, A, K] → [N, A·K]
}
