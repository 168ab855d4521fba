//! A picture becomes a stage set: a canvas larger than the frame, depth, layers and masks of what can move.
//!
//! Always true: composing the layers at rest gives the fitted picture exactly; masks lie in 0..1, disparities
//! in 0 (far) .. 1 (near), nothing is NaN; the result depends on the picture alone, not on threads or seed.
//! Not here: which movement is made of it.

mod canvas;
mod color;
mod cutout;
mod depth;
mod fit;
mod graph_cut;
mod guided;
pub(crate) mod inspect;
mod layers;
mod map;
mod margin;
mod matte;
mod mixture;
mod morphology;
mod patch_match;
mod pull_push;
mod regions;
mod saliency;
mod sky;
mod study;
mod superpixels;
#[cfg(test)]
mod tests;
mod water;

use serde::Serialize;

use crate::{EngineError, Monitor, Picture, Progress};
use color::Planes;
use cutout::{Cutout, Gates, Salient, best_cutout};
pub(crate) use fit::{finer, fit, output_size};
use guided::Guide;
pub(crate) use map::Map;
use map::ramp;
use regions::{Kind, Seen};
use sky::Sky;
use study::Study;

/// The longer side of the picture that is analysed, in pixels.
const ANALYSIS_SIDE_PX: u32 = 384;

/// The plane that the layers cover: the output frame and a margin around it that camera moves may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Canvas {
    /// Multiples of 4.
    pub width_px: usize,
    pub height_px: usize,
    /// Multiples of 4; the fitted picture lies at `(margin_x_px, margin_y_px)`, unchanged.
    pub margin_x_px: usize,
    pub margin_y_px: usize,
}

/// What a camera over the fitted picture needs.
#[derive(Debug)]
pub(crate) struct Scene {
    pub canvas: Canvas,
    pub background: Background,
    /// What stands before the background, where it could be cut out safely.
    pub foreground: Option<Foreground>,
    pub regions: Regions,
    pub found: Found,
}

/// The opaque layer: continued into the margin, filled in behind the foreground.
#[derive(Debug)]
pub(crate) struct Background {
    /// `[H, W, 3]` of the canvas.
    pub rgb: Vec<u8>,
    /// At 1/4 of the canvas: cell `(i, j)` is centred on pixel `(4i + 1.5, 4j + 1.5)`. 0 far .. 1 near.
    pub disparity: Map,
}

/// The residual layer: `rgb/ONE + (1 - alpha/ONE) * background` is the canvas, at rest, exactly after rounding.
///
/// Where alpha is 0 it may still hold what the background's fill differs by from the canvas.
#[derive(Debug)]
pub(crate) struct Foreground {
    /// `[H, W, 4]` of the canvas, colour premultiplied by alpha, in steps of 1/[`Foreground::ONE`];
    /// colours lie in -ONE..=ONE, alpha in 0..=ONE.
    pub rgba: Vec<i16>,
    /// Like [`Background::disparity`]; continued smoothly beyond the object.
    pub disparity: Map,
    /// Bounds of what is not zero, `x0 <= x < x1`, in canvas pixels.
    pub x0_px: usize,
    pub y0_px: usize,
    pub x1_px: usize,
    pub y1_px: usize,
}

impl Foreground {
    /// Full alpha, and white: 64 steps to each of the 255 grey levels.
    pub(crate) const ONE: i16 = 64 * 255;
}

/// Where things are that can move; sky, water and stream belong to the background and go on behind the
/// foreground. How sure each is stands in [`Found::regions`]. Each 0..1 at 1/2 of the canvas: cell `(i, j)` is centred on pixel
/// `(2i + 0.5, 2j + 0.5)`. A region that was not found is None.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    pub sky: Option<Map>,
    /// A still surface seen at an angle: lake, sea, pool.
    pub water: Option<Map>,
    /// Running water.
    pub stream: Option<Map>,
    pub vegetation: Option<Map>,
    /// Small bright sources.
    pub lights: Option<Map>,
    pub hair: Option<Map>,
    pub cloth: Option<Map>,
    pub fire: Option<Map>,
    /// Height of the horizon from the frame's top, in frame heights.
    pub horizon: Option<f32>,
}

/// What was found in the picture, for people to read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Found {
    /// The best candidate for a subject, whether or not it was good enough to be cut out.
    pub subject: Option<FoundSubject>,
    pub regions: Vec<FoundRegion>,
    pub horizon: Option<f32>,
}

/// A subject and how sure the cut-out is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FoundSubject {
    /// 0..1.
    pub confidence: f32,
    /// Whether it became a layer of its own.
    pub cut_out: bool,
    /// Share of the frame.
    pub area: f32,
    /// Centre of mass, in frame widths and heights from the top left.
    pub centre_x: f32,
    pub centre_y: f32,
    pub gates: Gates,
}

/// A region and how sure it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FoundRegion {
    pub kind: &'static str,
    /// 0..1.
    pub confidence: f32,
    /// Share of the frame.
    pub area: f32,
}

/// Finds depth, layers and regions of a picture that [`fit`] has brought to size.
///
/// Returns [`EngineError::Cancelled`] between stages once the monitor says so.
pub(crate) fn analyze(picture: &Picture, monitor: &dyn Monitor) -> Result<Scene, EngineError> {
    const STAGES: u32 = 4;
    let stage = |done: u32| {
        monitor.progress(Progress { stage: "scene", done, total: STAGES });
        if monitor.is_cancelled() { Err(EngineError::Cancelled) } else { Ok(()) }
    };
    stage(0)?;
    let canvas = Canvas::around(picture);
    // Each has stretches that one core does alone.
    let (sight, rgb) = rayon::join(|| Sight::of(picture), || canvas.outpainted(picture));
    stage(1)?;
    let half = canvas.halved(&rgb);
    let subject = sight.subject.as_ref();
    let parted = subject.and_then(|s| layers::parted(&canvas, &rgb, &half, &canvas.half(&s.mask)));
    stage(2)?;
    let seen = regions::seen(&sight.study, &sight.sky, subject.filter(|_| parted.is_some()).map(|s| &s.mask));
    let found = sight.found(parted.is_some(), &seen);
    stage(3)?;
    let (rgb, foreground) = match (parted, subject) {
        (Some(p), Some(subject)) => {
            let [x0_px, y0_px, x1_px, y1_px] = p.bounds;
            let disparity = canvas.quarter(&subject.disparity);
            (p.background, Some(Foreground { rgba: p.rgba, disparity, x0_px, y0_px, x1_px, y1_px }))
        }
        _ => (rgb, None),
    };
    let behind = foreground.as_ref().map(|_| canvas.halved(&rgb));
    let guides = Guides { picture: &half, behind: behind.as_ref() };
    let regions = Regions::refined(&canvas, &guides, subject.map(|s| &s.mask), seen, sight.sky.horizon);
    stage(STAGES)?;
    let background = Background { rgb, disparity: canvas.quarter(&sight.background) };
    Ok(Scene { canvas, background, foreground, regions, found })
}

/// The confidence above which a subject becomes a layer, and at which it moves with all its depth.
const CUT_OUT_ABOVE: f32 = 0.5;
const FULL_DEPTH_FROM: f32 = 0.75;

/// What is seen in the picture at analysis size.
#[derive(Debug)]
struct Sight {
    study: Study,
    sky: Sky,
    /// The best candidate for a subject, whether or not it is good enough.
    cutout: Option<Cutout>,
    /// Disparity at the study's size, continued behind the subject.
    background: Map,
    subject: Option<Subject>,
}

/// A cut-out good enough to move on its own.
#[derive(Debug)]
struct Subject {
    mask: Map,
    disparity: Map,
}

impl Sight {
    fn of(picture: &Picture) -> Self {
        let (width, height) = analysis_size(picture);
        let study = Study::of(width as usize, height as usize, &fit::shrink(picture, width, height));
        let mut cutout = best_cutout(&study, &[&Salient]);
        let mut sky = Sky::of(&study);
        if let Some(cutout) = &mut cutout {
            cutout.mask = sky.with_spires(&cutout.mask);
        }
        let sure = cutout.as_ref().filter(|c| c.confidence > CUT_OUT_ABOVE);
        if let Some(cutout) = sure {
            sky.mask = sky.mask.zip(&cutout.mask, |s, m| s * (1.0 - m));
        }
        let background = depth::background(&study, &sky, sure);
        let subject = sure.map(|cutout| {
            // Near the gate a cut-out that is slightly wrong must not show.
            let strength = 0.5 + 0.5 * ramp(cutout.confidence, CUT_OUT_ABOVE, FULL_DEPTH_FROM);
            let disparity = depth::subject(&study, &background, cutout, strength);
            Subject { mask: cutout.mask.clone(), disparity }
        });
        let background = match &subject {
            Some(subject) => depth::behind(&background, &subject.mask),
            None => depth::gentle(&study, &background),
        };
        Self { study, sky, cutout, background, subject }
    }

    fn found(&self, cut_out: bool, seen: &[Seen]) -> Found {
        let subject = self.cutout.as_ref().map(|cutout| {
            let mask = &cutout.mask;
            let cells = (0..self.study.area()).filter(|&i| mask.data[i] > 0.5);
            let (mut count, mut u, mut v) = (0.0f32, 0.0f32, 0.0f32);
            for i in cells {
                count += 1.0;
                u += self.study.u(i % self.study.width);
                v += self.study.v(i / self.study.width);
            }
            FoundSubject {
                confidence: cutout.confidence,
                cut_out,
                area: count / self.study.area() as f32,
                centre_x: u / count.max(1.0),
                centre_y: v / count.max(1.0),
                gates: cutout.gates,
            }
        });
        let region =
            |s: &Seen| FoundRegion { kind: s.kind.name(), confidence: s.confidence, area: s.mask.mean() };
        Found { subject, regions: seen.iter().map(region).collect(), horizon: self.sky.horizon }
    }
}

/// What the edges of masks follow, at half of the canvas.
struct Guides<'a> {
    picture: &'a Planes,
    /// The filled background, where there is a subject.
    behind: Option<&'a Planes>,
}

impl Regions {
    /// Lays the masks onto half of the canvas and lets their edges follow the picture's: a mask that is only
    /// nearly right makes skylines pop and boats wobble. What lies behind the subject goes on behind it.
    fn refined(
        canvas: &Canvas,
        guides: &Guides<'_>,
        subject: Option<&Map>,
        seen: Vec<Seen>,
        horizon: Option<f32>,
    ) -> Self {
        const RADIUS: usize = 10;
        const EPSILON: f32 = 3e-4;
        let mut regions = Self { horizon, ..Self::default() };
        let guide = |planes, is_needed: bool| is_needed.then(|| Guide::new(planes, RADIUS, EPSILON));
        let around = guides.behind.zip(subject).map(|(_, s)| morphology::dilated(s, 2).map(|v| 1.0 - v));
        let goes_behind = |s: &Seen| around.is_some() && s.kind.lies_behind();
        let front = guide(guides.picture, seen.iter().any(|s| !goes_behind(s)));
        let back = guides.behind.and_then(|planes| guide(planes, seen.iter().any(goes_behind)));
        for s in seen {
            let (mask, guide) = match &around {
                Some(around) if s.kind.lies_behind() => {
                    (pull_push::filled(&[&s.mask], around).remove(0), &back)
                }
                _ => (s.mask, &front),
            };
            let laid = canvas.half(&mask);
            let map = match guide {
                Some(guide) if s.kind.is_refined() => guide.filter(&laid).map(|v| ramp(v, 0.02, 0.98)),
                _ => laid,
            };
            let place = match s.kind {
                Kind::Sky => &mut regions.sky,
                Kind::Water => &mut regions.water,
                Kind::Stream => &mut regions.stream,
                Kind::Vegetation => &mut regions.vegetation,
                Kind::Lights => &mut regions.lights,
                Kind::Hair => &mut regions.hair,
                Kind::Cloth => &mut regions.cloth,
                Kind::Fire => &mut regions.fire,
            };
            *place = Some(map);
        }
        regions
    }
}

/// The fitted picture's ratio with the longer side at most [`ANALYSIS_SIDE_PX`].
fn analysis_size(picture: &Picture) -> (u32, u32) {
    let longer = picture.width_px().max(picture.height_px());
    let side = |px: u32| (px * ANALYSIS_SIDE_PX.min(longer)).div_ceil(longer).max(1);
    (side(picture.width_px()), side(picture.height_px()))
}
