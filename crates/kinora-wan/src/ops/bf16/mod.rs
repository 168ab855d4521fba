//! Products of matrices whose numbers are rounded to bf16 and whose sums are kept in f32.
//!
//! Both sides are laid out in panels first: for each two neighbours along the depth, the numbers of all of the panel's rows
//! (left) or columns (right), so that one instruction multiplies two pairs for every column of a vector. A panel is padded
//! with zeros, so [`kernel`] knows no edges.
//! Always true: what is added up for a number of the answer, and in which order, does not hang on the number of threads.
//! Source: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

mod kernel;

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::simd::vectorised;
use crate::weights::Matrix;
pub(super) use kernel::{COLUMNS, ROWS, Tile};

/// Pairs along the depth that are multiplied at a time: a panel of each side stays in the first-level cache.
const DEPTH_PAIRS: usize = 256;
/// Columns of the right side that are laid out at a time: at this depth they stay in a second-level cache.
const SLAB_COLUMNS: usize = 16 * COLUMNS;
/// Rows of the answer that one task fills: few, so that threads end together; the laid-out columns stay where they are.
const BLOCK_ROWS: usize = 2 * ROWS;

/// Two neighbours along the depth, the first in the low half.
pub(super) type Pair = u32;

/// A side of a product in panels of `WIDTH` rows or columns: `[panels, pairs, WIDTH]`.
#[derive(Debug, Default)]
pub(super) struct Panels<const WIDTH: usize> {
    numbers: Vec<Pair>,
    pairs: usize,
}

impl<const WIDTH: usize> Panels<WIDTH> {
    /// Room for `count` rows or columns of `depth` numbers each; what was there is gone.
    pub(super) fn reset(&mut self, count: usize, depth: usize) {
        self.pairs = depth.div_ceil(2);
        self.numbers.clear();
        self.numbers.resize(count.div_ceil(WIDTH) * self.pairs * WIDTH, 0);
    }

    /// The pairs `pairs` of panel `index`.
    pub(super) fn panel(&self, index: usize, pairs: Range<usize>) -> &[Pair] {
        let start = index * self.pairs;
        &self.numbers[(start + pairs.start) * WIDTH..(start + pairs.end) * WIDTH]
    }

    fn panels_mut(&mut self) -> std::slice::ChunksExactMut<'_, Pair> {
        self.numbers.chunks_exact_mut(self.pairs * WIDTH)
    }

    /// Fills panels from rows `[count, depth]` of `numbers`, which lie `stride` apart, by the calling thread.
    pub(super) fn fill_rows(&mut self, numbers: &[f32], [count, depth]: [usize; 2], stride: usize) {
        self.reset(count, depth);
        for (index, panel) in self.panels_mut().enumerate() {
            for row in index * WIDTH..count.min((index + 1) * WIDTH) {
                pair_up(&numbers[row * stride..][..depth], &mut panel[row % WIDTH..], WIDTH);
            }
        }
    }

    /// Fills panels from columns: `numbers` holds `[depth, count]`, its rows `stride` apart.
    pub(super) fn fill_columns(&mut self, numbers: &[f32], [depth, count]: [usize; 2], stride: usize) {
        self.reset(count, depth);
        for (index, panel) in self.panels_mut().enumerate() {
            let columns = index * WIDTH..count.min((index + 1) * WIDTH);
            for (pair, into) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let row = |at: usize| (at < depth).then(|| &numbers[at * stride..][columns.clone()]);
                let (first, second) = (row(2 * pair).expect("a pair begins inside"), row(2 * pair + 1));
                for (column, into) in into.iter_mut().take(columns.len()).enumerate() {
                    *into = pair_of(first[column], second.map_or(0.0, |second| second[column]));
                }
            }
        }
    }
}

fn pair_of(first: f32, second: f32) -> Pair {
    Pair::from(round(first)) | Pair::from(round(second)) << 16
}

/// The bits of the nearest bf16, ties to even; branchless, so that loops over it become vectors.
#[inline(always)]
fn round(number: f32) -> u16 {
    let bits = number.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    // Rounding up could turn a NaN into an infinity.
    let nan = (bits >> 16) | 0x40;
    (if number.is_nan() { nan } else { nearest }) as u16
}

vectorised! {
    /// Rounds a row and writes its pairs, each `step` after the one before.
    fn pair_up(row: &[f32], into: &mut [Pair], step: usize) {
        let pairs = row.chunks_exact(2);
        let rest = pairs.remainder();
        let whole = pairs.len() * step;
        for (pair, into) in pairs.zip(into.iter_mut().step_by(step)) {
            *into = Pair::from(round(pair[0])) | Pair::from(round(pair[1])) << 16;
        }
        if let [last] = rest {
            into[whole] = Pair::from(round(*last));
        }
    }
}

/// `out += x Wᵀ` by all threads: x `[tokens, inputs]`, weight `[outputs, inputs]`, out `[tokens, outputs]`.
pub(super) fn add_product(out: &mut [f32], x: &[f32], weight: &Matrix) {
    let (outputs, inputs) = (weight.rows(), weight.columns());
    let left = left_panels(x, inputs);
    let pairs = inputs.div_ceil(2);
    let mut right = Panels::<COLUMNS>::default();
    for first in (0..outputs).step_by(SLAB_COLUMNS) {
        let columns = first..outputs.min(first + SLAB_COLUMNS);
        for start in (0..pairs).step_by(DEPTH_PAIRS) {
            let depth = start..pairs.min(start + DEPTH_PAIRS);
            lay_out_weight(&mut right, weight, columns.clone(), depth.clone());
            out.par_chunks_mut(BLOCK_ROWS * outputs).enumerate().for_each(|(block, out)| {
                let panels = block * (BLOCK_ROWS / ROWS)..;
                for (index, out) in panels.zip(out.chunks_mut(ROWS * outputs)) {
                    let left = left.panel(index, depth.clone());
                    add_panel(out, left, &right, columns.clone(), outputs);
                }
            });
        }
    }
}

/// Rows of x, `[tokens, inputs]`, in panels.
fn left_panels(x: &[f32], inputs: usize) -> Panels<ROWS> {
    let mut left = Panels::<ROWS>::default();
    left.reset(x.len() / inputs, inputs);
    let each = left.pairs * ROWS;
    left.numbers.par_chunks_exact_mut(each).zip(x.par_chunks(ROWS * inputs)).for_each(|(panel, rows)| {
        for (row, numbers) in rows.chunks_exact(inputs).enumerate() {
            pair_up(numbers, &mut panel[row..], ROWS);
        }
    });
    left
}

/// Rows `columns` of the weight at `depth` as columns in panels.
fn lay_out_weight(right: &mut Panels<COLUMNS>, weight: &Matrix, columns: Range<usize>, depth: Range<usize>) {
    let inputs = depth.start * 2..weight.columns().min(depth.end * 2);
    right.reset(columns.len(), inputs.len());
    let each = right.pairs * COLUMNS;
    right.numbers.par_chunks_exact_mut(each).enumerate().for_each_init(
        || vec![bf16::ZERO; inputs.len()],
        |row, (index, panel)| {
            let first = columns.start + index * COLUMNS;
            for (column, output) in (first..columns.end.min(first + COLUMNS)).enumerate() {
                let start = output * weight.columns();
                weight.narrow(start + inputs.start..start + inputs.end, row);
                for (pair, into) in row.chunks(2).zip(panel[column..].iter_mut().step_by(COLUMNS)) {
                    let second = pair.get(1).map_or(0, |second| second.to_bits());
                    *into = Pair::from(pair[0].to_bits()) | Pair::from(second) << 16;
                }
            }
        },
    );
}

/// Adds one panel of rows times all panels of `right` to the columns `columns` of `out` `[rows, outputs]`.
fn add_panel(out: &mut [f32], left: &[Pair], right: &Panels<COLUMNS>, columns: Range<usize>, outputs: usize) {
    let mut tile = Tile::default();
    for (index, first) in columns.clone().step_by(COLUMNS).enumerate() {
        tile.multiply(left, right.panel(index, 0..right.pairs));
        let width = COLUMNS.min(columns.end - first);
        for (row, out) in out.chunks_exact_mut(outputs).enumerate() {
            let sums = &tile.row(row)[..width];
            out[first..][..width].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
}

#[cfg(test)]
mod tests;
