//! Files mapped into memory, and matrices that stay in them until they are multiplied with.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{CpuStorage, DType, Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;

use crate::WanError;

/// A file mapped for reading. Clones share the mapping.
#[derive(Debug, Clone)]
pub(super) struct MappedFile(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    pub(super) fn open(path: &Path) -> Result<Self, WanError> {
        let failed = |cause| WanError::Read { path: path.to_owned(), cause };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        // SAFETY: the mapping is only read. Whoever shortens a file of weights in use ends the process with SIGBUS, as
        // with every program that maps its weights; they are files that are replaced by renaming, not rewritten.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self(Arc::new(Mapped { path: path.to_owned(), map })))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn len(&self) -> usize {
        self.0.map.len()
    }

    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.0.map[range.clone()]
    }
}

/// A matrix of weights, `[rows, columns]` row by row: in its file, or in memory where something was added to it.
#[derive(Debug, Clone)]
pub struct Matrix {
    place: Place,
    rows: usize,
    columns: usize,
}

#[derive(Debug, Clone)]
enum Place {
    Mapped { file: MappedFile, bytes: Range<usize>, stored: Stored },
    Owned(Arc<[f32]>),
    OwnedBf16(Arc<[bf16]>),
}

/// How numbers lie in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    /// One by one, of 16 or 32 bits.
    Plain(DType),
    /// Quantised, a block of neighbours at a time.
    Blocks(GgmlDType),
    /// In types that tensors do not have here, but single numbers may.
    Wide(Wide),
    /// In a way that is not read here.
    Unknown(String),
}

/// Types of numbers that are read one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wide {
    I32,
    I64,
    F64,
}

impl Wide {
    /// The number in `bytes`, which are as many as it has.
    pub(super) fn number(self, bytes: &[u8]) -> f64 {
        const WHOLE: &str = "a header gives a number all of its bytes";
        match self {
            Self::I32 => f64::from(i32::from_le_bytes(bytes.try_into().expect(WHOLE))),
            Self::I64 => i64::from_le_bytes(bytes.try_into().expect(WHOLE)) as f64,
            Self::F64 => f64::from_le_bytes(bytes.try_into().expect(WHOLE)),
        }
    }
}

impl Stored {
    /// Numbers in a block, and its bytes.
    pub(super) fn block(&self) -> (usize, usize) {
        match self {
            Self::Plain(dtype) => (1, dtype.size_in_bytes()),
            Self::Blocks(dtype) => (dtype.block_size(), dtype.type_size()),
            Self::Wide(_) | Self::Unknown(_) => (1, 1),
        }
    }
}

/// The numbers of a matrix as they lie in memory.
#[derive(Debug, Clone, Copy)]
pub enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    /// 32-bit numbers at an odd address, as safetensors files may hold them.
    Unaligned(&'a [u8], DType),
    /// Quantised, a block of neighbours at a time.
    Blocks(&'a [u8], GgmlDType),
}

impl Matrix {
    pub(super) fn mapped(
        file: MappedFile,
        bytes: Range<usize>,
        stored: Stored,
        [rows, columns]: [usize; 2],
    ) -> Self {
        Self { place: Place::Mapped { file, bytes, stored }, rows, columns }
    }

    /// A matrix in memory. `numbers` holds `rows * columns` of them.
    pub fn owned(numbers: Vec<f32>, rows: usize, columns: usize) -> Self {
        assert_eq!(numbers.len(), rows * columns, "a matrix is full");
        Self { place: Place::Owned(numbers.into()), rows, columns }
    }

    /// The same in bf16.
    pub fn owned_bf16(numbers: Vec<bf16>, rows: usize, columns: usize) -> Self {
        assert_eq!(numbers.len(), rows * columns, "a matrix is full");
        Self { place: Place::OwnedBf16(numbers.into()), rows, columns }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The numbers, row by row.
    pub fn numbers(&self) -> Numbers<'_> {
        match &self.place {
            Place::Owned(numbers) => Numbers::F32(numbers),
            Place::OwnedBf16(numbers) => Numbers::Bf16(numbers),
            Place::Mapped { file, bytes, stored } => {
                let bytes = file.bytes(bytes);
                let dtype = match stored {
                    Stored::Plain(dtype) => dtype,
                    Stored::Blocks(dtype) => return Numbers::Blocks(bytes, *dtype),
                    Stored::Wide(_) | Stored::Unknown(_) => {
                        unreachable!("the type {stored:?} was refused when it was looked up")
                    }
                };
                // SAFETY: every pattern of bits is a number of these types, and only the aligned middle is taken.
                unsafe {
                    match dtype {
                        DType::F32 => whole(bytes.align_to::<f32>()).map(Numbers::F32),
                        DType::BF16 => whole(bytes.align_to::<bf16>()).map(Numbers::Bf16),
                        DType::F16 => whole(bytes.align_to::<f16>()).map(Numbers::F16),
                        other => unreachable!("the type {other:?} was refused when the file was opened"),
                    }
                }
                .unwrap_or(Numbers::Unaligned(bytes, *dtype))
            }
        }
    }

    /// Copies the matrix to `device` as `dtype`.
    pub fn to_tensor(&self, dtype: DType, device: &Device) -> Result<Tensor, WanError> {
        let shape = (self.rows, self.columns);
        let stored = match self.numbers() {
            Numbers::F32(numbers) => Tensor::from_slice(numbers, shape, device),
            Numbers::Bf16(numbers) => Tensor::from_slice(numbers, shape, device),
            Numbers::F16(numbers) => Tensor::from_slice(numbers, shape, device),
            Numbers::Blocks(..) => {
                let mut wide = vec![0.0; self.rows * self.columns];
                self.widen(0..wide.len(), &mut wide);
                Tensor::from_vec(wide, shape, device)
            }
            Numbers::Unaligned(bytes, stored) => {
                Tensor::from_raw_buffer(bytes, stored, &[self.rows, self.columns], device)
            }
        };
        Ok(stored?.to_dtype(dtype)?)
    }

    /// Copies a quantised matrix to `device` as it is; `None` where it is not quantised, or a block lies in two rows.
    pub fn to_quantised(&self, device: &Device) -> Result<Option<QTensor>, WanError> {
        match self.numbers() {
            Numbers::Blocks(bytes, dtype) if self.columns.is_multiple_of(dtype.block_size()) => {
                let blocks = QStorage::from_data(Cow::Borrowed(bytes), device, dtype)?;
                Ok(Some(QTensor::new(blocks, (self.rows, self.columns))?))
            }
            _ => Ok(None),
        }
    }

    /// Rows `rows` as 32-bit numbers into `into`, which holds `rows.len() * columns`.
    pub(crate) fn widen_rows(&self, rows: Range<usize>, into: &mut [f32]) {
        self.widen(rows.start * self.columns..rows.end * self.columns, into);
    }

    /// The numbers in `numbers`, counted row by row, rounded to bf16 into `into`, which holds as many.
    pub(crate) fn narrow(&self, numbers: Range<usize>, into: &mut [bf16]) {
        if let Numbers::Bf16(all) = self.numbers() {
            return into.copy_from_slice(&all[numbers]);
        }
        let mut wide = [0f32; 256];
        for (chunk, into) in into.chunks_mut(wide.len()).enumerate() {
            let start = numbers.start + chunk * wide.len();
            let wide = &mut wide[..into.len()];
            self.widen(start..start + into.len(), wide);
            into.iter_mut().zip(wide).for_each(|(narrow, wide)| *narrow = bf16::from_f32(*wide));
        }
    }

    /// The numbers in `numbers`, counted row by row, as 32-bit ones into `into`, which holds as many.
    pub(crate) fn widen(&self, numbers: Range<usize>, into: &mut [f32]) {
        assert_eq!(numbers.len(), into.len(), "the room fits the numbers");
        match self.numbers() {
            Numbers::F32(all) => into.copy_from_slice(&all[numbers]),
            Numbers::Bf16(all) => {
                into.iter_mut().zip(&all[numbers]).for_each(|(wide, narrow)| *wide = narrow.to_f32());
            }
            Numbers::F16(all) => {
                into.iter_mut().zip(&all[numbers]).for_each(|(wide, narrow)| *wide = narrow.to_f32());
            }
            Numbers::Unaligned(bytes, dtype) => widen_bytes(bytes, dtype, numbers, into),
            Numbers::Blocks(bytes, dtype) => widen_blocks(bytes, dtype, &numbers, into),
        }
    }
}

fn widen_bytes(bytes: &[u8], dtype: DType, numbers: Range<usize>, into: &mut [f32]) {
    let width = dtype.size_in_bytes();
    let bytes = bytes[numbers.start * width..numbers.end * width].chunks_exact(width);
    for (wide, narrow) in into.iter_mut().zip(bytes) {
        *wide = match *narrow {
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b] if dtype == DType::BF16 => bf16::from_le_bytes([a, b]).to_f32(),
            [a, b] => f16::from_le_bytes([a, b]).to_f32(),
            _ => unreachable!("numbers have two or four bytes"),
        };
    }
}

/// Widens the blocks that `numbers` lie in and takes those.
fn widen_blocks(bytes: &[u8], dtype: GgmlDType, numbers: &Range<usize>, into: &mut [f32]) {
    let (block, size) = (dtype.block_size(), dtype.type_size());
    let blocks = numbers.start / block..numbers.end.div_ceil(block);
    let found = dtype.from_data(Cow::Borrowed(&bytes[blocks.start * size..blocks.end * size]));
    let Ok(CpuStorage::F32(wide)) = found.dequantize(blocks.len() * block) else {
        unreachable!("blocks of {dtype:?} are widened to f32")
    };
    into.copy_from_slice(&wide[numbers.start - blocks.start * block..][..numbers.len()]);
}

/// The middle of an aligned split when it is the whole.
fn whole<'a, T>((before, all, after): (&'a [u8], &'a [T], &'a [u8])) -> Option<&'a [T]> {
    (before.is_empty() && after.is_empty()).then_some(all)
}
