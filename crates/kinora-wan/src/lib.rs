//! The neural engine: the open Wan2.2 image-to-video models, from a folder of weights to frames.
//!
//! A folder in the layout of the diffusers library (`model_index.json`, `transformer/`, `vae/`, `text_encoder/`,
//! `tokenizer/`, `scheduler/`) is all it needs; every width, depth and scale is read from the folder's configuration
//! files, so nothing is tied to one checkpoint. Equality with the reference implementation is held by goldens.
//!
//! Letters in shape comments: B batch, F frames, H W pixels, f h w latent, C channels, z latent channels, L text tokens,
//! D width, N video tokens, A heads, K head width, R distinct times.

pub mod condition;
pub mod device;
pub mod dit;
mod engine;
mod error;
pub mod measure;
pub mod model;
pub mod ops;
pub mod picture;
pub mod pipeline;
pub mod sampler;
pub mod text;
pub mod vae;
pub mod weights;

pub use engine::WanEngine;
pub use error::{Cancel, WanError, go_on};
pub use pipeline::{Needs, Settings, needs};
