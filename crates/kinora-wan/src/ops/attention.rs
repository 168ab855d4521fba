//! Attention that never holds all scores: tiles of queries pass over blocks of keys with a running softmax.
//!
//! Source: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al., "FlashAttention"
//! (2022).

use candle_core::Tensor;
use rayon::prelude::*;

use super::Products;
use super::attention_bf16;
use super::bf16::ROWS;
use super::matmul::{Mat, MatMut, Threads, multiply_add};
use super::simd::{exp, vectorised};
use super::slices::{from_f32, with_f32, zeros};
use crate::WanError;

/// Queries in a tile at most and keys in a block: their scores, and the tile's result, stay in a second-level cache, and
/// what laying out a block's keys costs is shared by many queries.
const QUERIES: usize = 384;
pub(super) const KEYS: usize = 256;

/// [`super::Ops::attention`] on the CPU.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    products: Products,
) -> Result<Tensor, WanError> {
    let ((tokens, width), (keys, _)) = (q.dims2()?, k.dims2()?);
    let shape = Shape { tokens, keys, width, head_width: width / heads };
    let tiled = match products {
        Products::F32 => tiled,
        Products::Bf16 => attention_bf16::tiled,
    };
    let out = with_f32(q, |q| with_f32(k, |k| with_f32(v, |v| tiled(Inputs { q, k, v }, shape))))???;
    Ok(from_f32(out, (tokens, width))?)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub tokens: usize,
    pub keys: usize,
    pub width: usize,
    pub head_width: usize,
}

/// Queries, all of them or those of a tile, and all keys and values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
}

/// Queries of a tile: whole panels of them, and so many tiles that all threads end together.
pub(super) fn tile_queries(tokens: usize) -> usize {
    let threads = rayon::current_num_threads();
    let tiles = tokens.div_ceil(QUERIES).next_multiple_of(threads);
    tokens.div_ceil(tiles).next_multiple_of(ROWS)
}

fn tiled(Inputs { q, k, v }: Inputs<'_>, shape: Shape) -> Vec<f32> {
    let Shape { tokens, width, head_width, .. } = shape;
    let mut out = zeros(tokens * width);
    let tile_numbers = tile_queries(tokens) * width;
    out.par_chunks_mut(tile_numbers).enumerate().for_each_init(Scratch::default, |scratch, (tile, out)| {
        let q = &q[tile * tile_numbers..][..out.len()];
        for head in 0..width / head_width {
            scratch.head(out, Inputs { q, k, v }, head * head_width, shape);
        }
    });
    out
}

/// What one tile of queries needs room for.
#[derive(Debug, Default)]
struct Scratch {
    /// `[queries, KEYS]`: scores of the current block, then their powers.
    scores: Vec<f32>,
    softmax: RunningSoftmax,
}

/// A softmax over keys that come block by block.
#[derive(Debug, Default)]
pub(super) struct RunningSoftmax {
    /// For each query: the largest score so far, and the sum of powers relative to it.
    largest: Vec<f32>,
    sums: Vec<f32>,
    /// For each query: what the sums so far shrink by as a larger score appears.
    shrink: Vec<f32>,
}

impl RunningSoftmax {
    pub(super) fn begin(&mut self, queries: usize) {
        for (room, start) in
            [(&mut self.largest, f32::NEG_INFINITY), (&mut self.sums, 0.0), (&mut self.shrink, 0.0)]
        {
            room.clear();
            room.resize(queries, start);
        }
    }

    /// Turns scores `[queries, block]` into powers.
    pub(super) fn step(&mut self, scores: &mut [f32], block: usize) {
        running_softmax(scores, block, &mut self.largest, &mut self.sums, &mut self.shrink);
    }

    /// Shrinks what was added so far: columns `from..from + head_width` of `out` `[queries, width]`.
    pub(super) fn shrink(&self, out: &mut [f32], from: usize, [width, head_width]: [usize; 2]) {
        for (row, &shrink) in out.chunks_mut(width).zip(&self.shrink) {
            row[from..from + head_width].iter_mut().for_each(|number| *number *= shrink);
        }
    }

    /// Divides by the sums of powers.
    pub(super) fn finish(&self, out: &mut [f32], from: usize, [width, head_width]: [usize; 2]) {
        for (row, &sum) in out.chunks_mut(width).zip(&self.sums) {
            let factor = 1.0 / sum;
            row[from..from + head_width].iter_mut().for_each(|number| *number *= factor);
        }
    }
}

impl Scratch {
    /// One head of one tile: columns `from..from + head_width` of `out`, `[queries, width]` like `q`.
    fn head(&mut self, out: &mut [f32], Inputs { q, k, v }: Inputs<'_>, from: usize, shape: Shape) {
        let Shape { keys, width, head_width, .. } = shape;
        let queries = q.len() / width;
        let scale = 1.0 / (head_width as f32).sqrt();
        self.scores.resize(queries * KEYS, 0.0);
        self.softmax.begin(queries);
        let q = Mat::rows(&q[from..], queries, head_width, width);
        for first in (0..keys).step_by(KEYS) {
            let block = KEYS.min(keys - first);
            let of = |all: &'_ [f32]| first * width + from..all.len();
            let k = Mat::rows(&k[of(k)], block, head_width, width);
            let v = Mat::rows(&v[of(v)], block, head_width, width);
            let scores = &mut self.scores[..queries * block];
            let mut into = MatMut { numbers: scores, rows: queries, columns: block, row_stride: block };
            multiply_add(&mut into, 0.0, q, k.transposed(), scale, Threads::One);
            self.softmax.step(scores, block);
            self.softmax.shrink(out, from, [width, head_width]);
            let powers = Mat::rows(scores, queries, block, block);
            let numbers = &mut out[from..];
            let mut into = MatMut { numbers, rows: queries, columns: head_width, row_stride: width };
            multiply_add(&mut into, 1.0, powers, v, 1.0, Threads::One);
        }
        self.softmax.finish(out, from, [width, head_width]);
    }
}

vectorised! {
    /// Turns scores `[queries, block]` into powers relative to each row's largest score so far, and keeps the sums.
    fn running_softmax(scores: &mut [f32], block: usize, largest: &mut [f32], sums: &mut [f32], shrink: &mut [f32]) {
        let state = largest.iter_mut().zip(sums).zip(shrink);
        for (row, ((largest, sum), shrink)) in scores.chunks_exact_mut(block).zip(state) {
            let top = lanes(row, *largest, f32::max, |lane, number| if number > lane { number } else { lane });
            *shrink = exp(*largest - top);
            *largest = top;
            for number in row.iter_mut() {
                *number = exp(*number - top);
            }
            *sum = *sum * *shrink + lanes(row, 0.0, |a, b| a + b, |lane, number| lane + number);
        }
    }
}

/// Folds a row in sixteen lanes side by side, which vectors can do and a plain fold of f32 cannot.
#[inline(always)]
fn lanes(row: &[f32], start: f32, join: fn(f32, f32) -> f32, step: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &number) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, number);
        }
    }
    for (lane, &number) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, number);
    }
    lanes.into_iter().fold(start, join)
}
