//! What the models compute with: two sets of operations, one written by hand for the CPU, one for any device.
//!
//! Always true: both sets have one interface, [`Ops`], over f32 tensors, and agree (the tests compare them, and hold each to
//! the reference), so a model is written once and knows nothing of where it runs; an operation takes what its shape comment
//! says and panics on nothing that a checked checkpoint and a checked request can bring.

mod attention;
mod attention_bf16;
mod beside;
mod bf16;
mod channel_norm;
mod conv;
mod elementwise;
#[cfg(feature = "flash-attn")]
mod flash;
mod linear;
mod matmul;
mod norm;
mod rotary;
mod simd;
mod slices;
mod spread;
mod tensors;

use candle_core::{DType, Device, Tensor};

use crate::WanError;
pub use conv::{Conv, ConvShape, Frames, Sampling};
pub use linear::{AtHand, Linear};
pub use norm::Modulation;
pub use spread::Source;
pub(crate) use tensors::scores_bytes;
pub use tensors::softmax;

/// What numbers are rounded to before they are multiplied. Tensors and sums are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    F32,
    Bf16,
}

impl Products {
    /// The type of numbers that are multiplied.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Loops of our own, for tensors on the CPU.
    Cpu,
    /// The tensor library, wherever tensors lie.
    Tensors,
}

/// A set of operations, and how it multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ops {
    pub set: Set,
    pub products: Products,
}

/// Where a model's tensors lie and how it computes.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub device: &'a Device,
    pub ops: Ops,
    /// With [`Set::Tensors`]: weights of linear layers stay in their files and are copied to the device whenever they are
    /// used, instead of once.
    pub streamed: bool,
}

impl<'a> Place<'a> {
    /// The set of operations that is made for `device`.
    pub fn new(products: Products, device: &'a Device) -> Self {
        let set = if device.is_cpu() { Set::Cpu } else { Set::Tensors };
        Self { device, ops: Ops { set, products }, streamed: false }
    }

    /// The same with products in f32.
    pub fn exact(self) -> Self {
        Self { ops: Ops { products: Products::F32, ..self.ops }, ..self }
    }
}

impl Ops {
    /// `softmax(q kᵀ / √K) v` for each of `heads` heads: q `[N, A·K]`, k and v `[L, A·K]`, answer `[N, A·K]`.
    pub fn attention(self, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => attention::attention(q, k, v, heads, self.products),
            #[cfg(feature = "flash-attn")]
            Set::Tensors if flash::serves(q, q.dim(1)? / heads, self.products) => {
                flash::attention(q, k, v, heads)
            }
            Set::Tensors => tensors::attention(q, k, v, heads),
        }
    }

    /// `(x - mean) / √(variance + eps) · (1 + scale) + shift` for each row of x `[N, D]`.
    pub fn modulated_layer_norm(self, x: &Tensor, eps: f64, by: Modulation<'_>) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => norm::modulated_layer_norm(x, eps, by),
            Set::Tensors => tensors::modulated_layer_norm(x, eps, by),
        }
    }

    /// `(x - mean) / √(variance + eps) · weight + bias` for each row of x `[N, D]`; weight and bias are `[D]`.
    pub fn layer_norm(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
    ) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => norm::layer_norm(x, weight, bias, eps),
            Set::Tensors => tensors::layer_norm(x, weight, bias, eps),
        }
    }

    /// `x / √(mean of squares + eps) · weight` for each row of x `[N, D]`; weight is `[D]`.
    pub fn rms_norm(self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => norm::rms_norm(x, weight, eps),
            Set::Tensors => tensors::rms_norm(x, weight, eps),
        }
    }

    /// Turns `(x[2i], x[2i+1])` of every head of x `[N, A·K]` by the angle whose cosine and sine stand at `[n, i]` in
    /// `cos` and `sin`, `[N, K/2]`.
    pub fn rotate(self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => rotary::rotate(x, cos, sin),
            Set::Tensors => tensors::rotate(x, cos, sin),
        }
    }

    /// GELU in its tanh form, of any shape.
    pub fn gelu(self, x: &Tensor) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => elementwise::gelu(x),
            Set::Tensors => tensors::gelu(x),
        }
    }

    /// `x + y`, of the same shape.
    pub fn add(self, x: &Tensor, y: &Tensor) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => elementwise::add(x, y),
            Set::Tensors => Ok((x + y)?),
        }
    }

    /// `x + y · gate`: x and y `[N, D]`, gate `[R, D]`, whose row *r* serves the next `runs[r]` rows.
    pub fn gated_add(
        self,
        x: &Tensor,
        y: &Tensor,
        gate: &Tensor,
        runs: &[usize],
    ) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => elementwise::gated_add(x, y, gate, runs),
            Set::Tensors => tensors::gated_add(x, y, gate, runs),
        }
    }

    /// `x / max(‖x‖, 1e-12) · √C · gamma` over the channels of x `[T, C, H, W]`, gamma `[C]`; then `x · sigmoid(x)` if
    /// `silu`.
    pub fn channel_norm(self, x: &Tensor, gamma: &Tensor, silu: bool) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => channel_norm::channel_norm(x, gamma, silu),
            Set::Tensors => tensors::channel_norm(x, gamma, silu),
        }
    }

    /// x `[1, C, H, W]` to `[1, outputs, H·side, W·side]`, where every pixel becomes a square of the channels that
    /// `source` tells.
    pub fn spread_channels(
        self,
        x: &Tensor,
        outputs: usize,
        side: usize,
        source: Source<'_>,
    ) -> Result<Tensor, WanError> {
        match self.set {
            Set::Cpu => spread::spread_channels(x, outputs, side, source),
            Set::Tensors => tensors::spread_channels(x, outputs, side, source),
        }
    }
}
