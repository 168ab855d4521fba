//! Weights in the layout of the diffusers library: one safetensors file, or shards with an index, in a folder; or one
//! GGUF file in their place.
//!
//! Always true: files are mapped, not read, so what is never used costs nothing and what is used can be dropped by the
//! system; a shape or type that does not fit is told with file and name before anything is computed with it.
//! Source: the safetensors format (8 bytes of header length, JSON header, data), and `*.safetensors.index.json` of the
//! transformers library.

mod gguf;
mod lora;
mod lora_config;
mod made_up;
mod mapped;
mod names;
mod safe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Shape, Tensor};

pub use lora::{Adapter, Lora};
use mapped::{MappedFile, Stored};
pub use mapped::{Matrix, Numbers};

use crate::WanError;

/// The names that the libraries save a component's weights under.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// The tensors of one component, looked up by the names in the checkpoint.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    source: Source,
    adapters: lora::Adapters,
}

#[derive(Debug)]
enum Source {
    Files(BTreeMap<String, Entry>),
    /// Every tensor that is asked for is there; matrices are kept in this type.
    MadeUp(DType),
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Entry {
    file: MappedFile,
    stored: Stored,
    shape: Vec<usize>,
    /// The shape is without sides of 1, which do not count.
    loose: bool,
    bytes: std::ops::Range<usize>,
}

impl Weights {
    /// Opens the weights in `folder`: every shard is mapped and its header checked against its length.
    pub fn open(folder: &Path) -> Result<Self, WanError> {
        let mut entries = BTreeMap::new();
        for path in files(folder)? {
            let quantised = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
            entries.extend(if quantised { gguf::entries(&path)? } else { safe::entries(&path)? });
        }
        Ok(Self::of(folder, Source::Files(entries)))
    }

    /// Opens one safetensors file.
    pub fn open_file(path: &Path) -> Result<Self, WanError> {
        Ok(Self::of(path, Source::Files(safe::entries(path)?.into_iter().collect())))
    }

    /// Random weights of whatever name and shape is asked for, matrices kept as `dtype` (f32 or bf16): to measure with.
    pub fn made_up(dtype: DType) -> Self {
        Self::of(Path::new("random weights"), Source::MadeUp(dtype))
    }

    fn of(folder: &Path, source: Source) -> Self {
        Self { folder: folder.to_owned(), source, adapters: lora::Adapters::default() }
    }

    /// What the files hold, by name.
    fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        match &self.source {
            Source::Files(entries) => Some(entries.iter()),
            Source::MadeUp(_) => None,
        }
        .into_iter()
        .flatten()
    }

    /// With the adapters of these files beside the layers that they are for.
    pub fn adapted(mut self, loras: &[Lora]) -> Result<Self, WanError> {
        let mut adapters = lora::Adapters::default();
        for lora in loras {
            adapters.add(lora, &self)?;
        }
        self.adapters = adapters;
        Ok(self)
    }

    /// The adapters of `layer`, which fit it.
    pub(crate) fn adapters(&self, layer: &str) -> &[Adapter] {
        self.adapters.of(layer)
    }

    /// Bytes of all adapters as they are stored, and their numbers.
    pub fn adapters_extent(&self) -> (u64, u64) {
        (self.adapters.stored_bytes, self.adapters.numbers)
    }

    /// What users should know of the files of adapters, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.adapters.warnings
    }

    pub fn contains(&self, name: &str) -> bool {
        match &self.source {
            Source::Files(entries) => entries.contains_key(name),
            Source::MadeUp(_) => true,
        }
    }

    /// Names of all tensors in files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries().map(|(name, _)| name.as_str())
    }

    /// Bytes of all tensors as they are stored.
    pub fn size_bytes(&self) -> u64 {
        self.entries().map(|(_, entry)| entry.bytes.len() as u64).sum()
    }

    /// Numbers of the tensors that are not quantised, and bytes of those that are.
    pub fn plain_and_quantised(&self) -> (u64, u64) {
        self.entries().fold((0, 0), |(numbers, bytes), (_, entry)| match entry.stored {
            Stored::Blocks(_) => (numbers, bytes + entry.bytes.len() as u64),
            _ => (numbers + entry.shape.iter().product::<usize>() as u64, bytes),
        })
    }

    /// Numbers of all tensors.
    pub fn numbers(&self) -> u64 {
        self.entries().map(|(_, entry)| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// The shape of `name` as it is stored.
    pub fn shape(&self, name: &str) -> Result<&[usize], WanError> {
        Ok(&self.entry(name)?.shape)
    }

    /// Copies the tensor `name`, which must have `shape`, to `device` as `dtype`.
    pub fn tensor(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, WanError> {
        let shape = shape.into();
        let Source::Files(_) = &self.source else {
            let numbers = made_up::vector(name, shape.elem_count());
            return Ok(Tensor::from_vec(numbers, shape, device)?.to_dtype(dtype)?);
        };
        let matrix = self.mapped(name, shape.dims(), [1, shape.elem_count()])?;
        if self.adapters.change(name) {
            let tensor = matrix.to_tensor(DType::F32, &Device::Cpu)?.reshape(shape)?;
            return Ok(self.adapters.changed(name, tensor)?.to_dtype(dtype)?.to_device(device)?);
        }
        Ok(matrix.to_tensor(dtype, device)?.reshape(shape)?)
    }

    /// The one number of the tensor `name`, whatever its type.
    fn number(&self, name: &str) -> Result<f64, WanError> {
        let entry = self.entry(name)?;
        if entry.shape.iter().product::<usize>() != 1 {
            return Err(entry.misfit(name, &[]));
        }
        if let Stored::Wide(wide) = entry.stored {
            return Ok(wide.number(entry.file.bytes(&entry.bytes)));
        }
        let mut number = [0.0];
        self.row(name)?.widen_rows(0..1, &mut number);
        Ok(f64::from(number[0]))
    }

    /// All numbers of the tensor `name` in one row, left where they lie.
    fn row(&self, name: &str) -> Result<Matrix, WanError> {
        let shape = self.shape(name)?;
        self.mapped(name, shape, [1, shape.iter().product()])
    }

    /// Bytes of the tensor `name` as it is stored, and its numbers.
    fn extent(&self, name: &str) -> Result<(u64, u64), WanError> {
        let entry = self.entry(name)?;
        Ok((entry.bytes.len() as u64, entry.shape.iter().product::<usize>() as u64))
    }

    /// The tensor `name` of `shape` as a matrix, left where it lies: the first side counts rows, the others make up one.
    pub fn matrix(&self, name: &str, shape: &[usize]) -> Result<Matrix, WanError> {
        let size = [shape[0], shape[1..].iter().product()];
        if let Source::MadeUp(dtype) = self.source {
            return Ok(made_up::matrix(name, size, dtype));
        }
        self.mapped(name, shape, size)
    }

    /// The tensor `name` of `shape` as a matrix of `size`, if its type is known.
    fn mapped(&self, name: &str, shape: &[usize], size: [usize; 2]) -> Result<Matrix, WanError> {
        let entry = self.shaped(name, shape)?;
        let refused = match &entry.stored {
            Stored::Unknown(kind) => Some(kind.clone()),
            Stored::Wide(wide) => Some(format!("{wide:?}")),
            Stored::Plain(_) | Stored::Blocks(_) => None,
        };
        if let Some(dtype) = refused {
            let (path, name) = (entry.file.path().to_owned(), name.to_owned());
            return Err(WanError::WrongType { path, name, dtype });
        }
        Ok(Matrix::mapped(entry.file.clone(), entry.bytes.clone(), entry.stored.clone(), size))
    }

    fn entry(&self, name: &str) -> Result<&Entry, WanError> {
        let found = match &self.source {
            Source::Files(entries) => entries.get(name),
            Source::MadeUp(_) => None,
        };
        found.ok_or_else(|| WanError::MissingTensor { path: self.folder.clone(), name: name.to_owned() })
    }

    fn shaped(&self, name: &str, wanted: &[usize]) -> Result<&Entry, WanError> {
        let entry = self.entry(name)?;
        let counted = |side: &&usize| !entry.loose || **side != 1;
        if !wanted.iter().filter(counted).eq(&entry.shape) {
            return Err(entry.misfit(name, wanted));
        }
        Ok(entry)
    }
}

impl Entry {
    /// That the tensor `name`, which this is, should have the shape `wanted`.
    fn misfit(&self, name: &str, wanted: &[usize]) -> WanError {
        WanError::WrongShape {
            path: self.file.path().to_owned(),
            name: name.to_owned(),
            got: self.shape.clone(),
            wanted: wanted.to_owned(),
        }
    }
}

/// The one tensor `name` of `shape` in the safetensors file at `path`, as f32 on the CPU.
pub fn read_tensor(path: &Path, name: &str, shape: &[usize]) -> Result<Tensor, WanError> {
    Weights::open_file(path)?.tensor(name, shape, DType::F32, &Device::Cpu)
}

/// The files that hold the weights in `folder`: those that the index names, else the single file, else one in GGUF, which must not lie beside others.
fn files(folder: &Path) -> Result<Vec<PathBuf>, WanError> {
    let gguf = gguf::file_in(folder)?;
    for stem in STEMS {
        let index = folder.join(format!("{stem}.safetensors.index.json"));
        let single = folder.join(format!("{stem}.safetensors"));
        if let Some(path) = gguf.as_ref().filter(|_| index.exists() || single.exists()) {
            return Err(WanError::config(path, "there are weights in safetensors, too: keep one of the two"));
        }
        if index.exists() {
            return shards(folder, &index);
        }
        if single.exists() {
            return Ok(vec![single]);
        }
    }
    if let Some(path) = gguf {
        return Ok(vec![path]);
    }
    let [diffusers, transformers] = STEMS;
    Err(WanError::config(
        folder,
        format!(
            "no weights: neither {diffusers}.safetensors nor {transformers}.safetensors, nor an index of shards, nor a \
             GGUF file"
        ),
    ))
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, WanError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = read_json(index)?;
    let names: std::collections::BTreeSet<_> = parsed.weight_map.into_values().collect();
    let plain = |name: &String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
    if let Some(name) = names.iter().find(|name| !plain(name)) {
        return Err(WanError::config(index, format!("`{name}` is not the name of a file beside it")));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Sizes that a configuration may have: far more than any model's, and so few that products of three are numbers still.
const SIZES: std::ops::RangeInclusive<usize> = 1..=1 << 20;

/// Refuses a configuration with a size that no model has.
pub fn check_sizes(sizes: &[(&str, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| !SIZES.contains(size)) {
        Some((name, size)) => {
            Err(format!("`{name}` must be from {} to {}, not {size}", SIZES.start(), SIZES.end()))
        }
        None => Ok(()),
    }
}

/// Reads a JSON file into `T`, telling file and problem otherwise.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, WanError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| WanError::Read { path: path.to_owned(), cause })?;
    serde_json::from_str(&text).map_err(|error| WanError::config(path, error.to_string()))
}

#[cfg(test)]
mod tests;
