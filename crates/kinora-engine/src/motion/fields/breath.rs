//! The breath of a subject: its upper part swells and sinks a little.

use super::super::camera::smoothstep;
use super::super::scene::{Foreground, Map};
use super::{Drive, Moment};

/// Breaths a second of someone at ease.
const HZ: f32 = 0.27;
/// Growth at the centre of the chest at full breath.
const GROWTH: f32 = 0.0045;
const RAMP_S: f32 = 1.0;

#[derive(Debug)]
pub(super) struct Breath {
    /// Centre, half extent and foot, in cells.
    centre: (f32, f32),
    reach: (f32, f32),
    foot: f32,
    drive: Drive,
}

impl Breath {
    pub(super) fn new(foreground: &Foreground, drive: &Drive) -> Self {
        let (x0, x1) = (foreground.x0_px as f32 / 4.0, foreground.x1_px as f32 / 4.0);
        let (y0, y1) = (foreground.y0_px as f32 / 4.0, foreground.y1_px as f32 / 4.0);
        Self {
            centre: ((x0 + x1) / 2.0, 0.25 * y0 + 0.75 * y1),
            reach: ((x1 - x0).max(4.0) * 0.45, (y1 - y0).max(4.0) * 0.45),
            foot: y1,
            drive: *drive,
        }
    }

    /// The foreground's movement: the scene's and the breath's.
    pub(super) fn at(&self, t_s: f32, moment: &Moment) -> (Map, Map) {
        let since = t_s - self.drive.start_s;
        let turn = std::f32::consts::TAU * HZ * self.drive.speed * since;
        let size = GROWTH * self.drive.amount * smoothstep(0.0, RAMP_S, since) * turn.sin();
        let (width, height) = (moment.dx.width, moment.dx.height);
        let weight = |x: usize, y: usize| {
            let (u, v) =
                ((x as f32 - self.centre.0) / self.reach.0, (y as f32 - self.centre.1) / self.reach.1);
            (-(u * u + v * v)).exp() * size * 4.0
        };
        (
            Map::from_fn(width, height, |x, y| {
                moment.dx.at(x, y) - (x as f32 - self.centre.0) * weight(x, y)
            }),
            Map::from_fn(width, height, |x, y| moment.dy.at(x, y) - (y as f32 - self.foot) * weight(x, y)),
        )
    }
}
