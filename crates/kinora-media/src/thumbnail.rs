//! A small JPEG of a frame or picture.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use kinora_engine::Picture;

const JPEG_QUALITY: u8 = 85;

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    #[error("the thumbnail could not be scaled: {0}")]
    Buffer(#[from] fast_image_resize::ImageBufferError),
    #[error("the thumbnail could not be scaled: {0}")]
    Resize(#[from] fast_image_resize::ResizeError),
    #[error("the thumbnail could not be encoded: {0}")]
    Encode(#[from] image::ImageError),
}

/// `picture` as a JPEG whose longer side is at most `max_side_px`; smaller pictures keep their size.
pub fn thumbnail_jpeg(picture: &Picture, max_side_px: u32) -> Result<Vec<u8>, ThumbnailError> {
    let (width_px, height_px) = (picture.width_px(), picture.height_px());
    let long_px = width_px.max(height_px);
    if long_px <= max_side_px {
        return encode(picture.rgb(), width_px, height_px);
    }
    let scaled = |side_px: u32| {
        let side_px = f64::from(side_px) * f64::from(max_side_px) / f64::from(long_px);
        (side_px.round() as u32).max(1)
    };
    let source = ImageRef::new(width_px, height_px, picture.rgb(), PixelType::U8x3)?;
    let mut target = Image::new(scaled(width_px), scaled(height_px), PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut target, &options)?;
    encode(target.buffer(), target.width(), target.height())
}

fn encode(rgb: &[u8], width_px: u32, height_px: u32) -> Result<Vec<u8>, ThumbnailError> {
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY);
    encoder.encode(rgb, width_px, height_px, ExtendedColorType::Rgb8)?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    use kinora_engine::Picture;

    use super::thumbnail_jpeg;

    fn ramp(width_px: u32, height_px: u32) -> Picture {
        let pixel = |x: u32| [(x * 255 / width_px) as u8, 100, 180];
        let rgb = (0..height_px).flat_map(|_| (0..width_px).flat_map(pixel)).collect();
        Picture::new(width_px, height_px, rgb).unwrap()
    }

    #[test]
    fn a_thumbnail_keeps_ratio_and_colours() {
        for (width_px, height_px, want) in
            [(1280, 720, (512, 288)), (300, 750, (205, 512)), (400, 300, (400, 300))]
        {
            let jpeg = thumbnail_jpeg(&ramp(width_px, height_px), 512).unwrap();
            let decoded = image::load_from_memory(&jpeg).unwrap().to_rgb8();
            assert_eq!(decoded.dimensions(), want);
            let middle = decoded.get_pixel(want.0 / 2, want.1 / 2).0;
            let differences = middle.iter().zip([127u8, 100, 180]).map(|(got, want)| got.abs_diff(want));
            assert!(differences.max().unwrap() <= 4, "{middle:?}");
        }
    }

    #[test]
    fn a_line_has_a_thumbnail() {
        let jpeg = thumbnail_jpeg(&ramp(2000, 1), 512).unwrap();
        assert_eq!(image::load_from_memory(&jpeg).unwrap().to_rgb8().dimensions(), (512, 1));
    }
}
