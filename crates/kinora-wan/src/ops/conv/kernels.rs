//! Which way a convolution is computed on the CPU: 1×1 kernels are matrix products on the frames as they lie, 3×3 ones
//! go through Winograd's transform, and those that halve unfold a band of rows at a time.

use std::borrow::Cow;

use rayon::prelude::*;

use super::super::matmul::{Mat, MatMut, Threads, multiply_add};
use super::{ConvShape, Sampling, output_size, winograd};
use crate::weights::{Matrix, Numbers};

/// Numbers in an unfolded band of one thread: what a second-level cache holds.
const BAND_NUMBERS: usize = 1 << 18;

/// What stands in the answer before anything is added: `onto` `[T', O, H', W']` or zeros, plus `bias` `[O]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    pub bias: &'a [f32],
    pub onto: Option<&'a [f32]>,
}

impl Start<'_> {
    fn fill(&self, t: usize, pixels: usize, out: &mut [f32]) {
        let frame = t * out.len();
        out.par_chunks_mut(pixels).zip(self.bias).enumerate().for_each(|(output, (plane, bias))| match self
            .onto
        {
            Some(onto) => {
                let onto = &onto[frame + output * pixels..][..pixels];
                plane.iter_mut().zip(onto).for_each(|(out, onto)| *out = onto + bias);
            }
            None => plane.fill(*bias),
        });
    }
}

/// `[T', O, H', W']` of `frames`, each `[C, H, W]` or, where `None`, zeros.
pub(super) fn convolve(
    frames: &[Option<&[f32]>],
    size: [usize; 2],
    shape: &ConvShape,
    weight: &Matrix,
    start: Start<'_>,
) -> Vec<f32> {
    let [time, space] = shape.kernel;
    let [height, width] = output_size(size, shape.sampling);
    let pixels = height * width;
    let count = (frames.len() - time) / shape.stride + 1;
    let mut out = vec![0.0; count * shape.outputs * pixels];
    for (t, out) in out.chunks_exact_mut(shape.outputs * pixels).enumerate() {
        start.fill(t, pixels, out);
        let window = &frames[t * shape.stride..][..time];
        match (space, shape.sampling) {
            (1, _) => pointwise(out, window, pixels, shape, &widened(weight)),
            (_, Sampling::Halve) => halving(out, window, size, shape, &widened(weight)),
            _ => winograd::convolve(out, window, size, shape, weight),
        }
    }
    out
}

/// The numbers of a small weight as they lie, or widened.
fn widened(weight: &Matrix) -> Cow<'_, [f32]> {
    match weight.numbers() {
        Numbers::F32(numbers) => Cow::Borrowed(numbers),
        _ => {
            let mut numbers = vec![0.0; weight.rows() * weight.columns()];
            weight.widen_rows(0..weight.rows(), &mut numbers);
            Cow::Owned(numbers)
        }
    }
}

/// Adds a kernel of one row and column: `out[O, H·W] += W[O, C] · frame[C, H·W]` for each step in time.
fn pointwise(out: &mut [f32], window: &[Option<&[f32]>], pixels: usize, shape: &ConvShape, weight: &[f32]) {
    let (steps, inputs) = (window.len(), shape.inputs);
    for (step, frame) in window.iter().enumerate() {
        let Some(frame) = frame else { continue };
        let left = Mat {
            numbers: &weight[step..],
            rows: shape.outputs,
            columns: inputs,
            row_stride: inputs * steps,
            column_stride: steps,
        };
        let mut out = MatMut { numbers: out, rows: shape.outputs, columns: pixels, row_stride: pixels };
        multiply_add(&mut out, 1.0, left, Mat::rows(frame, inputs, pixels, pixels), 1.0, Threads::All);
    }
}

/// Adds a kernel that moves two pixels at a time, band by band of output rows.
fn halving(
    out: &mut [f32],
    window: &[Option<&[f32]>],
    [height, width]: [usize; 2],
    shape: &ConvShape,
    weight: &[f32],
) {
    let [steps, side] = shape.kernel;
    let [out_height, out_width] = output_size([height, width], shape.sampling);
    let depth = shape.inputs * side * side;
    let rows = (BAND_NUMBERS / (depth * out_width)).clamp(1, out_height);
    let bands: Vec<_> = (0..out_height).step_by(rows).collect();
    for (step, frame) in window.iter().enumerate() {
        let Some(frame) = frame else { continue };
        let products: Vec<_> = bands
            .par_iter()
            .map(|&top| {
                let pixels = rows.min(out_height - top) * out_width;
                let unfolded = unfold(frame, [height, width], shape, top, pixels / out_width);
                let mut product = vec![0.0; shape.outputs * pixels];
                let left = step_matrix(weight, shape, step, steps);
                let mut into = MatMut {
                    numbers: &mut product,
                    rows: shape.outputs,
                    columns: pixels,
                    row_stride: pixels,
                };
                let right = Mat::rows(&unfolded, depth, pixels, pixels);
                multiply_add(
                    &mut into,
                    0.0,
                    Mat::rows(&left, shape.outputs, depth, depth),
                    right,
                    1.0,
                    Threads::One,
                );
                (top * out_width, pixels, product)
            })
            .collect();
        for (start, pixels, product) in products {
            for (output, numbers) in product.chunks_exact(pixels).enumerate() {
                let into = &mut out[output * out_height * out_width + start..][..pixels];
                into.iter_mut().zip(numbers).for_each(|(into, number)| *into += number);
            }
        }
    }
}

/// The weight `[O, C·k·k]` of one step in time.
fn step_matrix<'a>(weight: &'a [f32], shape: &ConvShape, step: usize, steps: usize) -> Cow<'a, [f32]> {
    if steps == 1 {
        return Cow::Borrowed(weight);
    }
    let area = shape.kernel[1] * shape.kernel[1];
    Cow::Owned(weight.chunks_exact(area).skip(step).step_by(steps).flatten().copied().collect())
}

/// `[C·3·3, rows·W']`: for every output pixel of `rows` rows from `top` on, the pixels its kernel sees.
fn unfold(
    frame: &[f32],
    [height, width]: [usize; 2],
    shape: &ConvShape,
    top: usize,
    rows: usize,
) -> Vec<f32> {
    let side = shape.kernel[1];
    let out_width = width / 2;
    let mut unfolded = Vec::with_capacity(shape.inputs * side * side * rows * out_width);
    for plane in frame.chunks_exact(height * width) {
        for (dy, dx) in (0..side).flat_map(|dy| (0..side).map(move |dx| (dy, dx))) {
            for row in top..top + rows {
                let y = row * 2 + dy;
                let source = if y < height { &plane[y * width..][..width] } else { &[] };
                unfolded.extend((0..out_width).map(|x| source.get(x * 2 + dx).copied().unwrap_or(0.0)));
            }
        }
    }
    unfolded
}
