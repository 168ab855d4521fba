//! From tensors to slices and back, for operations written by hand.

use candle_core::{CpuStorage, Device, Result, Shape, Storage, Tensor};

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

/// An f32 tensor on the CPU.
pub fn from_f32(numbers: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(numbers, shape.into(), &Device::Cpu)
}
