//! The product against its definition over rounded numbers, and both forms of the inner loop against each other.

use half::bf16;
use proptest::prelude::*;

use super::kernel::multiply_plain;
use super::*;

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let noise = kinora_engine::Noise::new(seed, "bf16");
    (0..count as u64).map(|at| noise.normal(at)).collect()
}

fn rounded(number: f32) -> f64 {
    f64::from(bf16::from_f32(number).to_f32())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_product_is_that_of_the_rounded_numbers(
        tokens in 1usize..120, inputs in 1usize..1200, outputs in 1usize..600, narrow: bool, seed: u64,
    ) {
        let (x, w) = (numbers(seed, tokens * inputs), numbers(seed ^ 1, outputs * inputs));
        let weight = if narrow {
            Matrix::owned_bf16(w.iter().map(|&number| bf16::from_f32(number)).collect(), outputs, inputs)
        } else {
            Matrix::owned(w.clone(), outputs, inputs)
        };
        let mut out = numbers(seed ^ 2, tokens * outputs);
        let before = out.clone();
        add_product(&mut out, &x, &weight);
        for place in 0..40 {
            let at = (seed as usize % out.len() + place * 7919) % out.len();
            let (row, column) = (at / outputs, at % outputs);
            let pairs = x[row * inputs..][..inputs].iter().zip(&w[column * inputs..][..inputs]);
            let sum: f64 = pairs.map(|(a, b)| rounded(*a) * rounded(*b)).sum();
            let wanted = f64::from(before[at]) + sum;
            prop_assert!((f64::from(out[at]) - wanted).abs() < 1e-6 * (inputs as f64 + 10.0), "{} is not {wanted}", out[at]);
        }
    }

    #[test]
    fn both_forms_of_the_inner_loop_agree(pairs in 1usize..300, seed: u64) {
        let side = |seed, width: usize| -> Vec<Pair> {
            numbers(seed, pairs * width * 2).chunks_exact(2).map(|pair| pair_of(pair[0], pair[1])).collect()
        };
        let (left, right) = (side(seed, ROWS), side(seed ^ 1, COLUMNS));
        let (mut tile, mut plain) = (Tile::default(), [0.0; ROWS * COLUMNS]);
        tile.multiply(&left, &right);
        multiply_plain(&mut plain, &left, &right);
        for row in 0..ROWS {
            for (fast, plain) in tile.row(row).iter().zip(&plain[row * COLUMNS..]) {
                prop_assert!((fast - plain).abs() <= 2e-5 * (pairs as f32).sqrt(), "{fast} is not {plain}");
            }
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest(bits: u32) {
        let number = f32::from_bits(bits);
        let (got, wanted) = (bf16::from_bits(round(number)), bf16::from_f32(number));
        prop_assert!(got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan()), "{number}: {got}");
    }
}

#[test]
fn panels_from_columns_are_those_from_the_rows_of_the_transposed() {
    let (depth, count) = (7, 45);
    let numbers = numbers(3, depth * count);
    let transposed: Vec<f32> = (0..count)
        .flat_map(|c| (0..depth).map(move |d| (d, c)))
        .map(|(d, c)| numbers[d * count + c])
        .collect();
    let (mut by_columns, mut by_rows) = (Panels::<COLUMNS>::default(), Panels::<COLUMNS>::default());
    by_columns.fill_columns(&numbers, [depth, count], count);
    by_rows.fill_rows(&transposed, [count, depth], depth);
    assert_eq!(by_columns.numbers, by_rows.numbers);
    assert!(by_rows.numbers.iter().filter(|pair| **pair != 0).count() >= count * depth / 2);
}
