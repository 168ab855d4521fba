//! Pictures in, clips out: the only crate that knows file formats.

mod clip;

pub use clip::{ClipError, ClipInfo, ClipMetadata, ClipWriter};
