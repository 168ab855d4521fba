//! The cubic fetch with NEON, which every aarch64 processor has.
//!
//! As in the versions for x86: each pixel's 4x4 taps are four runs of 16 consecutive elements, summed down over
//! whole runs and then across. Not here: the definition of the result, which is `fetch::fetch_plain`.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::block::{BLOCK, Block};
use super::fetch::{Row, weight_coefficients};
use super::texture::Texture;

/// Elements that load as vectors of f32.
pub(super) trait Load: Copy + Default {
    /// # Safety
    /// 16 elements must be readable at `p`.
    unsafe fn load16(p: *const Self) -> [float32x4_t; 4];
}

impl Load for u8 {
    #[inline(always)]
    unsafe fn load16(p: *const Self) -> [float32x4_t; 4] {
        // SAFETY: the caller vouches for 16 readable bytes; NEON is part of aarch64.
        unsafe {
            let bytes = vld1q_u8(p);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_high_u16(low)),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_high_u16(high)),
            ]
        }
    }
}

impl Load for i16 {
    #[inline(always)]
    unsafe fn load16(p: *const Self) -> [float32x4_t; 4] {
        // SAFETY: the caller vouches for 16 readable elements; NEON is part of aarch64.
        unsafe {
            let (low, high) = (vld1q_s16(p), vld1q_s16(p.add(8)));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }
}

/// Fetches a row.
pub(super) fn fetch<T: Load>(texture: &Texture<T>, at: Row<'_>, out: &mut [[f32; 4]]) {
    let coefficients = weight_coefficients(at.sharpness);
    let (data, stride) = (texture.data(), texture.stride());
    let mut block = Block::default();
    for ((out, x), y) in out.chunks_mut(BLOCK).zip(at.x.chunks(BLOCK)).zip(at.y.chunks(BLOCK)) {
        block.place(texture, &coefficients, x, y);
        for (k, out) in out.iter_mut().enumerate() {
            let first = block.first[k];
            debug_assert!(first + 3 * stride + 16 <= data.len());
            // SAFETY: the coordinates were clamped, so the texture's rim and tail hold all 4 rows of 16 elements;
            // `out` is four f32; NEON is part of aarch64.
            unsafe {
                // A vector holds one column of 4 channels.
                let mut columns = [vdupq_n_f32(0.0); 4];
                for row in 0..4 {
                    let taps = T::load16(data.as_ptr().add(first + row * stride));
                    for (column, tap) in columns.iter_mut().zip(taps) {
                        *column = vfmaq_n_f32(*column, tap, block.down[row][k]);
                    }
                }
                let across = |column: usize| block.across[column][k];
                let left = vfmaq_n_f32(vmulq_n_f32(columns[0], across(0)), columns[1], across(1));
                let right = vfmaq_n_f32(vmulq_n_f32(columns[2], across(2)), columns[3], across(3));
                vst1q_f32(out.as_mut_ptr(), vaddq_f32(left, right));
            }
        }
    }
}
