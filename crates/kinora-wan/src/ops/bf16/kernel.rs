//! The inner loop: a panel of rows times a panel of columns, their sums in registers.
//!
//! On x86-64 with AVX-512 BF16 one instruction adds two products to each of 16 sums; elsewhere the same sums in the same
//! order, in plain code that the compiler turns into what vectors there are. The instruction counts numbers that are too
//! small to be normal as zero; nothing else differs.
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, `VDPBF16PS`.

#![allow(unsafe_code)]

use super::Pair;
use super::strip::{Before, Factors, Tile};
use crate::ops::simd::vectorised;

/// Rows of a left panel: with two vectors of columns their sums, 24 vectors, leave registers for what is multiplied.
pub(crate) const ROWS: usize = 12;
/// Columns of a right panel: two vectors.
pub(crate) const COLUMNS: usize = 32;

/// `[ROWS, COLUMNS]`
pub(super) type Sums = [f32; ROWS * COLUMNS];

/// Fills `tile` with `scale` times the factors' sums, added to `before`.
///
/// # Safety
/// The tile's numbers may be read and written, by nobody else meanwhile; a row before them has as many numbers.
pub(super) unsafe fn multiply(tile: Tile, factors: Factors<'_>, scale: f32, before: Before<'_>) {
    let Factors { left, right, .. } = factors;
    assert_eq!(left.len() / ROWS, right.len() / COLUMNS, "panels are as deep as each other");
    #[cfg(target_arch = "x86_64")]
    let whole = tile.size == [ROWS, COLUMNS];
    #[cfg(target_arch = "x86_64")]
    if whole && has_wide() {
        // SAFETY: the machine has the features that the function is compiled for; the tile is whole.
        return unsafe { wide::fill(tile, factors, scale, before) };
    }
    let mut sums = [0.0; ROWS * COLUMNS];
    sum(&mut sums, left, right);
    // SAFETY: as the caller promises.
    unsafe { fill(tile, &sums, scale, before) };
}

#[cfg(target_arch = "x86_64")]
fn has_wide() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// The sums of `left` `[pairs, ROWS]` by `right` `[pairs, COLUMNS]` alone.
pub(super) fn sum(sums: &mut Sums, left: &[Pair], right: &[Pair]) {
    #[cfg(target_arch = "x86_64")]
    if has_wide() {
        // SAFETY: the machine has the features that the function is compiled for.
        return unsafe { wide::store(sums, Factors { left, right, next: &[] }) };
    }
    sum_plain(sums, left, right);
}

/// # Safety
/// As [`multiply`].
unsafe fn fill(tile: Tile, sums: &Sums, scale: f32, before: Before<'_>) {
    let [rows, columns] = tile.size;
    for (row, sums) in sums.chunks_exact(COLUMNS).enumerate().take(rows) {
        // SAFETY: the tile has this row, of that many numbers.
        let out = unsafe { std::slice::from_raw_parts_mut(tile.start.add(row * tile.stride), columns) };
        match before {
            Before::Nothing => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = scale * sum),
            Before::Row(numbers) => {
                out.iter_mut()
                    .zip(sums)
                    .zip(numbers)
                    .for_each(|((out, sum), number)| *out = scale * sum + number);
            }
            Before::There => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += scale * sum),
        }
    }
}

vectorised! {
    pub(super) fn sum_plain(sums: &mut Sums, left: &[Pair], right: &[Pair]) {
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
mod wide {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::{Before, COLUMNS, Factors, ROWS, Sums, Tile};

    const LANES: usize = 16;
    const VECTORS: usize = COLUMNS / LANES;
    /// Pairs of the depth for which one line of the cache is fetched ahead: so few at a time that they never hold up what
    /// is read now.
    const STEPS_PER_LINE: usize = 4;

    #[inline(always)]
    fn pairs(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes of which every pattern is a value.
        unsafe { std::mem::transmute(bits) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn sum(Factors { left, right, next }: Factors<'_>) -> [[__m512; VECTORS]; ROWS] {
        let mut lanes = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        let steps = left.chunks_exact(ROWS).zip(right.chunks_exact(COLUMNS));
        for (step, (left, right)) in steps.enumerate() {
            if step % STEPS_PER_LINE == 0
                && let Some(pair) = next.get(step / STEPS_PER_LINE * LANES)
            {
                _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(pair).cast());
            }
            // SAFETY: the chunk holds two vectors of sixteen pairs.
            let columns = unsafe {
                [
                    _mm512_loadu_si512(right.as_ptr().cast()),
                    _mm512_loadu_si512(right.as_ptr().add(LANES).cast()),
                ]
            };
            for (lanes, pair) in lanes.iter_mut().zip(left) {
                let pair = pairs(_mm512_set1_epi32(pair.cast_signed()));
                for (lanes, columns) in lanes.iter_mut().zip(columns) {
                    *lanes = _mm512_dpbf16_ps(*lanes, pair, pairs(columns));
                }
            }
        }
        lanes
    }

    /// The sums alone.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn store(sums: &mut Sums, factors: Factors<'_>) {
        for (sums, lanes) in sums.chunks_exact_mut(LANES).zip(sum(factors).as_flattened()) {
            // SAFETY: the chunk holds sixteen numbers.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *lanes) };
        }
    }

    /// As `multiply`, for whole tiles.
    ///
    /// # Safety
    /// As there, and the tile has `ROWS` by `COLUMNS` numbers.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn fill(tile: Tile, factors: Factors<'_>, scale: f32, before: Before<'_>) {
        let scale = _mm512_set1_ps(scale);
        for (row, lanes) in sum(factors).iter().enumerate() {
            for (vector, &sums) in lanes.iter().enumerate() {
                // SAFETY: rows, columns and the row before them are whole, as promised.
                unsafe {
                    let out = tile.start.add(row * tile.stride + vector * LANES);
                    let numbers = match before {
                        Before::Nothing => _mm512_mul_ps(sums, scale),
                        Before::Row(row) => {
                            _mm512_fmadd_ps(sums, scale, _mm512_loadu_ps(row.as_ptr().add(vector * LANES)))
                        }
                        Before::There => _mm512_fmadd_ps(sums, scale, _mm512_loadu_ps(out)),
                    };
                    _mm512_storeu_ps(out, numbers);
                }
            }
        }
    }
}
