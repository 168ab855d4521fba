//! Headers of safetensors files, checked against the file's length.

use std::path::Path;

use candle_core::DType;
use safetensors::SafeTensors;

use super::mapped::{MappedFile, Wide};
use super::{Entry, Stored};
use crate::WanError;

/// Bytes that hold the header's length, at the file's start.
const LENGTH_BYTES: usize = 8;

/// The tensors in the file at `path`.
pub(super) fn entries(path: &Path) -> Result<Vec<(String, Entry)>, WanError> {
    let file = MappedFile::open(path)?;
    let damaged = |problem: String| WanError::Damaged { path: path.to_owned(), problem };
    let all = file.bytes(&(0..file.len()));
    let (header_bytes, metadata) =
        SafeTensors::read_metadata(all).map_err(|error| damaged(format!("bad header: {error}")))?;
    let start = LENGTH_BYTES + header_bytes;
    let tensors = metadata.tensors();
    let end = start + tensors.values().map(|info| info.data_offsets.1).max().unwrap_or(0);
    if end != file.len() {
        return Err(damaged(format!("it has {} bytes, its header tells of {end}", file.len())));
    }
    let entry = |info: &safetensors::tensor::TensorInfo| Entry {
        file: file.clone(),
        stored: match info.dtype {
            safetensors::Dtype::F32 => Stored::Plain(DType::F32),
            safetensors::Dtype::F16 => Stored::Plain(DType::F16),
            safetensors::Dtype::BF16 => Stored::Plain(DType::BF16),
            safetensors::Dtype::I32 => Stored::Wide(Wide::I32),
            safetensors::Dtype::I64 => Stored::Wide(Wide::I64),
            safetensors::Dtype::F64 => Stored::Wide(Wide::F64),
            other => Stored::Unknown(format!("{other:?}")),
        },
        shape: info.shape.clone(),
        loose: false,
        bytes: start + info.data_offsets.0..start + info.data_offsets.1,
    };
    Ok(tensors.into_iter().map(|(name, info)| (name, entry(info))).collect())
}
