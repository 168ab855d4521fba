//! The picture at analysis size with what every stage asks for: colours, gradients, patches.
//!
//! Always true: all maps have the same size; at least 2 x 2.

use super::color::{Planes, hsv, lab};
use super::map::Map;
use super::superpixels::Superpixels;

/// Noise below this scale makes no patches.
const PATCH_SMOOTHING_SIGMA: f32 = 0.8;

/// See [`super::color`] for the units of colours.
#[derive(Debug)]
pub(crate) struct Study {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) rgb: Planes,
    pub(crate) lab: Planes,
    pub(crate) hsv: Planes,
    /// Magnitude of the luma's slope across and down, per pixel.
    pub(crate) slope_x: Map,
    pub(crate) slope_y: Map,
    /// Amount of fine detail around each pixel.
    pub(crate) sharpness: Map,
    pub(crate) patches: Superpixels,
}

impl Study {
    /// Of interleaved 8-bit `[H, W, 3]`.
    pub(crate) fn of(width: usize, height: usize, rgb: &[u8]) -> Self {
        let rgb = Planes::from_rgb8(width, height, rgb);
        let lab = lab(&rgb);
        let hsv = hsv(&rgb);
        let luma = rgb.luma();
        let sharpness = luma.zip(&luma.blurred(1.0), |fine, soft| (fine - soft).abs()).blurred(8.0);
        let patches = Superpixels::of(&lab.each(|p| p.blurred(PATCH_SMOOTHING_SIGMA)));
        let (slope_x, slope_y) = (sobel(&luma, true), sobel(&luma, false));
        Self { width, height, rgb, lab, hsv, slope_x, slope_y, sharpness, patches }
    }

    /// A place in picture heights from the top, 0..1.
    pub(crate) fn v(&self, y: usize) -> f32 {
        y as f32 / (self.height - 1).max(1) as f32
    }

    /// A place in picture widths from the left, 0..1.
    pub(crate) fn u(&self, x: usize) -> f32 {
        x as f32 / (self.width - 1).max(1) as f32
    }

    /// Cells of the study.
    pub(crate) fn area(&self) -> usize {
        self.width * self.height
    }

    /// A map from each pixel's number, row-major.
    pub(crate) fn map(&self, value: impl Fn(usize) -> f32 + Sync) -> Map {
        Map::from_fn(self.width, self.height, |x, y| value(y * self.width + x))
    }
}

/// Absolute Sobel response, per pixel.
fn sobel(luma: &Map, across: bool) -> Map {
    let (width, height) = (luma.width, luma.height);
    Map::from_fn(width, height, |x, y| {
        let (x0, x1) = (x.saturating_sub(1), (x + 1).min(width - 1));
        let (y0, y1) = (y.saturating_sub(1), (y + 1).min(height - 1));
        let sum = if across {
            luma.at(x1, y0) - luma.at(x0, y0) + 2.0 * (luma.at(x1, y) - luma.at(x0, y)) + luma.at(x1, y1)
                - luma.at(x0, y1)
        } else {
            luma.at(x0, y1) - luma.at(x0, y0) + 2.0 * (luma.at(x, y1) - luma.at(x, y0)) + luma.at(x1, y1)
                - luma.at(x1, y0)
        };
        sum.abs() / 8.0
    })
}
