//! The CPU's own convolutions against a sum in the order of the definition, and against the tensor library.

use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::{Conv, ConvShape, Frames, Sampling, Set};

/// Numbers that look random and are the same everywhere.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(seed, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// One number of the definition, in f64: output `o` of frame `t` at row `y`, column `x`.
fn by_definition(frames: &Tensor, weight: &Tensor, shape: ConvShape, [t, o, y, x]: [usize; 4]) -> f64 {
    let [_, _, height, width]: [usize; 4] = frames.dims().try_into().unwrap();
    let [time, side] = shape.kernel;
    let frames = frames.to_vec4();
    let weight = weight.get(o).unwrap().to_vec4();
    let (step, before) = match shape.sampling {
        Sampling::Halve => (2, 0),
        _ => (1, side / 2),
    };
    let (rows, columns) =
        if shape.sampling == Sampling::Double { (height * 2, width * 2) } else { (height, width) };
    let mut sum = 0.0;
    for (c, dt, dy, dx) in places(shape.inputs, time, side) {
        let (Some(row), Some(column)) =
            ((y * step + dy).checked_sub(before), (x * step + dx).checked_sub(before))
        else {
            continue;
        };
        if row >= rows || column >= columns {
            continue;
        }
        let (row, column) =
            if shape.sampling == Sampling::Double { (row / 2, column / 2) } else { (row, column) };
        sum += f64::from(frames[t * shape.stride + dt][c][row][column]) * f64::from(weight[c][dt][dy][dx]);
    }
    sum
}

fn places(inputs: usize, time: usize, side: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..inputs).flat_map(move |c| {
        (0..time).flat_map(move |dt| (0..side).flat_map(move |dy| (0..side).map(move |dx| (c, dt, dy, dx))))
    })
}

trait Nested {
    fn to_vec4(&self) -> Vec<Vec<Vec<Vec<f32>>>>;
}

impl Nested for Tensor {
    fn to_vec4(&self) -> Vec<Vec<Vec<Vec<f32>>>> {
        (0..self.dim(0).unwrap()).map(|index| self.get(index).unwrap().to_vec3().unwrap()).collect()
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn all_forms_agree(
        (outputs, inputs) in (1usize..20, 1usize..20),
        (height, width) in (1usize..14, 1usize..40),
        frames in 1usize..4, past in 0usize..3, kind in 0usize..6, seed: u64,
    ) {
        let (kernel, stride, sampling) = [
            ([3, 3], 1, Sampling::Same),
            ([1, 3], 1, Sampling::Double),
            ([1, 3], 1, Sampling::Halve),
            ([1, 1], 1, Sampling::Same),
            ([3, 1], 1, Sampling::Same),
            ([3, 1], 2, Sampling::Same),
        ][kind];
        prop_assume!(sampling != Sampling::Halve || (height > 1 && width > 1));
        let shape = ConvShape { outputs, inputs, kernel, stride, sampling, flat: false };
        let back = kernel[0] - 1;
        let past = past.min(back);
        let weight = tensor(seed, &[outputs, inputs, kernel[0], kernel[1], kernel[1]]);
        let bias = tensor(seed + 1, &[outputs]);
        let x = tensor(seed + 2, &[frames, inputs, height, width]);
        let before: Vec<_> = (0..past).map(|t| tensor(seed + 3 + t as u64, &[1, inputs, height, width])).collect();
        let window = Frames { zeros: back - past, past: &before, x: &x };

        let kept = Conv::new(shape, &weight, &bias, Set::Cpu).unwrap().forward(window, None).unwrap();
        let plain = Conv::new(shape, &weight, &bias, Set::Tensors).unwrap().forward(window, None).unwrap();
        let scale = ((inputs * kernel[0] * kernel[1] * kernel[1]) as f32).sqrt();
        prop_assert!(largest_difference(&kept, &plain) < 2e-6 * scale);

        let onto = tensor(seed + 9, kept.dims());
        let added = Conv::new(shape, &weight, &bias, Set::Cpu).unwrap().forward(window, Some(&onto)).unwrap();
        prop_assert!(largest_difference(&added, &(&kept + &onto).unwrap()) < 1e-6 * scale);

        let all: Vec<_> = before.iter().chain([&x]).collect();
        let joined = Tensor::cat(&all, 0).unwrap().pad_with_zeros(0, back - past, 0).unwrap();
        let (count, _, rows, columns) = kept.dims4().unwrap();
        let at = [seed as usize % count, seed as usize % outputs, seed as usize % rows, seed as usize % columns];
        let bias: Vec<f32> = bias.to_vec1().unwrap();
        let wanted = by_definition(&joined, &weight, shape, at) + f64::from(bias[at[1]]);
        let got = f64::from(kept.to_vec4()[at[0]][at[1]][at[2]][at[3]]);
        prop_assert!((got - wanted).abs() < 2e-6 * f64::from(scale), "{got} is not {wanted}");
    }
}

/// More channels and tiles than one block holds, so that blocks are joined.
#[test]
fn blocks_join_without_a_seam() {
    let shape = ConvShape {
        outputs: 9,
        inputs: 200,
        kernel: [3, 3],
        stride: 1,
        sampling: Sampling::Same,
        flat: false,
    };
    let weight = tensor(1, &[9, 200, 3, 3, 3]);
    let bias = tensor(2, &[9]);
    let x = tensor(3, &[1, 200, 130, 150]);
    let past = tensor(4, &[2, 200, 130, 150]);
    let window = Frames { zeros: 0, past: &[past], x: &x };
    let kept = Conv::new(shape, &weight, &bias, Set::Cpu).unwrap().forward(window, None).unwrap();
    let plain = Conv::new(shape, &weight, &bias, Set::Tensors).unwrap().forward(window, None).unwrap();
    assert!(largest_difference(&kept, &plain) < 2e-4);
    let shifted =
        Conv::new(shape, &weight, &(bias + 1e-3).unwrap(), Set::Cpu).unwrap().forward(window, None).unwrap();
    assert!(largest_difference(&shifted, &plain) > 5e-4, "a difference is noticed");
}
