//! Pictures in, clips out: the only crate that knows file formats.

mod clip;
mod lossless;
mod picture;
mod thumbnail;

pub use clip::{ClipError, ClipInfo, ClipMetadata, ClipWriter};
pub use lossless::lossless_png;
pub use picture::{DecodedPicture, PictureError, PictureFormat, PictureInfo, PictureLimits, decode, inspect};
pub use thumbnail::{ThumbnailError, thumbnail_jpeg};
