//! The planned moves become one pose per frame: eased, combined, drifting with the seed, never off the canvas.
//!
//! Always true: the first pose is exactly at rest; poses depend on plan and scene alone.
//! Lengths are in frame widths. Amplitudes were tuned by eye on photographs.

mod coverage;

use super::prompt::{CameraMove, Move, Plan};
use super::render::Frame;
use super::render::nearness;
use super::scene::Scene;
use crate::rng::Noise;

/// Where the camera is.
///
/// `tx, ty, tz` travel (near things move more), `px, py` aim (all moves alike), `roll` in radians, `zoom`
/// magnifies by `1 + zoom`, `cover` by as much as keeps the view on the canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pose {
    pub(crate) tx: f32,
    pub(crate) ty: f32,
    pub(crate) tz: f32,
    pub(crate) px: f32,
    pub(crate) py: f32,
    pub(crate) roll: f32,
    pub(crate) zoom: f32,
    pub(crate) cover: f32,
}

impl Pose {
    pub(crate) const REST: Self =
        Self { tx: 0.0, ty: 0.0, tz: 0.0, px: 0.0, py: 0.0, roll: 0.0, zoom: 0.0, cover: 1.0 };

    /// `self + by * share`; `cover` stays.
    fn moved(self, by: &Self, share: f32) -> Self {
        Self {
            tx: self.tx + by.tx * share,
            ty: self.ty + by.ty * share,
            tz: self.tz + by.tz * share,
            px: self.px + by.px * share,
            py: self.py + by.py * share,
            roll: self.roll + by.roll * share,
            zoom: self.zoom + by.zoom * share,
            cover: self.cover,
        }
    }

    fn between(&self, next: &Self, share: f32) -> Self {
        let mut pose = self.moved(self, -share).moved(next, share);
        pose.cover += (next.cover - self.cover) * share;
        pose
    }
}

/// One pose per frame.
#[derive(Debug)]
pub(crate) struct CameraPath {
    poses: Vec<Pose>,
}

/// What the camera needs to know of the scene.
#[derive(Debug, Clone, Copy)]
struct Subject {
    /// Nearness of what an orbit turns around.
    pivot: f32,
    /// Centre of the foreground from the frame's centre, in frame widths; None without a foreground.
    aim: Option<(f32, f32)>,
}

impl CameraPath {
    /// The path of `plan` over `scene`, `frames_count` poses.
    pub(crate) fn new(plan: &Plan, scene: &Scene, frame: &Frame, frames_count: usize) -> Self {
        let subject = Subject::of(scene, frame);
        let life = Life::new(plan, frames_count);
        let moves: Vec<(Pose, Vec<f32>)> = plan
            .camera
            .iter()
            .map(|planned| {
                (amplitude(planned, plan, &subject), eased(planned.start, planned.end, frames_count))
            })
            .collect();
        let mut poses: Vec<Pose> = (0..frames_count)
            .map(|index| {
                let start = life.at(index);
                moves.iter().fold(start, |pose, (by, share)| pose.moved(by, share[index]))
            })
            .collect();
        coverage::keep_on_canvas(&mut poses, scene, frame, plan.zooms_out());
        Self { poses }
    }

    /// The pose of each frame.
    pub(crate) fn poses(&self) -> &[Pose] {
        &self.poses
    }

    /// The pose at a time in frames, between two frames if need be.
    pub(crate) fn at(&self, frame_time: f32) -> Pose {
        let last = self.poses.len() - 1;
        let index = (frame_time.max(0.0) as usize).min(last);
        self.poses[index].between(&self.poses[(index + 1).min(last)], frame_time - index as f32)
    }
}

impl Subject {
    fn of(scene: &Scene, frame: &Frame) -> Self {
        let Some(foreground) = &scene.foreground else {
            let typical = scene.background.disparity.percentile(0.6, |_| true).unwrap_or(0.5);
            return Self { pivot: nearness(typical), aim: None };
        };
        let centre_x_px = (foreground.x0_px + foreground.x1_px) as f32 / 2.0;
        // A subject's upper quarter is where its face or top is.
        let upper_y_px = 0.75 * foreground.y0_px as f32 + 0.25 * foreground.y1_px as f32;
        let (cx, cy) = frame.centre();
        let (x, y) =
            (centre_x_px - frame.margin_x_px as f32 - cx, upper_y_px - frame.margin_y_px as f32 - cy);
        let (u, v) = frame
            .quarter(x, (foreground.y0_px + foreground.y1_px) as f32 / 2.0 - frame.margin_y_px as f32 - cy);
        let width = frame.width_px as f32;
        Self { pivot: nearness(foreground.disparity.bilinear(u, v)), aim: Some((x / width, y / width)) }
    }
}

/// How far a camera goes sideways where nothing stands apart from the background, as a share of the usual.
const SINGLE_LAYER_ASIDE: f32 = 0.55;

/// How far a move goes by its end: amplitude for a clip of 5 s at strength 1, times the move's amount.
fn amplitude(planned: &CameraMove, plan: &Plan, subject: &Subject) -> Pose {
    // A longer clip travels farther, at a lower speed.
    let length = (plan.duration_s as f32 / 5.0).powf(0.55);
    let k = planned.amount * plan.camera_limit * (0.75 + 0.5 * plan.cfg_scale) * length;
    let rest = Pose::REST;
    // In a single layer going sideways shears what stands upright.
    let aside = if subject.aim.is_some() { k } else { SINGLE_LAYER_ASIDE * k };
    match planned.kind {
        Move::Push if k >= 0.0 => {
            let (x, y) = subject.aim.unwrap_or((0.0, 0.0));
            Pose { tz: 0.17 * k, zoom: 0.03 * k, px: 0.09 * k * x, py: 0.09 * k * (y + 0.04), ..rest }
        }
        Move::Push => Pose { tz: 0.15 * k, zoom: 0.045 * k, ..rest },
        Move::Orbit => {
            Pose { tx: 0.115 * aside, px: -0.115 * aside * subject.pivot, tz: 0.03 * k.abs(), ..rest }
        }
        Move::Pan => Pose { px: 0.085 * k, tx: 0.03 * aside, ..rest },
        Move::Tilt => Pose { py: 0.07 * k, ty: 0.02 * k, ..rest },
        Move::Truck => Pose { tx: 0.085 * aside, px: 0.02 * k + 0.4 * 0.085 * (k - aside), ..rest },
        Move::Crane => Pose { ty: 0.09 * k, py: 0.012 * k, ..rest },
        Move::Roll => Pose { roll: 0.07 * k, ..rest },
        Move::DollyZoom => Pose { tz: 0.22 * k, zoom: -0.17 * k, ..rest },
        Move::Handheld | Move::Static => rest,
    }
}

/// What the camera does of itself: handheld shake where asked for, and seeded drift as far as cfg leaves room.
struct Life {
    drift: Option<[Wander; 2]>,
    hands: Option<([Wander; 5], f32)>,
    drift_amount: f32,
}

const FPS: f32 = 24.0;
/// Amplitudes of the seeded drift in tx and ty at cfg 0.
const DRIFT: [f32; 2] = [0.022, 0.012];
/// Amplitudes of handheld shake in px, py, roll, tx, ty.
const SHAKE: [f32; 5] = [0.0058, 0.0050, 0.0042, 0.008, 0.006];
/// Seconds until shake and drift are fully there.
const RAMP_S: f32 = 0.6;

impl Life {
    fn new(plan: &Plan, frames_count: usize) -> Self {
        let free = 1.0 - plan.cfg_scale;
        let wander = |name: &str, band| Wander::new(Noise::new(plan.seed, name), band);
        // A zoom-out has no margin to spare for drift.
        let drifts = plan.drift && !plan.zooms_out() && frames_count > 1;
        let drift = drifts.then(|| ["drift x", "drift y"].map(|name| wander(name, (0.05, 0.16))));
        let hands = (plan.handheld > 0.0).then(|| {
            let names = ["hand px", "hand py", "hand roll", "hand tx", "hand ty"];
            (names.map(|name| wander(name, (0.25, 2.6))), plan.handheld)
        });
        Self { drift, hands, drift_amount: free }
    }

    fn at(&self, index: usize) -> Pose {
        let t = index as f32 / FPS;
        let mut pose = Pose::REST;
        if index == 0 {
            return pose;
        }
        if let Some([x, y]) = &self.drift {
            pose.tx += DRIFT[0] * self.drift_amount * (x.at(t) - x.at(0.0));
            pose.ty += DRIFT[1] * self.drift_amount * (y.at(t) - y.at(0.0));
        }
        if let Some((wanders, amount)) = &self.hands {
            let ramp = smoothstep(0.0, RAMP_S, t) * amount;
            let [px, py, roll, tx, ty] = std::array::from_fn(|k| SHAKE[k] * ramp * wanders[k].at(t));
            pose = pose.moved(&Pose { px, py, roll, tx, ty, ..Pose::REST }, 1.0);
        }
        pose
    }
}

/// A smooth random function of time: sines of random phase with `1/f` amplitudes, of unit power.
#[derive(Debug, Clone)]
pub(crate) struct Wander {
    sines: [(f32, f32, f32); 8],
}

impl Wander {
    /// Frequencies between the two of `band_hz`.
    pub(crate) fn new(noise: Noise, band_hz: (f32, f32)) -> Self {
        let mut draws = noise.draws();
        let (low, high) = (band_hz.0.ln(), band_hz.1.ln());
        let mut sines: [(f32, f32, f32); 8] = std::array::from_fn(|k| {
            // One sine in each eighth of the band, so that no seed leaves a hole in it.
            let hz = (low + (high - low) * (k as f32 + draws.unit()) / 8.0).exp();
            (hz, draws.between(0.0, std::f32::consts::TAU), 1.0 / hz)
        });
        let power = sines.iter().map(|s| s.2 * s.2 / 2.0).sum::<f32>().sqrt();
        sines.iter_mut().for_each(|s| s.2 /= power);
        Self { sines }
    }

    pub(crate) fn at(&self, t_s: f32) -> f32 {
        self.sines.iter().map(|(hz, phase, a)| a * (std::f32::consts::TAU * hz * t_s + phase).sin()).sum()
    }
}

/// Share of a move done at each frame: velocity rises over the first sixth of the move's time and falls to
/// under half at its end if the clip ends there, to nothing if other moves follow.
fn eased(start: f32, end: f32, frames_count: usize) -> Vec<f32> {
    const RISE: f32 = 0.16;
    const FALL: f32 = 0.22;
    let final_speed = if end >= 1.0 { 0.45 } else { 0.0 };
    let speed = |u: f32| {
        if !(0.0..=1.0).contains(&u) {
            return 0.0;
        }
        smoothstep(0.0, RISE, u) * (1.0 - (1.0 - final_speed) * smoothstep(1.0 - FALL, 1.0, u))
    };
    let last = (frames_count - 1).max(1) as f32;
    let at = |index: usize| (index as f32 / last - start) / (end - start);
    let mut done = vec![0.0f32; frames_count];
    for index in 1..frames_count {
        done[index] = done[index - 1] + (speed(at(index - 1)) + speed(at(index))) / 2.0;
    }
    let total = done[frames_count - 1].max(f32::MIN_POSITIVE);
    done.iter_mut().for_each(|share| *share /= total);
    done
}

/// 0 up to `from`, 1 from `to`, smooth between.
pub(crate) fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests;
