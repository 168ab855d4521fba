//! The canvas: how large it is and how maps of the frame are laid onto it.

use rayon::prelude::*;

use super::Canvas;
use super::map::Map;
use crate::Picture;

/// Margins in frame widths and heights: enough for a pan and for a gentle zoom-out.
const MARGIN_X: f64 = 0.10;
const MARGIN_Y: f64 = 0.10;
/// The vertical margin of wide frames, in frame widths: moves are measured in widths.
const MARGIN_Y_PER_WIDTH: f64 = 0.07;

impl Canvas {
    pub(crate) fn around(picture: &Picture) -> Self {
        let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
        let quarter = |size: f64| ((size / 4.0).round() as usize).max(1) * 4;
        let margin_x_px = quarter(width as f64 * MARGIN_X);
        let margin_y_px = quarter((height as f64 * MARGIN_Y).max(width as f64 * MARGIN_Y_PER_WIDTH));
        Self {
            width_px: width + 2 * margin_x_px,
            height_px: height + 2 * margin_y_px,
            margin_x_px,
            margin_y_px,
        }
    }

    /// A map of the frame at any size, laid onto the canvas at 1/4, replicated into the margin.
    pub(crate) fn quarter(&self, map: &Map) -> Map {
        self.lay(map, 4)
    }

    /// Likewise at 1/2.
    pub(crate) fn half(&self, map: &Map) -> Map {
        self.lay(map, 2)
    }

    fn lay(&self, map: &Map, step: usize) -> Map {
        let frame_width = (self.width_px - 2 * self.margin_x_px) as f32;
        let frame_height = (self.height_px - 2 * self.margin_y_px) as f32;
        let (sx, sy) = (map.width as f32 / frame_width, map.height as f32 / frame_height);
        let places = |cells: usize, margin_px: usize, scale: f32| -> Vec<f32> {
            let pixel = |i: usize| (i * step) as f32 + (step as f32 - 1.0) / 2.0 - margin_px as f32;
            (0..cells).map(|i| (pixel(i) + 0.5) * scale - 0.5).collect()
        };
        let xs = places(self.width_px / step, self.margin_x_px, sx);
        let ys = places(self.height_px / step, self.margin_y_px, sy);
        map.sampled(&xs, &ys)
    }

    /// `[H, W, 3]`: the picture, mirrored into the margin.
    pub(crate) fn mirrored(&self, picture: &Picture) -> Vec<u8> {
        let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
        let mut rgb = vec![0u8; self.width_px * self.height_px * 3];
        rgb.par_chunks_mut(self.width_px * 3).enumerate().for_each(|(y, row)| {
            let sy = mirror(y as isize - self.margin_y_px as isize, height);
            let source = &picture.rgb()[sy * width * 3..(sy + 1) * width * 3];
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let sx = mirror(x as isize - self.margin_x_px as isize, width);
                pixel.copy_from_slice(&source[sx * 3..sx * 3 + 3]);
            }
        });
        rgb
    }
}

/// Reflects an index at both ends of `0..size`, the end values repeated once.
pub(crate) fn mirror(index: isize, size: usize) -> usize {
    let period = 2 * size as isize;
    let folded = index.rem_euclid(period);
    (if folded < size as isize { folded } else { period - 1 - folded }) as usize
}
