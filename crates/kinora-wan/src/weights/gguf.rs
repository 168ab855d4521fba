//! Quantised weights as people have them: one GGUF file in a component's folder, in place of safetensors.
//!
//! Always true: a file is mapped and its blocks are widened as they are used, so quantised weights take the memory of
//! their file and no more; names are those of the diffusers and transformers libraries outside this module; sides of 1,
//! which some programs drop, do not count when shapes are compared.
//! Deliberately not here: types of blocks that no published file of these models uses. The tensor library's reader is not
//! used since it refuses tensors of five sides, which published files of these transformers have.
//! Source: the GGUF specification of the ggml project, version 3; the names of the models' own program and of llama.cpp's
//! T5 encoders.

use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use super::mapped::MappedFile;
use super::{Entry, Stored, names};
use crate::WanError;

/// The letters that a file begins with.
const MAGIC: &[u8] = b"GGUF";
/// Versions whose counts have 64 bits.
const VERSIONS: [u32; 2] = [2, 3];
/// What tensors begin at multiples of, unless the file says otherwise.
const ALIGNMENT: usize = 32;
/// Sides of a tensor at most: of a convolution in time and space.
const SIDES_MAX: usize = 5;

/// The one GGUF file in `folder`, if there is one.
pub(super) fn file_in(folder: &Path) -> Result<Option<PathBuf>, WanError> {
    let failed = |cause| WanError::Read { path: folder.to_owned(), cause };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            found.push(path);
        }
    }
    found.sort();
    match &found[..] {
        [] | [_] => Ok(found.pop()),
        [first, second, ..] => {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let problem = format!("it holds {} and {}: leave one of them there", name(first), name(second));
            Err(WanError::config(folder, problem))
        }
    }
}

/// The tensors in the file at `path`, by the names that the libraries have for them.
pub(super) fn entries(path: &Path) -> Result<Vec<(String, Entry)>, WanError> {
    let file = MappedFile::open(path)?;
    let all = file.bytes(&(0..file.len()));
    let damaged = |problem: &str| WanError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
    let header = Header::read(all).ok_or_else(|| damaged("its GGUF header makes no sense"))?;
    let mut entries = Vec::with_capacity(header.tensors.len());
    for info in header.tensors {
        let entry = info.entry(&file, header.data).ok_or_else(|| {
            damaged(&format!("the tensor `{}` does not lie in the {} bytes it has", info.name, file.len()))
        })?;
        entries.push((library_name(&info.name), entry));
    }
    Ok(entries)
}

/// What stands before the numbers.
struct Header {
    tensors: Vec<TensorInfo>,
    /// Where the numbers begin.
    data: usize,
}

struct TensorInfo {
    name: String,
    /// The slowest side first.
    shape: Vec<usize>,
    kind: u32,
    offset: usize,
}

impl Header {
    /// `None` where `bytes` end too early or count more than they hold.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len())? != MAGIC || !VERSIONS.contains(&reader.u32()?) {
            return None;
        }
        let (tensors_count, values_count) = (reader.count()?, reader.count()?);
        let mut alignment = ALIGNMENT;
        for _ in 0..values_count {
            let key = reader.string()?;
            let kind = reader.u32()?;
            match reader.value(kind, 0)? {
                Some(number) if key == "general.alignment" => alignment = number,
                _ => {}
            }
        }
        let tensors = (0..tensors_count).map(|_| reader.tensor()).collect::<Option<Vec<_>>>()?;
        (alignment > 0).then(|| Self { tensors, data: reader.at.next_multiple_of(alignment) })
    }
}

impl TensorInfo {
    /// `None` where the numbers do not lie in the file.
    fn entry(&self, file: &MappedFile, data: usize) -> Option<Entry> {
        let count = self.shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side))?;
        let (stored, length) = match stored(self.kind) {
            Some(stored) => {
                let (numbers, bytes) = stored.block();
                let whole = count.is_multiple_of(numbers).then_some(count / numbers)?;
                (stored, whole.checked_mul(bytes)?)
            }
            // It may well be a tensor that nobody asks for.
            None => (Stored::Unknown(format!("GGUF type {}", self.kind)), 0),
        };
        let start = data.checked_add(self.offset)?;
        let end = start.checked_add(length)?;
        // Blocks hold 16-bit numbers.
        let inside = end <= file.len() && start.is_multiple_of(2);
        let shape = self.shape.iter().copied().filter(|side| *side != 1).collect();
        inside.then(|| Entry { file: file.clone(), stored, shape, loose: true, bytes: start..end })
    }
}

/// How numbers of the GGUF type `kind` are stored.
fn stored(kind: u32) -> Option<Stored> {
    Some(match kind {
        0 => Stored::Plain(DType::F32),
        1 => Stored::Plain(DType::F16),
        30 => Stored::Plain(DType::BF16),
        2 => Stored::Blocks(GgmlDType::Q4_0),
        3 => Stored::Blocks(GgmlDType::Q4_1),
        6 => Stored::Blocks(GgmlDType::Q5_0),
        7 => Stored::Blocks(GgmlDType::Q5_1),
        8 => Stored::Blocks(GgmlDType::Q8_0),
        10 => Stored::Blocks(GgmlDType::Q2K),
        11 => Stored::Blocks(GgmlDType::Q3K),
        12 => Stored::Blocks(GgmlDType::Q4K),
        13 => Stored::Blocks(GgmlDType::Q5K),
        14 => Stored::Blocks(GgmlDType::Q6K),
        _ => return None,
    })
}

/// Reads numbers in order, never past the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A number of things, each of which takes a byte at least.
    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok().filter(|count| *count <= self.bytes.len() - self.at)
    }

    fn string(&mut self) -> Option<String> {
        let length = self.count()?;
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// Passes over a value of type `kind`; the number where it is one of 32 or 64 bits without a sign.
    fn value(&mut self, kind: u32, depth: usize) -> Option<Option<usize>> {
        const DEPTH_MAX: usize = 8;
        match kind {
            0 | 1 | 7 => self.take(1).map(|_| None),
            2 | 3 => self.take(2).map(|_| None),
            4 => Some(usize::try_from(self.u32()?).ok()),
            5 | 6 => self.take(4).map(|_| None),
            8 => self.string().map(|_| None),
            9 if depth < DEPTH_MAX => {
                let (kind, count) = (self.u32()?, self.count()?);
                for _ in 0..count {
                    self.value(kind, depth + 1)?;
                }
                Some(None)
            }
            10 => Some(usize::try_from(self.u64()?).ok()),
            11 | 12 => self.take(8).map(|_| None),
            _ => None,
        }
    }

    fn tensor(&mut self) -> Option<TensorInfo> {
        let name = self.string()?;
        let sides = usize::try_from(self.u32()?).ok().filter(|sides| *sides <= SIDES_MAX)?;
        let mut shape = (0..sides).map(|_| usize::try_from(self.u64()?).ok()).collect::<Option<Vec<_>>>()?;
        shape.reverse();
        let (kind, offset) = (self.u32()?, usize::try_from(self.u64()?).ok()?);
        Some(TensorInfo { name, shape, kind, offset })
    }
}

/// The libraries' name for a tensor of the models' own program or of llama.cpp; other names are left alone.
fn library_name(name: &str) -> String {
    if let Some(known) = encoder_name(name) {
        return known;
    }
    if names::is_table(name) {
        return names::table(name);
    }
    match name.rsplit_once('.') {
        Some((layer, part)) => format!("{}.{part}", names::layer(layer)),
        None => name.to_owned(),
    }
}

/// The same for the text encoder.
fn encoder_name(name: &str) -> Option<String> {
    const PARTS: [(&str, &str); 10] = [
        ("attn_q", "0.SelfAttention.q"),
        ("attn_k", "0.SelfAttention.k"),
        ("attn_v", "0.SelfAttention.v"),
        ("attn_o", "0.SelfAttention.o"),
        ("attn_rel_b", "0.SelfAttention.relative_attention_bias"),
        ("attn_norm", "0.layer_norm"),
        ("ffn_gate", "1.DenseReluDense.wi_0"),
        ("ffn_up", "1.DenseReluDense.wi_1"),
        ("ffn_down", "1.DenseReluDense.wo"),
        ("ffn_norm", "1.layer_norm"),
    ];
    match name {
        "token_embd.weight" => return Some("shared.weight".to_owned()),
        "enc.output_norm.weight" => return Some("encoder.final_layer_norm.weight".to_owned()),
        _ => {}
    }
    let (block, rest) = name.strip_prefix("enc.blk.")?.split_once('.')?;
    let part = rest.strip_suffix(".weight")?;
    let (_, known) = PARTS.iter().find(|(own, _)| *own == part)?;
    Some(format!("encoder.block.{block}.layer.{known}.weight"))
}

#[cfg(test)]
mod tests;
