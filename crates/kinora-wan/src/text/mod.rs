//! Words to text states: cleaning, tokens, the encoder.
//!
//! Always true: states are those of the prompt's own tokens, followed by zeros up to the model's length; tokens that
//! only pad are never computed, since masked keys take no part in attention and their own states are thrown away.

mod clean;
mod encoder;

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use tokenizers::{Tokenizer, TruncationParams};

pub use clean::clean;
pub use encoder::{Encoder, EncoderConfig};

use crate::ops::Place;
use crate::{Cancel, WanError};

/// L: tokens that the transformer reads; longer prompts are cut.
pub const TOKENS_MAX: usize = 512;

/// Tokenizer and encoder.
#[derive(Debug)]
pub struct TextEncoder {
    tokens: Tokens,
    encoder: Encoder,
}

impl TextEncoder {
    /// Opens `tokenizer/` and `text_encoder/` in `folder`.
    pub fn load(folder: &Path, place: Place<'_>) -> Result<Self, WanError> {
        let tokens = Tokens::load(&folder.join("tokenizer"))?;
        Ok(Self { tokens, encoder: Encoder::load(&folder.join("text_encoder"), place)? })
    }

    /// Width of the states.
    pub fn width(&self) -> usize {
        self.encoder.config().d_model
    }

    pub fn sizes(&self) -> &EncoderConfig {
        self.encoder.config()
    }

    /// States of `prompt` as typed: `[1, L, text_dim]`, zeros after the prompt's end. Cancels between layers.
    pub fn states(&self, prompt: &str, cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        let states = self.encoder.forward(&self.tokens.ids(prompt)?, cancel)?; // [tokens, text_dim]
        let rest = TOKENS_MAX - states.dim(0)?;
        Ok(states.pad_with_zeros(0, 0, rest)?.unsqueeze(0)?)
    }
}

/// Cleaned words to tokens.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    path: PathBuf,
}

impl Tokens {
    /// Opens `tokenizer.json` in `folder`.
    pub fn load(folder: &Path) -> Result<Self, WanError> {
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            return Err(WanError::config(folder, "there is no tokenizer.json"));
        }
        let failed = |error: tokenizers::Error| WanError::config(&path, error.to_string());
        let mut tokenizer = Tokenizer::from_file(&path).map_err(failed)?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: TOKENS_MAX, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(failed)?;
        Ok(Self { tokenizer, path })
    }

    /// Tokens of `prompt`, cleaned, at most [`TOKENS_MAX`] with the one that ends it.
    pub fn ids(&self, prompt: &str) -> Result<Vec<u32>, WanError> {
        let encoded = self.tokenizer.encode(clean(prompt), true);
        let encoded = encoded.map_err(|error| WanError::config(&self.path, error.to_string()))?;
        Ok(encoded.get_ids().to_vec())
    }
}
