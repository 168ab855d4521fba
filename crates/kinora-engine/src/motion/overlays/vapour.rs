//! Fog banks and rising smoke: drifting noise, warped by itself.
//!
//! Domain warping after Quilez, "Domain Warping" (2002): noise looked up at places that noise has shifted.

use super::super::camera::{Pose, smoothstep};
use super::super::fields::Drive;
use super::super::render::{Frame, Grid};
use super::super::scene::Scene;
use super::{Light, Tile};
use crate::rng::Noise;

/// Seconds until vapour is fully there.
const FADE_S: f32 = 1.2;

#[derive(Debug)]
pub(super) struct Fog {
    tiles: [Tile; 2],
    pub(super) colour: [f32; 3],
    frame: Frame,
    drive: Drive,
}

impl Fog {
    pub(super) fn new(drive: &Drive, light: Light, seed: u64, frame: &Frame) -> Self {
        // Lit by the whole scene: in the dark, fog as bright as a lamp looks pasted on.
        let bright = (0.14 + 0.40 * light.ambient + 0.40 * light.mean) * 255.0;
        Self {
            tiles: [Tile::new(Noise::new(seed, "fog"), 3, 4), Tile::new(Noise::new(seed, "fog warp"), 3, 4)],
            // Fog takes the colour of what lights it; white over a blue hour looks like yellow smoke.
            colour: [0, 1, 2].map(|c| [0.86, 0.88, 0.90][c] * light.tint[c] * bright),
            frame: *frame,
            drive: *drive,
        }
    }

    /// Density over the frame, before distance thins or thickens it.
    pub(super) fn at(&self, t_s: f32, pose: &Pose) -> Grid {
        let fade = smoothstep(0.0, FADE_S, t_s - self.drive.start_s) * 0.80 * self.drive.amount.min(1.4);
        let (t, speed) = (t_s, self.drive.speed);
        // Cells of a frame 320 wide, whatever its size.
        let unit = 320.0 / self.frame.width_px as f32;
        let height = self.frame.height_px as f32 * unit;
        let side = (pose.tx + pose.px) * 160.0;
        let [banks, wisps] = &self.tiles;
        Grid::from_fn(&self.frame, |x, y| {
            let (x, y) = (x * unit, y * unit);
            let warp = wisps.at(x * 0.6 + t * 4.0, y * 0.9 - t * 2.0) * 9.0;
            let bank = banks.at(x + t * 7.0 * speed + side + warp, y * 1.9 + 3.0 * t + warp * 0.5);
            let wisp = wisps.at(x * 1.6 - t * 11.0 * speed + warp, y * 2.3);
            (0.55 + 0.20 * bank + 0.10 * wisp).clamp(0.0, 1.1) * smoothstep(-0.2, 0.6, y / height) * fade
        })
    }
}

#[derive(Debug)]
pub(super) struct Smoke {
    tiles: [Tile; 2],
    pub(super) colour: [f32; 3],
    frame: Frame,
    drive: Drive,
    /// Where it rises from, in frame widths and heights.
    source: (f32, f32),
}

impl Smoke {
    pub(super) fn new(drive: &Drive, light: Light, seed: u64, frame: &Frame, scene: &Scene) -> Self {
        let source = scene.foreground.as_ref().map_or((0.5, 0.7), |foreground| {
            let top = foreground.y0_px as f32 - frame.margin_y_px as f32;
            let tall = (foreground.y1_px - foreground.y0_px) as f32;
            let middle = (foreground.x0_px + foreground.x1_px) as f32 / 2.0 - frame.margin_x_px as f32;
            (middle / frame.width_px as f32, (top + 0.34 * tall) / frame.height_px as f32)
        });
        // Steam is lit by the brightest things around it; darker, it reads as a bluish stain.
        let bright = (0.62 + 0.38 * light.ambient) * 255.0;
        Self {
            tiles: [
                Tile::new(Noise::new(seed, "smoke"), 4, 5),
                Tile::new(Noise::new(seed, "smoke warp"), 3, 5),
            ],
            colour: [0.99, 0.97, 0.95].map(|c| c * bright),
            frame: *frame,
            drive: *drive,
            source,
        }
    }

    /// Density over the frame: a plume that widens as it rises.
    pub(super) fn at(&self, t_s: f32, pose: &Pose) -> Grid {
        const SCALE: f32 = 260.0;
        let fade = smoothstep(0.0, FADE_S, t_s - self.drive.start_s) * 0.68 * self.drive.amount.min(1.5);
        let rise = t_s * self.drive.speed;
        let width = self.frame.width_px as f32;
        let base = self.source.1 * self.frame.height_px as f32 / width;
        let source_x = self.source.0 - (0.6 * pose.tx + pose.px);
        let [body, warp] = &self.tiles;
        Grid::from_fn(&self.frame, |x, y| {
            let (x, y) = (x / width, y / width);
            let up = ((base - y) / (base * 0.95).max(0.22)).clamp(0.0, 1.2);
            if up == 0.0 {
                return 0.0;
            }
            let wander = 0.030 * up * (5.0 * up - 1.5 * rise).sin()
                + 0.05 * up.powf(1.5) * warp.at(16.0 * t_s, y * SCALE * 0.22 + rise * 12.0);
            let spread = 0.050 + 0.105 * up;
            let profile = (-((x - source_x - wander) / spread).powi(2)).exp();
            let shift = warp.at(x * SCALE * 1.1, y * SCALE * 0.9 + rise * 30.0) * 22.0 * (0.3 + up);
            let curl = warp.at(x * SCALE * 0.9 + 91.0, y * SCALE * 1.1 + rise * 34.0) * 14.0 * up;
            // Small against the plume: larger, and it comes and goes as a whole.
            let coarse = body.at(x * SCALE * 2.6 + shift, y * SCALE * 1.5 + curl + rise * 62.0);
            let fine = warp.at(x * SCALE * 4.2 - shift * 0.7, y * SCALE * 2.4 - curl + rise * 84.0);
            // Veils with holes, not threads.
            let veil = (0.72 + 0.20 * coarse + 0.12 * fine).clamp(0.0, 1.2);
            veil * veil * profile * smoothstep(0.0, 0.25, up) * (1.0 - smoothstep(0.45, 1.1, up)) * fade
        })
    }
}
