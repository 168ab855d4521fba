//! Products of matrices whose numbers are rounded to bf16 and whose sums are kept in f32.
//!
//! Both sides are laid out in panels first: for each two neighbours along the depth, the numbers of all of the panel's rows
//! (left) or columns (right), so that one instruction multiplies two pairs for every column of a vector. A panel is padded
//! with zeros, so the inner loop knows no edges.
//! A task fills a strip of columns of the answer: it lays out its own part of the weight, which stays in its core's
//! second-level cache while all rows pass by, so that no thread waits for another within a product.
//! Always true: what is added up for a number of the answer, and in which order, does not hang on the number of threads.
//! Source: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

mod kernel;
mod layout;
mod strip;

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::slices::zeros;
use crate::weights::{Matrix, Numbers};
pub(super) use kernel::{COLUMNS, ROWS};
use layout::{Room, Rows, pair_rows, round_row};
pub(super) use strip::{Before, Factors, Strip};

/// Pairs along the depth that are multiplied at a time: a panel of rows stays in the first-level cache.
const DEPTH_PAIRS: usize = 512;
/// Columns of a strip at most: at this depth they stay in a second-level cache.
const STRIP_COLUMNS: usize = 8 * COLUMNS;
/// Strips for each thread at least, where there are columns enough: so that threads end together.
const STRIPS_PER_THREAD: usize = 4;
/// Rows that are laid out at a time: so many that laying out the weight for them costs nothing beside the product.
const BAND_ROWS: usize = 2048;

/// Two neighbours along the depth, the first in the low half.
pub(super) type Pair = u32;

fn pair_of(first: bf16, second: bf16) -> Pair {
    Pair::from(first.to_bits()) | Pair::from(second.to_bits()) << 16
}

/// A side of a product in panels of `WIDTH` rows or columns: `[panels, pairs, WIDTH]`.
#[derive(Debug, Default)]
pub(super) struct Panels<const WIDTH: usize> {
    numbers: Vec<Pair>,
    pairs: usize,
    room: Room,
}

impl<const WIDTH: usize> Panels<WIDTH> {
    /// Room for `count` rows or columns of `depth` numbers each; what was there is of no meaning any more.
    fn reset(&mut self, count: usize, depth: usize) {
        self.pairs = depth.div_ceil(2);
        self.numbers.resize(count.div_ceil(WIDTH) * self.pairs * WIDTH, 0);
    }

    /// The pairs `pairs` of panel `index`.
    pub(super) fn panel(&self, index: usize, pairs: Range<usize>) -> &[Pair] {
        let start = index * self.pairs;
        &self.numbers[(start + pairs.start) * WIDTH..(start + pairs.end) * WIDTH]
    }

    /// Fills panels from rows `[count, depth]` of `numbers`, which lie `stride` apart, by the calling thread.
    pub(super) fn fill_rows(&mut self, numbers: &[f32], [count, depth]: [usize; 2], stride: usize) {
        self.reset(count, depth);
        self.room.reset(WIDTH, depth);
        for (index, panel) in self.numbers.chunks_exact_mut(self.pairs * WIDTH).enumerate() {
            let rows = index * WIDTH..count.min((index + 1) * WIDTH);
            for (at, row) in rows.clone().enumerate() {
                round_row(&numbers[row * stride..][..depth], self.room.row(at));
            }
            self.room.clear_from(rows.len());
            self.room.rows().interleave::<WIDTH>(panel);
        }
    }

    /// Fills panels from the rows `rows` of `weight` at `depth`, by the calling thread.
    fn fill_weight(&mut self, weight: &Matrix, rows: Range<usize>, depth: Range<usize>) {
        let columns = weight.columns();
        let start = |row: usize| row * columns + depth.start;
        self.reset(rows.len(), depth.len());
        self.room.reset(WIDTH, depth.len());
        for (index, panel) in self.numbers.chunks_exact_mut(self.pairs * WIDTH).enumerate() {
            let first = rows.start + index * WIDTH;
            let rows = first..rows.end.min(first + WIDTH);
            let whole = rows.len() == WIDTH;
            if let (true, Numbers::Bf16(all)) = (whole, weight.numbers())
                && let Some(rows) = Rows::in_place(&all[start(first)..], columns, depth.len())
            {
                rows.interleave::<WIDTH>(panel);
                continue;
            }
            for (at, row) in rows.clone().enumerate() {
                weight.narrow(start(row)..start(row) + depth.len(), self.room.row(at));
            }
            self.room.clear_from(rows.len());
            self.room.rows().interleave::<WIDTH>(panel);
        }
    }

    /// Fills panels from columns: `numbers` holds `[depth, count]`, its rows `stride` apart.
    pub(super) fn fill_columns(&mut self, numbers: &[f32], [depth, count]: [usize; 2], stride: usize) {
        self.reset(count, depth);
        for (index, panel) in self.numbers.chunks_exact_mut(self.pairs * WIDTH).enumerate() {
            let columns = index * WIDTH..count.min((index + 1) * WIDTH);
            let below = [0.0; WIDTH];
            for (pair, into) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let row = |at: usize| (at < depth).then(|| &numbers[at * stride..][columns.clone()]);
                let first = row(2 * pair).expect("a pair begins inside");
                let (into, padding) = into.split_at_mut(columns.len());
                pair_rows(first, row(2 * pair + 1).unwrap_or(&below), into);
                padding.fill(0);
            }
        }
    }
}

/// `x Wᵀ + bias` by all threads: x `[tokens, inputs]`, weight `[outputs, inputs]`, answer `[tokens, outputs]`.
pub(super) fn product(x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let (outputs, inputs) = (weight.rows(), weight.columns());
    let mut out = zeros(x.len() / inputs * outputs);
    let width = strip_columns(outputs, rayon::current_num_threads());
    let mut left = Panels::<ROWS>::default();
    for (x, out) in x.chunks(BAND_ROWS * inputs).zip(out.chunks_mut(BAND_ROWS * outputs)) {
        lay_out_rows(&mut left, x, inputs);
        Strip::split(out, outputs, width).into_par_iter().enumerate().for_each_init(
            Panels::<COLUMNS>::default,
            |right, (index, mut strip)| {
                let first = index * width;
                let bias = bias.map(|bias| &bias[first..]);
                fill_strip(&mut strip, &left, (weight, first, right), bias);
            },
        );
    }
    out
}

/// Columns of a strip, of whole panels: many, but few enough that every thread has something to do until the end.
fn strip_columns(outputs: usize, threads: usize) -> usize {
    let each = outputs / (threads * STRIPS_PER_THREAD);
    (each / COLUMNS * COLUMNS).clamp(COLUMNS, STRIP_COLUMNS)
}

/// Rows of x, `[tokens, inputs]`, in panels, by all threads.
fn lay_out_rows(left: &mut Panels<ROWS>, x: &[f32], inputs: usize) {
    left.reset(x.len() / inputs, inputs);
    let panels = left.numbers.par_chunks_exact_mut(left.pairs * ROWS);
    panels.zip(x.par_chunks(ROWS * inputs)).for_each_init(Room::default, |room, (panel, x)| {
        room.reset(ROWS, inputs);
        let rows = x.chunks_exact(inputs);
        room.clear_from(rows.len());
        for (index, numbers) in rows.enumerate() {
            round_row(numbers, room.row(index));
        }
        room.rows().interleave::<ROWS>(panel);
    });
}

/// Fills the strip from column `first` on: all rows of `left` times the weight's rows, which are laid out in `right`.
fn fill_strip(
    strip: &mut Strip<'_>,
    left: &Panels<ROWS>,
    (weight, first, right): (&Matrix, usize, &mut Panels<COLUMNS>),
    bias: Option<&[f32]>,
) {
    let (panels, tiles) = (strip.rows().div_ceil(ROWS), strip.columns().div_ceil(COLUMNS));
    for start in (0..left.pairs).step_by(DEPTH_PAIRS) {
        let depth = start..left.pairs.min(start + DEPTH_PAIRS);
        let inputs = 2 * depth.start..weight.columns().min(2 * depth.end);
        right.fill_weight(weight, first..first + strip.columns(), inputs);
        for (panel, row) in (0..strip.rows()).step_by(ROWS).enumerate() {
            let after = (panel + 1 < panels).then(|| left.panel(panel + 1, depth.clone()));
            // Each tile of this panel fetches its share of the one after it.
            let mut shares = after.unwrap_or_default().chunks(ROWS * depth.len().div_ceil(tiles));
            let left = left.panel(panel, depth.clone());
            for (panel, column) in (0..strip.columns()).step_by(COLUMNS).enumerate() {
                let before = match bias {
                    _ if start > 0 => Before::There,
                    Some(bias) => Before::Row(&bias[column..]),
                    None => Before::Nothing,
                };
                let next = shares.next().unwrap_or_default();
                let factors = Factors { left, right: right.panel(panel, 0..right.pairs), next };
                strip.multiply([row, column], factors, 1.0, before);
            }
        }
    }
}

#[cfg(test)]
mod tests;
