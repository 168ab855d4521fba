//! Each hot operation once: plainly over tensors, wherever they are, and faster on the CPU in f32.
//!
//! Always true: both forms of an operation have one signature and agree (the tests compare them); an operation takes
//! what its shape comment says and panics on nothing that a checked checkpoint and a checked request can bring.

mod attention;
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
