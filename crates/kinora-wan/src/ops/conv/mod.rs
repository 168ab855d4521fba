//! Convolutions over frames, rows and columns, never unfolded into more than a few tens of megabytes.
//!
//! A video is `[T, C, H, W]`: each frame is a block of its own, so what came before can be handed over without copying
//! and a frame that is not there costs nothing. On the CPU in f32 the weights stay in their mapped file.
//! Elsewhere the same layer is a sum of the tensor library's two-dimensional convolutions, one for each step in time;
//! that is also what the tests compare with.
//! Cost: 3×3 kernels take 4/9 of the multiplications of their definition, 1/4 where pixels are doubled first.

mod kernels;
mod winograd;

use candle_core::{DType, Device, Tensor};

use super::slices::{from_f32, with_all_f32};
use crate::WanError;
use crate::weights::{Matrix, Weights};

/// What a layer does to rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// As many as before: zeros stand around the frame.
    Same,
    /// Every second one, where a row and a column of zeros follow the frame.
    Halve,
    /// Each pixel doubled in both directions before the kernel passes over it.
    Double,
}

/// The sides of a layer's weight `[O, C, kt, k, k]`, or `[O, C, k, k]` where `kt` is 1 and `flat`.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    pub outputs: usize,
    pub inputs: usize,
    /// Steps in time, and rows and columns, of the kernel: 1 or 3 each.
    pub kernel: [usize; 2],
    /// Frames the kernel moves on in time.
    pub stride: usize,
    pub sampling: Sampling,
    /// The weight is stored without a side for time.
    pub flat: bool,
}

/// The frames a kernel passes over: `zeros` empty ones, then those of `past`, then of `x`, each tensor `[T, C, H, W]`.
#[derive(Debug, Clone, Copy)]
pub struct Frames<'a> {
    pub zeros: usize,
    pub past: &'a [Tensor],
    pub x: &'a Tensor,
}

impl<'a> Frames<'a> {
    /// Frames that nothing came before.
    pub fn alone(x: &'a Tensor) -> Self {
        Self { zeros: 0, past: &[], x }
    }

    fn tensors(&self) -> Vec<&'a Tensor> {
        self.past.iter().chain([self.x]).collect()
    }
}

/// A convolution with its weights.
#[derive(Debug)]
pub struct Conv {
    shape: ConvShape,
    weight: Weight,
    /// `[O]`.
    bias: Tensor,
}

#[derive(Debug)]
enum Weight {
    /// `[O, C·kt·k·k]`, in its file.
    Kept(Matrix),
    /// `[O, C, kt, k, k]`.
    Resident(Tensor),
}

impl Conv {
    /// The layer `name` of `weights`.
    pub fn load(
        weights: &Weights,
        name: &str,
        shape: ConvShape,
        (dtype, device): (DType, &Device),
    ) -> Result<Self, WanError> {
        let [time, space] = shape.kernel;
        let five = [shape.outputs, shape.inputs, time, space, space];
        let stored = if shape.flat { vec![five[0], five[1], space, space] } else { five.to_vec() };
        let matrix = weights.matrix(&format!("{name}.weight"), &stored)?;
        let bias = weights.tensor(&format!("{name}.bias"), shape.outputs, dtype, device)?;
        let weight = match dtype == DType::F32 && device.is_cpu() {
            true => Weight::Kept(matrix),
            false => Weight::Resident(matrix.to_tensor(dtype, device)?.reshape(&five[..])?),
        };
        Ok(Self { shape, weight, bias })
    }

    /// A layer of given numbers, for tests: `weight` `[O, C, kt, k, k]`, `bias` `[O]`; `kept` picks the CPU's own form.
    #[doc(hidden)]
    pub fn new(shape: ConvShape, weight: &Tensor, bias: &Tensor, kept: bool) -> Result<Self, WanError> {
        let weight = if kept {
            let numbers = weight.flatten_all()?.to_vec1::<f32>()?;
            let columns = numbers.len() / shape.outputs;
            Weight::Kept(Matrix::owned(numbers, shape.outputs, columns))
        } else {
            Weight::Resident(weight.clone())
        };
        Ok(Self { shape, weight, bias: bias.clone() })
    }

    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// `[T', O, H', W']`, where `T' = (zeros + past + T - kt) / stride + 1`; added to `onto` where given.
    pub fn forward(&self, frames: Frames<'_>, onto: Option<&Tensor>) -> Result<Tensor, WanError> {
        match &self.weight {
            Weight::Kept(matrix) => self.forward_kept(frames, onto, matrix),
            Weight::Resident(weight) => {
                let out = self.forward_plain(frames, weight)?;
                Ok(match onto {
                    Some(onto) => (out + onto)?,
                    None => out,
                })
            }
        }
    }

    fn forward_kept(
        &self,
        frames: Frames<'_>,
        onto: Option<&Tensor>,
        weight: &Matrix,
    ) -> Result<Tensor, WanError> {
        let (_, channels, height, width) = frames.x.dims4()?;
        if channels != self.shape.inputs {
            let problem = format!("a convolution of {} channels was given {channels}", self.shape.inputs);
            return Err(candle_core::Error::Msg(problem).into());
        }
        let bias = self.bias.to_vec1::<f32>()?;
        let plane = channels * height * width;
        let mut tensors = frames.tensors();
        tensors.extend(onto);
        let numbers = with_all_f32(&tensors, |slices| {
            let (slices, onto) = slices.split_at(slices.len() - usize::from(onto.is_some()));
            let there = slices.iter().flat_map(|slice| slice.chunks_exact(plane)).map(Some);
            let all: Vec<_> = std::iter::repeat_n(None, frames.zeros).chain(there).collect();
            let start = kernels::Start { bias: &bias, onto: onto.first().copied() };
            kernels::convolve(&all, [height, width], &self.shape, weight, start)
        })?;
        let [height, width] = output_size([height, width], self.shape.sampling);
        let count = numbers.len() / (self.shape.outputs * height * width);
        Ok(from_f32(numbers, (count, self.shape.outputs, height, width))?)
    }

    fn forward_plain(&self, frames: Frames<'_>, weight: &Tensor) -> Result<Tensor, WanError> {
        let all = Tensor::cat(&frames.tensors(), 0)?.pad_with_zeros(0, frames.zeros, 0)?;
        let (count, _, height, width) = all.dims4()?;
        let [time, space] = self.shape.kernel;
        let outputs = (count - time) / self.shape.stride + 1;
        let (all, padding, stride) = match self.shape.sampling {
            Sampling::Same => (all, space / 2, 1),
            Sampling::Halve => (all.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?, 0, 2),
            Sampling::Double => (all.upsample_nearest2d(height * 2, width * 2)?, space / 2, 1),
        };
        let mut sum: Option<Tensor> = None;
        for step in 0..time {
            let index: Vec<u32> = (0..outputs).map(|t| (t * self.shape.stride + step) as u32).collect();
            let index = Tensor::from_vec(index, outputs, all.device())?;
            let kernel = weight.narrow(2, step, 1)?.squeeze(2)?.contiguous()?;
            let part = all.index_select(&index, 0)?.conv2d(&kernel, padding, stride, 1, 1)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        let sum = sum.expect("a kernel has at least one step in time");
        Ok(sum.broadcast_add(&self.bias.reshape((1, self.shape.outputs, 1, 1))?)?)
    }
}

/// Rows and columns after a layer.
fn output_size([height, width]: [usize; 2], sampling: Sampling) -> [usize; 2] {
    match sampling {
        Sampling::Same => [height, width],
        Sampling::Halve => [height / 2, width / 2],
        Sampling::Double => [height * 2, width * 2],
    }
}

#[cfg(test)]
mod tests;
