//! The inner loop: a panel of rows times a panel of columns, their sums in registers.
//!
//! On x86-64 with AVX-512 BF16 one instruction adds two products to each of 16 sums; elsewhere the same sums in the same
//! order, in plain code that the compiler turns into what vectors there are. The instruction counts numbers that are too
//! small to be normal as zero; nothing else differs.
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, `VDPBF16PS`.

#![allow(unsafe_code)]

use super::Pair;
use crate::ops::simd::vectorised;

/// Rows of a left panel: with two vectors of columns their sums, 24 vectors, leave registers for what is multiplied.
pub(crate) const ROWS: usize = 12;
/// Columns of a right panel: two vectors.
pub(crate) const COLUMNS: usize = 32;

/// Sums of one panel by another, `[ROWS, COLUMNS]`.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Tile([f32; ROWS * COLUMNS]);

impl Default for Tile {
    fn default() -> Self {
        Self([0.0; ROWS * COLUMNS])
    }
}

impl Tile {
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.0[row * COLUMNS..][..COLUMNS]
    }

    /// Becomes the sums of `left` `[pairs, ROWS]` by `right` `[pairs, COLUMNS]`.
    pub(crate) fn multiply(&mut self, left: &[Pair], right: &[Pair]) {
        assert_eq!(left.len() / ROWS, right.len() / COLUMNS, "panels are as deep as each other");
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
            // SAFETY: the machine has the features that the function is compiled for.
            return unsafe { multiply_wide(&mut self.0, left, right) };
        }
        multiply_plain(&mut self.0, left, right);
    }
}

vectorised! {
    pub(super) fn multiply_plain(sums: &mut [f32; ROWS * COLUMNS], left: &[Pair], right: &[Pair]) {
        sums.fill(0.0);
        for (left, right) in left.chunks_exact(ROWS).zip(right.chunks_exact(COLUMNS)) {
            for (sums, pair) in sums.chunks_exact_mut(COLUMNS).zip(left) {
                let (first, second) = (low(*pair), high(*pair));
                for (sum, pair) in sums.iter_mut().zip(right) {
                    *sum = (*sum + second * high(*pair)) + first * low(*pair);
                }
            }
        }
    }
}

#[inline(always)]
fn low(pair: Pair) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
fn high(pair: Pair) -> f32 {
    f32::from_bits(pair & 0xFFFF_0000)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_wide(sums: &mut [f32; ROWS * COLUMNS], left: &[Pair], right: &[Pair]) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };
    const LANES: usize = 16;

    #[inline(always)]
    fn pairs(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes of which every pattern is a value.
        unsafe { std::mem::transmute(bits) }
    }

    let mut lanes = [[_mm512_setzero_ps(); 2]; ROWS];
    for (left, right) in left.chunks_exact(ROWS).zip(right.chunks_exact(COLUMNS)) {
        // SAFETY: the chunk holds two vectors of sixteen pairs.
        let (a, b) = unsafe {
            (_mm512_loadu_si512(right.as_ptr().cast()), _mm512_loadu_si512(right.as_ptr().add(LANES).cast()))
        };
        for (lanes, pair) in lanes.iter_mut().zip(left) {
            let pair = pairs(_mm512_set1_epi32(pair.cast_signed()));
            lanes[0] = _mm512_dpbf16_ps(lanes[0], pair, pairs(a));
            lanes[1] = _mm512_dpbf16_ps(lanes[1], pair, pairs(b));
        }
    }
    for (sums, lanes) in sums.chunks_exact_mut(COLUMNS).zip(lanes) {
        let (first, second) = sums.split_at_mut(LANES);
        // SAFETY: each half holds sixteen numbers.
        unsafe {
            _mm512_storeu_ps(first.as_mut_ptr(), lanes[0]);
            _mm512_storeu_ps(second.as_mut_ptr(), lanes[1]);
        }
    }
}
