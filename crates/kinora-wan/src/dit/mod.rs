//! The diffusion transformer: noisy latents, a time for every token and text states in, the velocity of the noise out.
//!
//! Always true: widths, depths and patch sizes are those of `config.json`; one list of runs says which tokens have which
//! time, so a model with one time for all and a model with a time for each token are the same code, and the time's
//! layers see each distinct time once.
//! Sources: Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models" (2025); the diffusers library,
//! `WanTransformer3DModel`, whose names of tensors are kept.

mod block;
mod config;
mod embed;
mod memory;
mod rope;

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use block::Block;
pub use config::DitConfig;
#[doc(hidden)]
pub use embed::sinusoids;
use embed::{Patches, TextProjection, TimeEmbedding};
pub use rope::Rotary;

use crate::ops::{Linear, Modulation, Ops, Place, Products};
use crate::weights::{Lora, Weights};
use crate::{Cancel, WanError, go_on};

/// The transformer of one expert.
#[derive(Debug)]
pub struct Dit {
    config: DitConfig,
    patches: Patches,
    time: TimeEmbedding,
    text: TextProjection,
    blocks: Vec<Block>,
    head: Head,
    weights_bytes: u64,
    /// Numbers that are not quantised, and bytes of those that are.
    stored: (u64, u64),
    adapters_numbers: u64,
    warnings: Vec<String>,
    device: Device,
}

/// Which tokens have which time, in the order of the tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenTimes {
    pub times: Vec<f32>,
    pub runs: Vec<usize>,
}

impl TokenTimes {
    /// The same time for `tokens` tokens.
    pub fn same(time: f32, tokens: usize) -> Self {
        Self { times: vec![time], runs: vec![tokens] }
    }

    /// Runs of equal times in a list with one time for each token.
    pub fn of_tokens(times: &[f32]) -> Self {
        let runs = times.chunk_by(|a, b| a == b);
        Self { times: runs.clone().map(|run| run[0]).collect(), runs: runs.map(<[f32]>::len).collect() }
    }
}

/// What a clip's tokens share over all steps.
#[derive(Debug)]
pub struct Clip {
    rotary: Rotary,
    /// Latent frames, rows and columns after patching.
    grid: [usize; 3],
}

impl Dit {
    /// Opens the transformer in `folder`; every tensor's name and shape is checked.
    pub fn load(folder: &Path, place: Place<'_>) -> Result<Self, WanError> {
        Self::load_adapted(folder, &[], place)
    }

    /// The same with adapters beside its layers.
    pub fn load_adapted(folder: &Path, loras: &[Lora], place: Place<'_>) -> Result<Self, WanError> {
        Self::load_until(folder, loras, place, &|| false)
    }

    /// The same, which cancels between blocks.
    pub fn load_until(
        folder: &Path,
        loras: &[Lora],
        place: Place<'_>,
        cancel: Cancel<'_>,
    ) -> Result<Self, WanError> {
        let config = DitConfig::read(&folder.join("config.json"))?;
        Self::of(config, &Weights::open(folder)?.adapted(loras)?, place, cancel)
    }

    /// The transformer of `config` with `weights`. Cancels between blocks.
    pub fn of(
        config: DitConfig,
        weights: &Weights,
        place: Place<'_>,
        cancel: Cancel<'_>,
    ) -> Result<Self, WanError> {
        let (adapters_bytes, adapters_numbers) = weights.adapters_extent();
        Ok(Self {
            patches: Patches::load(weights, &config, place)?,
            time: TimeEmbedding::load(weights, &config, place)?,
            text: TextProjection::load(weights, &config, place)?,
            blocks: (0..config.num_layers)
                .map(|index| {
                    go_on(cancel)?;
                    Block::load(weights, &config, index, place)
                })
                .collect::<Result<_, _>>()?,
            head: Head::load(weights, &config, place)?,
            config,
            weights_bytes: weights.size_bytes() + adapters_bytes,
            stored: weights.plain_and_quantised(),
            adapters_numbers,
            warnings: weights.warnings().to_vec(),
            device: place.device.clone(),
        })
    }

    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Bytes of the weights and of the adapters beside them, as they are stored.
    pub fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    /// Bytes of the weights on a device: quantised ones as they are stored, others as `products` takes them, adapters in
    /// f32.
    pub fn resident_bytes(&self, products: Products) -> u64 {
        let (plain, quantised) = self.stored;
        let width = products.dtype().size_in_bytes() as u64;
        plain * width + quantised + self.adapters_numbers * size_of::<f32>() as u64
    }

    /// Whether some of the weights are quantised.
    fn is_quantised(&self) -> bool {
        self.stored.1 > 0
    }

    /// What users should know of the files of adapters, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the steps over latents `[1, C, f, h, w]` of this size share.
    pub fn clip(&self, latents: [usize; 3]) -> Result<Clip, WanError> {
        let grid = self.config.grid(latents)?;
        Ok(Clip { rotary: Rotary::new(&self.config, grid, &self.device)?, grid })
    }

    /// Text states `[1, L, text_dim]` as the blocks take them, `[L, D]`. The same for every step.
    pub fn project_text(&self, states: &Tensor) -> Result<Tensor, WanError> {
        self.text.forward(&states.squeeze(0)?.to_device(&self.device)?)
    }

    /// The velocity `[1, C', f, h, w]` in f32 at `latents` `[1, C, f, h, w]`.
    ///
    /// `text` comes from [`Dit::project_text`]. Cancels between blocks.
    pub fn forward(
        &self,
        clip: &Clip,
        latents: &Tensor,
        times: &TokenTimes,
        text: &Tensor,
        cancel: Cancel<'_>,
    ) -> Result<Tensor, WanError> {
        let mut x = self.patches.forward(&latents.to_device(&self.device)?)?; // [N, D]
        let (temb, table) = self.time.forward(&times.times)?; // [R, D], [R, 6, D]
        for block in &self.blocks {
            go_on(cancel)?;
            x = block.forward(&x, text, &table, &times.runs, &clip.rotary)?;
        }
        let out = self.head.forward(&x, &temb, &times.runs)?; // [N, p·C']
        self.patches.assemble(&out, clip.grid)
    }

    /// The parts of [`Dit::forward`] one by one, for goldens of each stage.
    #[doc(hidden)]
    pub fn taps(
        &self,
        clip: &Clip,
        latents: &Tensor,
        times: &TokenTimes,
        text: &Tensor,
    ) -> Result<Vec<Tensor>, WanError> {
        let mut taps = vec![self.patches.forward(&latents.to_device(&self.device)?)?];
        let (_, table) = self.time.forward(&times.times)?;
        for block in &self.blocks {
            let x = taps.last().expect("the patches are there");
            taps.push(block.forward(x, text, &table, &times.runs, &clip.rotary)?);
        }
        Ok(taps)
    }

    /// One block by itself, for measuring: x `[N, D]`, `table` `[R, 6, D]` from [`Dit::time_embedding`].
    #[doc(hidden)]
    pub fn block(
        &self,
        index: usize,
        clip: &Clip,
        x: &Tensor,
        text: &Tensor,
        (table, runs): (&Tensor, &[usize]),
    ) -> Result<Tensor, WanError> {
        self.blocks[index].forward(x, text, table, runs, &clip.rotary)
    }

    /// `(temb [R, D], projection [R, 6, D])` of distinct times, for goldens.
    #[doc(hidden)]
    pub fn time_embedding(&self, times: &[f32]) -> Result<(Tensor, Tensor), WanError> {
        self.time.forward(times)
    }
}

/// The last normalisation and projection.
#[derive(Debug)]
struct Head {
    table: Tensor,
    proj: Linear,
    ops: Ops,
    eps: f64,
}

impl Head {
    fn load(weights: &Weights, config: &DitConfig, place: Place<'_>) -> Result<Self, WanError> {
        let (width, patch) = (config.width(), config.patch_size.iter().product::<usize>());
        let outputs = config.outputs() * patch;
        Ok(Self {
            table: weights.tensor("scale_shift_table", (1, 2, width), DType::F32, place.device)?,
            proj: Linear::load(weights, "proj_out", &[outputs, width], true, place)?,
            ops: place.ops,
            eps: config.eps,
        })
    }

    /// x `[N, D]` and temb `[R, D]` to `[N, p·C']`.
    fn forward(&self, x: &Tensor, temb: &Tensor, runs: &[usize]) -> Result<Tensor, WanError> {
        let table = self.table.broadcast_add(&temb.unsqueeze(1)?)?; // [R, 2, D]
        let (shift, scale) = (table.get_on_dim(1, 0)?.contiguous()?, table.get_on_dim(1, 1)?.contiguous()?);
        let by = Modulation { scale: &scale, shift: &shift, runs };
        let x = self.ops.modulated_layer_norm(x, self.eps, by)?;
        self.proj.forward(&x)
    }
}
