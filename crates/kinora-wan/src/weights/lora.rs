//! Low-rank adapters (LoRA): a product of two thin matrices for each layer, beside the weights.
//!
//! The product is applied to the layer's input instead of being added to its weight, which gives the same numbers and
//! leaves the weights in their mapped files.
//! Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021); the names that diffusers saves and
//! those of the models' own program, which most published adapters carry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::Weights;
use crate::WanError;

/// A file of adapters and how strongly it is to work.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    pub path: PathBuf,
    /// 1 is what it was trained for.
    pub strength: f64,
}

/// The adapters of all layers, by the layer's name.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    by_layer: BTreeMap<String, Vec<LowRank>>,
}

/// `up · down`, with its strength in `up`.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, inputs]`
    pub down: Tensor,
    /// `[outputs, rank]`
    pub up: Tensor,
}

/// What programs put before the layers' names.
const PREFIXES: [&str; 2] = ["diffusion_model.", "transformer."];
/// Names of the thin matrices: down, then up.
const PAIRS: [[&str; 2]; 2] = [["lora_A.weight", "lora_B.weight"], ["lora_down.weight", "lora_up.weight"]];

impl Adapters {
    /// Adds the adapters in the file that `lora` names; every layer must be one that `weights` has.
    pub(super) fn add(&mut self, lora: &Lora, weights: &Weights) -> Result<(), WanError> {
        let file = Weights::open_file(&lora.path)?;
        let refused = |problem: String| WanError::config(&lora.path, problem);
        let mut used = 0;
        for [down, up] in PAIRS {
            let downs =
                file.names().filter_map(|name| Some((name, name.strip_suffix(down)?.strip_suffix('.')?)));
            for (down_name, stem) in downs {
                let layer = layer_of(stem);
                if !weights.contains(&format!("{layer}.weight")) {
                    return Err(refused(format!(
                        "the model has no layer `{layer}` that `{stem}` could adapt"
                    )));
                }
                let (adapter, parts) =
                    read(&file, stem, [down_name, &format!("{stem}.{up}")], lora.strength)?;
                used += parts;
                self.by_layer.entry(layer).or_default().push(adapter);
            }
        }
        match file.names().count() {
            0 => Err(refused("it has no adapters".to_owned())),
            all if all != used => {
                Err(refused(format!("{} of its {all} tensors are no low-rank adapters", all - used)))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn of(&self, layer: &str) -> &[LowRank] {
        self.by_layer.get(layer).map_or(&[], Vec::as_slice)
    }
}

/// One adapter, and how many tensors of the file it is.
fn read(
    file: &Weights,
    stem: &str,
    [down, up]: [&str; 2],
    strength: f64,
) -> Result<(LowRank, usize), WanError> {
    let matrix = |name: &str| -> Result<Tensor, WanError> {
        let shape = file.shape(name)?.to_vec();
        file.tensor(name, shape, DType::F32, &Device::Cpu)
    };
    let (down, up) = (matrix(down)?, matrix(up)?);
    let alpha = format!("{stem}.alpha");
    let (scale, parts) = match file.contains(&alpha) {
        // Trained with this over the rank.
        true => {
            (f64::from(matrix(&alpha)?.flatten_all()?.get(0)?.to_scalar::<f32>()?) / down.dim(0)? as f64, 3)
        }
        false => (1.0, 2),
    };
    Ok((LowRank { down, up: (up * (scale * strength))? }, parts))
}

/// The layer that a name in an adapter or in the models' own program means, as diffusers calls it.
pub(super) fn layer_of(stem: &str) -> String {
    let stem = PREFIXES.iter().find_map(|prefix| stem.strip_prefix(prefix)).unwrap_or(stem);
    // Endings in the models' own program, and in diffusers.
    const ATTENTION: [(&str, &str); 6] = [
        ("q", "to_q"),
        ("k", "to_k"),
        ("v", "to_v"),
        ("o", "to_out.0"),
        ("norm_q", "norm_q"),
        ("norm_k", "norm_k"),
    ];
    const WHOLE: [(&str, &str); 6] = [
        ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
        ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
        ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
        ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
        ("time_projection.1", "condition_embedder.time_proj"),
        ("head.head", "proj_out"),
    ];
    if let Some((_, name)) = WHOLE.iter().find(|(own, _)| *own == stem) {
        return (*name).to_owned();
    }
    for (own, name) in [(".self_attn.", ".attn1."), (".cross_attn.", ".attn2.")] {
        if let Some((block, part)) = stem.split_once(own)
            && let Some((_, part)) = ATTENTION.iter().find(|(own, _)| *own == part)
        {
            return format!("{block}{name}{part}");
        }
    }
    for (own, name) in [(".ffn.0", ".ffn.net.0.proj"), (".ffn.2", ".ffn.net.2")] {
        if let Some(block) = stem.strip_suffix(own) {
            return format!("{block}{name}");
        }
    }
    stem.to_owned()
}

/// Applies adapters `[outputs, rank]·[rank, inputs]` to x `[N, inputs]`, added to `out` `[N, outputs]`.
pub(crate) fn apply(adapters: &[LowRank], x: &Tensor, out: Tensor) -> Result<Tensor, WanError> {
    adapters
        .iter()
        .try_fold(out, |out, LowRank { down, up }| Ok((out + x.matmul(&down.t()?)?.matmul(&up.t()?)?)?))
}

impl LowRank {
    /// On `device` as `dtype`, if it fits a layer of `inputs` and `outputs`.
    pub(crate) fn fitting(
        &self,
        [outputs, inputs]: [usize; 2],
        (dtype, device): (DType, &Device),
    ) -> Option<Result<Self, WanError>> {
        let (down, up) = (self.down.dims2().ok()?, self.up.dims2().ok()?);
        let fits = down.1 == inputs && up.0 == outputs && down.0 == up.1;
        fits.then(|| {
            let there =
                |x: &Tensor| -> Result<Tensor, WanError> { Ok(x.to_dtype(dtype)?.to_device(device)?) };
            Ok(Self { down: there(&self.down)?, up: there(&self.up)? })
        })
    }
}

/// Where no path is known, the folder of the weights stands for it.
pub(super) fn misfit(folder: &Path, layer: &str) -> WanError {
    WanError::config(folder, format!("an adapter for `{layer}` has another shape than the layer"))
}
