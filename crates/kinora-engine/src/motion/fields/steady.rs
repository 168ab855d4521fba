//! Velocity fields of what flows: clouds, drifting water, streams, flames.

use super::super::scene::Map;
use super::flow::Velocity;
use super::lake::Plane;
use super::noise::smooth_noise;
use super::{Drive, Place};
use crate::rng::Noise;

/// Clouds drift sideways, faster overhead than at the horizon, opening slightly, with slow eddies.
pub(super) fn clouds(mask: &Map, drive: &Drive, place: &Place) -> Velocity {
    const PX_PER_FRAME: f32 = 0.30;
    /// More than this and clouds curl like smoke.
    const EDDIES: f32 = 0.6;
    let (width, height) = (mask.width, mask.height);
    // A time-lapse is more than a fast wind.
    let haste = if drive.speed > 1.5 { 2.2 } else { 1.0 };
    let speed = PX_PER_FRAME * drive.amount * drive.speed * haste * place.px() * place.wind;
    let horizon = place.horizon.unwrap_or(0.5);
    let noise = |name| Noise::new(place.seed, name);
    let uneven = smooth_noise(noise("cloud speed"), width, height, 60.0 * place.px(), 2);
    let potential = smooth_noise(noise("cloud eddies"), width, height, 60.0 * place.px(), 1);
    let overhead = |y: usize| {
        0.35 + 0.65 * ((horizon + 0.08 - place.height_share(y)) / (horizon + 0.08)).clamp(0.0, 1.0)
    };
    let slope = |a: f32, b: f32| (a - b) * speed.abs() * EDDIES;
    Velocity {
        x: Map::from_fn(width, height, |x, y| {
            let (above, below) =
                (potential.at(x, y.saturating_sub(1)), potential.at(x, (y + 1).min(height - 1)));
            let opening = (x as f32 / width as f32 - 0.5) * speed.abs() * 0.35;
            (speed * (1.0 + 0.15 * uneven.at(x, y)) + opening) * overhead(y) + slope(below, above)
        }),
        y: Map::from_fn(width, height, |x, y| {
            let (left, right) =
                (potential.at(x.saturating_sub(1), y), potential.at((x + 1).min(width - 1), y));
            let rising =
                if place.height_share(y) < horizon { -0.22 * speed.abs() * overhead(y) } else { 0.0 };
            rising + slope(left, right)
        }),
    }
}

/// Still water drifts: slowly far away, faster in front.
pub(super) fn lake(mask: &Map, drive: &Drive, swell: bool, place: &Place) -> Velocity {
    const PX_PER_FRAME: f32 = 0.85;
    let plane = Plane::of(mask, place);
    let speed = PX_PER_FRAME * drive.amount * drive.speed * place.px();
    let towards = if swell { 0.35 } else { 0.10 };
    let near = |y: usize| (plane.below(y) * 2.2).clamp(0.06, 1.0);
    Velocity {
        x: Map::from_fn(mask.width, mask.height, |_, y| speed * near(y) * place.wind),
        y: Map::from_fn(mask.width, mask.height, |_, y| speed * near(y) * towards),
    }
}

/// Running water follows its bed: potential flow with the mask as conductance, from the upper end to the lower.
pub(super) fn stream(mask: &Map, drive: &Drive, place: &Place) -> Velocity {
    const PX_PER_FRAME: f32 = 2.1;
    const SWEEPS: usize = 260;
    let (width, height) = (mask.width, mask.height);
    let fall = |y: usize| 1.0 - y as f32 / height as f32;
    let bed = mask.map(|m| m.clamp(0.02, 1.0));
    let mut potential = Map::from_fn(width, height, |_, y| fall(y));
    for _ in 0..SWEEPS {
        let before = potential;
        potential = Map::from_fn(width, height, |x, y| {
            if y < 2 {
                return 1.0;
            }
            if y + 2 >= height {
                return 0.0;
            }
            let own = bed.at(x, y);
            let sides = [(x, y - 1), (x, y + 1), (x.saturating_sub(1), y), ((x + 1).min(width - 1), y)];
            let (mut sum, mut total) = (0.0, 0.0);
            for (nx, ny) in sides {
                let conductance = own.min(bed.at(nx, ny));
                sum += conductance * before.at(nx, ny);
                total += conductance;
            }
            // A trace of the plain fall keeps pools from standing still.
            0.98 * sum / total + 0.02 * fall(y)
        });
    }
    let at = |x: usize, y: usize| potential.at(x.min(width - 1), y.min(height - 1));
    let gradient_x =
        Map::from_fn(width, height, |x, y| at(x.saturating_sub(1), y) - at(x + 1, y)).blurred(2.0);
    let gradient_y =
        Map::from_fn(width, height, |x, y| at(x, y.saturating_sub(1)) - at(x, y + 1)).blurred(2.0);
    let speed = |x: usize, y: usize| {
        let nearer = 0.35 + 0.65 * y as f32 / height as f32;
        let length = gradient_x.at(x, y).hypot(gradient_y.at(x, y)) + 1e-9;
        PX_PER_FRAME * drive.amount * drive.speed * place.px() * nearer * (0.6 + 0.4 * mask.at(x, y)) / length
    };
    Velocity {
        x: Map::from_fn(width, height, |x, y| gradient_x.at(x, y) * speed(x, y)),
        y: Map::from_fn(width, height, |x, y| gradient_y.at(x, y) * speed(x, y)),
    }
}

/// Flames rise and lick sideways.
pub(super) fn fire(mask: &Map, drive: &Drive, place: &Place) -> Velocity {
    let lick = smooth_noise(Noise::new(place.seed, "flames"), mask.width, mask.height, 14.0 * place.px(), 2);
    Velocity {
        x: lick.map(|n| 0.5 * drive.amount * n * place.px()),
        y: Map::filled(mask.width, mask.height, -2.0 * drive.amount * drive.speed * place.px()),
    }
}
