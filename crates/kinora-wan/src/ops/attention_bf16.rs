//! The attention of `attention.rs` with its products in bf16: keys and values are laid out once for all tiles of queries.

use rayon::prelude::*;

use super::attention::{Inputs, QUERIES, RunningSoftmax, Shape};
use super::bf16::{COLUMNS, Panels, ROWS, Tile};

/// Keys in a block, of whole panels.
const KEYS: usize = 512;

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
    let mut out = vec![0.0; tokens * width];
    out.par_chunks_mut(QUERIES * width).enumerate().for_each_init(
        Scratch::default,
        |scratch, (tile, out)| {
            let q = &inputs.q[tile * QUERIES * width..][..out.len()];
            for (head, laid_out) in heads.iter().enumerate() {
                scratch.head(out, q, laid_out, head * head_width, shape);
            }
        },
    );
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
    /// `[QUERIES, KEYS]`.
    scores: Vec<f32>,
    softmax: RunningSoftmax,
    tile: Tile,
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
        for (index, rows) in self.scores.chunks_mut(ROWS * block).enumerate() {
            let left = self.queries.panel(index, pairs.clone());
            for start in (0..block).step_by(COLUMNS) {
                self.tile.multiply(left, head.keys.panel((first + start) / COLUMNS, pairs.clone()));
                for (row, scores) in rows.chunks_exact_mut(block).enumerate() {
                    let scores = scores[start..].iter_mut().zip(self.tile.row(row));
                    scores.for_each(|(score, sum)| *score = sum * scale);
                }
            }
        }
    }

    /// Adds the values of `block` keys from `first` on, each as often as its power says.
    fn read(&mut self, out: &mut [f32], head: &Head, first: usize, [block, from]: [usize; 2], shape: Shape) {
        let Shape { width, head_width, .. } = shape;
        let pairs = block.div_ceil(2);
        for (index, rows) in out.chunks_mut(ROWS * width).enumerate() {
            let left = self.powers.panel(index, 0..pairs);
            for (panel, start) in (0..head_width).step_by(COLUMNS).enumerate() {
                let values = head.values.panel(panel, first / 2..first / 2 + pairs);
                self.tile.multiply(left, values);
                let columns = COLUMNS.min(head_width - start);
                for (row, out) in rows.chunks_exact_mut(width).enumerate() {
                    let out = out[from + start..][..columns].iter_mut().zip(self.tile.row(row));
                    out.for_each(|(out, sum)| *out += sum);
                }
            }
        }
    }
}
