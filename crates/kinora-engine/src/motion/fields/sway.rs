//! Plants, hair and cloth in the wind: travelling waves, anchored where the thing is held, with gusts and a lean.

use super::super::camera::{Wander, smoothstep};
use super::super::scene::Map;
use super::modes::{Modes, Output};
use super::noise::smooth_noise;
use super::{Drive, Moment, Place};
use crate::rng::Noise;

/// What sways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Foliage,
    Hair,
    Cloth,
}

/// Frequencies in Hz and blob widths in cells of each mode, amplitude in pixels at 1280, how fast amplitude falls
/// with frequency, and vertical over horizontal movement.
struct Character {
    modes: &'static [(f32, f32)],
    amplitude_px: f32,
    slope: f32,
    vertical: f32,
}

impl Kind {
    fn character(self) -> Character {
        match self {
            Self::Foliage => Character {
                modes: &[(0.22, 150.0), (0.37, 90.0), (0.6, 52.0), (0.95, 30.0), (1.5, 18.0)],
                amplitude_px: 5.0,
                slope: 1.0,
                vertical: 0.38,
            },
            Self::Hair => Character {
                modes: &[(0.25, 90.0), (0.45, 60.0), (0.8, 40.0), (1.3, 26.0)],
                amplitude_px: 6.5,
                slope: 0.9,
                vertical: 0.45,
            },
            Self::Cloth => Character {
                modes: &[(0.45, 60.0), (0.8, 36.0), (1.3, 22.0)],
                amplitude_px: 5.0,
                slope: 0.7,
                vertical: 0.6,
            },
        }
    }
}

/// How far things lean out of the wind, of their amplitude.
const LEAN: f32 = 0.35;
/// Seconds until the sway is fully there.
const RAMP_S: f32 = 0.8;
/// Depth of cloth's shading with its folds.
const FOLD_SHADE: f32 = 0.07;

#[derive(Debug)]
pub(super) struct Sway {
    modes: Modes,
    /// Amplitude per cell in pixels.
    reach: Map,
    gust: Wander,
    gains: Vec<f32>,
    wind: f32,
    vertical: f32,
    start_s: f32,
    folds: f32,
}

impl Sway {
    /// Over `mask`, at 1/4 of the canvas.
    pub(super) fn new(kind: Kind, mask: &Map, drive: &Drive, place: &Place) -> Self {
        let character = kind.character();
        let noise = |what: &str, k: usize| Noise::new(place.seed, &format!("sway {kind:?} {what} {k}"));
        let mut draws = noise("draws", 0).draws();
        let wind = place.wind;
        let held = anchored(mask, kind);
        let pixels = character.amplitude_px * drive.amount * place.frame.width_px as f32 / 1280.0;
        let reach = held.map(|h| h * pixels);
        let mut modes = Modes::over(&held, 0.004);
        for (k, &(hz, blob)) in character.modes.iter().enumerate() {
            let blob = blob * place.frame.width_px as f32 / 1280.0;
            let radians = std::f32::consts::TAU * hz * drive.speed * draws.between(0.85, 1.2);
            let phase = smooth_noise(noise("phase", k), mask.width, mask.height, blob, 2);
            let patch = smooth_noise(noise("patch", k), mask.width, mask.height, blob * 1.5, 1);
            let amplitude = (hz / character.modes[0].0).powf(-character.slope);
            let number = std::f32::consts::TAU / (blob * 3.2);
            modes.push(radians, |x, y| {
                let travel = number * (0.35 * y as f32 - wind * x as f32);
                (amplitude * (1.0 + 0.5 * patch.at(x, y)).clamp(0.1, 2.0), travel + 2.2 * phase.at(x, y))
            });
        }
        let gains = vec![0.62 / modes.power().max(1e-6); character.modes.len()];
        Self {
            modes,
            reach,
            gust: Wander::new(noise("gust", 0), (0.08, 0.3)),
            gains,
            wind,
            vertical: character.vertical,
            start_s: drive.start_s,
            folds: if kind == Kind::Cloth { FOLD_SHADE * drive.amount } else { 0.0 },
        }
    }

    pub(super) fn add(&self, t_s: f32, moment: &mut Moment) {
        let ramp = smoothstep(0.0, RAMP_S, t_s - self.start_s);
        if ramp == 0.0 {
            return;
        }
        // Twice the usual wind at most, and never a wind that turns round.
        let gust = (1.0 + 0.45 * self.gust.at(t_s)).clamp(0.15, 2.0) * ramp;
        let outputs = [Output { gains: &self.gains, shift: 0.0 }, Output { gains: &self.gains, shift: 1.3 }];
        let (lean, vertical, folds) = (LEAN * self.wind, self.vertical, self.folds * ramp);
        let Moment { dx, dy, shade, .. } = moment;
        self.modes.at(t_s, &outputs, &mut [dx, dy, shade], |cell, [across, along], [dx, dy, shade]| {
            let reach = self.reach.data[cell] * gust;
            *dx -= reach * (across + lean);
            *dy -= reach * along * vertical;
            *shade *= 1.0 + folds * across * (reach * 0.3).min(1.0);
        });
    }
}

/// The mask, weaker towards where each thing is rooted: amplitude grows with the height above the lower end of
/// the region's run in its column.
fn anchored(mask: &Map, kind: Kind) -> Map {
    const TALL_CELLS: f32 = 28.0;
    let soft = mask.blurred(if kind == Kind::Hair { 1.6 } else { 2.2 });
    let mut run = vec![0.0f32; mask.width];
    let mut height = Map::filled(mask.width, mask.height, 0.0);
    for y in (0..mask.height).rev() {
        for (x, run) in run.iter_mut().enumerate() {
            let inside = mask.at(x, y);
            *run = (*run * (inside * 1.2).clamp(0.0, 1.0) + inside).min(40.0);
            height.data[y * mask.width + x] = (*run / TALL_CELLS).clamp(0.0, 1.0);
        }
    }
    if kind == Kind::Hair {
        // Hair hangs: its free end is its lower one.
        return soft.zip(&height.blurred(3.0), |m, h| m * (1.0 - 0.75 * h));
    }
    soft.zip(&height.blurred(3.0), |m, h| m * (0.25 + 0.75 * h))
}
