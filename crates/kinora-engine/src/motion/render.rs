//! Scene, plan and path become frames: solve where each pixel comes from, fetch, compose, finish.
//!
//! Always true: the frame at rest is the fitted picture bit for bit; a frame is a function of its index alone,
//! rows are computed apart, so neither order nor number of threads can show.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod block;
mod compose;
mod detail;
mod fetch;
#[cfg(target_arch = "aarch64")]
mod fetch_neon;
#[cfg(target_arch = "x86_64")]
mod fetch_x86;
#[cfg(test)]
mod probe;
mod solve;
mod texture;

use rayon::prelude::*;

use super::camera::{CameraPath, Pose};
use super::fields::{Fields, Flow, FlowMoment, Moment};
use super::finish::Finish;
use super::overlays::{Overlays, Seen};
use super::prompt::Plan;
use super::scene::{Canvas, Map, Scene};
use crate::Picture;
use compose::{Cutout, Scratch};
use detail::Detail;
use solve::Layer;
pub(crate) use solve::{Frame, Grid, View, nearness};
pub(crate) use texture::Texture;

/// Frames per second of every clip.
pub(crate) const FPS: u32 = 24;
/// Rows that one thread computes at a time.
pub(crate) const BAND_ROWS: usize = 8;
/// The fetch's sharpness at rest, and how much sharper it gets as the view magnifies: enlarging softens.
const SHARPNESS: f32 = -0.6;
const SHARPNESS_PER_MAGNIFICATION: f32 = -1.2;
const SHARPEST: f32 = -0.85;
/// Movement in pixels a frame above which the shutter shows, and the distance between its samples.
const BLUR_FROM_PX: f32 = 5.0;
const BLUR_STEP_PX: f32 = 2.0;
const BLUR_SAMPLES_MAX: usize = 6;
/// Share of a frame's time that the shutter is open: the film standard of 180 degrees.
const SHUTTER: f32 = 0.5;

/// Renders the frames of one clip.
#[derive(Debug)]
pub(crate) struct Renderer {
    frame: Frame,
    /// Colour, and in the fourth channel where anything flows.
    background: Texture<u8>,
    background_disparity: Map,
    cutout: Option<Cutout>,
    /// What the input shows beyond the frame's pixels, if anything.
    detail: Option<Detail>,
    path: CameraPath,
    fields: Fields,
    overlays: Overlays,
    finish: Finish,
    motion_blur: bool,
}

impl Frame {
    pub(crate) fn of(canvas: &Canvas) -> Self {
        Self {
            width_px: canvas.width_px - 2 * canvas.margin_x_px,
            height_px: canvas.height_px - 2 * canvas.margin_y_px,
            margin_x_px: canvas.margin_x_px,
            margin_y_px: canvas.margin_y_px,
        }
    }
}

/// One instant of the clip, solved: what rows are composed from.
struct Instant<'a> {
    back: Grid,
    front: Option<Grid>,
    flows: Vec<(&'a Flow, FlowMoment)>,
    planes: Planes,
    sharpness: f32,
    /// How much of the detail shows in the background and in the foreground.
    detail: (f32, f32),
    seen: Seen,
}

/// Where the background grid keeps what else was sampled at the source.
#[derive(Debug, Clone, Copy, Default)]
struct Planes {
    shade: Option<usize>,
    disparity: Option<usize>,
    /// First plane of each flow: mask, past dx, past dy, then future dx, dy where there is a future.
    flows: [usize; Planes::FLOWS_MAX],
}

impl Planes {
    /// Kinds of flow that exist: clouds, stream, lake, fire.
    const FLOWS_MAX: usize = 4;
}

impl Renderer {
    /// Readies `scene` for `frames_count` frames of `plan`.
    pub(crate) fn new(scene: Scene, plan: &Plan, frames_count: usize) -> Self {
        let frame = Frame::of(&scene.canvas);
        let path = CameraPath::new(plan, &scene, &frame, frames_count);
        let fields = Fields::new(plan, &scene, &frame, frames_count);
        let overlays = Overlays::new(plan, &scene, &frame);
        let width = scene.canvas.width_px;
        let rgb = scene.background.rgb.as_chunks::<3>().0;
        let flowing = |x: usize, y: usize| {
            fields
                .flow_mask()
                .map_or(0.0, |mask| mask.bilinear((x as f32 - 0.5) / 2.0, (y as f32 - 0.5) / 2.0))
        };
        let background = Texture::from_fn(width, scene.canvas.height_px, |x, y| {
            let [r, g, b] = rgb[y * width + x];
            [r, g, b, (255.0 * flowing(x, y) + 0.5) as u8]
        });
        let cutout = scene.foreground.map(|foreground| Cutout::new(foreground, &scene.canvas));
        Self {
            frame,
            background,
            background_disparity: scene.background.disparity,
            cutout,
            detail: None,
            path,
            fields,
            overlays,
            finish: Finish::new(plan.seed, plan.grain),
            motion_blur: plan.motion_blur,
        }
    }

    /// Lets views that magnify show what `source` holds and `fitted`, made from it, does not.
    pub(crate) fn with_detail(mut self, source: &Picture, fitted: &Picture) -> Self {
        let closest =
            self.path.poses().iter().map(|pose| magnification(pose, nearness(1.0))).fold(1.0, f32::max);
        self.detail = Detail::of(source, fitted, closest, self.cutout.as_ref(), &self.frame);
        self
    }

    /// Renders frame `index` into `rgb`, `[H, W, 3]`.
    pub(crate) fn frame(&self, index: usize, rgb: &mut [u8]) {
        let instants = self.instants(index);
        let share = 1.0 / instants.len() as f32;
        let finish = self.finish.frame(index);
        let row_bytes = self.frame.width_px * 3;
        rgb.par_chunks_mut(row_bytes * BAND_ROWS).enumerate().for_each_init(
            || Scratch::new(self.frame.width_px),
            |scratch, (band, rgb)| {
                for (row, rgb) in rgb.chunks_exact_mut(row_bytes).enumerate() {
                    let y = band * BAND_ROWS + row;
                    if let [instant] = instants.as_slice() {
                        self.compose(y, instant, scratch);
                        finish.row(y, &scratch.pixels, rgb);
                        continue;
                    }
                    scratch.exposed.fill([0.0; 4]);
                    for instant in &instants {
                        self.compose(y, instant, scratch);
                        scratch.expose(share);
                    }
                    finish.row(y, &scratch.exposed, rgb);
                }
            },
        );
    }

    /// The instants that a frame shows: one, or several through the open shutter of a fast move.
    fn instants(&self, index: usize) -> Vec<Instant<'_>> {
        let time = index as f32;
        let (pose, next) = (self.path.at(time), self.path.at(time + SHUTTER));
        let travel_px = travel(&pose, &next) * self.frame.width_px as f32;
        let samples = if index == 0 || !self.motion_blur || travel_px < BLUR_FROM_PX * SHUTTER {
            1
        } else {
            ((travel_px / BLUR_STEP_PX) as usize + 1).clamp(2, BLUR_SAMPLES_MAX)
        };
        (0..samples).map(|k| self.instant(time + SHUTTER * k as f32 / samples as f32)).collect()
    }

    fn instant(&self, time: f32) -> Instant<'_> {
        let pose = self.path.at(time);
        let t_s = time / FPS as f32;
        let view = View::new(&pose, self.frame.width_px);
        let moment = self.fields.at(t_s);
        let flows: Vec<_> =
            self.fields.flows().iter().filter_map(|flow| Some((flow, flow.at(time, FPS as f32)?))).collect();
        let seen = self.overlays.at(t_s, &pose);
        let (extra, planes) = self.sampled(moment.as_ref(), &flows, seen.needs_depth());
        let movement = moment.as_ref().map(|moment| (&moment.dx, &moment.dy));
        let back = Layer { disparity: &self.background_disparity, movement, extra: &extra };
        let front = self.cutout.as_ref().map(|cutout| {
            let own = moment.as_ref().and_then(|moment| moment.front.as_ref()).map(|(x, y)| (x, y));
            let shade: Vec<&Map> = moment.iter().map(|moment| &moment.shade).collect();
            let layer = Layer { disparity: &cutout.disparity, movement: own.or(movement), extra: &shade };
            Grid::solve(&self.frame, &view, &layer)
        });
        let back = Grid::solve(&self.frame, &view, &back);
        let detail = self.detail_shares(&pose);
        Instant { back, front, flows, planes, sharpness: sharpness(&pose, detail.0), detail, seen }
    }

    /// How much of the detail shows in each layer.
    fn detail_shares(&self, pose: &Pose) -> (f32, f32) {
        if self.detail.is_none() {
            return (0.0, 0.0);
        }
        let share = |near: f32| detail::share(magnification(pose, near));
        let front = self.cutout.as_ref().map_or(0.0, |cutout| share(nearness(cutout.disparity.mean())));
        (share(TYPICAL), front)
    }

    /// What the background's solve samples at each source besides the movement, and where it will be.
    fn sampled<'a>(
        &'a self,
        moment: Option<&'a Moment>,
        flows: &'a [(&Flow, FlowMoment)],
        depth: bool,
    ) -> (Vec<&'a Map>, Planes) {
        let mut extra: Vec<&Map> = Vec::new();
        let mut planes = Planes::default();
        if let Some(moment) = moment {
            planes.shade = Some(Grid::EXTRA + extra.len());
            extra.push(&moment.shade);
        }
        if depth {
            planes.disparity = Some(Grid::EXTRA + extra.len());
            extra.push(&self.background_disparity);
        }
        for (k, (flow, moment)) in flows.iter().enumerate() {
            planes.flows[k] = Grid::EXTRA + extra.len();
            extra.extend([&flow.mask, &moment.past.0, &moment.past.1]);
            if let Some((x, y)) = &moment.future {
                extra.extend([x, y]);
            }
        }
        (extra, planes)
    }
}

/// About how far the view of a near thing at the frame's edge goes between two poses, in frame widths.
fn travel(a: &Pose, b: &Pose) -> f32 {
    let side = (b.tx - a.tx + b.px - a.px).hypot(b.ty - a.ty + b.py - a.py);
    let scale = |pose: &Pose| (1.0 - 0.6 * pose.tz) / (pose.cover * (1.0 + pose.zoom));
    side + 0.5 * ((scale(b) - scale(a)).abs() + (b.roll - a.roll).abs())
}

/// Nearness of what is neither far nor near.
const TYPICAL: f32 = 0.56;

/// How much larger a pose shows what is this near.
fn magnification(pose: &Pose, near: f32) -> f32 {
    pose.cover * (1.0 + pose.zoom) / (1.0 - pose.tz * near).max(0.2)
}

/// The fetch's sharpness for a pose: more where the view magnifies and no detail of the input's own makes up for it.
fn sharpness(pose: &Pose, detail: f32) -> f32 {
    let magnified = (magnification(pose, TYPICAL) - 1.0).max(0.0);
    (SHARPNESS + (1.0 - detail) * SHARPNESS_PER_MAGNIFICATION * magnified).max(SHARPEST)
}

#[cfg(test)]
mod tests;
