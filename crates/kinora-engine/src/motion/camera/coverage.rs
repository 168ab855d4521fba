//! Keeps the view on the canvas: magnifies just enough, smoothly, and lets a zoom-out go less far instead.

use rayon::prelude::*;

use super::super::render::{Frame, View};
use super::super::scene::{Map, Scene};
use super::{Pose, smoothstep};

/// Share of the margin that a view may use: the rest is for the content's own movement.
const MARGIN_SHARE: f32 = 0.92;
/// Points looked at along each side of the frame.
const SIDE_POINTS: usize = 17;
/// Magnifications searched: more than any pose asks for.
const COVER_MAX: f32 = 1.8;
/// Halvings of the search interval: to less than a thousandth.
const BISECTIONS: usize = 11;
/// Radius of the smoothing of the cover over time, in frames. The maximum over the same radius comes first, so
/// the smoothed cover is never less than the cover needed.
const SMOOTHING_FRAMES: usize = 12;
/// Seconds over which the cover may begin; the view is at rest there, well inside the margin.
const BEGIN_FRAMES: f32 = 8.0;

struct Border<'a> {
    frame: &'a Frame,
    disparities: Vec<&'a Map>,
    points: Vec<(f32, f32)>,
}

impl Border<'_> {
    fn holds(&self, pose: &Pose) -> bool {
        let view = View::new(pose, self.frame.width_px);
        let (cx, cy) = self.frame.centre();
        let limit_x = cx + self.frame.margin_x_px as f32 * MARGIN_SHARE;
        let limit_y = cy + self.frame.margin_y_px as f32 * MARGIN_SHARE;
        self.points.iter().all(|&(x, y)| {
            self.disparities.iter().all(|disparity| {
                let (qx, qy) = view.source(x, y, |x, y| {
                    let (u, v) = self.frame.quarter(x, y);
                    disparity.bilinear(u, v)
                });
                qx.abs() <= limit_x && qy.abs() <= limit_y
            })
        })
    }

    /// The least magnification that holds `pose` on the canvas.
    fn cover(&self, pose: &Pose) -> f32 {
        let with = |cover| Pose { cover, ..*pose };
        if self.holds(&with(1.0)) {
            return 1.0;
        }
        let (mut low, mut high) = (1.0, COVER_MAX);
        for _ in 0..BISECTIONS {
            let middle = (low + high) / 2.0;
            if self.holds(&with(middle)) { high = middle } else { low = middle }
        }
        high
    }
}

/// Sets each pose's `cover`; `zooms_out` shortens the whole path instead, because magnifying would undo it.
pub(super) fn keep_on_canvas(poses: &mut [Pose], scene: &Scene, frame: &Frame, zooms_out: bool) {
    let border =
        Border { frame, disparities: vec![&scene.background.disparity], points: border_points(frame) };
    if zooms_out {
        shorten(poses, &border);
    }
    let needed: Vec<f32> = poses.par_iter().map(|pose| border.cover(pose)).collect();
    let covers = smoothed(&running_max(&needed));
    for (index, (pose, cover)) in poses.iter_mut().zip(covers).enumerate() {
        pose.cover = 1.0 + (cover - 1.0) * smoothstep(0.0, BEGIN_FRAMES, index as f32);
    }
}

/// Scales all poses by the largest share that needs no cover.
fn shorten(poses: &mut [Pose], border: &Border<'_>) {
    let scaled = |pose: &Pose, share: f32| Pose::REST.moved(pose, share);
    let fits =
        |share: f32| poses.iter().step_by(6).chain(poses.last()).all(|p| border.holds(&scaled(p, share)));
    if fits(1.0) {
        return;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        if fits(middle) { low = middle } else { high = middle }
    }
    poses.iter_mut().for_each(|pose| *pose = scaled(pose, low));
}

fn border_points(frame: &Frame) -> Vec<(f32, f32)> {
    let (cx, cy) = frame.centre();
    (0..SIDE_POINTS)
        .map(|k| 2.0 * k as f32 / (SIDE_POINTS - 1) as f32 - 1.0)
        .flat_map(|s| [(s * cx, -cy), (s * cx, cy), (-cx, s * cy), (cx, s * cy)])
        .collect()
}

/// A cover never shrinks again: magnifying back and forth would look like breathing.
fn running_max(needed: &[f32]) -> Vec<f32> {
    let ahead = |index: usize| {
        needed[index..(index + SMOOTHING_FRAMES + 1).min(needed.len())].iter().copied().fold(1.0, f32::max)
    };
    let mut most = 1.0f32;
    (0..needed.len())
        .map(|index| {
            most = most.max(ahead(index));
            most
        })
        .collect()
}

/// Hann-weighted mean over the smoothing radius, ends replicated.
fn smoothed(values: &[f32]) -> Vec<f32> {
    let radius = SMOOTHING_FRAMES as isize;
    let weight = |offset: isize| 1.0 + (std::f32::consts::PI * offset as f32 / (radius + 1) as f32).cos();
    let total: f32 = (-radius..=radius).map(weight).sum();
    let last = values.len() as isize - 1;
    (0..=last)
        .map(|index| {
            let sum: f32 =
                (-radius..=radius).map(|k| weight(k) * values[(index + k).clamp(0, last) as usize]).sum();
            sum / total
        })
        .collect()
}
