//! Convolutions over frames, rows and columns, never unfolded into more than a few tens of megabytes.
//!
//! A video is `[T, C, H, W]`: each frame is a block of its own, so what came before can be handed over without copying
//! and a frame that is not there costs nothing. On the CPU the weights stay in their mapped file.
//! Elsewhere the same layer is one of the tensor library's two-dimensional convolutions, whose channels are those of all
//! frames that it sees; that is also what the tests compare with.
//! Cost: 3×3 kernels take 4/9 of the multiplications of their definition, 1/4 where pixels are doubled first.

mod kernels;
mod winograd;

use candle_core::{DType, Tensor};

use super::slices::{from_f32, with_all_f32};
use super::{Place, Set, tensors};
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

    pub(super) fn tensors(&self) -> Vec<&'a Tensor> {
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
    /// `[O, kt·C, k, k]`.
    Folded(Tensor),
}

impl Conv {
    /// The layer `name` of `weights`.
    pub fn load(weights: &Weights, name: &str, shape: ConvShape, place: Place<'_>) -> Result<Self, WanError> {
        let [time, space] = shape.kernel;
        let five = [shape.outputs, shape.inputs, time, space, space];
        let stored = if shape.flat { vec![five[0], five[1], space, space] } else { five.to_vec() };
        let matrix = weights.matrix(&format!("{name}.weight"), &stored)?;
        let bias = weights.tensor(&format!("{name}.bias"), shape.outputs, DType::F32, place.device)?;
        let weight = match place.ops.set {
            Set::Cpu => Weight::Kept(matrix),
            Set::Tensors => {
                let weight = matrix.to_tensor(DType::F32, place.device)?.reshape(&five[..])?;
                Weight::Folded(tensors::folded(&weight)?)
            }
        };
        Ok(Self { shape, weight, bias })
    }

    /// A layer of given numbers, for tests: `weight` `[O, C, kt, k, k]`, `bias` `[O]`; for the operations of `set`.
    #[doc(hidden)]
    pub fn new(shape: ConvShape, weight: &Tensor, bias: &Tensor, set: Set) -> Result<Self, WanError> {
        let weight = match set {
            Set::Cpu => {
                let numbers = weight.flatten_all()?.to_vec1::<f32>()?;
                let columns = numbers.len() / shape.outputs;
                Weight::Kept(Matrix::owned(numbers, shape.outputs, columns))
            }
            Set::Tensors => Weight::Folded(tensors::folded(weight)?),
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
            Weight::Folded(weight) => {
                let out = tensors::convolve(frames, &self.shape, weight, &self.bias)?;
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
