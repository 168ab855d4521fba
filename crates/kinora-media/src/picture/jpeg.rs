//! JPEG: baseline and progressive, grey, colour and inks.
//!
//! The decoder fills what is missing from a cut file with grey and calls it a success, so the file's markers
//! are walked first: without an end-of-image marker after its scans a file is incomplete. What follows that
//! marker is nobody's business. Four-channel files hold inverted inks, as browsers assume of all of them.
//!
//! Source: ITU-T T.81, annex B; Adobe's technical note 5116 for the inks.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::colour::{Samples, ToSrgb};
use super::{Header, PictureError, PictureFormat};

/// Encoders write about ten. Each costs a pass over the whole picture, however few bytes it has.
const SCANS_MAX: usize = 100;
const SIDE_MAX_PX: usize = u16::MAX as usize;

type Decoder<'a> = JpegDecoder<ZCursor<&'a [u8]>>;

pub(super) fn header(bytes: &[u8]) -> Result<Header, PictureError> {
    check_markers(bytes)?;
    let decoder = open(bytes)?;
    let info = decoder.info().ok_or_else(|| undecodable("it has no header"))?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    Ok(Header {
        width_px: u32::from(info.width),
        height_px: u32::from(info.height),
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
    })
}

/// `[H, W, 3]` as stored, in sRGB.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
    let mut decoder = open(bytes)?;
    let stored = decoder.input_colorspace().ok_or_else(|| undecodable("it has no header"))?;
    let (wanted, samples) = match stored {
        ColorSpace::Luma => (ColorSpace::Luma, Samples::Luma),
        ColorSpace::CMYK => (ColorSpace::CMYK, Samples::Cmyk),
        ColorSpace::YCCK => (ColorSpace::YCCK, Samples::Cmyk),
        _ => (ColorSpace::RGB, Samples::Rgb),
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    let (width_px, height_px) = decoder.dimensions().ok_or_else(|| undecodable("it has no header"))?;
    let row_bytes = width_px * samples.per_pixel();
    if decoder.output_buffer_size() != Some(row_bytes * height_px) {
        return Err(undecodable("it has an unusual number of channels"));
    }
    let mut pixels = vec![0; row_bytes * height_px];
    decoder.decode_into(&mut pixels).map_err(|error| undecodable(&error.to_string()))?;
    if stored == ColorSpace::YCCK {
        pixels.as_chunks_mut::<4>().0.iter_mut().for_each(ycck_to_inverted_inks);
    }
    if samples == Samples::Cmyk {
        pixels.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    let icc = decoder.icc_profile();
    drop(decoder);
    let mut to_srgb = ToSrgb::new(samples, icc.as_deref());
    if to_srgb.is_identity() {
        return Ok(pixels);
    }
    let mut rgb = vec![0; width_px * height_px * 3];
    for (row, rgb) in pixels.chunks_exact(row_bytes).zip(rgb.chunks_exact_mut(width_px * 3)) {
        to_srgb.row(row, rgb);
    }
    Ok(rgb)
}

fn open(bytes: &[u8]) -> Result<Decoder<'_>, PictureError> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(SIDE_MAX_PX)
        .set_max_height(SIDE_MAX_PX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| undecodable(&error.to_string()))?;
    Ok(decoder)
}

/// Colours of inverted inks are stored as the luma and colour differences of their complement (full range, BT.601),
/// black as it is.
fn ycck_to_inverted_inks(pixel: &mut [u8; 4]) {
    let [luma, cb, cr, _] = pixel.map(f32::from);
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    let light = [luma + 1.402 * cr, luma - 0.344_136 * cb - 0.714_136 * cr, luma + 1.772 * cb];
    for (out, light) in pixel.iter_mut().zip(light) {
        *out = 255 - light.round() as u8;
    }
}

/// Walks from marker to marker up to the end of the image.
fn check_markers(bytes: &[u8]) -> Result<(), PictureError> {
    const TRUNCATED: PictureError = PictureError::Truncated { format: PictureFormat::Jpeg };
    let mut rest = bytes.get(2..).ok_or(TRUNCATED)?;
    let mut scans_count = 0;
    loop {
        // Scans hold 0xFF only as a stuffed FF 00 and in restart markers; elsewhere it may be repeated as filler.
        let at =
            rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff));
        let at = at.ok_or(TRUNCATED)?;
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        match marker {
            0xd9 => return Ok(()),
            0x01 | 0xd8 => continue,
            0xda => scans_count += 1,
            _ => {}
        }
        if scans_count > SCANS_MAX {
            return Err(undecodable(&format!("it has more than {SCANS_MAX} scans")));
        }
        let (length, _) = rest.split_first_chunk::<2>().ok_or(TRUNCATED)?;
        rest = rest.get(usize::from(u16::from_be_bytes(*length))..).ok_or(TRUNCATED)?;
    }
}

fn undecodable(reason: &str) -> PictureError {
    PictureError::Undecodable { format: PictureFormat::Jpeg, reason: reason.to_owned() }
}
