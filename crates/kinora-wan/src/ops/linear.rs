//! `y = x Wᵀ + b`, with the weight where it is best kept.
//!
//! On the CPU the weight stays in its mapped file: for products in f32, f32 is multiplied in place, and bf16 or f16 is
//! widened a band of rows at a time; for products in bf16 both sides are laid out for the kernel, a part at a time. So a
//! checkpoint costs no memory of its own and half-width weights are never held twice.
//! Elsewhere the weight is copied to the device, in the type it is multiplied in or quantised as it is and widened there: once,
//! or whenever it is used.

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::beside::{Resident, add_to, add_to_tensor};
use super::bf16;
use super::matmul::{Mat, MatMut, Threads, multiply_add};
use super::slices::{from_f32, with_f32, zeros};
use super::{Place, Products, Set, tensors};
use crate::WanError;
use crate::weights::{Adapter, Matrix, Numbers, Weights};

/// Numbers of a narrow weight widened at a time: a band that a last-level cache holds.
const BAND_NUMBERS: usize = 1 << 20;

/// A linear layer of `columns` inputs and `rows` outputs.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

/// With the adapters beside it.
#[derive(Debug)]
enum Weight {
    Kept(Matrix, Products, Vec<Adapter>),
    Elsewhere(Elsewhere, Vec<Resident>),
}

/// A weight for the tensor library, and the type that it is multiplied in.
#[derive(Debug)]
enum Elsewhere {
    Resident(Tensor),
    Quantised(QTensor, DType),
    Streamed(Matrix, DType, Device),
}

impl Elsewhere {
    fn load(matrix: Matrix, place: Place<'_>) -> Result<Self, WanError> {
        let dtype = place.ops.products.dtype();
        if place.streamed {
            return Ok(Self::Streamed(matrix, dtype, place.device.clone()));
        }
        Ok(match matrix.to_quantised(place.device)? {
            Some(blocks) => Self::Quantised(blocks, dtype),
            None => Self::Resident(matrix.to_tensor(dtype, place.device)?),
        })
    }

    /// As it is multiplied.
    fn tensor(&self) -> Result<Tensor, WanError> {
        match self {
            Self::Resident(weight) => Ok(weight.clone()),
            Self::Quantised(blocks, dtype) => widened(blocks, *dtype),
            // Blocks take a fraction of what they are widened to, on the way to the device too.
            Self::Streamed(matrix, dtype, device) => match matrix.to_quantised(device)? {
                Some(blocks) => widened(&blocks, *dtype),
                None => matrix.to_tensor(*dtype, device),
            },
        }
    }
}

/// The library's own products with blocks round their other side to eight bits, so these are widened first.
fn widened(blocks: &QTensor, dtype: DType) -> Result<Tensor, WanError> {
    Ok(blocks.dequantize(&blocks.device())?.to_dtype(dtype)?)
}

/// A layer whose weight is as it is multiplied, for several inputs one after the other.
#[derive(Debug)]
pub struct AtHand<'a> {
    weight: Ready<'a>,
    bias: Option<&'a Tensor>,
}

/// A weight as it is multiplied, with the adapters beside it.
#[derive(Debug)]
enum Ready<'a> {
    Kept(&'a Matrix, Products, &'a [Adapter]),
    Elsewhere(Tensor, &'a [Resident]),
}

impl AtHand<'_> {
    /// [`Linear::forward`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, WanError> {
        match &self.weight {
            Ready::Kept(matrix, products, adapters) => self.forward_kept(x, matrix, *products, adapters),
            Ready::Elsewhere(weight, adapters) => {
                add_to_tensor(tensors::linear(x, weight, self.bias)?, adapters, x)
            }
        }
    }

    fn forward_kept(
        &self,
        x: &Tensor,
        weight: &Matrix,
        products: Products,
        adapters: &[Adapter],
    ) -> Result<Tensor, WanError> {
        let (tokens, inputs) = x.dims2()?;
        if inputs != weight.columns() {
            let problem = format!("a layer of {} inputs was given {inputs}", weight.columns());
            return Err(candle_core::Error::Msg(problem).into());
        }
        let bias = self.bias.map(Tensor::to_vec1::<f32>).transpose()?;
        let out = with_f32(x, |x| {
            let mut out = match products {
                Products::F32 => product(x, weight, bias.as_deref()),
                Products::Bf16 => bf16::product(x, weight, bias.as_deref()),
            };
            add_to(&mut out, adapters, x, [weight.rows(), inputs]);
            out
        })?;
        Ok(from_f32(out, (tokens, weight.rows()))?)
    }
}

impl Linear {
    /// The layer `name` of `weights`: `name.weight`, whose first side is `outputs` and whose other sides make up
    /// `inputs`, and `name.bias` when `biased`.
    pub fn load(
        weights: &Weights,
        name: &str,
        shape: &[usize],
        biased: bool,
        place: Place<'_>,
    ) -> Result<Self, WanError> {
        let matrix = weights.matrix(&format!("{name}.weight"), shape)?;
        let outputs = matrix.rows();
        let bias = match biased {
            true => Some(weights.tensor(&format!("{name}.bias"), outputs, DType::F32, place.device)?),
            false => None,
        };
        let adapters = weights.adapters(name);
        let weight = match place.ops.set {
            Set::Cpu => Weight::Kept(matrix, place.ops.products, adapters.to_vec()),
            Set::Tensors => {
                Weight::Elsewhere(Elsewhere::load(matrix, place)?, Resident::all(adapters, place.device)?)
            }
        };
        Ok(Self { weight, bias })
    }

    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, WanError> {
        self.at_hand()?.forward(x)
    }

    /// The layer for several uses in a row: what is widened or copied whenever it is used is so once.
    pub fn at_hand(&self) -> Result<AtHand<'_>, WanError> {
        let weight = match &self.weight {
            Weight::Kept(matrix, products, adapters) => Ready::Kept(matrix, *products, adapters),
            Weight::Elsewhere(weight, adapters) => Ready::Elsewhere(weight.tensor()?, adapters),
        };
        Ok(AtHand { weight, bias: self.bias.as_ref() })
    }
}

/// `[tokens, outputs]`, every row the bias, or zeros.
fn filled(tokens: usize, outputs: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let mut out = zeros(tokens * outputs);
    if let Some(bias) = bias {
        out.par_chunks_mut(outputs).for_each(|row| row.copy_from_slice(bias));
    }
    out
}

/// `x Wᵀ + bias` of x `[tokens, inputs]`.
fn product(x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let mut out = filled(x.len() / weight.columns(), weight.rows(), bias);
    add_product(&mut out, f32::from(u8::from(bias.is_some())), x, weight, 1.0);
    out
}

/// `out = keep · out + scale · x Wᵀ` of x `[tokens, inputs]`; with `keep` 0 what stands in `out` is never read.
pub(super) fn add_product(out: &mut [f32], keep: f32, x: &[f32], weight: &Matrix, scale: f32) {
    let (outputs, inputs) = (weight.rows(), weight.columns());
    let tokens = x.len() / inputs;
    let x = Mat::rows(x, tokens, inputs, inputs);
    let mut columns = |start: usize, band: &[f32], rows: usize| {
        let numbers = &mut out[start..];
        let mut out = MatMut { numbers, rows: tokens, columns: rows, row_stride: outputs };
        multiply_add(
            &mut out,
            keep,
            x,
            Mat::rows(band, rows, inputs, inputs).transposed(),
            scale,
            Threads::All,
        );
    };
    if let Numbers::F32(numbers) = weight.numbers() {
        return columns(0, numbers, outputs);
    }
    let band_rows = (BAND_NUMBERS / inputs).clamp(1, outputs);
    let mut band = vec![0.0; band_rows * inputs];
    for start in (0..outputs).step_by(band_rows) {
        let rows = band_rows.min(outputs - start);
        let band = &mut band[..rows * inputs];
        widen(weight, start, band);
        columns(start, band, rows);
    }
}

/// Rows from `start` on into `band`, by all threads.
fn widen(weight: &Matrix, start: usize, band: &mut [f32]) {
    const ROWS_AT_ONCE: usize = 16;
    let columns = weight.columns();
    band.par_chunks_mut(ROWS_AT_ONCE * columns).enumerate().for_each(|(chunk, into)| {
        let first = start + chunk * ROWS_AT_ONCE;
        weight.widen_rows(first..first + into.len() / columns, into);
    });
}
