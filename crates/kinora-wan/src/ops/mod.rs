//! Each hot operation once: plainly over tensors, wherever they are, and faster on the CPU, where tensors are f32.
//!
//! Always true: both forms of an operation have one signature and agree (the tests compare them); an operation takes
//! what its shape comment says and panics on nothing that a checked checkpoint and a checked request can bring.

mod attention;
mod attention_bf16;
mod bf16;
mod channel_norm;
mod conv;
mod elementwise;
mod linear;
mod matmul;
mod norm;
mod rotary;
mod simd;
mod slices;
mod spread;

use candle_core::{DType, Device};

pub use attention::{attention, softmax};
pub use channel_norm::channel_norm;
pub use conv::{Conv, ConvShape, Frames, Sampling};
pub use elementwise::{gated_add, gelu};
pub use linear::Linear;
pub use matmul::{Mat, MatMut, Threads, multiply_add};
pub use norm::{Modulation, layer_norm, modulated_layer_norm, rms_norm};
pub use rotary::rotate;
pub use slices::{from_f32, is_cpu_f32, with_f32};
pub use spread::spread_channels;

/// What numbers are rounded to before they are multiplied on the CPU. Tensors and sums are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    F32,
    Bf16,
}

impl Products {
    /// Those of an engine that computes in `dtype`.
    pub fn of(dtype: DType) -> Self {
        if dtype == DType::BF16 { Self::Bf16 } else { Self::F32 }
    }
}

/// The type of tensors where an engine computes in `dtype`: on the CPU half-width types say how numbers are multiplied,
/// not how they are kept.
pub fn tensor_dtype((dtype, device): (DType, &Device)) -> DType {
    match dtype {
        DType::BF16 | DType::F16 if device.is_cpu() => DType::F32,
        dtype => dtype,
    }
}

/// Plain forms, for tests to compare with.
#[doc(hidden)]
pub mod plain {
    pub use super::attention::plain as attention;
    pub use super::channel_norm::plain as channel_norm;
    pub use super::elementwise::{plain_gated_add as gated_add, plain_gelu as gelu};
    pub use super::norm::{
        plain_layer_norm as layer_norm, plain_modulated as modulated_layer_norm, plain_rms as rms_norm,
    };
    pub use super::rotary::plain as rotate;
    pub use super::spread::plain as spread_channels;
}
