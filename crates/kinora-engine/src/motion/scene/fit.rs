//! The frame: which size a clip of a picture has, and the picture brought to exactly that size.
//!
//! Always true: the size is a multiple of 16 each way, about 921,600 pixels (720p), in the picture's own ratio
//! within .45..2.3; a picture that has this size already passes unchanged.

use fast_image_resize as fir;

use super::color::Planes;
use crate::Picture;

/// Pixels of a frame, about: 1280 x 720.
const FRAME_AREA_PX: f64 = 921_600.0;
/// Ratios (width over height) beyond these are cropped to them.
const RATIO_MIN: f64 = 0.45;
const RATIO_MAX: f64 = 2.3;
/// Encoders work in blocks of 16.
const SIZE_STEP_PX: f64 = 16.0;
/// Enlarged by more than this, a picture looks soft and is sharpened.
const SHARPEN_ABOVE_SCALE: f64 = 1.15;
const SHARPEN_AMOUNT: f32 = 0.35;
/// Radius of the sharpening per unit of enlargement, in pixels.
const SHARPEN_SIGMA_PX: f64 = 0.55;

/// Width and height of the clip of a picture of this size, in pixels.
pub(crate) fn output_size(picture_width_px: u32, picture_height_px: u32) -> (u32, u32) {
    let ratio = f64::from(picture_width_px.max(1)) / f64::from(picture_height_px.max(1));
    let ratio = ratio.clamp(RATIO_MIN, RATIO_MAX);
    let height = (FRAME_AREA_PX / ratio).sqrt();
    let step = |size: f64| ((size / SIZE_STEP_PX).round() * SIZE_STEP_PX) as u32;
    (step(height * ratio), step(height))
}

/// The picture cut around its centre and resized to [`output_size`].
///
/// Shrinks by area averages, grows by Lanczos followed by a mild unsharp mask.
pub(crate) fn fit(picture: &Picture) -> Picture {
    let (width_px, height_px) = output_size(picture.width_px(), picture.height_px());
    if (width_px, height_px) == (picture.width_px(), picture.height_px()) {
        return picture.clone();
    }
    let scale = (f64::from(width_px) / f64::from(picture.width_px()))
        .max(f64::from(height_px) / f64::from(picture.height_px()));
    let filter = if scale < 1.0 { fir::FilterType::Box } else { fir::FilterType::Lanczos3 };
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(filter))
        .fit_into_destination(Some((0.5, 0.5)));
    let rgb = resize_rgb8(picture, (width_px, height_px), &options);
    let rgb = if scale > SHARPEN_ABOVE_SCALE { sharpen(rgb, width_px, height_px, scale) } else { rgb };
    Picture::new(width_px, height_px, rgb).expect("the resizer fills the whole picture")
}

/// The part of `picture` that [`fit`] made `fitted` from, by area averages at another size that is not larger.
pub(crate) fn finer(picture: &Picture, fitted: &Picture, (width_px, height_px): (u32, u32)) -> Picture {
    let (width, height) = (f64::from(picture.width_px()), f64::from(picture.height_px()));
    let ratio = f64::from(fitted.width_px()) / f64::from(fitted.height_px());
    let (crop_width, crop_height) = (width.min(height * ratio), height.min(width / ratio));
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Box))
        .crop((width - crop_width) / 2.0, (height - crop_height) / 2.0, crop_width, crop_height);
    let rgb = resize_rgb8(picture, (width_px, height_px), &options);
    Picture::new(width_px, height_px, rgb).expect("the resizer fills the whole picture")
}

/// The whole picture by area averages at the given size.
pub(crate) fn shrink(picture: &Picture, width_px: u32, height_px: u32) -> Vec<u8> {
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Box));
    resize_rgb8(picture, (width_px, height_px), &options)
}

fn resize_rgb8(
    picture: &Picture,
    (width_px, height_px): (u32, u32),
    options: &fir::ResizeOptions,
) -> Vec<u8> {
    let source = fir::images::ImageRef::new(
        picture.width_px(),
        picture.height_px(),
        picture.rgb(),
        fir::PixelType::U8x3,
    )
    .expect("a picture holds exactly its pixels");
    let mut target = fir::images::Image::new(width_px, height_px, fir::PixelType::U8x3);
    fir::Resizer::new().resize(&source, &mut target, options).expect("the crop lies within the picture");
    target.into_vec()
}

/// Unsharp mask whose radius grows with the enlargement, so that it acts on the picture's own finest detail.
fn sharpen(mut rgb: Vec<u8>, width_px: u32, height_px: u32, scale: f64) -> Vec<u8> {
    let sigma = (SHARPEN_SIGMA_PX * scale).min(8.0) as f32;
    let planes = Planes::from_rgb8(width_px as usize, height_px as usize, &rgb);
    let soft = planes.each(|p| p.blurred(sigma));
    for (c, soft) in soft.0.iter().enumerate() {
        for (value, soft) in rgb.iter_mut().skip(c).step_by(3).zip(&soft.data) {
            let sharp = f32::from(*value);
            *value = (sharp + SHARPEN_AMOUNT * (sharp - soft * 255.0)).round().clamp(0.0, 255.0) as u8;
        }
    }
    rgb
}
