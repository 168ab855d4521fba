//! Files of adapters (LoRA): what is added to a model's layers, beside the weights.
//!
//! A product of two thin matrices is applied to the layer's input instead of being added to its weight, which gives the
//! same numbers and leaves both in their mapped files; so is a whole matrix. What changes a bias, a norm or a table is
//! added to it when it is loaded.
//! Always true: a file is taken whole or refused with the name at fault, but for what belongs to parts that no model here
//! has, which is counted and told.
//! Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021); the names that diffusers and PEFT save,
//! and those that diffusers, LightX2V and ComfyUI read in published files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::lora_config::LoraConfig;
use super::mapped::Matrix;
use super::{Weights, names};
use crate::WanError;

/// A file of adapters and how strongly it is to work.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    pub path: PathBuf,
    /// 1 is what it was trained for.
    pub strength: f64,
}

/// What all files add to a model.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    by_layer: BTreeMap<String, Vec<Adapter>>,
    by_tensor: BTreeMap<String, Vec<Difference>>,
    /// Bytes of what is applied beside the weights, as it is stored.
    pub(super) stored_bytes: u64,
    /// Numbers of it.
    pub(super) numbers: u64,
    /// What users should know of the files, a sentence each.
    pub(super) warnings: Vec<String>,
}

/// What is added to a layer's output for its input x: `scale · x downᵀ upᵀ`, or `scale · x upᵀ`.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `[rank, inputs]`
    pub down: Option<Matrix>,
    /// `[outputs, rank]`, or `[outputs, inputs]` where nothing is down.
    pub up: Matrix,
    pub scale: f32,
}

/// What is added to a tensor.
#[derive(Debug)]
struct Difference {
    /// All numbers in one row.
    numbers: Matrix,
    scale: f64,
}

/// What a tensor of a file is to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Down,
    Up,
    /// Added behind `Up`, as strongly.
    UpBias,
    /// Over the rank, the scale that the pair was trained with.
    Alpha,
    /// Added to the weight.
    Weight,
    /// Added to the bias.
    Bias,
    /// Added to the table of shifts, scales and gates.
    Table,
}

/// The file's names of the parts for one layer.
type Parts<'a> = BTreeMap<Part, &'a str>;

impl Part {
    /// The layer as it is written in `key`, and what this is to it.
    fn of(key: &str) -> Option<(&str, Self)> {
        const PAIRS: [(&str, Part); 4] = [
            (".lora_A.", Part::Down),
            (".lora_down.", Part::Down),
            (".lora_B.", Part::Up),
            (".lora_up.", Part::Up),
        ];
        const ENDINGS: [(&str, Part); 4] = [
            (".alpha", Part::Alpha),
            (".diff", Part::Weight),
            (".diff_b", Part::Bias),
            (".diff_m", Part::Table),
        ];
        for (mark, part) in PAIRS {
            if let Some((name, rest)) = key.split_once(mark) {
                // PEFT writes the adapter's own name between the two: `lora_A.default.weight`.
                let (adapter, tensor) = rest.rsplit_once('.').unwrap_or(("", rest));
                return match (part, tensor) {
                    _ if adapter.contains('.') => None,
                    (_, "weight") => Some((name, part)),
                    (Self::Up, "bias") => Some((name, Self::UpBias)),
                    _ => None,
                };
            }
        }
        let (name, part) =
            ENDINGS.iter().find_map(|(ending, part)| Some((key.strip_suffix(ending)?, *part)))?;
        Some((name, if names::is_table(name) && part == Self::Weight { Self::Table } else { part }))
    }
}

impl Adapters {
    /// Adds what is in the file that `lora` names for the model that `weights` are of.
    pub(super) fn add(&mut self, lora: &Lora, weights: &Weights) -> Result<(), WanError> {
        let file = Weights::open_file(&lora.path)?;
        let refused = |problem: String| WanError::config(&lora.path, problem);
        let mut by_layer: BTreeMap<String, Parts<'_>> = BTreeMap::new();
        let mut left_out = LeftOut::default();
        for key in file.names() {
            let Some((name, part)) = Part::of(key) else {
                return Err(refused(format!(
                    "`{key}` is of no kind that is read here, which are pairs of lora_A and lora_B or of lora_down and \
                     lora_up, alpha, diff, diff_b and diff_m"
                )));
            };
            if names::is_image_branch(name) {
                left_out.image_branch += 1;
                continue;
            }
            let layer = if part == Part::Table { names::table(name) } else { names::layer(name) };
            if let Some(other) = by_layer.entry(layer).or_default().insert(part, key) {
                return Err(refused(format!("`{other}` and `{key}` are the same part of one layer")));
            }
        }
        let total = file.names().count();
        let config = LoraConfig::of(&lora.path)?;
        let mut reader = Reader { file: &file, lora, config, weights, into: self, left_out };
        for (layer, parts) in &by_layer {
            reader.layer(layer, parts)?;
        }
        let left_out = reader.left_out;
        if total == 0 {
            return Err(refused("it has no adapters".to_owned()));
        }
        if left_out.total() == total {
            return Err(refused(format!("none of its {total} tensors is for this model")));
        }
        self.warnings.extend(left_out.warning(&lora.path, total));
        Ok(())
    }

    pub(super) fn of(&self, layer: &str) -> &[Adapter] {
        self.by_layer.get(layer).map_or(&[], Vec::as_slice)
    }

    /// Whether something is added to the tensor `name`.
    pub(super) fn change(&self, name: &str) -> bool {
        self.by_tensor.contains_key(name)
    }

    /// `tensor`, in f32 on the CPU, with what is added to the tensor `name`.
    pub(super) fn changed(&self, name: &str, mut tensor: Tensor) -> Result<Tensor, WanError> {
        for Difference { numbers, scale } in self.by_tensor.get(name).into_iter().flatten() {
            let numbers = numbers.to_tensor(DType::F32, &Device::Cpu)?.reshape(tensor.shape())?;
            tensor = (tensor + (numbers * *scale)?)?;
        }
        Ok(tensor)
    }
}

/// Tensors of a file that no model here has a use for.
#[derive(Debug, Default, Clone, Copy)]
struct LeftOut {
    image_branch: usize,
    /// For a patch embedding of other inputs, as an adapter for a text-to-video model has it.
    patches: usize,
}

impl LeftOut {
    fn total(self) -> usize {
        self.image_branch + self.patches
    }

    fn warning(self, path: &Path, total: usize) -> Option<String> {
        let reasons = [
            (self.image_branch, "for an image encoder, which this model does not have"),
            (self.patches, "for a patch embedding of other inputs, such as a text-to-video model's"),
        ];
        let told: Vec<String> = reasons
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, reason)| format!("{count} {reason}"))
            .collect();
        (!told.is_empty()).then(|| {
            format!(
                "{}: {} of its {total} tensors were left out: {}",
                path.display(),
                self.total(),
                told.join(", ")
            )
        })
    }
}

/// Takes one file into the adapters, layer by layer.
struct Reader<'a> {
    file: &'a Weights,
    lora: &'a Lora,
    config: LoraConfig,
    weights: &'a Weights,
    into: &'a mut Adapters,
    left_out: LeftOut,
}

impl Reader<'_> {
    fn layer(&mut self, layer: &str, parts: &Parts<'_>) -> Result<(), WanError> {
        let scale = self.scale(parts)?;
        match (parts.get(&Part::Down).copied(), parts.get(&Part::Up).copied()) {
            (Some(down), Some(up)) => {
                if !self.pair(layer, [down, up], scale)? {
                    self.left_out.patches += parts.len();
                    return Ok(());
                }
            }
            (None, None) => {
                if let Some(key) = parts.get(&Part::Alpha).or(parts.get(&Part::UpBias)) {
                    return Err(
                        self.refused(format!("`{key}` belongs to a pair of matrices that is not there"))
                    );
                }
            }
            (Some(key), None) | (None, Some(key)) => {
                return Err(self.refused(format!(
                    "`{key}` lacks the other of its pair, lora_A and lora_B or lora_down and lora_up"
                )));
            }
        }
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        if let Some(key) = parts.get(&Part::Weight) {
            match self.shape_of(&weight, key)?.len() {
                1 => self.difference(&weight, key, self.lora.strength)?,
                _ if self.whole(layer, key)? => {}
                _ => {
                    self.left_out.patches += parts.len();
                    return Ok(());
                }
            }
        }
        for (part, tensor, scale) in [
            (Part::Bias, bias.as_str(), self.lora.strength),
            (Part::UpBias, &bias, scale),
            (Part::Table, layer, self.lora.strength),
        ] {
            if let Some(key) = parts.get(&part) {
                self.difference(tensor, key, scale)?;
            }
        }
        Ok(())
    }

    fn refused(&self, problem: String) -> WanError {
        WanError::config(&self.lora.path, problem)
    }

    /// How strongly the pair works.
    fn scale(&self, parts: &Parts<'_>) -> Result<f64, WanError> {
        let Some(down) = parts.get(&Part::Down) else { return Ok(self.lora.strength) };
        let rank = self.file.shape(down)?.first().copied().unwrap_or(0);
        let trained = match parts.get(&Part::Alpha) {
            Some(alpha) => self.file.number(alpha)? / rank as f64,
            None => Part::of(down).and_then(|(name, _)| self.config.scale(name, rank)).unwrap_or(1.0),
        };
        let scale = self.lora.strength * trained;
        // Kept in 32 bits, where a finite number may be none any more.
        if !(scale as f32).is_finite() {
            let said = parts.get(&Part::Alpha).unwrap_or(down);
            return Err(self.refused(format!("`{said}`: a pair of rank {rank} has the scale {trained}")));
        }
        Ok(scale)
    }

    /// The shape of the model's tensor `tensor` that `key` is for.
    fn shape_of(&self, tensor: &str, key: &str) -> Result<&[usize], WanError> {
        self.weights
            .shape(tensor)
            .map_err(|_| self.refused(format!("the model has no tensor `{tensor}`, which `{key}` is for")))
    }

    /// Outputs and inputs of the layer's matrix.
    fn size_of(&self, layer: &str, key: &str) -> Result<[usize; 2], WanError> {
        match self.shape_of(&format!("{layer}.weight"), key)? {
            [outputs, inputs @ ..] if !inputs.is_empty() => Ok([*outputs, inputs.iter().product()]),
            _ => Err(self.refused(format!("`{key}` is half of a product, and `{layer}` is no matrix"))),
        }
    }

    /// The tensor `key` as a matrix: its first side counts rows.
    fn matrix(&self, key: &str) -> Result<Matrix, WanError> {
        match self.file.shape(key)? {
            shape @ [_, _, ..] => self.file.matrix(key, shape),
            shape => Err(self.refused(format!("`{key}` has the shape {shape:?} and should be a matrix"))),
        }
    }

    fn misfit(&self, key: &str, wanted: Vec<usize>) -> WanError {
        let got = self.file.shape(key).map(<[usize]>::to_vec).unwrap_or_default();
        WanError::WrongShape { path: self.lora.path.clone(), name: key.to_owned(), got, wanted }
    }

    /// A pair beside the layer; false where it is for a `patch_embedding` of other inputs.
    fn pair(&mut self, layer: &str, [down_key, up_key]: [&str; 2], scale: f64) -> Result<bool, WanError> {
        let [outputs, inputs] = self.size_of(layer, down_key)?;
        let (down, up) = (self.matrix(down_key)?, self.matrix(up_key)?);
        if [up.rows(), up.columns()] != [outputs, down.rows()] || down.rows() == 0 {
            return Err(self.misfit(up_key, vec![outputs, down.rows().max(1)]));
        }
        if down.columns() != inputs {
            if is_patches(layer) {
                return Ok(false);
            }
            return Err(self.misfit(down_key, vec![down.rows(), inputs]));
        }
        self.beside(layer, [down_key, up_key], Adapter { down: Some(down), up, scale: scale as f32 })?;
        Ok(true)
    }

    /// The whole matrix `key` beside the layer's; false where it is for a `patch_embedding` of other inputs.
    fn whole(&mut self, layer: &str, key: &str) -> Result<bool, WanError> {
        let size = self.size_of(layer, key)?;
        let up = self.matrix(key)?;
        if [up.rows(), up.columns()] != size {
            if is_patches(layer) && up.rows() == size[0] {
                return Ok(false);
            }
            return Err(self.misfit(key, size.to_vec()));
        }
        self.beside(layer, [key], Adapter { down: None, up, scale: self.lora.strength as f32 })?;
        Ok(true)
    }

    fn beside<const N: usize>(
        &mut self,
        layer: &str,
        keys: [&str; N],
        adapter: Adapter,
    ) -> Result<(), WanError> {
        for key in keys {
            let (bytes, numbers) = self.file.extent(key)?;
            self.into.stored_bytes += bytes;
            self.into.numbers += numbers;
        }
        self.into.by_layer.entry(layer.to_owned()).or_default().push(adapter);
        Ok(())
    }

    /// Adds the tensor `key` to the model's tensor `tensor`, sides of 1 aside.
    fn difference(&mut self, tensor: &str, key: &str, scale: f64) -> Result<(), WanError> {
        let wanted = self.shape_of(tensor, key)?;
        let shape = self.file.shape(key)?;
        let sides = |shape: &[usize]| shape.iter().copied().filter(|side| *side != 1).collect::<Vec<_>>();
        if sides(shape) != sides(wanted) {
            return Err(self.misfit(key, wanted.to_vec()));
        }
        let numbers = self.file.row(key)?;
        self.into.by_tensor.entry(tensor.to_owned()).or_default().push(Difference { numbers, scale });
        Ok(())
    }
}

/// Whether `layer` is the one whose inputs differ between models that adapters are shared by.
fn is_patches(layer: &str) -> bool {
    layer == "patch_embedding"
}
