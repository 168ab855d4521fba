//! Smooth random maps.

use super::super::scene::Map;
use crate::rng::Noise;

/// Value noise of about unit variance whose blobs are `scale` cells wide; each of `octaves` halves scale and
/// amplitude.
pub(crate) fn smooth_noise(noise: Noise, width: usize, height: usize, scale: f32, octaves: u32) -> Map {
    // Interpolation between independent values leaves this share of their deviation.
    const KEPT: f32 = 0.72;
    let power: f32 = (0..octaves).map(|k| 0.25f32.powi(k as i32)).sum();
    Map::from_fn(width, height, |x, y| {
        let sum: f32 = (0..octaves)
            .map(|octave| {
                let k = (1u32 << octave) as f32;
                lattice(noise, octave, x as f32 * k / scale, y as f32 * k / scale) / k
            })
            .sum();
        sum / (power.sqrt() * KEPT)
    })
}

/// Interpolated normal numbers at whole coordinates, none of them negative.
fn lattice(noise: Noise, octave: u32, x: f32, y: f32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let (u, v) = (fade(x - x0), fade(y - y0));
    let corner =
        |i: u64, j: u64| noise.normal((u64::from(octave) << 48) | ((y0 as u64 + j) << 24) | (x0 as u64 + i));
    let top = corner(0, 0) * (1.0 - u) + corner(1, 0) * u;
    let bottom = corner(0, 1) * (1.0 - u) + corner(1, 1) * u;
    top * (1.0 - v) + bottom * v
}

/// Perlin's quintic: first and second derivative are 0 at both ends.
fn fade(t: f32) -> f32 {
    t * t * t * (t * (6.0 * t - 15.0) + 10.0)
}
