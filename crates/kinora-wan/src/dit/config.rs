//! `transformer/config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::WanError;
use crate::weights::{check_sizes, read_json};

/// Sizes of the transformer. Absent keys have the library's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct DitConfig {
    /// Latent frames, rows and columns that make up one token.
    pub patch_size: [usize; 3],
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub in_channels: usize,
    out_channels: Option<usize>,
    pub text_dim: usize,
    pub freq_dim: usize,
    pub ffn_dim: usize,
    pub num_layers: usize,
    pub cross_attn_norm: bool,
    qk_norm: Option<String>,
    pub eps: f64,
    image_dim: Option<usize>,
    added_kv_proj_dim: Option<usize>,
    /// The longest side of a clip in tokens.
    pub rope_max_seq_len: usize,
}

impl Default for DitConfig {
    fn default() -> Self {
        Self {
            patch_size: [1, 2, 2],
            num_attention_heads: 40,
            attention_head_dim: 128,
            in_channels: 16,
            out_channels: Some(16),
            text_dim: 4096,
            freq_dim: 256,
            ffn_dim: 13824,
            num_layers: 40,
            cross_attn_norm: true,
            qk_norm: Some("rms_norm_across_heads".to_owned()),
            eps: 1e-6,
            image_dim: None,
            added_kv_proj_dim: None,
            rope_max_seq_len: 1024,
        }
    }
}

impl DitConfig {
    pub fn read(path: &Path) -> Result<Self, WanError> {
        let config: Self = read_json(path)?;
        config.check().map_err(|problem| WanError::config(path, problem))?;
        Ok(config)
    }

    /// D: the width of a token.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Channels of what is predicted.
    pub fn outputs(&self) -> usize {
        self.out_channels.filter(|&channels| channels > 0).unwrap_or(self.in_channels)
    }

    /// Latent frames, rows and columns of a clip in tokens.
    pub fn grid(&self, latents: [usize; 3]) -> Result<[usize; 3], WanError> {
        let [frames, height, width] = latents;
        let patch = self.patch_size;
        if latents.iter().zip(patch).any(|(side, patch)| *side == 0 || side % patch != 0) {
            return Err(WanError::Request(format!(
                "latents of {frames}x{height}x{width} do not divide into patches of {patch:?}"
            )));
        }
        let grid = [frames / patch[0], height / patch[1], width / patch[2]];
        if let Some(side) = grid.iter().find(|side| **side > self.rope_max_seq_len) {
            let limit = self.rope_max_seq_len;
            return Err(WanError::Request(format!(
                "a clip of {frames} latent frames of {width}x{height} has {side} tokens along one side, and the model's \
                 limit is {limit}: fewer --frames or a smaller --size are within it"
            )));
        }
        Ok(grid)
    }

    fn check(&self) -> Result<(), String> {
        let product = |sides: &[usize]| sides.iter().fold(1usize, |all, side| all.saturating_mul(*side));
        check_sizes(&[
            ("num_layers", self.num_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("in_channels", self.in_channels),
            ("out_channels", self.outputs()),
            ("text_dim", self.text_dim),
            ("freq_dim", self.freq_dim),
            ("ffn_dim", self.ffn_dim),
            ("rope_max_seq_len", self.rope_max_seq_len),
            ("patch_size", product(&self.patch_size)),
            (
                "num_attention_heads * attention_head_dim",
                product(&[self.num_attention_heads, self.attention_head_dim]),
            ),
        ])?;
        if self.attention_head_dim < 6 || !self.attention_head_dim.is_multiple_of(2) {
            return Err(format!(
                "`attention_head_dim` must be even and at least 6, not {}",
                self.attention_head_dim
            ));
        }
        if self.freq_dim < 2 || !self.freq_dim.is_multiple_of(2) {
            return Err(format!("`freq_dim` must be even and at least 2, not {}", self.freq_dim));
        }
        if self.image_dim.is_some() || self.added_kv_proj_dim.is_some() {
            return Err("a transformer with an image encoder (`image_dim`), as of Wan2.1, is not supported"
                .to_owned());
        }
        match self.qk_norm.as_deref() {
            Some("rms_norm_across_heads") => Ok(()),
            other => Err(format!("`qk_norm` must be rms_norm_across_heads, not {other:?}")),
        }
    }
}
