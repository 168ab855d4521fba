//! A still picture's bytes to upright 8-bit sRGB, under bounds.
//!
//! The format is told by content, never by name. Limits are checked on the header, before anything of the
//! picture's size is allocated. EXIF orientation is applied, an embedded ICC profile is converted to sRGB (an
//! unusable one is ignored, as browsers do), and transparent pixels are laid over white. Of an animated PNG the
//! still image counts.
//!
//! Not here: other formats. HDR signalling (PNG's `cICP`) and `gAMA` are ignored.

mod colour;
mod jpeg;
mod png;
mod sniff;
#[cfg(test)]
mod tests;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use kinora_engine::Picture;

pub use self::sniff::PictureFormat;

/// What a picture must be to be taken. The defaults are the service's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureLimits {
    /// Encoded size.
    pub bytes_max: usize,
    /// Both sides, inclusive.
    pub side_min_px: u32,
    /// The long side over the short side, inclusive.
    pub ratio_max: f64,
    /// Width times height; keeps a small file from filling the memory.
    pub pixels_max: u64,
}

impl Default for PictureLimits {
    fn default() -> Self {
        Self { bytes_max: 10 * 1024 * 1024, side_min_px: 300, ratio_max: 2.5, pixels_max: 50_000_000 }
    }
}

/// What a picture's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureInfo {
    pub format: PictureFormat,
    /// Size after the EXIF orientation.
    pub width_px: u32,
    pub height_px: u32,
}

/// A decoded picture and where it came from.
#[derive(Debug)]
pub struct DecodedPicture {
    /// Upright, sRGB.
    pub picture: Picture,
    pub format: PictureFormat,
}

/// Why a picture is not taken. Every message names the fault and what would be right.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PictureError {
    #[error("image is empty; a JPEG or PNG file is needed")]
    Empty,
    #[error("image has {got} bytes; at most {max} ({} MB) are taken", max / (1024 * 1024))]
    TooManyBytes { got: usize, max: usize },
    #[error("image is {found}; a JPEG or PNG file is needed")]
    UnsupportedFormat { found: &'static str },
    #[error("image is {width_px}x{height_px} pixels; both sides must be at least {min_px} pixels")]
    TooSmall { width_px: u32, height_px: u32, min_px: u32 },
    #[error(
        "image is {width_px}x{height_px} pixels, a ratio of {:.3}:1; it must be between 1:{max} and {max}:1",
        f64::from(*width_px) / f64::from(*height_px)
    )]
    Ratio { width_px: u32, height_px: u32, max: f64 },
    #[error("image is {width_px}x{height_px} pixels; at most {max} pixels in all are taken")]
    TooManyPixels { width_px: u32, height_px: u32, max: u64 },
    #[error("image is a {format} file that ends too early; send the whole file")]
    Truncated { format: PictureFormat },
    #[error("image is a {format} file that cannot be decoded: {reason}")]
    Undecodable { format: PictureFormat, reason: String },
}

/// Decodes a picture under the service's limits. CPU-bound; peaks at some 3 to 10 bytes per pixel.
pub fn decode(bytes: &[u8]) -> Result<DecodedPicture, PictureError> {
    PictureLimits::default().decode(bytes)
}

/// Checks the service's limits on a picture's header, without decoding its pixels. Cheap.
pub fn inspect(bytes: &[u8]) -> Result<PictureInfo, PictureError> {
    PictureLimits::default().inspect(bytes)
}

/// Size and orientation as stored.
#[derive(Debug, Clone, Copy)]
struct Header {
    width_px: u32,
    height_px: u32,
    orientation: Orientation,
}

impl PictureLimits {
    /// As [`inspect`], under these limits.
    pub fn inspect(&self, bytes: &[u8]) -> Result<PictureInfo, PictureError> {
        let (format, header) = self.header(bytes)?;
        let (width_px, height_px) = match header.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (header.height_px, header.width_px),
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical => (header.width_px, header.height_px),
        };
        self.check_size(width_px, height_px)?;
        Ok(PictureInfo { format, width_px, height_px })
    }

    /// As [`decode`], under these limits.
    pub fn decode(&self, bytes: &[u8]) -> Result<DecodedPicture, PictureError> {
        self.inspect(bytes)?;
        let (format, header) = self.header(bytes)?;
        let rgb = match format {
            PictureFormat::Jpeg => jpeg::decode(bytes)?,
            PictureFormat::Png => png::decode(bytes)?,
        };
        let unusable =
            || PictureError::Undecodable { format, reason: "its pixels do not fill it".to_owned() };
        let stored = RgbImage::from_raw(header.width_px, header.height_px, rgb).ok_or_else(unusable)?;
        let mut upright = DynamicImage::ImageRgb8(stored);
        upright.apply_orientation(header.orientation);
        let (width_px, height_px) = (upright.width(), upright.height());
        let picture = Picture::new(width_px, height_px, upright.into_bytes()).map_err(|_| unusable())?;
        Ok(DecodedPicture { picture, format })
    }

    fn header(&self, bytes: &[u8]) -> Result<(PictureFormat, Header), PictureError> {
        if bytes.is_empty() {
            return Err(PictureError::Empty);
        }
        if bytes.len() > self.bytes_max {
            return Err(PictureError::TooManyBytes { got: bytes.len(), max: self.bytes_max });
        }
        let format = sniff::format(bytes).map_err(|found| PictureError::UnsupportedFormat { found })?;
        let header = match format {
            PictureFormat::Jpeg => jpeg::header(bytes)?,
            PictureFormat::Png => png::header(bytes)?,
        };
        Ok((format, header))
    }

    fn check_size(&self, width_px: u32, height_px: u32) -> Result<(), PictureError> {
        let (short_px, long_px) = (width_px.min(height_px), width_px.max(height_px));
        if short_px < self.side_min_px {
            return Err(PictureError::TooSmall { width_px, height_px, min_px: self.side_min_px });
        }
        if u64::from(width_px) * u64::from(height_px) > self.pixels_max {
            return Err(PictureError::TooManyPixels { width_px, height_px, max: self.pixels_max });
        }
        if f64::from(long_px) > f64::from(short_px) * self.ratio_max {
            return Err(PictureError::Ratio { width_px, height_px, max: self.ratio_max });
        }
        Ok(())
    }
}
