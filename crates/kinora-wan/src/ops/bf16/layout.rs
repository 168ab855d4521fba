//! From numbers row by row to pairs panel by panel: rounding, and the transposition in between.

#![allow(unsafe_code)]

use half::bf16;

use super::{Pair, pair_of};
use crate::ops::simd::vectorised;

/// Numbers that a vector of pairs holds: rows to be interleaved are padded to a multiple.
const VECTOR_NUMBERS: usize = 32;

/// The bits of the nearest bf16, ties to even; branchless, so that loops over it become vectors.
#[inline(always)]
pub(super) fn round(number: f32) -> u16 {
    let bits = number.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    // Rounding up could turn a NaN into an infinity.
    let nan = (bits >> 16) | 0x40;
    (if number.is_nan() { nan } else { nearest }) as u16
}

vectorised! {
    /// Rounds a row.
    pub(super) fn round_row(row: &[f32], into: &mut [bf16]) {
        for (number, into) in row.iter().zip(into) {
            *into = bf16::from_bits(round(*number));
        }
    }
}

vectorised! {
    /// Rounds two rows, one below the other, to pairs along the columns' depth.
    pub(super) fn pair_rows(first: &[f32], second: &[f32], into: &mut [Pair]) {
        for ((first, second), into) in first.iter().zip(second).zip(into) {
            *into = Pair::from(round(*first)) | Pair::from(round(*second)) << 16;
        }
    }
}

/// Room for rows in bf16, each followed by zeros up to whole vectors: what is about to become a panel.
#[derive(Debug, Default)]
pub(super) struct Room {
    numbers: Vec<bf16>,
    stride: usize,
    depth: usize,
}

impl Room {
    /// Room for `count` rows of `depth` numbers; what stands in them is of no meaning.
    pub(super) fn reset(&mut self, count: usize, depth: usize) {
        self.depth = depth;
        self.stride = depth.next_multiple_of(VECTOR_NUMBERS);
        self.numbers.resize(count * self.stride, bf16::ZERO);
        for row in self.numbers.chunks_exact_mut(self.stride) {
            row[depth..].fill(bf16::ZERO);
        }
    }

    /// The numbers of row `index`.
    pub(super) fn row(&mut self, index: usize) -> &mut [bf16] {
        &mut self.numbers[index * self.stride..][..self.depth]
    }

    /// Fills the rows from `first` on with zeros.
    pub(super) fn clear_from(&mut self, first: usize) {
        self.numbers[first * self.stride..].fill(bf16::ZERO);
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { numbers: &self.numbers, stride: self.stride, depth: self.stride }
    }
}

/// Rows of `depth` numbers, `stride` apart; the depth is one of whole vectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    numbers: &'a [bf16],
    stride: usize,
    depth: usize,
}

impl<'a> Rows<'a> {
    /// The rows where they lie, if they have whole vectors.
    pub(super) fn in_place(numbers: &'a [bf16], stride: usize, depth: usize) -> Option<Self> {
        depth.is_multiple_of(VECTOR_NUMBERS).then_some(Self { numbers, stride, depth })
    }

    /// Writes the pairs of `WIDTH` rows to `panel`, `[pairs, WIDTH]`.
    pub(super) fn interleave<const WIDTH: usize>(self, panel: &mut [Pair]) {
        let pairs = panel.len() / WIDTH;
        let reach = (WIDTH - 1) * self.stride + self.depth;
        assert!(2 * pairs <= self.depth && reach <= self.numbers.len(), "the rows fill the panel");
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has the feature that the function is compiled for.
            return unsafe { interleave_wide::<WIDTH>(self, panel) };
        }
        self.interleave_plain::<WIDTH>(panel);
    }

    pub(super) fn interleave_plain<const WIDTH: usize>(self, panel: &mut [Pair]) {
        for (row, numbers) in self.numbers.chunks(self.stride).take(WIDTH).enumerate() {
            for (pair, into) in
                numbers[..self.depth].chunks_exact(2).zip(panel[row..].iter_mut().step_by(WIDTH))
            {
                *into = pair_of(pair[0], pair[1]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn interleave_wide<const WIDTH: usize>(rows: Rows<'_>, panel: &mut [Pair]) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_setzero_si512};
    const LANES: usize = 16;

    for (index, panel) in panel.chunks_mut(LANES * WIDTH).enumerate() {
        for first_row in (0..WIDTH).step_by(LANES) {
            let count = LANES.min(WIDTH - first_row);
            let mut block = [_mm512_setzero_si512(); LANES];
            for (row, vector) in block.iter_mut().enumerate().take(count) {
                let start = (first_row + row) * rows.stride + index * VECTOR_NUMBERS;
                let numbers = &rows.numbers[start..start + VECTOR_NUMBERS];
                // SAFETY: the slice holds as many bytes as a vector.
                *vector = unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) };
            }
            let mask = u16::MAX >> (LANES - count);
            for (vector, pairs) in transposed(block).into_iter().zip(panel.chunks_exact_mut(WIDTH)) {
                let pairs = &mut pairs[first_row..first_row + count];
                // SAFETY: the mask lets as many lanes be written as the slice holds.
                unsafe { _mm512_mask_storeu_epi32(pairs.as_mut_ptr().cast(), mask, vector) };
            }
        }
    }
}

/// Sixteen rows of sixteen 32-bit lanes to sixteen columns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [std::arch::x86_64::__m512i; 16]) -> [std::arch::x86_64::__m512i; 16] {
    use std::arch::x86_64::{
        _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
        _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };
    // Four rows at a time: in each quarter of vector `4 i + j` then stand rows `4 i..4 i + 4` of the quarter's column `j`.
    let mut fours = [_mm512_setzero_si512(); 16];
    for (rows, into) in rows.chunks_exact(4).zip(fours.chunks_exact_mut(4)) {
        let (low, high) = (_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
        let (low_2, high_2) =
            (_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
        into[0] = _mm512_unpacklo_epi64(low, low_2);
        into[1] = _mm512_unpackhi_epi64(low, low_2);
        into[2] = _mm512_unpacklo_epi64(high, high_2);
        into[3] = _mm512_unpackhi_epi64(high, high_2);
    }
    // Then the quarters themselves are transposed.
    let mut columns = [_mm512_setzero_si512(); 16];
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
        columns[j] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        columns[4 + j] = _mm512_shuffle_i32x4::<0xDD>(ab, cd);
        let (ab, cd) = (_mm512_shuffle_i32x4::<0xEE>(a, b), _mm512_shuffle_i32x4::<0xEE>(c, d));
        columns[8 + j] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        columns[12 + j] = _mm512_shuffle_i32x4::<0xDD>(ab, cd);
    }
    columns
}
