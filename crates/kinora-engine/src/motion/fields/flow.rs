//! Content that flows: texture carried along a steady velocity field.
//!
//! Two ways. A *drift* carries the texture once, for things whose shape must not dissolve (clouds). A *cycle*
//! blends a texture carried from the past with one carried back from the future and starts over, for things
//! that renew themselves (water, fire); the blend keeps contrast by the phases' correlation.
//! Sources: cyclic blending after Neyret, "Advected Textures", SCA 2003, section 3; contrast-preserving blend
//! after Heitz and Neyret, "High-Performance By-Example Noise using a Histogram-Preserving Blending Operator",
//! HPG 2018, section 3; the texture's extension is normalised convolution (Knutsson and Westin, CVPR 1993).

use rayon::prelude::*;

use super::super::camera::smoothstep;
use super::super::render::Texture;
use super::super::scene::{Background, Map};
use super::Place;

/// Frames between stored positions of a carried texture; between them it moves evenly.
const KEY_FRAMES: usize = 6;
/// Seconds until a flow is fully there.
const RAMP_S: f32 = 0.7;

/// A velocity field in pixels a frame, at 1/4 of the canvas.
#[derive(Debug)]
pub(super) struct Velocity {
    pub(super) x: Map,
    pub(super) y: Map,
}

/// How a flow renews itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Renewal {
    /// Never: carried once over the whole clip.
    Drift,
    /// Every `frames`; `correlation` of the two textures while they blend.
    Cycle { frames: usize, correlation: f32 },
}

/// One flowing region.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Where it flows, at 1/4 of the canvas.
    pub(crate) mask: Map,
    /// The region's texture, grown beyond its edge so that nothing foreign is carried in.
    pub(crate) texture: Texture<u8>,
    /// The texture's local mean at 1/4 of the canvas, for blends.
    pub(crate) mean: Option<Texture<u8>>,
    renewal: Renewal,
    past: Track,
    future: Option<Track>,
    start_s: f32,
}

/// A flow at one moment.
#[derive(Debug)]
pub(crate) struct FlowMoment {
    /// Where the texture comes from: offsets in pixels at 1/4 of the canvas.
    pub(crate) past: (Map, Map),
    pub(crate) future: Option<(Map, Map)>,
    /// Weights of past and future, already divided by the blend's contrast.
    pub(crate) weights: (f32, f32),
    /// How much of the flow shows.
    pub(crate) ramp: f32,
}

/// Offsets of carried points at every [`KEY_FRAMES`] frames.
#[derive(Debug)]
struct Track(Vec<(Map, Map)>);

impl Track {
    /// Follows `velocity` for `frames`, backwards in time with `sign` -1.
    fn new(velocity: &Velocity, frames: usize, sign: f32) -> Self {
        let (width, height) = (velocity.x.width, velocity.x.height);
        let step = sign * KEY_FRAMES as f32;
        let mut keys = vec![(Map::filled(width, height, 0.0), Map::filled(width, height, 0.0))];
        for key in 0..frames.div_ceil(KEY_FRAMES) {
            let (last_x, last_y) = &keys[key];
            let moved: Vec<(f32, f32)> = (0..width * height)
                .into_par_iter()
                .map(|cell| {
                    let (dx, dy) = (last_x.data[cell], last_y.data[cell]);
                    let at = |dx: f32, dy: f32| {
                        let (u, v) = ((cell % width) as f32 + dx / 4.0, (cell / width) as f32 + dy / 4.0);
                        (velocity.x.bilinear(u, v), velocity.y.bilinear(u, v))
                    };
                    // The midpoint rule: streamlines stay closed where the field turns.
                    let (vx, vy) = at(dx, dy);
                    let (vx, vy) = at(dx + vx * step / 2.0, dy + vy * step / 2.0);
                    (dx + vx * step, dy + vy * step)
                })
                .collect();
            let (x, y) = moved.into_iter().unzip();
            keys.push((Map { width, height, data: x }, Map { width, height, data: y }));
        }
        Self(keys)
    }

    fn at(&self, frame: f32) -> (Map, Map) {
        let key = ((frame / KEY_FRAMES as f32).max(0.0) as usize).min(self.0.len().saturating_sub(2));
        let share = frame / KEY_FRAMES as f32 - key as f32;
        let (a, b) = (&self.0[key], &self.0[(key + 1).min(self.0.len() - 1)]);
        let mix = |a: &Map, b: &Map| a.zip(b, |a, b| a + (b - a) * share);
        (mix(&a.0, &b.0), mix(&a.1, &b.1))
    }
}

impl Flow {
    pub(super) fn new(mask: Map, velocity: &Velocity, renewal: Renewal, start_s: f32, place: &Place) -> Self {
        let (past_frames, future) = match renewal {
            Renewal::Drift => (place.frames_count, None),
            Renewal::Cycle { frames, .. } => (frames, Some(Track::new(velocity, frames, 1.0))),
        };
        let fill = Fill::of(&mask, place.background);
        let mean = future.is_some().then(|| fill.mean());
        Self {
            texture: fill.texture(&mask, place.background, place.canvas_width_px),
            mean,
            past: Track::new(velocity, past_frames, -1.0),
            future,
            mask,
            renewal,
            start_s,
        }
    }

    /// The flow at a time in frames; None while it does not show.
    pub(crate) fn at(&self, frame_time: f32, fps: f32) -> Option<FlowMoment> {
        let since = frame_time - self.start_s * fps;
        let ramp = smoothstep(0.0, RAMP_S, since / fps);
        if ramp == 0.0 {
            return None;
        }
        let Some(future) = &self.future else {
            return Some(FlowMoment { past: self.past.at(since), future: None, weights: (1.0, 0.0), ramp });
        };
        let Renewal::Cycle { frames, correlation } = self.renewal else { return None };
        let phase = since % frames as f32;
        let (b, a) = (phase / frames as f32, 1.0 - phase / frames as f32);
        let contrast = (a * a + b * b + 2.0 * correlation * a * b).sqrt();
        Some(FlowMoment {
            past: self.past.at(phase),
            future: Some(future.at(frames as f32 - phase)),
            weights: (a / contrast, b / contrast),
            ramp,
        })
    }
}

/// The region's colours spread over the whole canvas, at 1/4 of it.
struct Fill {
    channels: [Map; 3],
}

impl Fill {
    fn of(mask: &Map, background: &Background) -> Self {
        let (width, height) = (mask.width, mask.height);
        let rgb = background.rgb.as_chunks::<3>().0;
        let stride = width * 4;
        let small = |channel: usize| {
            Map::from_fn(width, height, |x, y| {
                let sum: u32 =
                    (0..16).map(|k| u32::from(rgb[(4 * y + k / 4) * stride + 4 * x + k % 4][channel])).sum();
                sum as f32 / 16.0
            })
        };
        let sure = mask.map(|m| smoothstep(0.35, 0.95, m).powi(2));
        Self { channels: std::array::from_fn(|channel| spread(&small(channel), &sure)) }
    }

    /// Full size: the background where the region surely is, its spread colours elsewhere.
    fn texture(&self, mask: &Map, background: &Background, width_px: usize) -> Texture<u8> {
        let rgb = background.rgb.as_chunks::<3>().0;
        let height_px = rgb.len() / width_px;
        Texture::from_fn(width_px, height_px, |x, y| {
            let (u, v) = ((x as f32 - 1.5) / 4.0, (y as f32 - 1.5) / 4.0);
            let inside = smoothstep(0.45, 0.75, mask.bilinear(u, v));
            let own = rgb[y * width_px + x];
            if inside >= 1.0 {
                return [own[0], own[1], own[2], 255];
            }
            let mixed = |c: usize| {
                let spread = self.channels[c].bilinear(u, v);
                (spread + (f32::from(own[c]) - spread) * inside + 0.5) as u8
            };
            [mixed(0), mixed(1), mixed(2), 255]
        })
    }

    fn mean(&self) -> Texture<u8> {
        let smooth: [Map; 3] = std::array::from_fn(|c| self.channels[c].blurred(2.0));
        Texture::from_fn(smooth[0].width, smooth[0].height, |x, y| {
            let [r, g, b] = std::array::from_fn(|c| (smooth[c].at(x, y) + 0.5) as u8);
            [r, g, b, 255]
        })
    }
}

/// `values` where `sure` is 1, elsewhere the mean of the sure ones nearby, from ever wider windows.
fn spread(values: &Map, sure: &Map) -> Map {
    const WINDOWS: [f32; 4] = [48.0, 16.0, 6.0, 2.0];
    let weighted = values.zip(sure, |v, w| v * w);
    let total: f32 = sure.data.iter().sum();
    let typical = weighted.data.iter().sum::<f32>() / total.max(1.0);
    let mut filled = Map::filled(values.width, values.height, typical);
    for sigma in WINDOWS {
        let (near, weight) = (weighted.blurred(sigma), sure.blurred(sigma));
        let local = near.zip(&weight, |v, w| v / w.max(1e-6));
        let trust = weight.map(|w| smoothstep(0.002, 0.08, w));
        filled = Map::from_fn(values.width, values.height, |x, y| {
            filled.at(x, y) + (local.at(x, y) - filled.at(x, y)) * trust.at(x, y)
        });
    }
    Map::from_fn(values.width, values.height, |x, y| {
        filled.at(x, y) + (values.at(x, y) - filled.at(x, y)) * sure.at(x, y)
    })
}
