//! From tensors to slices and back, for operations written by hand.

use candle_core::{CpuStorage, Device, Result, Shape, Storage, Tensor};
use rayon::prelude::*;

/// Numbers that one task copies or clears at least.
const CHUNK: usize = 1 << 16;

/// Calls `with` on the numbers of an f32 tensor on the CPU, in row-major order; a strided tensor is copied first.
pub fn with_f32<R>(tensor: &Tensor, with: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(numbers)) = &*storage else {
        candle_core::bail!("expected f32 on the CPU, not {:?} on {:?}", tensor.dtype(), tensor.device());
    };
    let start = layout.start_offset();
    Ok(with(&numbers[start..start + layout.shape().elem_count()]))
}

/// The same for several tensors.
pub fn with_all_f32<R>(tensors: &[&Tensor], with: impl FnOnce(&[&[f32]]) -> R) -> Result<R> {
    let tensors = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let slices = guards.iter().map(|(storage, layout)| match &**storage {
        Storage::Cpu(CpuStorage::F32(numbers)) => {
            let start = layout.start_offset();
            Ok(&numbers[start..start + layout.shape().elem_count()])
        }
        _ => candle_core::bail!("expected f32 on the CPU"),
    });
    Ok(with(&slices.collect::<Result<Vec<_>>>()?))
}

/// A copy of an f32 tensor's numbers, made by all threads: one alone would keep the others waiting before every operation.
pub fn copied(tensor: &Tensor) -> Result<Vec<f32>> {
    with_f32(tensor, |numbers| numbers.par_iter().with_min_len(CHUNK).copied().collect())
}

/// So many zeros, written by all threads.
pub fn zeros(count: usize) -> Vec<f32> {
    rayon::iter::repeat_n(0.0, count).with_min_len(CHUNK).collect()
}

/// An f32 tensor on the CPU.
pub fn from_f32(numbers: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(numbers, shape.into(), &Device::Cpu)
}
