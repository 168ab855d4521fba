//! `vae/config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::WanError;
use crate::weights::{check_sizes, read_json};

/// Frames that the encoder takes at once after the first, as in the reference.
pub(super) const CHUNK_FRAMES: usize = 4;

/// Levels at most; each halves rows and columns.
const LEVELS_MAX: usize = 16;

/// Sizes of the autoencoder. Absent keys have the library's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    pub base_dim: usize,
    decoder_base_dim: Option<usize>,
    pub z_dim: usize,
    pub dim_mult: Vec<usize>,
    pub num_res_blocks: usize,
    attn_scales: Vec<f64>,
    /// For every level but the last, whether it halves time as well; the key is spelt so.
    #[serde(rename = "temperal_downsample")]
    pub temporal_downsample: Vec<bool>,
    pub latents_mean: Vec<f64>,
    pub latents_std: Vec<f64>,
    /// The second kind: shortcuts around every level.
    pub is_residual: bool,
    pub in_channels: usize,
    pub out_channels: usize,
    /// Pixels on a side of the squares that are made channels first.
    patch_size: Option<usize>,
    pub scale_factor_temporal: usize,
    pub scale_factor_spatial: usize,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            base_dim: 96,
            decoder_base_dim: None,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            attn_scales: Vec::new(),
            temporal_downsample: vec![false, true, true],
            latents_mean: vec![
                -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517,
                -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
            ],
            latents_std: vec![
                2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652,
                1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
            ],
            is_residual: false,
            in_channels: 3,
            out_channels: 3,
            patch_size: None,
            scale_factor_temporal: 4,
            scale_factor_spatial: 8,
        }
    }
}

impl VaeConfig {
    pub fn read(path: &Path) -> Result<Self, WanError> {
        let config: Self = read_json(path)?;
        config.check().map_err(|problem| WanError::config(path, problem))?;
        Ok(config)
    }

    /// The side of a patch; 1 where there are none.
    pub fn patch(&self) -> usize {
        self.patch_size.unwrap_or(1)
    }

    /// Channels before the first level of the encoder and after each.
    pub(super) fn encoder_dims(&self) -> Vec<usize> {
        std::iter::once(&1).chain(&self.dim_mult).map(|times| times * self.base_dim).collect()
    }

    /// Channels before the first level of the decoder and after each.
    pub(super) fn decoder_dims(&self) -> Vec<usize> {
        let base = self.decoder_base_dim.unwrap_or(self.base_dim);
        self.dim_mult.last().into_iter().chain(self.dim_mult.iter().rev()).map(|times| times * base).collect()
    }

    fn check(&self) -> Result<(), String> {
        let widest = self.base_dim.max(self.decoder_base_dim.unwrap_or(1));
        check_sizes(&[
            ("base_dim", self.base_dim),
            ("decoder_base_dim", self.decoder_base_dim.unwrap_or(1)),
            ("z_dim", self.z_dim),
            ("num_res_blocks", self.num_res_blocks),
            ("patch_size", self.patch()),
        ])?;
        for times in &self.dim_mult {
            check_sizes(&[("dim_mult", *times), ("base_dim * dim_mult", times.saturating_mul(widest))])?;
        }
        if self.dim_mult.len() > LEVELS_MAX {
            return Err(format!(
                "`dim_mult` must have at most {LEVELS_MAX} entries, not {}",
                self.dim_mult.len()
            ));
        }
        if self.dim_mult.is_empty() || self.temporal_downsample.len() + 1 != self.dim_mult.len() {
            return Err("`temperal_downsample` must have one entry less than `dim_mult`".to_owned());
        }
        if !self.attn_scales.is_empty() {
            return Err("`attn_scales` must be empty: no published model of this family has them".to_owned());
        }
        for (name, list) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if list.len() != self.z_dim || list.iter().any(|number| !number.is_finite()) {
                return Err(format!("`{name}` must hold {} numbers, one for each of `z_dim`", self.z_dim));
            }
        }
        if self.latents_std.iter().any(|std| *std <= 0.0) {
            return Err("`latents_std` must be positive".to_owned());
        }
        self.check_scales()
    }

    /// What the levels do must be what the scales say, and the channels must be those of colour.
    fn check_scales(&self) -> Result<(), String> {
        let temporal = 1 << self.temporal_downsample.iter().filter(|&&halves| halves).count();
        if self.scale_factor_temporal != temporal || temporal > CHUNK_FRAMES {
            return Err(format!(
                "`scale_factor_temporal` is {}, but the levels make it {temporal}, at most {CHUNK_FRAMES}",
                self.scale_factor_temporal
            ));
        }
        let spatial = self.patch() << self.temporal_downsample.len();
        if self.scale_factor_spatial != spatial {
            let given = self.scale_factor_spatial;
            return Err(format!(
                "`scale_factor_spatial` is {given}, but patches and levels make it {spatial}"
            ));
        }
        let colours = 3 * self.patch() * self.patch();
        if self.in_channels != colours || self.out_channels != colours {
            return Err(format!("`in_channels` and `out_channels` must be {colours} with this `patch_size`"));
        }
        Ok(())
    }
}
