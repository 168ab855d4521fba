//! A folder of weights, opened: which family it is, its parts, and whether they belong together.
//!
//! Always true: where parts take turns on a device, each lies there for as long as what [`Model::dit_in_use`] or
//! [`Model::vae_in_use`] gave is held, and no longer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::condition::Family;
use crate::device::Target;
use crate::dit::{Dit, DitConfig};
use crate::ops::{Place, Products};
use crate::picture::Size;
use crate::sampler::SolverConfig;
use crate::text::TextEncoder;
use crate::vae::Vae;
use crate::weights::{Lora, read_json};
use crate::{Cancel, WanError};

/// The folder of the VAE.
const VAE: &str = "vae";

/// What a family was trained for, and its makers recommend.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Of a clip whose ratio is the makers' own; no picture becomes one of more pixels.
    pub size: Size,
    pub fps: u32,
    pub steps: usize,
    pub guidance: f64,
}

impl Family {
    /// Source: the configurations of TI2V-5B and I2V-A14B in the Wan2.2 repository.
    pub fn defaults(self) -> Defaults {
        match self {
            Self::PerTokenTimes => {
                Defaults { size: Size { width_px: 1280, height_px: 704 }, fps: 24, steps: 50, guidance: 5.0 }
            }
            Self::Concatenated => {
                Defaults { size: Size { width_px: 1280, height_px: 720 }, fps: 16, steps: 40, guidance: 3.5 }
            }
        }
    }
}

/// Adapters for the transformers.
#[derive(Debug, Clone, Default)]
pub struct Adapters {
    pub first: Vec<Lora>,
    /// For the expert that takes the less noisy steps.
    pub second: Vec<Lora>,
}

/// Which parts of a model lie where it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// All of them, always.
    Whole,
    /// One at a time, copied there when its stage begins: what diffusers calls model offloading. On the CPU, where parts
    /// stay in their files, it saves nothing.
    InTurn,
}

/// An opened model.
#[derive(Debug)]
pub struct Model {
    pub folder: PathBuf,
    pub family: Family,
    pub solver: SolverConfig,
    /// One, or two for the early, noisy steps and for the late ones.
    pub experts: Vec<Expert>,
    pub vae: Arc<Vae>,
    pub target: Target,
    pub residency: Residency,
}

/// A transformer and the steps that it takes.
#[derive(Debug)]
pub struct Expert {
    pub dit: Arc<Dit>,
    /// It takes the steps that no expert before it took and whose time is not below this.
    pub from_time: f32,
    folder: PathBuf,
    loras: Vec<Lora>,
}

impl Expert {
    fn open(folder: PathBuf, loras: &[Lora], from_time: f32, place: Place<'_>) -> Result<Self, WanError> {
        let dit = Arc::new(Dit::load_adapted(&folder, loras, place)?);
        Ok(Self { dit, from_time, folder, loras: loras.to_vec() })
    }
}

/// `model_index.json`
#[derive(Debug, Deserialize)]
struct Index {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(default)]
    expand_timesteps: bool,
    #[serde(default)]
    boundary_ratio: Option<f64>,
    #[serde(default)]
    transformer_2: (Option<String>, Option<String>),
}

impl Model {
    /// Opens `folder`: every part's configuration, names and shapes are checked, and that the parts fit each other.
    pub fn open(folder: &Path, target: Target) -> Result<Self, WanError> {
        Self::open_adapted(folder, target, &Adapters::default(), Residency::Whole)
    }

    /// The same with adapters and with the parts where `residency` says.
    pub fn open_adapted(
        folder: &Path,
        target: Target,
        loras: &Adapters,
        residency: Residency,
    ) -> Result<Self, WanError> {
        let path = folder.join("model_index.json");
        let index: Index = read_json(&path)?;
        let refused = |problem: String| WanError::Config { path: path.clone(), problem };
        if !["WanImageToVideoPipeline", "WanPipeline"].contains(&index.class.as_str()) {
            return Err(refused(format!("`{}` is not a pipeline of the Wan family", index.class)));
        }
        let family = if index.expand_timesteps { Family::PerTokenTimes } else { Family::Concatenated };
        let in_files = Target::cpu_f32();
        let place = match residency {
            Residency::Whole => target.place(),
            Residency::InTurn => in_files.place(),
        };
        let solver = SolverConfig::read(&folder.join("scheduler"))?;
        let boundary = match (index.boundary_ratio, index.transformer_2.1.is_some()) {
            (Some(ratio), true) if !(ratio > 0.0 && ratio < 1.0) => {
                return Err(refused(format!("`boundary_ratio` must be between 0 and 1, not {ratio}")));
            }
            (Some(ratio), true) => Some((ratio * solver.train_timesteps() as f64) as f32),
            (None, false) if !loras.second.is_empty() => {
                return Err(refused(
                    "there is no second transformer that an adapter could be for".to_owned(),
                ));
            }
            (None, false) => None,
            _ => return Err(refused("`boundary_ratio` and `transformer_2` must come together".to_owned())),
        };
        let parts = [
            ("transformer", &loras.first, boundary.unwrap_or(f32::NEG_INFINITY)),
            ("transformer_2", &loras.second, f32::NEG_INFINITY),
        ];
        let experts = parts[..if boundary.is_some() { 2 } else { 1 }]
            .iter()
            .map(|&(part, loras, from_time)| Expert::open(folder.join(part), loras, from_time, place))
            .collect::<Result<_, _>>()?;
        let model = Self {
            folder: folder.to_owned(),
            family,
            solver,
            experts,
            vae: Arc::new(Vae::load(&folder.join(VAE), place)?),
            target,
            residency,
        };
        model.check().map_err(refused)?;
        Ok(model)
    }

    /// The transformer of `expert`, one of this model's, where the model computes. Cancels between blocks that are copied
    /// there.
    pub fn dit_in_use(&self, expert: &Expert, cancel: Cancel<'_>) -> Result<Arc<Dit>, WanError> {
        match self.residency {
            Residency::Whole => Ok(expert.dit.clone()),
            Residency::InTurn => {
                Dit::load_until(&expert.folder, &expert.loras, self.target.place(), cancel).map(Arc::new)
            }
        }
    }

    /// The VAE where the model computes.
    pub fn vae_in_use(&self) -> Result<Arc<Vae>, WanError> {
        match self.residency {
            Residency::Whole => Ok(self.vae.clone()),
            Residency::InTurn => Vae::load(&self.folder.join(VAE), self.target.place()).map(Arc::new),
        }
    }

    /// Opens tokenizer and text encoder, which are needed for a moment only.
    pub fn text(&self) -> Result<TextEncoder, WanError> {
        // For a moment's use a device need not have room for it.
        let place = Place { streamed: true, ..self.target.place() };
        let text = TextEncoder::load(&self.folder, place)?;
        let wanted = self.dit_config().text_dim;
        if text.width() != wanted {
            let problem = format!("gives states of width {}, the transformer reads {wanted}", text.width());
            return Err(WanError::config(self.folder.join("text_encoder"), problem));
        }
        Ok(text)
    }

    /// The configuration of the first transformer.
    pub fn dit_config(&self) -> &DitConfig {
        self.experts[0].dit.config()
    }

    /// Bytes of the weights that lie on a device while words are read, the picture is encoded, steps are made and frames are
    /// decoded, where `products` says what linear layers multiply.
    pub fn resident_bytes(&self, products: Products, residency: Residency) -> [u64; 4] {
        let dits = self.experts.iter().map(|expert| expert.dit.resident_bytes(products));
        let vae = self.vae.numbers() * size_of::<f32>() as u64;
        match residency {
            Residency::Whole => [dits.sum::<u64>() + vae; 4],
            Residency::InTurn => [0, vae, dits.max().unwrap_or_default(), vae],
        }
    }

    /// What users should know of what was opened, a sentence each.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.experts.iter().flat_map(|expert| expert.dit.warnings()).map(String::as_str)
    }

    /// Sides of a clip are multiples of this.
    pub fn multiple(&self) -> Size {
        let [_, high, wide] = self.dit_config().patch_size;
        let scale = self.vae.spatial_scale();
        Size { width_px: scale * wide, height_px: scale * high }
    }

    fn check(&self) -> Result<(), String> {
        let channels = self.vae.latent_channels();
        let inputs = match self.family {
            Family::PerTokenTimes => channels,
            Family::Concatenated => 2 * channels + self.vae.temporal_scale(),
        };
        for config in self.experts.iter().map(|expert| expert.dit.config()) {
            if (config.in_channels, config.outputs()) != (inputs, channels) {
                return Err(format!(
                    "a transformer of {} to {} channels does not fit a VAE of {channels} channels, which asks for \
                     {inputs} to {channels} (is this an image-to-video model?)",
                    config.in_channels,
                    config.outputs()
                ));
            }
            if config.patch_size[0] != 1 {
                return Err(format!("patches of {} latent frames are not supported", config.patch_size[0]));
            }
            let first = self.dit_config();
            if (config.patch_size, config.text_dim) != (first.patch_size, first.text_dim) {
                return Err("the two transformers do not belong together".to_owned());
            }
        }
        Ok(())
    }
}
