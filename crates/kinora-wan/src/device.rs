//! Where a model computes: the CPU, or an NVIDIA GPU in builds with the feature `cuda`.
//!
//! Always true: a device that is asked for is used or refused with a sentence, never replaced by another; what does not fit
//! into a GPU's memory is told before anything is copied there.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};

use crate::model::Residency;
use crate::ops::{Ops, Place, Products};
use crate::{Needs, WanError};

/// A GPU's memory that is kept free for its libraries: their code, handles and workspaces.
const LIBRARIES_BYTES: u64 = 1 << 30;
/// Side of the matrices of ones that tell whether a device works; sums of so many are exact in every type.
const PROBE_SIDE: usize = 16;

/// A device as users name it: `cpu`, `cuda` for the first GPU, or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        number.map(Self::Cuda).ok_or_else(|| {
            "must be cpu, cuda for the first NVIDIA GPU, or cuda:N for the one with the number N".to_owned()
        })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Where and how to compute.
#[derive(Debug, Clone)]
pub struct Target {
    pub device: Device,
    pub ops: Ops,
}

impl Target {
    /// The CPU, in f32.
    pub fn cpu_f32() -> Self {
        Self::on(Device::Cpu, Products::F32)
    }

    /// The CPU, with what is multiplied rounded to bf16 and all else in f32.
    pub fn cpu_bf16() -> Self {
        Self::on(Device::Cpu, Products::Bf16)
    }

    /// Opens the device `name`.
    pub fn open(name: DeviceName, products: Products) -> Result<Self, WanError> {
        match name {
            DeviceName::Cpu => Ok(Self::on(Device::Cpu, products)),
            DeviceName::Cuda(number) => Ok(Self::on(open_cuda(number, products)?, products)),
        }
    }

    fn on(device: Device, products: Products) -> Self {
        let ops = Place::new(products, &device).ops;
        Self { device, ops }
    }

    pub fn place(&self) -> Place<'_> {
        Place { device: &self.device, ops: self.ops, streamed: false }
    }

    /// Computes a little there and waits for it, so that a device that fell away or broke is known.
    pub fn probe(&self) -> Result<(), WanError> {
        let ones = Tensor::ones((PROBE_SIDE, PROBE_SIDE), DType::F32, &self.device)?;
        let sum = ones.matmul(&ones)?.sum_all()?.to_scalar::<f32>()?;
        self.device.synchronize()?;
        let wanted = PROBE_SIDE.pow(3) as f32;
        if sum == wanted {
            return Ok(());
        }
        Err(WanError::Device(format!("the device computes wrongly: {sum} where {wanted} is right")))
    }

    /// Of a GPU; `None` for the CPU.
    pub fn memory(&self) -> Result<Option<DeviceMemory>, WanError> {
        memory_of(&self.device)
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(number: usize, products: Products) -> Result<Device, WanError> {
    // With a stream of its own, which all threads share: clips of several workers are computed one operation after the other.
    // On the streams that threads have by default nothing would make one wait for weights that another copies, and products
    // at the same time would share the one workspace of cuBLAS.
    let device = Device::new_cuda_with_stream(number).map_err(|error| {
        WanError::Device(format!(
            "the device cuda:{number} cannot be used: {}; `nvidia-smi` lists what the driver knows, counted from 0",
            reason(&error)
        ))
    })?;
    check_kernels(&device, number, products)?;
    // With bf16 asked for, what is multiplied in f32 (scores and what they weigh, for the most part) may go through tensor
    // cores, which take 10 bits of it: more than bf16 has, over the same range.
    candle_core::cuda::set_gemm_reduced_precision_f32(products == Products::Bf16);
    Ok(device)
}

/// Where backtraces are asked for, the library's errors go on with one.
#[cfg(feature = "cuda")]
fn reason(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Refuses a GPU of another kind than the program's kernels were compiled for: they run on theirs and later ones, and those
/// of bf16 begin with compute capability 8.0.
#[cfg(feature = "cuda")]
fn check_kernels(device: &Device, number: usize, products: Products) -> Result<(), WanError> {
    let tried = Tensor::ones(1, DType::F32, device).and_then(|one| one.to_dtype(products.dtype()));
    let (Err(error), Device::Cuda(cuda)) = (tried.and_then(|_| device.synchronize()), device) else {
        return Ok(());
    };
    let capability = cuda.cuda_stream().context().compute_capability();
    let (major, minor) = capability.map_err(candle_core::Error::wrap)?;
    let remedy = match products {
        Products::Bf16 if major < 8 => "bf16 begins at 8.0, --dtype f32 does without it".to_owned(),
        _ => format!("if it was built for another, `scripts/build-cuda {major}{minor}` builds one for this"),
    };
    Err(WanError::Device(format!(
        "the device cuda:{number} does not run this program's kernels: {}; it has compute capability {major}.{minor}: {remedy}",
        reason(&error)
    )))
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(number: usize, _: Products) -> Result<Device, WanError> {
    Err(WanError::Device(format!(
        "the device cuda:{number} cannot be used: this program was built for the CPU alone; `cargo build --release \
         --features cuda` makes one that knows NVIDIA GPUs, and scripts/build-cuda does so where no CUDA is installed \
         (docs/WAN.md)"
    )))
}

#[cfg(feature = "cuda")]
fn memory_of(device: &Device) -> Result<Option<DeviceMemory>, WanError> {
    let Device::Cuda(cuda) = device else { return Ok(None) };
    let (free, total) = cuda.cuda_stream().context().mem_get_info().map_err(candle_core::Error::wrap)?;
    Ok(Some(DeviceMemory { free_bytes: free as u64, total_bytes: total as u64 }))
}

#[cfg(not(feature = "cuda"))]
fn memory_of(_: &Device) -> Result<Option<DeviceMemory>, WanError> {
    Ok(None)
}

/// A GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

impl DeviceMemory {
    /// What so many clips at the same time take, in all.
    pub fn wanted_bytes(needs: &Needs, clips_count: u32) -> u64 {
        let clips = |bytes: u64| bytes.saturating_mul(clips_count.into());
        let own = match needs.residency {
            Residency::Whole => needs.weights_bytes.saturating_add(clips(needs.working_bytes)),
            Residency::InTurn => clips(needs.weights_bytes.saturating_add(needs.working_bytes)),
        };
        own.saturating_add(LIBRARIES_BYTES)
    }

    /// Whether so many clips at the same time fit.
    pub fn holds(self, needs: &Needs, clips_count: u32) -> bool {
        Self::wanted_bytes(needs, clips_count) <= self.free_bytes
    }

    /// Refuses clips that do not fit.
    pub fn check(self, needs: &Needs, products: Products, clips_count: u32) -> Result<(), WanError> {
        if self.holds(needs, clips_count) {
            return Ok(());
        }
        let fewer = if clips_count > 1 { "fewer --workers take less, and " } else { "" };
        let remedy = match (products, needs.stage) {
            (Products::F32, "denoise") => "--dtype bf16 halves the transformer's weights",
            (Products::Bf16, "denoise") => {
                "a smaller --size, fewer --frames or a smaller quantisation of the weights take less"
            }
            (_, "decode") => "a smaller --size takes less, and so may --vae-tile 256",
            _ => "a smaller --size takes less",
        };
        let parts = match needs.residency {
            Residency::Whole => "",
            Residency::InTurn => " with one part of the model there at a time",
        };
        Err(WanError::Device(format!(
            "{} needs about {} of the GPU's memory{parts} ({} of weights, {} in the stage `{}`, {} for libraries), and {} of \
             {} are free: {fewer}{remedy}",
            needs.clips(clips_count),
            gigabytes(Self::wanted_bytes(needs, clips_count)),
            gigabytes(needs.weights_bytes),
            gigabytes(needs.working_bytes),
            needs.stage,
            gigabytes(LIBRARIES_BYTES),
            gigabytes(self.free_bytes),
            gigabytes(self.total_bytes),
        )))
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Size;

    #[test]
    fn devices_are_named() {
        for (text, name) in
            [("cpu", DeviceName::Cpu), ("cuda", DeviceName::Cuda(0)), ("cuda:3", DeviceName::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(name));
        }
        assert_eq!(DeviceName::Cuda(3).to_string(), "cuda:3");
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu:0", "cuda3"] {
            let told = text.parse::<DeviceName>().unwrap_err();
            assert!(told.contains("cuda:N"), "{text}: {told}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_tells_how_to_get_one() {
        let told = Target::open(DeviceName::Cuda(1), Products::F32).unwrap_err().to_string();
        for part in ["cuda:1", "--features cuda", "scripts/build-cuda"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_device_that_works_passes_its_probe() {
        Target::cpu_f32().probe().unwrap();
        Target::cpu_bf16().probe().unwrap();
    }

    #[test]
    fn what_does_not_fit_on_a_gpu_is_told_with_both_sizes() {
        const GB: u64 = 1_000_000_000;
        let needs = |stage| Needs {
            size: Size { width_px: 1280, height_px: 704 },
            frames: 121,
            stage,
            working_bytes: 5 * GB,
            weights_bytes: 13 * GB,
            residency: Residency::Whole,
        };
        let memory = |gb| DeviceMemory { free_bytes: gb * GB, total_bytes: 24 * GB };
        let told =
            |products, stage, gb| memory(gb).check(&needs(stage), products, 1).unwrap_err().to_string();
        let narrow = told(Products::Bf16, "denoise", 19);
        for part in
            ["1280x704 and 121 frames", "19.1 GB", "13.0 GB of weights", "19.0 GB of 24.0 GB", "--frames"]
        {
            assert!(narrow.contains(part), "{narrow}");
        }
        assert!(told(Products::Bf16, "decode", 19).contains("--vae-tile"));
        assert!(told(Products::F32, "denoise", 19).contains("--dtype bf16"));
        assert!(memory(20).check(&needs("denoise"), Products::Bf16, 1).is_ok());

        // Two clips share the weights, unless these are copied there for each of them.
        let in_turn = Needs { residency: Residency::InTurn, ..needs("denoise") };
        for (needs, gb) in [(needs("denoise"), 24), (in_turn, 37)] {
            let told = memory(gb).check(&needs, Products::Bf16, 2).unwrap_err().to_string();
            assert!(told.contains("frames, 2 at a time,") && told.contains("fewer --workers"), "{told}");
            assert_eq!(
                told.contains("one part of the model there at a time"),
                needs.residency == Residency::InTurn,
                "{told}"
            );
            assert!(memory(gb + 1).check(&needs, Products::Bf16, 2).is_ok());
        }
    }
}
