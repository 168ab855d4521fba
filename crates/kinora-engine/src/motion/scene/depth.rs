//! A plausible depth for every place of the picture: a stage set, not a measurement.
//!
//! Always true: disparity lies in 0 (far) .. 1 (near) and is smooth but for the picture's own edges. A subject
//! is a slightly bulging billboard that stands on the ground at its foot; where its outline is no clear line in
//! the picture it stays close to what is behind it, because tearing it off there would show (the gap rule).
//! Sources: Hoiem, Efros, Hebert, "Automatic photo pop-up", SIGGRAPH 2005 (ground, billboards, sky);
//! He, Sun, Tang, "Single image haze removal using dark channel prior", CVPR 2009 (haze as distance).

use super::cutout::{Cutout, outline_support};
use super::guided::Guide;
use super::map::{Map, percentile_of, ramp};
use super::morphology::{Components, dilated, distance, eroded};
use super::pull_push::filled;
use super::sky::Sky;
use super::study::Study;

const GUIDE_RADIUS: usize = 12;
const GUIDE_EPSILON: f32 = 2e-3;
const SMOOTHING_SIGMA: f32 = 1.5;
/// The horizon of an outdoor scene of which no sky shows, in frame heights from the top.
const HORIZON_UNSEEN: f32 = 0.12;
/// Sky is never nearer than this.
const SKY_NEAREST: f32 = 0.08;
/// How near a billboard may stand, and how much nearer at least than what surrounds it.
const BILLBOARD_RANGE: (f32, f32) = (0.3, 0.85);
const BILLBOARD_LEAD: f32 = 0.16;
const BULGE: f32 = 0.10;
const TILT: f32 = 0.05;

/// Disparity of the whole picture, as if nothing stood before it.
pub(crate) fn background(study: &Study, sky: &Sky, cutout: Option<&Cutout>) -> Map {
    let blur_behind = cutout.map_or(0.0, |c| blur_behind(study, c));
    let (outdoor, indoor) = (outdoor(study, sky), indoor(study, sky.confidence));
    let plain = study.map(|i| {
        let v = study.v(i / study.width);
        if sky.mask.data[i] > 0.5 && sky.is_found() {
            return 0.02 + 0.03 * v;
        }
        let behind = cutout.is_none_or(|c| c.mask.data[i] < 0.5);
        let d = sky.confidence * outdoor.data[i] + (1.0 - sky.confidence) * indoor.data[i];
        if behind { d * (1.0 - 0.5 * blur_behind) } else { d }
    });
    // Half of each patch's mean: things are flat rather than following every shade.
    let flat = study.patches.painted(&study.patches.means(&plain));
    let mixed = plain.zip(&flat, |a, b| 0.5 * (a + b));
    let refined = Guide::new(&study.rgb, GUIDE_RADIUS, GUIDE_EPSILON).filter(&mixed);
    let capped = study.map(|i| {
        let top = if sky.mask.data[i] > 0.5 && sky.is_found() { SKY_NEAREST } else { 1.0 };
        refined.data[i].clamp(0.0, top)
    });
    capped.blurred(SMOOTHING_SIGMA)
}

/// The large forms alone: where nothing could be cut out, steps of depth would bend what is rigid.
///
/// Ground that comes nearer downwards leans what stands on it, so it does so less where something stands.
pub(crate) fn gentle(study: &Study, background: &Map) -> Map {
    const SIGMA_PER_WIDTH: f32 = 0.075;
    /// Of the depth's contrast, where long upright lines are and where none is.
    const CONTRAST: (f32, f32) = (0.4, 1.0);
    let smooth = background.blurred(SIGMA_PER_WIDTH * background.width.max(background.height) as f32);
    let upright = ramp(longest_upright(study), 0.18, 0.36);
    let contrast = CONTRAST.1 + (CONTRAST.0 - CONTRAST.1) * upright;
    let middle = smooth.mean();
    smooth.map(|d| middle + contrast * (d - middle))
}

/// Length of the longest line in the picture that is about upright, in frame heights.
fn longest_upright(study: &Study) -> f32 {
    const EDGE: f32 = 0.015;
    /// How much of its length a line loses by each row in which it cannot be seen.
    const GAP_COST: f32 = 1.5;
    let is_edge =
        |i: usize| study.slope_x.data[i] > EDGE && study.slope_x.data[i] > 2.0 * study.slope_y.data[i];
    let mut above = vec![0.0f32; study.width];
    let mut longest = 0.0f32;
    for y in 0..study.height {
        let here: Vec<f32> = (0..study.width)
            .map(|x| {
                let near = &above[x.saturating_sub(1)..(x + 2).min(study.width)];
                let so_far = near.iter().copied().fold(0.0, f32::max);
                if is_edge(y * study.width + x) { so_far + 1.0 } else { (so_far - GAP_COST).max(0.0) }
            })
            .collect();
        longest = here.iter().copied().fold(longest, f32::max);
        above = here;
    }
    longest / study.height as f32
}

/// Ground that rises towards the horizon; what stands above it, nearer where there is no haze.
fn outdoor(study: &Study, sky: &Sky) -> Map {
    let horizon = sky.horizon.unwrap_or(HORIZON_UNSEEN);
    let darkest = study.map(|i| study.rgb.at(i).into_iter().fold(1.0, f32::min));
    let dark_channel = eroded(&darkest, 3);
    let haziest = dark_channel.percentile(0.95, |i| sky.mask.data[i] < 0.5).unwrap_or(1.0).max(1e-6);
    study.map(|i| {
        let v = study.v(i / study.width);
        let haze = (dark_channel.data[i] / haziest).min(1.0);
        let ground = ((v - horizon) / (1.0 - horizon)).clamp(0.0, 1.0);
        let mut d = 0.10 + 0.80 * ground.powf(0.9);
        if v < horizon + 0.05 {
            d = d.max(0.12 + 0.18 * (1.0 - haze));
        }
        d * (0.85 + 0.15 * (1.0 - haze))
    })
}

/// Nearer towards the bottom, the centre and what is sharp.
fn indoor(study: &Study, sky_confidence: f32) -> Map {
    let sharpest = study.sharpness.percentile(0.95, |_| true).unwrap_or(0.0).max(1e-6);
    study.map(|i| {
        let (u, v) = (study.u(i % study.width), study.v(i / study.width));
        let centre = (-((u - 0.5) / 0.45).powi(2) - ((v - 0.55) / 0.5).powi(2)).exp();
        let sharp = (study.sharpness.data[i] / sharpest).min(1.0);
        0.18 + 0.42 * v.powf(1.2) + 0.16 * centre + 0.24 * sharp * (1.0 - sky_confidence)
    })
}

/// How much softer the rest is than the subject, 0..1: a lens says that it is far behind.
fn blur_behind(study: &Study, cutout: &Cutout) -> f32 {
    let median =
        |side: bool| study.sharpness.percentile(0.5, |i| (cutout.mask.data[i] > 0.5) == side).unwrap_or(0.0);
    ramp(median(true) / (median(false) + 1e-6), 1.5, 4.0)
}

/// Disparity of the subject, continued beyond its outline; `strength` 0..1 scales its lead over `behind`.
pub(crate) fn subject(study: &Study, behind: &Map, cutout: &Cutout, strength: f32) -> Map {
    let mask = &cutout.mask;
    let inside = |i: usize| mask.data[i] > 0.5;
    let depth_within = distance(study.width, study.height, inside);
    let radius = depth_within.percentile(0.98, inside).unwrap_or(3.0).max(3.0);
    let billboard = billboards(study, behind, cutout);
    let bulge = depth_within
        .map(|d| (1.0 - (1.0 - (d / radius).min(1.0)).powi(2)).max(0.0).sqrt())
        .blurred(radius * 0.25 + 1.0);
    let gap = gap(study, cutout, &depth_within, radius);
    let around = self::behind(behind, mask);
    let lifted = study.map(|i| {
        let v = study.v(i / study.width);
        let target = billboard.data[i] + BULGE * bulge.data[i] + TILT * (v - 0.5);
        around.data[i] + strength * gap.data[i] * (target - around.data[i])
    });
    // Smooth within the outline only, then continued outwards.
    let sigma = (radius * 0.22).max(3.0);
    let weight = mask.blurred(sigma);
    let smooth = lifted.zip(mask, |v, m| v * m).blurred(sigma).zip(&weight, |v, w| v / (w + 1e-4));
    filled(&[&smooth], &eroded(mask, 2)).remove(0).map(|v| v.clamp(0.0, 1.0))
}

/// The disparity around the subject continued behind it.
pub(crate) fn behind(background: &Map, mask: &Map) -> Map {
    filled(&[background], &dilated(mask, 4).map(|v| 1.0 - v)).remove(0)
}

/// Each part of the subject upright at the depth of the ground it stands on.
fn billboards(study: &Study, behind: &Map, cutout: &Cutout) -> Map {
    let parts = Components::of(study.width, study.height, |i| cutout.mask.data[i] > 0.5);
    let far_blurred = blur_behind(study, cutout) > 0.5;
    let nearness: Vec<f32> = (0..parts.sizes.len())
        .map(|label| {
            let own = |i: &usize| parts.labels[*i] as usize == label;
            let mut rows: Vec<f32> =
                (0..study.area()).filter(own).map(|i| (i / study.width) as f32).collect();
            let foot = percentile_of(&mut rows, 0.97).unwrap_or(0.0) as usize;
            let ground = percentile_of(&mut behind.row(foot).to_vec(), 0.5).unwrap_or(0.5);
            let ground = if far_blurred { 0.6 } else { ground };
            let mut local: Vec<f32> = (0..study.area()).filter(own).map(|i| behind.data[i]).collect();
            let local = percentile_of(&mut local, 0.5).unwrap_or(0.5);
            ground.max(local + BILLBOARD_LEAD).clamp(BILLBOARD_RANGE.0, BILLBOARD_RANGE.1)
        })
        .collect();
    study.map(|i| nearness[parts.labels[i] as usize])
}

/// How far the subject may come away from what is behind it, 0..1.
///
/// Mostly one number for the whole outline: a fully local gap bends rigid objects, a fully global one tears
/// weak edges.
fn gap(study: &Study, cutout: &Cutout, depth_within: &Map, radius: f32) -> Map {
    let mask = &cutout.mask;
    let overall = 0.25 + 0.75 * outline_support(cutout);
    let support = eroded(&cutout.contrast.map(|c| ramp(c, 0.35, 1.0)).box_blurred(2), 2);
    let rim = eroded(mask, 2);
    let (width, height) = (study.width, study.height);
    let weight = study.map(|i| {
        let (x, y) = (i % width, i / width);
        let at_border = x < 4 || y < 4 || x + 4 >= width || y + 4 >= height;
        match mask.data[i] > 0.5 {
            false => 0.0,
            true if rim.data[i] < 0.5 && !at_border => 1.0,
            true if depth_within.data[i] > 0.45 * radius => 0.25,
            true => 0.0,
        }
    });
    let value = study.map(|i| if rim.data[i] < 0.5 { support.data[i] } else { 1.0 });
    let local = filled(&[&value], &weight).remove(0).blurred((radius * 0.25).max(4.0));
    local.map(|l| (0.35 * l.min(1.0) + 0.65 * overall) * (0.45 + 0.55 * overall))
}
