//! A plausible depth for every place of the picture: a stage set, not a measurement.
//!
//! Always true: disparity lies in 0 (far) .. 1 (near) and is smooth but for the picture's own edges.

use super::color::Planes;
use super::guided::Guide;
use super::map::Map;

const GUIDE_RADIUS: usize = 12;
const GUIDE_EPSILON: f32 = 2e-3;
const SMOOTHING_SIGMA: f32 = 1.5;

/// Disparity at the size of `planes` (analysis size): nearer towards the bottom, the centre and what is sharp.
pub(crate) fn disparity(planes: &Planes) -> Map {
    let (width, height) = (planes.width(), planes.height());
    let sharpness = sharpness(&planes.luma());
    let top = sharpness.percentile(0.95, |_| true).unwrap_or(0.0).max(1e-6);
    let plain = Map::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / (width - 1).max(1) as f32, y as f32 / (height - 1).max(1) as f32);
        let centre = (-((u - 0.5) / 0.45).powi(2) - ((v - 0.55) / 0.5).powi(2)).exp();
        0.18 + 0.42 * v.powf(1.2) + 0.16 * centre + 0.24 * (sharpness.at(x, y) / top).min(1.0)
    });
    Guide::new(planes, GUIDE_RADIUS, GUIDE_EPSILON)
        .filter(&plain)
        .map(|v| v.clamp(0.0, 1.0))
        .blurred(SMOOTHING_SIGMA)
}

/// How much fine detail there is around each place.
pub(crate) fn sharpness(luma: &Map) -> Map {
    luma.zip(&luma.blurred(1.0), |fine, soft| (fine - soft).abs()).blurred(8.0)
}
