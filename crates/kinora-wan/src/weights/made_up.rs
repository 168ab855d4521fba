//! Weights made up when they are asked for: what a measure of speed needs of a checkpoint, with no file at all.
//!
//! Always true: the same name gives the same numbers; a layer's output is about as large as its input, so that no
//! arithmetic meets infinities or numbers too small to be normal, which processors are slow with.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use candle_core::DType;
use half::bf16;
use rayon::prelude::*;

use super::Matrix;

/// Numbers that one task makes.
const CHUNK: usize = 1 << 16;

/// A matrix `[rows, columns]`, kept as `dtype`: bf16, or f32 for every other type.
pub(super) fn matrix(name: &str, [rows, columns]: [usize; 2], dtype: DType) -> Matrix {
    // Uniform numbers of this reach have the variance 1 / columns.
    let reach = (3.0 / columns as f32).sqrt();
    match dtype {
        DType::BF16 => {
            Matrix::owned_bf16(uniform(name, rows * columns, reach, bf16::from_f32), rows, columns)
        }
        _ => Matrix::owned(uniform(name, rows * columns, reach, |number| number), rows, columns),
    }
}

/// Factors or biases: numbers around one.
pub(super) fn vector(name: &str, count: usize) -> Vec<f32> {
    uniform(name, count, 0.5, |number| number + 1.0)
}

/// `count` numbers from `-reach` to `reach`, each through `finish`.
fn uniform<T: Copy + Default + Send>(
    name: &str,
    count: usize,
    reach: f32,
    finish: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let seed = hasher.finish();
    let mut numbers = vec![T::default(); count];
    numbers.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, numbers)| {
        for (at, number) in numbers.iter_mut().enumerate() {
            let mixed = mix(seed.wrapping_add((chunk * CHUNK + at) as u64));
            let unit = (mixed >> 40) as f32 / (1u64 << 23) as f32 - 1.0; // -1..1
            *number = finish(unit * reach);
        }
    });
    numbers
}

/// The finisher of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{matrix, vector};
    use candle_core::DType;

    #[test]
    fn layers_keep_the_size_of_what_goes_through_them() {
        for dtype in [DType::F32, DType::BF16] {
            let made = matrix("a", [300, 500], dtype);
            let mut numbers = vec![0.0; 300 * 500];
            made.widen_rows(0..300, &mut numbers);
            let variance = numbers.iter().map(|number| number * number).sum::<f32>() / numbers.len() as f32;
            assert!((variance * 500.0 - 1.0).abs() < 0.05, "{variance}");
        }
        assert!(vector("a", 1000).iter().all(|number| (0.5..=1.5).contains(number)));
        assert_eq!(vector("a", 9), vector("a", 9));
        assert_ne!(vector("a", 9), vector("b", 9));
    }
}
