//! Every operation of the CPU's own equals the tensor library's, on shapes that fit no vector and no tile.

use candle_core::{DType, Device, Tensor};
use kinora_wan::ops::{Modulation, Ops, Products, Set};
use proptest::prelude::*;

use crate::golden::error;

const FAST: Ops = Ops { set: Set::Cpu, products: Products::F32 };
const NARROW: Ops = Ops { set: Set::Cpu, products: Products::Bf16 };
const PLAIN: Ops = Ops { set: Set::Tensors, products: Products::F32 };

/// Far under the goldens' tolerance, well above rounding.
const TOLERANCE: f64 = 2e-6;
/// Of powers of scores up to 45: rounded to 24 bits these are off by 3e-6, and so, relatively, is a power. In 6,000 cases
/// each form was up to 6e-6 from f64, and up to 7e-6 from the other.
const LARGE_SCORES_TOLERANCE: f64 = 2e-5;

/// Numbers that look random, mean 0.
fn tensor(seed: u64, rows: usize, columns: usize) -> Tensor {
    let noise = kinora_engine::Noise::new(seed, "ops");
    let numbers: Vec<f32> = (0..(rows * columns) as u64).map(|at| noise.normal(at)).collect();
    Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).unwrap()
}

fn row(seed: u64, columns: usize) -> Tensor {
    tensor(seed, 1, columns).squeeze(0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention(tokens in 1usize..300, keys in 1usize..1200, heads in 1usize..4, half in 1usize..20, seed: u64) {
        let width = heads * half * 2;
        let (q, k, v) = (tensor(seed, tokens, width), tensor(seed ^ 1, keys, width), tensor(seed ^ 2, keys, width));
        // Large scores find out whether the running maximum is kept.
        let q = (q * 8.0).unwrap();
        let exact = PLAIN.attention(&q, &k, &v, heads).unwrap();
        let fast = FAST.attention(&q, &k, &v, heads).unwrap();
        let apart = error(&fast, &exact);
        prop_assert!(apart < LARGE_SCORES_TOLERANCE, "{apart}");
    }

    #[test]
    fn attention_in_bf16(tokens in 1usize..300, keys in 1usize..1200, heads in 1usize..4, half in 1usize..40, seed: u64) {
        let width = heads * half * 2;
        // Rounded beforehand, so that only the powers of scores are rounded in one form and not in the other.
        let rounded = |seed, rows| tensor(seed, rows, width).to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        let (q, k, v) = (rounded(seed, tokens), rounded(seed ^ 1, keys), rounded(seed ^ 2, keys));
        let exact = PLAIN.attention(&q, &k, &v, heads).unwrap();
        let narrow = NARROW.attention(&q, &k, &v, heads).unwrap();
        let apart = error(&narrow, &exact);
        prop_assert!(apart < 6e-3, "{apart}");
    }

    #[test]
    fn normalisations(tokens in 1usize..40, width in 1usize..70, split in 0usize..40, seed: u64) {
        let x = ((tensor(seed, tokens, width) * 3.0).unwrap() + 1.0).unwrap();
        let (weight, bias) = (row(seed ^ 1, width), row(seed ^ 2, width));
        let split = split.min(tokens - 1);
        let runs = [split, tokens - split];
        let (scale, shift) = (tensor(seed ^ 3, 2, width), tensor(seed ^ 4, 2, width));
        let by = Modulation { scale: &scale, shift: &shift, runs: &runs };
        prop_assert!(error(&FAST.rms_norm(&x, &weight, 1e-6).unwrap(), &PLAIN.rms_norm(&x, &weight, 1e-6).unwrap()) < TOLERANCE);
        if width > 1 {
            let (fast, slow) = (FAST.layer_norm(&x, &weight, &bias, 1e-6), PLAIN.layer_norm(&x, &weight, &bias, 1e-6));
            prop_assert!(error(&fast.unwrap(), &slow.unwrap()) < TOLERANCE);
            let (fast, slow) = (FAST.modulated_layer_norm(&x, 1e-6, by), PLAIN.modulated_layer_norm(&x, 1e-6, by));
            prop_assert!(error(&fast.unwrap(), &slow.unwrap()) < TOLERANCE);
        }
        let y = tensor(seed ^ 5, tokens, width);
        let (fast, slow) = (FAST.gated_add(&x, &y, &scale, &runs), PLAIN.gated_add(&x, &y, &scale, &runs));
        prop_assert!(error(&fast.unwrap(), &slow.unwrap()) < TOLERANCE);
        prop_assert!(error(&FAST.gelu(&x).unwrap(), &PLAIN.gelu(&x).unwrap()) < TOLERANCE);
    }

    #[test]
    fn rotation(tokens in 1usize..40, heads in 1usize..4, half in 1usize..20, seed: u64) {
        let x = tensor(seed, tokens, heads * half * 2);
        let angles = tensor(seed ^ 1, tokens, half);
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        let fast = FAST.rotate(&x, &cos, &sin).unwrap();
        prop_assert!(error(&fast, &PLAIN.rotate(&x, &cos, &sin).unwrap()) < TOLERANCE);
    }
}
