//! Light rays from the brightest place of the picture.

use super::super::camera::{Pose, smoothstep};
use super::super::fields::Drive;
use super::super::render::{Frame, Grid};
use super::super::scene::Scene;
use super::{Tile, luminance};
use crate::rng::Noise;

/// Of the light that rays add.
pub(super) const COLOUR: [f32; 3] = [1.0, 0.9, 0.68];
/// Seconds until rays are fully there.
const FADE_S: f32 = 1.3;

#[derive(Debug)]
pub(super) struct Rays {
    tile: Tile,
    /// Where they come from, in pixels.
    source: (f32, f32),
    frame: Frame,
    drive: Drive,
}

impl Rays {
    pub(super) fn new(drive: &Drive, seed: u64, frame: &Frame, scene: &Scene) -> Self {
        const PITCH: usize = 8;
        let light = luminance(scene, frame, PITCH).blurred(4.0);
        let brightest =
            (0..light.data.len()).max_by(|&a, &b| light.data[a].total_cmp(&light.data[b])).unwrap_or(0);
        let at = |cell: usize| (cell * PITCH) as f32 + PITCH as f32 / 2.0;
        let (x, y) = (at(brightest % light.width), at(brightest / light.width));
        let (width, height) = (frame.width_px as f32, frame.height_px as f32);
        // A bright floor is lit from above.
        let source = if y > 0.6 * height { (0.15 * width, -0.15 * height) } else { (x, y) };
        Self { tile: Tile::new(Noise::new(seed, "rays"), 6, 3), source, frame: *frame, drive: *drive }
    }

    /// Light over the frame, 0..1.
    pub(super) fn at(&self, t_s: f32, pose: &Pose) -> Grid {
        let width = self.frame.width_px as f32;
        let fade = smoothstep(0.0, FADE_S, t_s - self.drive.start_s);
        let strength = fade * 0.30 * self.drive.amount.min(1.5);
        let breath = fade * 0.05 * self.drive.amount * (1.1 * t_s).sin();
        let (sx, sy) = (
            self.source.0 - (0.12 * pose.tx + pose.px) * width,
            self.source.1 - (0.12 * pose.ty + pose.py) * width,
        );
        // Whole turns of the tile, so that the rays close around the source.
        let turn = Tile::SIDE as f32 / std::f32::consts::TAU;
        let t = t_s * self.drive.speed;
        Grid::from_fn(&self.frame, |x, y| {
            let (dx, dy) = (x - sx, y - sy);
            let (angle, distance) = (dy.atan2(dx) * turn, dx.hypot(dy) / width);
            let broad = self.tile.at(angle + t * 1.6, t * 5.0);
            let narrow = self.tile.at(2.0 * angle - t * 2.4, 40.0 + t * 4.0);
            let ray = (0.35 + 0.33 * broad + 0.22 * narrow).clamp(0.0, 1.2);
            let glow = (-(distance / 0.16).powi(2)).exp();
            ray * (-2.3 * distance).exp() * smoothstep(0.0, 0.05, distance) * strength + breath * glow
        })
    }
}
