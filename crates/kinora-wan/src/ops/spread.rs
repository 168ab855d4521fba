//! Channels of a small frame spread over the pixels of a larger one.

use candle_core::Tensor;
use rayon::prelude::*;

use super::slices::{from_f32, with_f32, zeros};
use crate::WanError;

/// Which channel the pixel at row `y` and column `x` of a square shows in output `o`: called with `(o, y, x)`.
pub type Source<'a> = &'a (dyn Fn(usize, usize, usize) -> usize + Sync);

/// [`super::Ops::spread_channels`] on the CPU.
pub(super) fn spread_channels(
    x: &Tensor,
    outputs: usize,
    side: usize,
    source: Source<'_>,
) -> Result<Tensor, WanError> {
    let (_, _, height, width) = x.dims4()?;
    let pixels = height * width;
    let out = with_f32(x, |x| {
        let mut out = zeros(outputs * pixels * side * side);
        out.par_chunks_mut(pixels * side * side).enumerate().for_each(|(output, plane)| {
            for (row, numbers) in plane.chunks_exact_mut(width * side).enumerate() {
                for column in 0..side {
                    let channel = source(output, row % side, column);
                    let from = &x[channel * pixels + row / side * width..][..width];
                    let into = numbers[column..].iter_mut().step_by(side);
                    into.zip(from).for_each(|(into, from)| *into = *from);
                }
            }
        });
        out
    })?;
    Ok(from_f32(out, (1, outputs, height * side, width * side))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    #[test]
    fn both_forms_agree_with_the_definition() {
        let numbers: Vec<f32> = (0..5 * 3 * 7).map(|number| number as f32).collect();
        let x = Tensor::from_vec(numbers, (1, 5, 3, 7), &Device::Cpu).unwrap();
        let source = |output: usize, y: usize, x: usize| (output * 3 + y * 2 + x) % 5;
        let fast = super::spread_channels(&x, 4, 2, &source).unwrap();
        let plain = crate::ops::tensors::spread_channels(&x, 4, 2, &source).unwrap();
        let all = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((fast.dims(), all(&fast)), (plain.dims(), all(&plain)));
        // Output 3 at row 5, column 9: the lower right of its square, so channel (9 + 2 + 1) % 5 = 2 at (2, 4).
        assert_eq!(all(&fast)[(3 * 6 + 5) * 14 + 9], (2 * 21 + 2 * 7 + 4) as f32);
    }
}
