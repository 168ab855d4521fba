//! What stands out: patches that hardly connect to the picture's border and differ from what does.
//!
//! Always true: saliency lies in 0..1.
//! Source: Zhu, Liang, Wei, Sun, "Saliency optimization from robust background detection", CVPR 2014;
//! its constants, in Lab units and picture sides.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::map::percentile_of;
use super::superpixels::{Superpixels, squared_distance};

/// Geodesic distance at which two patches stop counting as one region.
const REGION_SIGMA: f32 = 10.0;
const CONTRAST_PLACE_SIGMA: f32 = 0.4;
const SMOOTHNESS_FLOOR: f32 = 0.1;
const BACKGROUND_WEIGHT: f32 = 5.0;

/// Saliency of each patch.
pub(crate) fn saliency(patches: &Superpixels) -> Vec<f32> {
    let background = background_probability(patches);
    let contrast = normalised(weighted_contrast(patches, &background));
    normalised(optimised(patches, &background, &contrast))
}

/// Probability of each patch to be background: how much of its region's rim lies on the picture's border.
fn background_probability(patches: &Superpixels) -> Vec<f32> {
    let graph = geodesic_graph(patches);
    (0..patches.count())
        .into_par_iter()
        .map(|source| {
            let distances = shortest_paths(&graph, source);
            let (mut area, mut border) = (0.0f32, 0.0f32);
            for (d, &on_border) in distances.iter().zip(&patches.on_border) {
                let same = (-d * d / (2.0 * REGION_SIGMA * REGION_SIGMA)).exp();
                area += same;
                border += if on_border { same } else { 0.0 };
            }
            let connectivity = border / area.max(1e-6).sqrt();
            1.0 - (-connectivity * connectivity / 2.0).exp()
        })
        .collect()
}

/// Neighbours with their colour distance, all border patches being neighbours of each other.
fn geodesic_graph(patches: &Superpixels) -> Vec<Vec<(u32, f32)>> {
    let border: Vec<u32> = (0..patches.count() as u32).filter(|&i| patches.on_border[i as usize]).collect();
    let mut edges = patches.edges.clone();
    for (k, &a) in border.iter().enumerate() {
        edges.extend(border[k + 1..].iter().map(|&b| (a, b)));
    }
    let color = |i: u32| patches.colors[i as usize];
    let lengths: Vec<f32> = edges.iter().map(|&(a, b)| squared_distance(color(a), color(b)).sqrt()).collect();
    // Small steps along smooth gradients must not add up.
    let mut touching = lengths[..patches.edges.len()].to_vec();
    let free = percentile_of(&mut touching, 0.1).unwrap_or(0.0);
    let mut graph = vec![Vec::new(); patches.count()];
    for (&(a, b), length) in edges.iter().zip(lengths) {
        let length = (length - free).max(1e-3);
        graph[a as usize].push((b, length));
        graph[b as usize].push((a, length));
    }
    graph
}

/// Dijkstra; positive floats order like their bits.
fn shortest_paths(graph: &[Vec<(u32, f32)>], source: usize) -> Vec<f32> {
    let mut distances = vec![f32::INFINITY; graph.len()];
    distances[source] = 0.0;
    let mut open = BinaryHeap::from([Reverse((0u32, source as u32))]);
    while let Some(Reverse((bits, node))) = open.pop() {
        let d = f32::from_bits(bits);
        if d > distances[node as usize] {
            continue;
        }
        for &(next, length) in &graph[node as usize] {
            let through = d + length;
            if through < distances[next as usize] {
                distances[next as usize] = through;
                open.push(Reverse((through.to_bits(), next)));
            }
        }
    }
    distances
}

fn weighted_contrast(patches: &Superpixels, background: &[f32]) -> Vec<f32> {
    let n = patches.count();
    (0..n)
        .into_par_iter()
        .map(|i| {
            (0..n)
                .map(|j| {
                    let (p, q) = (patches.places[i], patches.places[j]);
                    let apart = (p[0] - q[0]).powi(2) + (p[1] - q[1]).powi(2);
                    let near = (-apart / (2.0 * CONTRAST_PLACE_SIGMA * CONTRAST_PLACE_SIGMA)).exp();
                    squared_distance(patches.colors[i], patches.colors[j]).sqrt() * near * background[j]
                })
                .sum()
        })
        .collect()
}

/// The least-squares labelling between "contrast says 1", "background says 0" and smoothness.
fn optimised(patches: &Superpixels, background: &[f32], contrast: &[f32]) -> Vec<f32> {
    let n = patches.count();
    let mut matrix = vec![0.0f64; n * n];
    for i in 0..n {
        let wall = if background[i] > 0.1 { background[i] * BACKGROUND_WEIGHT } else { 0.0 };
        matrix[i * n + i] = f64::from(contrast[i] + wall) + 1e-6;
    }
    for &(a, b) in &patches.edges {
        let (a, b) = (a as usize, b as usize);
        let d = squared_distance(patches.colors[a], patches.colors[b]);
        let weight = f64::from((-d / (2.0 * REGION_SIGMA * REGION_SIGMA)).exp() + SMOOTHNESS_FLOOR);
        matrix[a * n + a] += weight;
        matrix[b * n + b] += weight;
        matrix[a * n + b] -= weight;
        matrix[b * n + a] -= weight;
    }
    let right: Vec<f64> = contrast.iter().map(|&c| f64::from(c)).collect();
    solve_spd(matrix, right).iter().map(|&v| v as f32).collect()
}

/// Solves a symmetric positive definite system by Cholesky's factorisation.
fn solve_spd(mut m: Vec<f64>, mut x: Vec<f64>) -> Vec<f64> {
    let n = x.len();
    for j in 0..n {
        for k in j..n {
            let (row_k, row_j) = (k * n, j * n);
            let dot: f64 = m[row_k..row_k + j].iter().zip(&m[row_j..row_j + j]).map(|(a, b)| a * b).sum();
            let rest = m[row_k + j] - dot;
            m[row_k + j] = if k == j { rest.max(1e-12).sqrt() } else { rest / m[row_j + j] };
        }
    }
    for i in 0..n {
        let dot: f64 = m[i * n..i * n + i].iter().zip(&x).map(|(a, b)| a * b).sum();
        x[i] = (x[i] - dot) / m[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| m[k * n + i] * x[k]).sum();
        x[i] = (x[i] - dot) / m[i * n + i];
    }
    x
}

/// Stretched to 0..1; all 0 where there is nothing to stretch.
fn normalised(mut values: Vec<f32>) -> Vec<f32> {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = high - low;
    values.iter_mut().for_each(|v| *v = if range > 1e-6 { (*v - low) / range } else { 0.0 });
    values
}
