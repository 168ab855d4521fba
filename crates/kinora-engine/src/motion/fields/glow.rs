//! Light that changes: flickering lamps and the glow of fire.

use super::super::camera::{Wander, smoothstep};
use super::super::scene::Map;
use super::{Drive, Moment};
use crate::rng::Noise;

/// Lamps flicker in this many independent groups.
const GROUPS: usize = 5;
/// Seconds until the flicker is fully there.
const RAMP_S: f32 = 0.5;

#[derive(Debug)]
pub(super) struct Glow {
    /// Light per group, 0..1, at 1/4 of the canvas, each with its own course in time.
    groups: Vec<(Map, Wander)>,
    depth: f32,
    start_s: f32,
}

impl Glow {
    /// Small lamps, each blob of `mask` with the others of its group, with a halo.
    pub(super) fn lamps(mask: &Map, drive: &Drive, seed: u64) -> Self {
        let groups = (0..GROUPS)
            .map(|group| {
                // Lamps in one patch of about their own size flicker together; neighbours mostly do not.
                let own = Map::from_fn(mask.width, mask.height, |x, y| {
                    let patch = (x as u64 / 12) << 32 | (y as u64 / 12);
                    let chosen = Noise::new(seed, "lamp group").bits(patch)[0] as usize % GROUPS == group;
                    if chosen { mask.at(x, y) } else { 0.0 }
                });
                let halo = own.blurred(4.0).map(|v| 2.0 * v);
                let light = own.blurred(0.8).zip(&halo, |a, b| (a + b).min(1.0));
                let name = format!("lamps {group}");
                (light, Wander::new(Noise::new(seed, &name), (0.6 * drive.speed, 3.2 * drive.speed)))
            })
            .collect();
        Self { groups, depth: 0.30 * drive.amount, start_s: drive.start_s }
    }

    /// The light that fire throws around itself.
    pub(super) fn of_fire(mask: &Map, drive: &Drive, seed: u64) -> Self {
        let wide = mask.blurred(mask.width as f32 / 14.0);
        let most = wide.data.iter().copied().fold(1e-6, f32::max);
        let light = mask.zip(&wide, |m, w| (m + 0.8 * w / most).min(1.0));
        let course = Wander::new(Noise::new(seed, "firelight"), (1.5 * drive.speed, 6.0 * drive.speed));
        Self { groups: vec![(light, course)], depth: 0.06 * drive.amount, start_s: drive.start_s }
    }

    pub(super) fn add(&self, t_s: f32, moment: &mut Moment) {
        let ramp = smoothstep(0.0, RAMP_S, t_s - self.start_s);
        if ramp == 0.0 {
            return;
        }
        for (light, course) in &self.groups {
            let change = self.depth * ramp * course.at(t_s).clamp(-2.0, 2.0);
            for (shade, light) in moment.shade.data.iter_mut().zip(&light.data) {
                *shade *= 1.0 + change * light;
            }
        }
    }
}
