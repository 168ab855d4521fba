//! A picture becomes a stage set: a canvas larger than the frame, depth, layers and masks of what can move.
//!
//! Always true: composing the layers at rest gives the fitted picture exactly; masks lie in 0..1, disparities
//! in 0 (far) .. 1 (near), nothing is NaN; the result depends on the picture alone, not on threads or seed.
//! Not here: which movement is made of it.

mod canvas;
mod color;
mod depth;
mod fit;
mod guided;
pub(crate) mod inspect;
mod map;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::{EngineError, Monitor, Picture, Progress};
use color::Planes;
pub(crate) use fit::{fit, output_size};
pub(crate) use map::Map;

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

/// Where things are that can move, each 0..1 at 1/2 of the canvas: cell `(i, j)` is centred on pixel
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
    const STAGES: u32 = 2;
    let stage = |done: u32| {
        monitor.progress(Progress { stage: "scene", done, total: STAGES });
        if monitor.is_cancelled() { Err(EngineError::Cancelled) } else { Ok(()) }
    };
    stage(0)?;
    let canvas = Canvas::around(picture);
    let (width, height) = analysis_size(picture);
    let small = fit::shrink(picture, width, height);
    let planes = Planes::from_rgb8(width as usize, height as usize, &small);
    let disparity = canvas.quarter(&depth::disparity(&planes));
    stage(1)?;
    let background = Background { rgb: canvas.mirrored(picture), disparity };
    stage(STAGES)?;
    Ok(Scene { canvas, background, foreground: None, regions: Regions::default(), found: Found::default() })
}

/// The fitted picture's ratio with the longer side at most [`ANALYSIS_SIDE_PX`].
fn analysis_size(picture: &Picture) -> (u32, u32) {
    let longer = picture.width_px().max(picture.height_px());
    let side = |px: u32| (px * ANALYSIS_SIDE_PX.min(longer)).div_ceil(longer).max(1);
    (side(picture.width_px()), side(picture.height_px()))
}
