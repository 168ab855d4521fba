//! Angles of tokens: a head's pairs are shared out between time, row and column.
//!
//! Computed in f64 and rounded once, as the reference does.

use candle_core::{Device, Tensor};

use super::DitConfig;
use crate::WanError;

/// The base of the angles' frequencies.
const THETA: f64 = 10_000.0;

/// Cosines and sines `[N, K/2]` of a clip's tokens.
#[derive(Debug)]
pub struct Rotary {
    pub cos: Tensor,
    pub sin: Tensor,
}

impl Rotary {
    /// For a grid of `[frames, rows, columns]` tokens, as [`DitConfig::grid`] gives it, the columns running fastest.
    pub fn new(config: &DitConfig, grid: [usize; 3], device: &Device) -> Result<Self, WanError> {
        let angles = angles(config.attention_head_dim, grid);
        let shape = (grid.iter().product::<usize>(), config.attention_head_dim / 2);
        let table = |of: fn(f64) -> f64| -> Result<Tensor, WanError> {
            let numbers: Vec<f32> = angles.iter().map(|angle| of(*angle) as f32).collect();
            Ok(Tensor::from_vec(numbers, shape, device)?)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }
}

/// Angles `[N, K/2]`.
fn angles(head_width: usize, [frames, rows, columns]: [usize; 3]) -> Vec<f64> {
    let space = 2 * (head_width / 6);
    let frequencies = |width: usize| -> Vec<f64> {
        (0..width / 2).map(|pair| 1.0 / THETA.powf((2 * pair) as f64 / width as f64)).collect()
    };
    let (in_time, in_space) = (frequencies(head_width - 2 * space), frequencies(space));
    let mut angles = Vec::with_capacity(frames * rows * columns * head_width / 2);
    for frame in 0..frames {
        for row in 0..rows {
            for column in 0..columns {
                for (position, frequencies) in [(frame, &in_time), (row, &in_space), (column, &in_space)] {
                    angles.extend(frequencies.iter().map(|frequency| position as f64 * frequency));
                }
            }
        }
    }
    angles
}
