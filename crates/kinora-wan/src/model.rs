//! A folder of weights, opened: which family it is, its parts, and whether they belong together.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::WanError;
use crate::condition::Family;
use crate::device::Target;
use crate::dit::Dit;
use crate::ops::{Place, Products};
use crate::picture::Size;
use crate::sampler::SolverConfig;
use crate::text::TextEncoder;
use crate::vae::Vae;
use crate::weights::{Lora, read_json};

/// What a family was trained for, and its makers recommend.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub area_px: usize,
    pub fps: u32,
    pub steps: usize,
    pub guidance: f64,
}

impl Family {
    /// Source: the configurations of TI2V-5B and I2V-A14B in the Wan2.2 repository.
    pub fn defaults(self) -> Defaults {
        match self {
            Self::PerTokenTimes => Defaults { area_px: 704 * 1280, fps: 24, steps: 50, guidance: 5.0 },
            Self::Concatenated => Defaults { area_px: 720 * 1280, fps: 16, steps: 40, guidance: 3.5 },
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

/// An opened model.
#[derive(Debug)]
pub struct Model {
    pub folder: PathBuf,
    pub family: Family,
    pub solver: SolverConfig,
    pub dit: Dit,
    /// The expert for the late, less noisy steps.
    pub low_noise: Option<LowNoise>,
    pub vae: Vae,
    pub target: Target,
}

/// The second expert.
#[derive(Debug)]
pub struct LowNoise {
    pub dit: Dit,
    /// It takes the steps whose time is below this.
    pub below_time: f32,
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
        Self::open_adapted(folder, target, &Adapters::default())
    }

    /// The same with adapters.
    pub fn open_adapted(folder: &Path, target: Target, loras: &Adapters) -> Result<Self, WanError> {
        let path = folder.join("model_index.json");
        let index: Index = read_json(&path)?;
        let refused = |problem: String| WanError::Config { path: path.clone(), problem };
        if !["WanImageToVideoPipeline", "WanPipeline"].contains(&index.class.as_str()) {
            return Err(refused(format!("`{}` is not a pipeline of the Wan family", index.class)));
        }
        let family = if index.expand_timesteps { Family::PerTokenTimes } else { Family::Concatenated };
        let place = target.place();
        let solver = SolverConfig::read(&folder.join("scheduler"))?;
        let dit = Dit::load_adapted(&folder.join("transformer"), &loras.first, place)?;
        let low_noise = match (index.boundary_ratio, index.transformer_2.1.is_some()) {
            (Some(ratio), true) => Some(LowNoise {
                dit: Dit::load_adapted(&folder.join("transformer_2"), &loras.second, place)?,
                below_time: (ratio * solver.train_timesteps() as f64) as f32,
            }),
            (None, false) if !loras.second.is_empty() => {
                return Err(refused(
                    "there is no second transformer that an adapter could be for".to_owned(),
                ));
            }
            (None, false) => None,
            _ => return Err(refused("`boundary_ratio` and `transformer_2` must come together".to_owned())),
        };
        let vae = Vae::load(&folder.join("vae"), place)?;
        let model = Self { folder: folder.to_owned(), family, solver, dit, low_noise, vae, target };
        model.check().map_err(refused)?;
        Ok(model)
    }

    /// Opens tokenizer and text encoder, which are needed for a moment only.
    pub fn text(&self) -> Result<TextEncoder, WanError> {
        // For a moment's use a device need not have room for it.
        let place = Place { streamed: true, ..self.target.place() };
        let text = TextEncoder::load(&self.folder, place)?;
        let wanted = self.dit.config().text_dim;
        if text.width() != wanted {
            let problem = format!("gives states of width {}, the transformer reads {wanted}", text.width());
            return Err(WanError::config(self.folder.join("text_encoder"), problem));
        }
        Ok(text)
    }

    /// The transformers, one or two.
    fn experts(&self) -> impl Iterator<Item = &Dit> {
        std::iter::once(&self.dit).chain(self.low_noise.as_ref().map(|expert| &expert.dit))
    }

    /// Bytes of all weights that stay on a device, where quantised ones are as they are stored, others of linear layers as
    /// `products` takes them; adapters and the VAE's are in f32.
    pub fn resident_bytes(&self, products: Products) -> u64 {
        let transformers: u64 = self.experts().map(|dit| dit.resident_bytes(products)).sum();
        transformers + self.vae.numbers() * size_of::<f32>() as u64
    }

    /// What users should know of what was opened, a sentence each.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.experts().flat_map(Dit::warnings).map(String::as_str)
    }

    /// Sides of a clip are multiples of this.
    pub fn multiple(&self) -> Size {
        let [_, high, wide] = self.dit.config().patch_size;
        let scale = self.vae.spatial_scale();
        Size { width_px: scale * wide, height_px: scale * high }
    }

    fn check(&self) -> Result<(), String> {
        let channels = self.vae.latent_channels();
        let inputs = match self.family {
            Family::PerTokenTimes => channels,
            Family::Concatenated => 2 * channels + self.vae.temporal_scale(),
        };
        for config in self.experts().map(Dit::config) {
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
            if (config.patch_size, config.text_dim)
                != (self.dit.config().patch_size, self.dit.config().text_dim)
            {
                return Err("the two transformers do not belong together".to_owned());
            }
        }
        Ok(())
    }
}
