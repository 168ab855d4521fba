//! The attention of `attention.rs` with its products in bf16: keys and values are laid out once for all tiles of queries.

use rayon::prelude::*;

use super::attention::{Inputs, KEYS, RunningSoftmax, Shape, tile_queries};
use super::bf16::{Before, COLUMNS, Factors, Panels, ROWS, Strip};
use super::slices::zeros;

// Blocks of keys are whole panels, and whole pairs of values.
const _: () = assert!(KEYS.is_multiple_of(COLUMNS) && KEYS.is_multiple_of(2));

/// As `attention::tiled`; queries, keys, values and the powers of scores are rounded to bf16, sums are not.
pub(super) fn tiled(inputs: Inputs<'_>, shape: Shape) -> Vec<f32> {
    let Shape { tokens, keys, width, head_width } = shape;
    let heads: Vec<Head> = (0..width / head_width)
        .into_par_iter()
        .map(|head| {
            let from = head * head_width;
            let mut laid_out = Head::default();
            laid_out.keys.fill_rows(&inputs.k[from..], [keys, head_width], width);
            laid_out.values.fill_columns(&inputs.v[from..], [keys, head_width], width);
            laid_out
        })
        .collect();
    let mut out = zeros(tokens * width);
    let tile_numbers = tile_queries(tokens) * width;
    out.par_chunks_mut(tile_numbers).enumerate().for_each_init(Scratch::default, |scratch, (tile, out)| {
        let q = &inputs.q[tile * tile_numbers..][..out.len()];
        for (head, laid_out) in heads.iter().enumerate() {
            scratch.head(out, q, laid_out, head * head_width, shape);
        }
    });
    out
}

/// Keys as columns over a head's width, values as columns over keys.
#[derive(Debug, Default)]
struct Head {
    keys: Panels<COLUMNS>,
    values: Panels<COLUMNS>,
}

#[derive(Debug, Default)]
struct Scratch {
    queries: Panels<ROWS>,
    powers: Panels<ROWS>,
    /// `[queries, KEYS]`.
    scores: Vec<f32>,
    softmax: RunningSoftmax,
}

impl Scratch {
    /// One head of one tile: columns `from..from + head_width` of `out`, `[queries, width]` like `q`.
    fn head(&mut self, out: &mut [f32], q: &[f32], head: &Head, from: usize, shape: Shape) {
        let Shape { keys, width, head_width, .. } = shape;
        let queries = q.len() / width;
        self.queries.fill_rows(&q[from..], [queries, head_width], width);
        self.softmax.begin(queries);
        for first in (0..keys).step_by(KEYS) {
            let block = KEYS.min(keys - first);
            self.score(head, first, [queries, block], head_width);
            self.softmax.step(&mut self.scores, block);
            self.softmax.shrink(out, from, [width, head_width]);
            self.powers.fill_rows(&self.scores, [queries, block], block);
            self.read(out, head, first, [block, from], shape);
        }
        self.softmax.finish(out, from, [width, head_width]);
    }

    /// Scores `[queries, block]` of the keys from `first` on.
    fn score(&mut self, head: &Head, first: usize, [queries, block]: [usize; 2], head_width: usize) {
        let scale = 1.0 / (head_width as f32).sqrt();
        let pairs = 0..head_width.div_ceil(2);
        self.scores.resize(queries * block, 0.0);
        let mut scores = Strip::of(&mut self.scores, block, 0..block);
        for (index, row) in (0..queries).step_by(ROWS).enumerate() {
            let left = self.queries.panel(index, pairs.clone());
            for column in (0..block).step_by(COLUMNS) {
                let right = head.keys.panel((first + column) / COLUMNS, pairs.clone());
                let factors = Factors { left, right, next: &[] };
                scores.multiply([row, column], factors, scale, Before::Nothing);
            }
        }
    }

    /// Adds the values of `block` keys from `first` on, each as often as its power says.
    fn read(&mut self, out: &mut [f32], head: &Head, first: usize, [block, from]: [usize; 2], shape: Shape) {
        let Shape { width, head_width, .. } = shape;
        let pairs = block.div_ceil(2);
        let mut out = Strip::of(out, width, from..from + head_width);
        for (index, row) in (0..out.rows()).step_by(ROWS).enumerate() {
            let left = self.powers.panel(index, 0..pairs);
            for (panel, column) in (0..head_width).step_by(COLUMNS).enumerate() {
                let right = head.values.panel(panel, first / 2..first / 2 + pairs);
                out.multiply([row, column], Factors { left, right, next: &[] }, 1.0, Before::There);
            }
        }
    }
}
