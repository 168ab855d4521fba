//! PNG: every colour type and depth, interlaced or not, decoded row by row where the file allows it.
//!
//! Source: PNG specification, third edition. 16-bit samples are rounded to 8 bits.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{BitDepth, ColorType, DecodingError, Limits, Transformations};

use super::colour::{Samples, ToSrgb};
use super::sniff::PNG_SIGNATURE;
use super::{Header, PictureError, PictureFormat};

/// For the decoder's own buffers; among them a colour profile, which is compressed and may be a bomb.
const DECODER_BYTES_MAX: usize = 16 * 1024 * 1024;

type Reader<'a> = png::Reader<Cursor<&'a [u8]>>;

pub(super) fn header(bytes: &[u8]) -> Result<Header, PictureError> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: DECODER_BYTES_MAX });
    let info = decoder.read_header_info().map_err(as_picture_error)?;
    Ok(Header {
        width_px: info.width,
        height_px: info.height,
        orientation: exif(bytes).and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms),
    })
}

/// `[H, W, 3]` as stored, in sRGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: DECODER_BYTES_MAX });
    decoder.set_ignore_text_chunk(true);
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(as_picture_error)?;
    let (colour, depth) = reader.output_color_type();
    let samples = match colour {
        ColorType::Grayscale => Samples::Luma,
        ColorType::GrayscaleAlpha => Samples::LumaAlpha,
        ColorType::Rgb => Samples::Rgb,
        ColorType::Rgba => Samples::Rgba,
        ColorType::Indexed => return Err(undecodable("its palette is missing")),
    };
    let mut rows = Rows {
        to_srgb: ToSrgb::new(samples, reader.info().icc_profile.as_deref()),
        is_16_bit: depth == BitDepth::Sixteen,
        reduced: Vec::new(),
    };
    let (width_px, height_px) = (reader.info().width as usize, reader.info().height as usize);
    let mut rgb = vec![0; width_px * height_px * 3];
    if reader.info().interlaced {
        rows.convert_all(&whole(&mut reader)?, width_px, &mut rgb);
    } else {
        for rgb in rgb.chunks_exact_mut(width_px * 3) {
            let row = reader.next_row().map_err(as_picture_error)?.ok_or(TRUNCATED)?;
            rows.convert(row.data(), rgb);
        }
    }
    Ok(rgb)
}

const TRUNCATED: PictureError = PictureError::Truncated { format: PictureFormat::Png };

/// All rows of an interlaced picture, which come in no useful order.
fn whole(reader: &mut Reader<'_>) -> Result<Vec<u8>, PictureError> {
    let size_bytes = reader.output_buffer_size().ok_or_else(|| undecodable("it is too large"))?;
    let mut pixels = vec![0; size_bytes];
    reader.next_frame(&mut pixels).map_err(as_picture_error)?;
    Ok(pixels)
}

struct Rows {
    to_srgb: ToSrgb,
    is_16_bit: bool,
    /// A row of 16-bit samples in 8 bits.
    reduced: Vec<u8>,
}

impl Rows {
    fn convert_all(&mut self, pixels: &[u8], width_px: usize, rgb: &mut [u8]) {
        let rows_count = rgb.len() / (width_px * 3);
        let row_bytes = pixels.len() / rows_count;
        for (row, rgb) in pixels.chunks_exact(row_bytes).zip(rgb.chunks_exact_mut(width_px * 3)) {
            self.convert(row, rgb);
        }
    }

    fn convert(&mut self, row: &[u8], rgb: &mut [u8]) {
        if self.is_16_bit {
            let samples = row.as_chunks::<2>().0.iter().map(|sample| u32::from(u16::from_be_bytes(*sample)));
            self.reduced.clear();
            self.reduced.extend(samples.map(|sample| ((sample + 128) / 257) as u8));
            self.to_srgb.row(&self.reduced, rgb);
        } else {
            self.to_srgb.row(row, rgb);
        }
    }
}

/// The `eXIf` chunk, which may also stand behind the pixels, where the decoder does not look for it.
fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(PNG_SIGNATURE.len()..)?;
    loop {
        let (length, after_length) = rest.split_first_chunk::<4>()?;
        let (name, after_name) = after_length.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let data = after_name.get(..length)?;
        match name {
            b"eXIf" => return Some(data),
            b"IEND" => return None,
            _ => rest = after_name.get(length + 4..)?,
        }
    }
}

fn as_picture_error(error: DecodingError) -> PictureError {
    match error {
        DecodingError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => TRUNCATED,
        error => undecodable(&error.to_string()),
    }
}

fn undecodable(reason: &str) -> PictureError {
    PictureError::Undecodable { format: PictureFormat::Png, reason: reason.to_owned() }
}
