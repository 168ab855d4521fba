//! What is drawn over the picture: weather, particles, vapour, rays and flashes.
//!
//! Always true: everything fades in from nothing, moves with the camera at its own depth, and is a function of
//! time and seed. These are drawings, the only content of a clip that is not from the picture.

mod particles;
mod rays;
mod vapour;

use super::camera::{Pose, smoothstep};
use super::fields::drive_of;
use super::prompt::{Effect, Plan};
use super::render::{Frame, Grid, nearness};
use super::scene::{Map, Scene};
use crate::rng::Noise;
use particles::{Particles, Sprites};
use rays::Rays;
use vapour::{Fog, Smoke};

/// The light of the picture, 0..1: how bright drawn things may be in it.
#[derive(Debug, Clone, Copy)]
struct Light {
    /// Bright parts.
    ambient: f32,
    mean: f32,
    /// Its mean colour, of luminance 1, half way towards white.
    tint: [f32; 3],
}

/// All overlays of a clip.
#[derive(Debug)]
pub(crate) struct Overlays {
    particles: Vec<Particles>,
    air: Option<Air>,
    fog: Option<Fog>,
    smoke: Option<Smoke>,
    rays: Option<Rays>,
    lightning: Option<Lightning>,
}

/// Overlays at one moment.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    far: Vec<Sprites>,
    near: Vec<Sprites>,
    /// Strength and colour of the air's own light in the distance.
    air: Option<(f32, [f32; 3])>,
    fog: Option<(Grid, [f32; 3])>,
    smoke: Option<(Grid, [f32; 3])>,
    rays: Option<Grid>,
    flash: f32,
}

impl Seen {
    fn is_empty(&self) -> bool {
        let planes = self.fog.is_none() && self.smoke.is_none() && self.rays.is_none();
        planes && self.air.is_none() && self.far.is_empty() && self.flash == 0.0
    }

    /// Whether rows need the background's depth.
    pub(crate) fn needs_depth(&self) -> bool {
        self.air.is_some() || self.fog.is_some()
    }
}

/// One row to draw on.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) y: usize,
    pub(crate) pixels: &'a mut [[f32; 4]],
    /// Coverage of the foreground along the row.
    pub(crate) covered: &'a [f32],
    /// Disparity of the background along the row, where [`Seen::needs_depth`].
    pub(crate) depth: &'a [f32],
    pub(crate) values: &'a mut [f32],
    pub(crate) cells: &'a mut Vec<f32>,
}

/// Falling weather veils the distance.
#[derive(Debug)]
struct Air {
    amount: f32,
    colour: [f32; 3],
    start_s: f32,
}

/// Flashes at random times.
#[derive(Debug)]
struct Lightning {
    times_s: Vec<f32>,
    amount: f32,
}

impl Overlays {
    pub(crate) fn new(plan: &Plan, scene: &Scene, frame: &Frame) -> Self {
        let of = |effect| drive_of(plan, effect);
        let light = Light::of(scene, frame);
        // Nearer than this, particles are before the foreground.
        let near_from = scene.foreground.as_ref().map_or(f32::INFINITY, |foreground| {
            let (x, y) = (foreground.x0_px + foreground.x1_px, foreground.y0_px + foreground.y1_px);
            0.75 * nearness(foreground.disparity.bilinear(x as f32 / 8.0, y as f32 / 8.0))
        });
        let particles = particles::KINDS
            .iter()
            .filter_map(|kind| {
                Some(Particles::new(kind, &of(kind.effect)?, light, near_from, plan.seed, frame))
            })
            .collect();
        let air = [(Effect::Snow, 0.10, [0.80, 0.84, 0.88]), (Effect::Rain, 0.12, [0.52, 0.57, 0.62])]
            .into_iter()
            .find_map(|(effect, strength, colour)| {
                let drive = of(effect)?;
                let bright = (0.25 + 0.75 * light.ambient) * 0.8 * 255.0;
                Some(Air {
                    amount: strength * drive.amount.min(1.5),
                    colour: colour.map(|c| c * bright),
                    start_s: drive.start_s,
                })
            });
        Self {
            particles,
            air,
            fog: of(Effect::Fog).map(|drive| Fog::new(&drive, light, plan.seed, frame)),
            smoke: of(Effect::Smoke).map(|drive| Smoke::new(&drive, light, plan.seed, frame, scene)),
            rays: of(Effect::Rays).map(|drive| Rays::new(&drive, plan.seed, frame, scene)),
            lightning: of(Effect::Lightning)
                .filter(|_| plan.flicker)
                .map(|drive| Lightning::new(&drive, plan)),
        }
    }

    /// Everything at a time, seen from `pose`.
    pub(crate) fn at(&self, t_s: f32, pose: &Pose) -> Seen {
        if t_s <= 0.0 {
            return Seen::default();
        }
        let (far, near) = self.particles.iter().map(|particles| particles.at(t_s, pose)).unzip();
        let air =
            self.air.as_ref().map(|air| (air.amount * smoothstep(0.0, 0.9, t_s - air.start_s), air.colour));
        Seen {
            far,
            near,
            air,
            fog: self.fog.as_ref().map(|fog| (fog.at(t_s, pose), fog.colour)),
            smoke: self.smoke.as_ref().map(|smoke| (smoke.at(t_s, pose), smoke.colour)),
            rays: self.rays.as_ref().map(|rays| rays.at(t_s, pose)),
            flash: self.lightning.as_ref().map_or(0.0, |lightning| lightning.at(t_s)),
        }
    }

    /// Draws what is behind the foreground.
    pub(crate) fn behind(seen: &Seen, line: &mut Line<'_>) {
        if let Some((amount, colour)) = &seen.air {
            for (pixel, disparity) in line.pixels.iter_mut().zip(line.depth) {
                mix(pixel, colour, amount * (1.0 - disparity));
            }
        }
        if let Some((grid, colour)) = &seen.fog {
            grid.row(Grid::DX, line.y, line.cells, line.values);
            for ((pixel, density), disparity) in line.pixels.iter_mut().zip(&*line.values).zip(line.depth) {
                let distance = 0.22 + 0.78 * smoothstep(0.25, 0.85, 1.0 - disparity);
                mix(pixel, colour, (density * distance).clamp(0.0, 0.85));
            }
        }
        seen.far.iter().for_each(|sprites| sprites.draw(line));
    }

    /// Draws what is before the foreground.
    pub(crate) fn before(seen: &Seen, line: &mut Line<'_>) {
        if seen.is_empty() {
            return;
        }
        if let Some((grid, colour)) = &seen.fog {
            grid.row(Grid::DX, line.y, line.cells, line.values);
            for ((pixel, density), covered) in line.pixels.iter_mut().zip(&*line.values).zip(line.covered) {
                mix(pixel, colour, (0.2 * density * covered).clamp(0.0, 0.85));
            }
        }
        if let Some((grid, colour)) = &seen.smoke {
            grid.row(Grid::DX, line.y, line.cells, line.values);
            for (pixel, density) in line.pixels.iter_mut().zip(&*line.values) {
                mix(pixel, colour, density.clamp(0.0, 0.8));
            }
        }
        if let Some(grid) = &seen.rays {
            grid.row(Grid::DX, line.y, line.cells, line.values);
            for ((pixel, light), covered) in line.pixels.iter_mut().zip(&*line.values).zip(line.covered) {
                screen(pixel, &rays::COLOUR, light * (1.0 - 0.6 * covered));
            }
        }
        seen.near.iter().for_each(|sprites| sprites.draw(line));
        if seen.flash > 0.0 {
            for pixel in line.pixels.iter_mut() {
                let glare = [0.80, 0.85, 1.0].map(|c| c * 0.05 * 255.0 * seen.flash);
                (0..3).for_each(|c| pixel[c] = pixel[c] * (1.0 + 0.7 * seen.flash) + glare[c]);
            }
        }
        for pixel in line.pixels.iter_mut() {
            *pixel = pixel.map(|c| c.clamp(0.0, 255.0));
        }
    }
}

/// Mixes colour (0..255) into a pixel.
fn mix(pixel: &mut [f32; 4], colour: &[f32; 3], amount: f32) {
    for c in 0..3 {
        pixel[c] += amount * (colour[c] - pixel[c]);
    }
}

/// Adds light (colour 0..1 times amount) so that it never exceeds white.
fn screen(pixel: &mut [f32; 4], colour: &[f32; 3], amount: f32) {
    for c in 0..3 {
        let light = (amount * colour[c]).clamp(0.0, 1.0);
        pixel[c] += light * (255.0 - pixel[c]).max(0.0);
    }
}

impl Light {
    fn of(scene: &Scene, frame: &Frame) -> Self {
        let small = luminance(scene, frame, 8);
        let mean = small.data.iter().sum::<f32>() / small.data.len() as f32;
        let ambient = small.percentile(0.95, |_| true).unwrap_or(0.5).clamp(0.25, 1.0);
        let rgb = scene.background.rgb.as_chunks::<3>().0;
        let sum =
            rgb.iter().step_by(61).fold([0.0f32; 3], |sum, p| [0, 1, 2].map(|c| sum[c] + f32::from(p[c])));
        let bright = 0.299 * sum[0] + 0.587 * sum[1] + 0.114 * sum[2];
        let tint = sum.map(|c| if bright > 0.0 { 0.5 + 0.5 * (c / bright).clamp(0.5, 1.5) } else { 1.0 });
        Self { ambient, mean, tint }
    }
}

/// The frame's luminance, 0..1, one cell per `pitch` x `pitch` pixels.
fn luminance(scene: &Scene, frame: &Frame, pitch: usize) -> Map {
    let rgb = scene.background.rgb.as_chunks::<3>().0;
    Map::from_fn(frame.width_px / pitch, frame.height_px / pitch, |x, y| {
        let sum: f32 = (0..pitch * pitch)
            .map(|k| {
                let (px, py) =
                    (pitch * x + k % pitch + frame.margin_x_px, pitch * y + k / pitch + frame.margin_y_px);
                let [r, g, b] = rgb[py * scene.canvas.width_px + px].map(f32::from);
                0.299 * r + 0.587 * g + 0.114 * b
            })
            .sum();
        sum / (255 * pitch * pitch) as f32
    })
}

impl Lightning {
    fn new(drive: &super::fields::Drive, plan: &Plan) -> Self {
        let duration_s = plan.duration_s as f32;
        let mut draws = Noise::new(plan.seed, "lightning").draws();
        let strikes = 2 + plan.duration_s / 3;
        let times_s = (0..strikes)
            .map(|_| draws.between(drive.start_s + 0.8, (duration_s - 0.3).max(drive.start_s + 1.0)))
            .collect();
        Self { times_s, amount: drive.amount }
    }

    fn at(&self, t_s: f32) -> f32 {
        let flash = |since: f32| {
            let stutter = if (since * 60.0).sin() > -0.3 { 1.0 } else { 0.4 };
            if since > 0.0 { (-7.0 * since).exp() * stutter } else { 0.0 }
        };
        self.amount * self.times_s.iter().map(|strike| flash(t_s - strike)).sum::<f32>()
    }
}

/// Cloud-like noise of unit variance that repeats without a seam.
#[derive(Debug)]
struct Tile(Map);

impl Tile {
    const SIDE: usize = 256;

    /// The coarsest blobs are `SIDE / base` cells wide.
    fn new(noise: Noise, base: usize, octaves: u32) -> Self {
        let side = Self::SIDE as f32;
        let map = Map::from_fn(Self::SIDE, Self::SIDE, |x, y| {
            (0..octaves)
                .map(|octave| {
                    let count = base << octave;
                    let at = |v: usize| v as f32 * count as f32 / side;
                    0.55f32.powi(octave as i32) * periodic(noise, octave, count, (at(x), at(y)))
                })
                .sum()
        });
        let n = map.data.len() as f32;
        let mean = map.data.iter().sum::<f32>() / n;
        let power = map.data.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n;
        Self(map.map(|v| (v - mean) / power.sqrt().max(1e-6)))
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let side = Self::SIDE as f32;
        let (x, y) = (x.rem_euclid(side), y.rem_euclid(side));
        let (x0, y0) = (x as usize % Self::SIDE, y as usize % Self::SIDE);
        let (x1, y1) = ((x0 + 1) % Self::SIDE, (y0 + 1) % Self::SIDE);
        let (u, v) = (x.fract(), y.fract());
        let top = self.0.at(x0, y0) * (1.0 - u) + self.0.at(x1, y0) * u;
        let bottom = self.0.at(x0, y1) * (1.0 - u) + self.0.at(x1, y1) * u;
        top * (1.0 - v) + bottom * v
    }
}

/// Interpolated normal numbers on a lattice of period `count`.
fn periodic(noise: Noise, octave: u32, count: usize, (x, y): (f32, f32)) -> f32 {
    let fade = |t: f32| t * t * t * (t * (6.0 * t - 15.0) + 10.0);
    let (u, v) = (fade(x.fract()), fade(y.fract()));
    let corner = |i: usize, j: usize| {
        let (i, j) = ((x as usize + i) % count, (y as usize + j) % count);
        noise.normal(((octave as u64) << 48) | ((j as u64) << 24) | i as u64)
    };
    let top = corner(0, 0) * (1.0 - u) + corner(1, 0) * u;
    let bottom = corner(0, 1) * (1.0 - u) + corner(1, 1) * u;
    top * (1.0 - v) + bottom * v
}

#[cfg(test)]
mod tests;
