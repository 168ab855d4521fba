//! Headers of safetensors files, checked against the file's length.

use std::path::Path;

use candle_core::DType;
use safetensors::tensor::Metadata;
use safetensors::{SafeTensorError, SafeTensors};

use super::mapped::{MappedFile, Wide};
use super::{Entry, Stored};
use crate::WanError;

/// Bytes that hold the header's length, at the file's start.
const LENGTH_BYTES: usize = 8;

/// How files begin that Git LFS leaves where it did not fetch.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The file at `path`, the length of its header, and what that says.
fn open(path: &Path) -> Result<(MappedFile, usize, Metadata), WanError> {
    let file = MappedFile::open(path)?;
    let all = file.bytes(&(0..file.len()));
    let damaged = |problem: String| WanError::Damaged { path: path.to_owned(), problem };
    let (header_bytes, metadata) = SafeTensors::read_metadata(all).map_err(|error| match error {
        _ if all.starts_with(LFS_POINTER) => damaged(
            "it is what Git leaves in the place of a large file; `git lfs pull`, where it was cloned, fetches the file"
                .to_owned(),
        ),
        SafeTensorError::MetadataIncompleteBuffer => {
            damaged(format!("it has {} bytes, which is not what its header tells of", all.len()))
        }
        error => damaged(format!("bad header: {error}")),
    })?;
    Ok((file, header_bytes, metadata))
}

/// What the file at `path` says of itself under `key`.
pub(super) fn metadata(path: &Path, key: &str) -> Result<Option<String>, WanError> {
    let (_, _, metadata) = open(path)?;
    Ok(metadata.metadata().as_ref().and_then(|said| said.get(key).cloned()))
}

/// The tensors in the file at `path`.
pub(super) fn entries(path: &Path) -> Result<Vec<(String, Entry)>, WanError> {
    let (file, header_bytes, metadata) = open(path)?;
    let damaged = |problem: String| WanError::Damaged { path: path.to_owned(), problem };
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
