//! From a picture of any size to the numbers that the model is conditioned on, and from its numbers back to pixels.
//!
//! Source: `best_output_size` and the image preparation of the models' own program: the size of the model's area whose
//! ratio is nearest to the picture's, scaled to cover it with Lanczos, cut at the centre.

use candle_core::{DType, Device, Tensor};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use kinora_engine::Picture;
use rayon::prelude::*;

use crate::WanError;

/// Pixels that one task turns into 8-bit ones at least.
const PIXELS_AT_ONCE: usize = 1 << 14;

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width_px: usize,
    pub height_px: usize,
}

/// The size of at most `area_px` pixels, in multiples of `multiple` (of its width and height), whose ratio is nearest to
/// that of `picture`. At least one multiple in each direction.
pub fn best_size(picture: Size, area_px: usize, multiple: Size) -> Size {
    let ratio = picture.width_px as f64 / picture.height_px as f64;
    let width = (area_px as f64 * ratio).sqrt();
    let height = area_px as f64 / width;
    let down = |side: f64, multiple: usize| ((side / multiple as f64).floor() as usize).max(1) * multiple;
    let by_width = |width_px: usize| Size {
        width_px,
        height_px: down(area_px as f64 / width_px as f64, multiple.height_px),
    };
    let by_height = |height_px: usize| Size {
        width_px: down(area_px as f64 / height_px as f64, multiple.width_px),
        height_px,
    };
    let candidates = [by_width(down(width, multiple.width_px)), by_height(down(height, multiple.height_px))];
    let off = |size: &Size| {
        let own = size.width_px as f64 / size.height_px as f64;
        // A side that had to become one whole multiple may leave the area.
        (size.width_px * size.height_px > area_px, (ratio / own).max(own / ratio))
    };
    if off(&candidates[0]) < off(&candidates[1]) { candidates[0] } else { candidates[1] }
}

/// The picture at exactly `size`: scaled to cover it, cut at the centre. `[H, W, 3]`, 8-bit sRGB.
pub fn fit(picture: &Picture, size: Size) -> Result<Vec<u8>, WanError> {
    let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
    let Size { width_px, height_px } = size;
    if (width, height) == (width_px, height_px) {
        return Ok(picture.rgb().to_vec());
    }
    let scale = (width_px as f64 / width as f64).max(height_px as f64 / height as f64);
    let covering = |side: usize, at_least: usize| ((side as f64 * scale).round() as usize).max(at_least);
    let (wide, high) = (covering(width, width_px), covering(height, height_px));
    let scaled = resize(picture, wide, high)?;
    let (left, top) = ((wide - width_px) / 2, (high - height_px) / 2);
    let rows = scaled.chunks_exact(wide * 3).skip(top).take(height_px);
    Ok(rows.flat_map(|row| &row[left * 3..(left + width_px) * 3]).copied().collect())
}

fn resize(picture: &Picture, width: usize, height: usize) -> Result<Vec<u8>, WanError> {
    let failed = |problem: String| WanError::Request(format!("the picture cannot be scaled: {problem}"));
    let source = ImageRef::new(picture.width_px(), picture.height_px(), picture.rgb(), PixelType::U8x3)
        .map_err(|e| failed(e.to_string()))?;
    let mut target = Image::new(width as u32, height as u32, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(e.to_string()))?;
    Ok(target.into_vec())
}

/// 8-bit pixels `[H, W, 3]` to `[1, 3, H, W]` in -1..1.
pub fn to_tensor(rgb: &[u8], size: Size) -> Result<Tensor, WanError> {
    let numbers: Vec<f32> = rgb.iter().map(|&value| 2.0 * (f32::from(value) / 255.0) - 1.0).collect();
    let pixels = Tensor::from_vec(numbers, (1, size.height_px, size.width_px, 3), &Device::Cpu)?;
    Ok(pixels.permute((0, 3, 1, 2))?.contiguous()?)
}

/// Frames `[1, 3, F, H, W]` in -1..1 to 8-bit pixels `[F, H, W, 3]`.
pub fn to_rgb(frames: &Tensor) -> Result<Vec<u8>, WanError> {
    let (_, colours, count, height, width) = frames.dims5()?;
    let numbers = frames.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let level = |number: f32| ((number / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    let pixels = count * height * width;
    // By all threads: a device has nothing to do until this is done.
    let mut rgb = vec![0; colours * pixels];
    rgb.par_chunks_mut(colours * PIXELS_AT_ONCE).enumerate().for_each(|(chunk, rgb)| {
        for (at, pixel) in (chunk * PIXELS_AT_ONCE..).zip(rgb.chunks_exact_mut(colours)) {
            for (value, plane) in pixel.iter_mut().zip(numbers.chunks_exact(pixels)) {
                *value = level(plane[at]);
            }
        }
    });
    Ok(rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width_px: usize, height_px: usize) -> Size {
        Size { width_px, height_px }
    }

    #[test]
    fn sizes_are_those_of_the_models_own_program() {
        // The rule of the models' own program, worked out in Python apart from this code.
        for (picture, best) in [
            ((1920, 1080), (1248, 704)),
            ((1080, 1920), (704, 1248)),
            ((1000, 1000), (960, 928)),
            ((640, 480), (1088, 800)),
            ((300, 750), (608, 1472)),
        ] {
            let got = best_size(size(picture.0, picture.1), 704 * 1280, size(32, 32));
            assert_eq!(got, size(best.0, best.1), "{picture:?}");
        }
    }

    #[test]
    fn a_strip_becomes_no_clip_of_more_pixels() {
        for (picture, best) in [((1, 4000), (32, 28_160)), ((4000, 1), (28_160, 32))] {
            let got = best_size(size(picture.0, picture.1), 704 * 1280, size(32, 32));
            assert_eq!(got, size(best.0, best.1), "{picture:?}");
        }
    }

    #[test]
    fn a_picture_is_cut_at_its_centre() {
        let rgb: Vec<u8> = (0..2 * 6).flat_map(|at| [at as u8 % 6 * 40; 3]).collect();
        let picture = Picture::new(6, 2, rgb).unwrap();
        let cut = fit(&picture, size(2, 2)).unwrap();
        assert_eq!(cut, [[80; 3], [120; 3], [80; 3], [120; 3]].concat());
    }

    #[test]
    fn pixels_survive_the_way_there_and_back() {
        let rgb: Vec<u8> = (0..=255).flat_map(|value| [value, 255 - value, 7]).collect();
        let there = to_tensor(&rgb, size(16, 16)).unwrap();
        assert_eq!(to_rgb(&there.unsqueeze(2).unwrap()).unwrap(), rgb);
    }

    #[test]
    fn frames_follow_each_other_whatever_their_order_in_memory() {
        // Of a size that no task gets whole chunks of.
        let of = |frame: usize| -> Vec<u8> {
            (0..171 * 130 * 3).map(|at| ((at * 7 + frame * 31) % 256) as u8).collect()
        };
        let there = |frame| to_tensor(&of(frame), size(171, 130)).unwrap();
        // [1, 3, H, W] each, put together as the VAE does it: frames first, then colours before frames.
        let frames = Tensor::cat(&[there(0), there(1), there(2)], 0).unwrap().transpose(0, 1).unwrap();
        assert_eq!(to_rgb(&frames.unsqueeze(0).unwrap()).unwrap(), [of(0), of(1), of(2)].concat());
    }
}
