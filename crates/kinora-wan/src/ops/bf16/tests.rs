//! The product against its definition over rounded numbers, and both forms of the inner loop against each other.

use half::bf16;
use proptest::prelude::*;

use super::kernel::{Sums, sum, sum_plain};
use super::layout::round;
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
        tokens in 1usize..120, inputs in 1usize..1200, outputs in 1usize..600, narrow: bool, biased: bool, seed: u64,
    ) {
        let (x, w) = (numbers(seed, tokens * inputs), numbers(seed ^ 1, outputs * inputs));
        let weight = if narrow {
            Matrix::owned_bf16(w.iter().map(|&number| bf16::from_f32(number)).collect(), outputs, inputs)
        } else {
            Matrix::owned(w.clone(), outputs, inputs)
        };
        let bias = biased.then(|| numbers(seed ^ 2, outputs));
        let out = product(&x, &weight, bias.as_deref());
        prop_assert_eq!(out.len(), tokens * outputs);
        let edges = [0, outputs - 1, out.len() - 1];
        for at in (0..40).map(|place| (seed as usize % out.len() + place * 7919) % out.len()).chain(edges) {
            let (row, column) = (at / outputs, at % outputs);
            let pairs = x[row * inputs..][..inputs].iter().zip(&w[column * inputs..][..inputs]);
            let sum: f64 = pairs.map(|(a, b)| rounded(*a) * rounded(*b)).sum();
            let wanted = bias.as_ref().map_or(0.0, |bias| f64::from(bias[column])) + sum;
            prop_assert!((f64::from(out[at]) - wanted).abs() < 1e-6 * (inputs as f64 + 10.0), "{} is not {wanted}", out[at]);
        }
    }

    #[test]
    fn both_forms_of_the_inner_loop_agree(pairs in 1usize..300, seed: u64) {
        let side = |seed, width: usize| -> Vec<Pair> {
            let numbers = numbers(seed, pairs * width * 2);
            numbers.chunks_exact(2).map(|pair| pair_of(bf16::from_f32(pair[0]), bf16::from_f32(pair[1]))).collect()
        };
        let (left, right) = (side(seed, ROWS), side(seed ^ 1, COLUMNS));
        let (mut fast, mut plain): (Sums, Sums) = ([0.0; _], [0.0; _]);
        sum(&mut fast, &left, &right);
        sum_plain(&mut plain, &left, &right);
        for (fast, plain) in fast.iter().zip(&plain) {
            prop_assert!((fast - plain).abs() <= 2e-5 * (pairs as f32).sqrt(), "{fast} is not {plain}");
        }
    }

    #[test]
    fn both_forms_of_interleaving_are_the_same(pairs in 1usize..100, seed: u64) {
        let mut room = Room::default();
        room.reset(COLUMNS, 2 * pairs);
        for row in 0..COLUMNS {
            round_row(&numbers(seed ^ row as u64, 2 * pairs), room.row(row));
        }
        let rows = room.rows();
        let [mut wide, mut plain] = [vec![0; pairs * COLUMNS], vec![1; pairs * COLUMNS]];
        rows.interleave::<COLUMNS>(&mut wide);
        rows.interleave_plain::<COLUMNS>(&mut plain);
        prop_assert_eq!(&wide, &plain);
        let [mut wide, mut plain] = [vec![0; pairs * ROWS], vec![1; pairs * ROWS]];
        rows.interleave::<ROWS>(&mut wide);
        rows.interleave_plain::<ROWS>(&mut plain);
        prop_assert_eq!(wide, plain);
    }

    #[test]
    fn tiles_are_added_to_what_they_should_be(rows in 1usize..30, columns in 1usize..80, beside in 0usize..9, seed: u64) {
        // Every product is 1 · 1 + 1 · 1 at each of 3 pairs.
        let one = pair_of(bf16::ONE, bf16::ONE);
        let (left, right) = (vec![one; 3 * ROWS], vec![one; 3 * COLUMNS]);
        let stride = columns + 2 * beside;
        let (start, row_before) = (numbers(seed, rows * stride), numbers(seed ^ 1, columns));
        for before in 0..3 {
            let mut matrix = start.clone();
            let mut strip = Strip::of(&mut matrix, stride, beside..beside + columns);
            for row in (0..rows).step_by(ROWS) {
                for column in (0..columns).step_by(COLUMNS) {
                    let before = [Before::Nothing, Before::Row(&row_before[column..]), Before::There][before];
                    let factors = Factors { left: &left, right: &right, next: &left };
                    strip.multiply([row, column], factors, 0.5, before);
                }
            }
            for (at, (&got, &was)) in matrix.iter().zip(&start).enumerate() {
                let column = (at % stride).checked_sub(beside).filter(|column| *column < columns);
                let wanted = column.map_or(was, |column| 3.0 + [0.0, row_before[column], was][before]);
                prop_assert_eq!(got, wanted);
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

#[test]
fn rows_beyond_the_first_band_are_computed_like_those_in_it() {
    let (inputs, outputs) = (6, 40);
    let (x, w) = (numbers(4, BAND_ROWS * inputs), numbers(5, outputs * inputs));
    let weight = Matrix::owned(w, outputs, inputs);
    let twice = product(&[&x[..], &x[..17 * inputs]].concat(), &weight, None);
    assert_eq!(twice.len(), (BAND_ROWS + 17) * outputs);
    assert_eq!(twice[BAND_ROWS * outputs..], twice[..17 * outputs]);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (tokens, inputs, outputs) = (50, 1100, 700);
    let (x, w) = (numbers(6, tokens * inputs), numbers(7, outputs * inputs));
    let weight = Matrix::owned(w, outputs, inputs);
    let by = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| product(&x, &weight, None))
    };
    assert_ne!(strip_columns(outputs, 1), strip_columns(outputs, 7));
    assert_eq!(by(1), by(7));
}
