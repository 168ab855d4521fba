//! Waves on still water: sines in the coordinates of the water's plane, so that they shorten towards the shore.

use super::super::camera::smoothstep;
use super::super::scene::Map;
use super::modes::{Modes, Output};
use super::{Drive, Moment, Place};
use crate::rng::Noise;

const WAVES: usize = 9;
/// Displacement in pixels at 1280 of a wave of unit height: along the view, and across it.
const HEAVE_PX: f32 = 18.0;
const SHIFT_PX: f32 = 6.0;
/// Radians a cell beyond which a wave is lowered.
const STEEPEST: f32 = 0.5;
/// Seconds until the waves are fully there.
const RAMP_S: f32 = 0.6;
/// Cells from the shore over which waves grow.
const SHORE_CELLS: (f32, f32) = (1.0, 7.0);

#[derive(Debug)]
pub(super) struct Lake {
    modes: Modes,
    /// Height per cell, 0 at the shore.
    height: Map,
    /// Strength of the light's play per cell.
    play: Map,
    along: Vec<f32>,
    across: Vec<f32>,
    pixels: f32,
    start_s: f32,
}

/// Row of the waterline and the plane's depth scale.
pub(super) struct Plane {
    top: f32,
    frame_height: f32,
    margin: f32,
    centre_x: f32,
    width: f32,
}

impl Plane {
    /// The plane of the water whose mask this is.
    pub(super) fn of(mask: &Map, place: &Place) -> Self {
        let row_share =
            |y: usize| mask.row(y).iter().filter(|&&m| m > 0.4).count() as f32 / mask.width as f32;
        let frame_height = place.frame.height_px as f32 / 4.0;
        let margin = place.frame.margin_y_px as f32 / 4.0;
        let top = (0..mask.height)
            .find(|&y| row_share(y) > 0.03)
            .map_or(0.5, |y| (y as f32 - margin) / frame_height);
        Self {
            top,
            frame_height,
            margin,
            centre_x: mask.width as f32 / 2.0,
            width: place.frame.width_px as f32 / 4.0,
        }
    }

    /// How far below the waterline a row is, in frame heights; small is far away.
    pub(super) fn below(&self, y: usize) -> f32 {
        ((y as f32 - self.margin) / self.frame_height - self.top + 0.02).clamp(0.015, 1.0)
    }

    fn ground(&self, x: usize, y: usize) -> (f32, f32) {
        let dz = self.below(y);
        ((x as f32 - self.centre_x) / self.width / dz, 1.0 / dz)
    }
}

impl Lake {
    /// On `mask`, at 1/4 of the canvas. `swell` asks for waves rather than ripples.
    pub(super) fn new(mask: &Map, drive: &Drive, swell: bool, place: &Place) -> Self {
        let plane = Plane::of(mask, place);
        let mut draws = Noise::new(place.seed, "lake").draws();
        let mut modes = Modes::over(mask, 0.02);
        let (mut along, mut across) = (Vec::new(), Vec::new());
        for _ in 0..WAVES {
            let length = 0.10 * 2f32.powf(draws.between(-1.6, 1.6)) * if swell { 1.8 } else { 1.0 };
            let heading = (draws.unit() + draws.unit() + draws.unit() - 1.5) * 1.1;
            let number = std::f32::consts::TAU / length;
            let (kx, kz) = (number * heading.sin() * 0.28, number * heading.cos() * 0.08);
            // Deep water's dispersion: w^2 = g k.
            let radians = (9.81 * std::f32::consts::TAU / (length * 60.0)).sqrt() * drive.speed * 1.2;
            let phase = draws.between(0.0, std::f32::consts::TAU);
            modes.push(radians, |x, y| {
                let (gx, gz) = plane.ground(x, y);
                let (_, below) = plane.ground(x, y + 1);
                let step = (kz * (gz - below)).hypot(kx / (plane.width * plane.below(y)));
                // A wave too short for its height would fold the picture: steep ones are lowered.
                (length.powf(0.6) * (STEEPEST / (step + 1e-3)).clamp(0.0, 1.0), kx * gx + kz * gz + phase)
            });
            along.push(1.0);
            across.push(heading.signum());
        }
        let scale = 1.0 / modes.power().max(1e-6);
        along.iter_mut().chain(&mut across).for_each(|gain| *gain *= scale);
        let inside = shore_distance(mask);
        let deepest = (0..mask.height)
            .rev()
            .find(|&y| mask.row(y).iter().any(|&m| m > 0.5))
            .map_or(0.3, |y| plane.below(y));
        let strength =
            (0.05 + 0.20 * (deepest / 0.35).min(1.0)) * drive.amount * if swell { 1.5 } else { 1.0 };
        let height = Map::from_fn(mask.width, mask.height, |x, y| {
            let far = (plane.below(y) / deepest).powf(0.6).clamp(0.12, 1.0);
            smoothstep(SHORE_CELLS.0, SHORE_CELLS.1, inside.at(x, y)) * far * strength
        });
        let play = Map::from_fn(mask.width, mask.height, |x, y| {
            mask.at(x, y) * drive.amount * (plane.below(y) * 4.0).clamp(0.35, 1.0)
        });
        let pixels = place.frame.width_px as f32 / 1280.0;
        Self { modes, height, play, along, across, pixels, start_s: drive.start_s }
    }

    pub(super) fn add(&self, t_s: f32, moment: &mut Moment) {
        let ramp = smoothstep(0.0, RAMP_S, t_s - self.start_s);
        if ramp == 0.0 {
            return;
        }
        let outputs = [
            Output { gains: &self.along, shift: 0.0 },
            Output { gains: &self.across, shift: 0.0 },
            Output { gains: &self.along, shift: 0.9 },
        ];
        let (heave, shift) = (HEAVE_PX * self.pixels * ramp, SHIFT_PX * self.pixels * ramp);
        let Moment { dx, dy, shade, .. } = moment;
        self.modes.at(
            t_s,
            &outputs,
            &mut [dx, dy, shade],
            |cell, [along, across, light], [dx, dy, shade]| {
                *dx += self.height.data[cell] * across * shift;
                *dy += self.height.data[cell] * along * heave;
                let glint = (light - 1.1).clamp(0.0, 2.0);
                *shade *= 1.0 + self.play.data[cell] * ramp * (0.05 * light + 0.035 * glint * glint);
            },
        );
    }
}

/// Distance in cells to the nearest cell outside the mask, along rows and columns: two sweeps of a chamfer.
fn shore_distance(mask: &Map) -> Map {
    const FAR: f32 = 64.0;
    let (width, height) = (mask.width, mask.height);
    let mut distance = mask.map(|m| if m > 0.8 { FAR } else { 0.0 });
    let relax = |distance: &mut Map, x: usize, y: usize, nx: usize, ny: usize| {
        let through = distance.at(nx, ny) + 1.0;
        let cell = &mut distance.data[y * width + x];
        *cell = cell.min(through);
    };
    for y in 0..height {
        for x in 0..width {
            relax(&mut distance, x, y, x.saturating_sub(1), y);
            relax(&mut distance, x, y, x, y.saturating_sub(1));
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            relax(&mut distance, x, y, (x + 1).min(width - 1), y);
            relax(&mut distance, x, y, x, (y + 1).min(height - 1));
        }
    }
    distance
}
