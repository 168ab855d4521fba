//! The layers: the background filled in, the residual foreground.
//!
//! Always true: foreground over background is the canvas, exactly after rounding. The background is filled in the
//! whole ring around the subject too, and the foreground carries what the fill differs by, so that halos and
//! compression noise travel with the subject instead of staying behind as a ghost.

use rayon::prelude::*;

use super::color::Planes;
use super::map::{Map, Window, smoothstep};
use super::matte::Matte;
use super::morphology::{dilated, distance};
use super::patch_match::{Hole, complete};
use super::pull_push::filled;
use super::{Canvas, Foreground};

/// Grey levels times patch values per squared share of the longer side: see [`Hole`].
const FILL_PENALTIES: (f32, f32) = (120_000.0, 40_000.0);
/// The hole behind the subject: alpha from here on, grown by so many half-size pixels.
const HOLE_ALPHA: f32 = 0.02;
const HOLE_GROWN_PX: usize = 3;
/// Texture is made this deep into the hole, in half-size pixels; what lies deeper is never seen.
const TEXTURE_DEPTH_PX: f32 = 40.0;
/// How far around the subject colours are learned and texture is taken from, in half-size pixels.
const SURROUNDINGS_PX: usize = 80;
/// Over which width the fill sets in at the hole's rim, in pixels.
const RIM_PX: (f32, f32) = (0.5, 4.0);

impl Canvas {
    /// The canvas at half size.
    pub(crate) fn halved(&self, rgb: &[u8]) -> Planes {
        halved(self.width_px, self.height_px, rgb)
    }
}

/// Mean of 2 x 2 pixels; both sizes even.
pub(super) fn halved(width: usize, height: usize, rgb: &[u8]) -> Planes {
    let plane = |c: usize| {
        Map::from_rows(width / 2, height / 2, |y, out| {
            let (a, b) = rgb[2 * y * width * 3..(2 * y + 2) * width * 3].split_at(width * 3);
            for (x, o) in out.iter_mut().enumerate() {
                let i = 6 * x + c;
                let sum = u32::from(a[i]) + u32::from(a[i + 3]) + u32::from(b[i]) + u32::from(b[i + 3]);
                *o = sum as f32 / 1020.0;
            }
        })
    };
    Planes([plane(0), plane(1), plane(2)])
}

/// A half-size map at a full-size pixel.
pub(super) fn at_half(map: &Map, x_px: usize, y_px: usize) -> f32 {
    map.bilinear((x_px as f32 - 0.5) / 2.0, (y_px as f32 - 0.5) / 2.0)
}

/// The background without the subject, and the subject as a residual layer over it.
pub(crate) struct Parted {
    pub(crate) background: Vec<u8>,
    pub(crate) rgba: Vec<i16>,
    /// x0, y0, x1, y1 of what is not zero.
    pub(crate) bounds: [usize; 4],
}

/// Parts the canvas along the cut-out (`mask` at half of the canvas); None if nothing of it is opaque.
pub(crate) fn parted(canvas: &Canvas, rgb: &[u8], half: &Planes, mask: &Map) -> Option<Parted> {
    let window = Window::around(mask, SURROUNDINGS_PX)?;
    let (half, mask) = (half.each(|p| p.cropped(&window)), mask.cropped(&window));
    let matte = Matte::of(canvas, &half, &mask);
    let hole = dilated(&matte.half.map(|a| f32::from(u8::from(a > HOLE_ALPHA))), HOLE_GROWN_PX);
    if matte.half.data.iter().all(|&a| a < 0.5) || hole.data.iter().all(|&h| h > 0.5) {
        return None;
    }
    let depth = distance(hole.width, hole.height, |i| hole.data[i] > 0.5);
    let filled = background_fill(&half, &hole, &depth);
    let parting = Parting { window, matte, filled, depth };
    let width = canvas.width_px;
    let mut background = rgb.to_vec();
    let mut rgba = vec![0i16; width * canvas.height_px * 4];
    background
        .par_chunks_mut(width * 3)
        .zip(rgba.par_chunks_mut(width * 4))
        .enumerate()
        .for_each(|(y, (background, rgba))| parting.row(y, background, rgba));
    let bounds = bounds(&rgba, width)?;
    Some(Parted { background, rgba, bounds })
}

/// What parts the canvas, within a window of its half size.
struct Parting {
    window: Window,
    matte: Matte,
    filled: Planes,
    /// Distance to the hole's rim.
    depth: Map,
}

impl Parting {
    /// Parts one full-size row: the canvas's colours in `background`, zeros in `rgba`.
    fn row(&self, canvas_y: usize, background: &mut [u8], rgba: &mut [i16]) {
        let one = f32::from(Foreground::ONE);
        let Some(y) = canvas_y.checked_sub(2 * self.window.y).filter(|&y| y < 2 * self.window.height) else {
            return;
        };
        let first = 2 * self.window.x;
        let pixels = background[first * 3..].chunks_exact_mut(3).zip(rgba[first * 4..].chunks_exact_mut(4));
        for (x, (pixel, out)) in pixels.take(2 * self.window.width).enumerate() {
            // Depths are in half-size pixels.
            let set_in = smoothstep(2.0 * at_half(&self.depth, x, y), RIM_PX.0, RIM_PX.1);
            let color = [0, 1, 2].map(|c| f32::from(pixel[c]));
            let alpha = (self.matte.at(x, y, color.map(|v| v / 255.0)) * one).round();
            if set_in <= 0.0 && alpha <= 0.0 {
                continue;
            }
            out[3] = alpha as i16;
            for c in 0..3 {
                let fill = at_half(&self.filled.0[c], x, y) * 255.0;
                let behind = (color[c] + set_in * (fill - color[c]) + 0.5).clamp(0.0, 255.0).trunc();
                pixel[c] = behind as u8;
                out[c] = (64.0 * color[c] - (one - alpha) * behind / 255.0).round() as i16;
            }
        }
    }
}

/// Texture near the hole's rim, smooth colours deeper in.
fn background_fill(half: &Planes, hole: &Map, depth: &Map) -> Planes {
    let smooth = filled(&[&half.0[0], &half.0[1], &half.0[2]], &hole.map(|h| 1.0 - h));
    let base = Planes([0, 1, 2].map(|c| {
        Map::from_rows(hole.width, hole.height, |y, out| {
            for (x, o) in out.iter_mut().enumerate() {
                let i = y * hole.width + x;
                *o = if hole.data[i] > 0.5 { smooth[c].data[i] } else { half.0[c].data[i] };
            }
        })
    }));
    let band = hole.zip(depth, |h, d| f32::from(u8::from(h > 0.5 && d < TEXTURE_DEPTH_PX)));
    let (row_penalty, column_penalty) = FILL_PENALTIES;
    complete(&base, &Hole { fill: &band, avoid: Some(hole), row_penalty, column_penalty }).picture
}

fn bounds(rgba: &[i16], width: usize) -> Option<[usize; 4]> {
    let mut bounds: Option<[usize; 4]> = None;
    for (y, row) in rgba.chunks_exact(width * 4).enumerate() {
        let set = |p: &[i16]| p.iter().any(|&v| v != 0);
        let Some(first) = row.chunks_exact(4).position(set) else { continue };
        let last = row.chunks_exact(4).rposition(set).unwrap_or(first);
        let [x0, y0, x1, _] = bounds.unwrap_or([first, y, 0, 0]);
        bounds = Some([x0.min(first), y0, x1.max(last + 1), y + 1]);
    }
    bounds
}
