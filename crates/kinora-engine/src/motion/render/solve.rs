//! Where each output pixel comes from, solved on a grid of one cell per 4x4 pixels and interpolated.
//!
//! A view maps an output place p to the layer's place q: `q = s (1 - d tz) + d (tx, ty)` with
//! `s = R(roll) p / (cover (1 + zoom)) + (px, py)`, all in pixels around the frame's centre, where d is the
//! nearness of the layer at q. q stands on both sides, so it is found by fixed-point iteration.
//! Always true: the grid holds offsets `q - p`, which are exactly 0 for the pose at rest.

use multiversion::multiversion;
use rayon::prelude::*;

use super::super::camera::Pose;
use super::super::scene::Map;

/// Output pixels per grid cell, along each axis; the maps of a layer have the same pitch on the canvas.
pub(crate) const PITCH_PX: usize = 4;
/// Converges to well under a hundredth of a pixel for the slopes that disparities have.
const ITERATIONS: usize = 4;
/// Does, too, from the nearness of the cell next to it.
const ITERATIONS_FROM_NEIGHBOUR: usize = 2;
/// Nearness of the farthest and the nearest disparity: even infinity moves a little, which looks less flat.
const NEARNESS: (f32, f32) = (0.12, 1.0);

/// How strongly a disparity of 0..1 follows the camera.
pub(crate) fn nearness(disparity: f32) -> f32 {
    NEARNESS.0 + (NEARNESS.1 - NEARNESS.0) * disparity
}

/// Output size and where it lies on the canvas, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) width_px: usize,
    pub(crate) height_px: usize,
    pub(crate) margin_x_px: usize,
    pub(crate) margin_y_px: usize,
}

impl Frame {
    /// The frame's centre in output pixels.
    pub(crate) fn centre(&self) -> (f32, f32) {
        ((self.width_px as f32 - 1.0) / 2.0, (self.height_px as f32 - 1.0) / 2.0)
    }

    /// From pixels around the frame's centre to cells of a map at 1/4 of the canvas.
    pub(crate) fn quarter(&self, x: f32, y: f32) -> (f32, f32) {
        let (cx, cy) = self.centre();
        (
            (x + cx + self.margin_x_px as f32 - 1.5) / PITCH_PX as f32,
            (y + cy + self.margin_y_px as f32 - 1.5) / PITCH_PX as f32,
        )
    }
}

/// A pose made ready for many pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    cos: f32,
    sin: f32,
    aim: (f32, f32),
    travel: (f32, f32),
    travel_z: f32,
}

impl View {
    /// `width_px` is the frame's: poses are in frame widths.
    pub(crate) fn new(pose: &Pose, width_px: usize) -> Self {
        let width = width_px as f32;
        let scale = 1.0 / (pose.cover * (1.0 + pose.zoom));
        Self {
            cos: scale * pose.roll.cos(),
            sin: scale * pose.roll.sin(),
            aim: (pose.px * width, pose.py * width),
            travel: (pose.tx * width, pose.ty * width),
            travel_z: pose.tz,
        }
    }

    /// The layer's place seen at an output place, both in pixels around the frame's centre.
    #[inline]
    pub(crate) fn source(&self, x: f32, y: f32, disparity_at: impl Fn(f32, f32) -> f32) -> (f32, f32) {
        let seen = self.seen(x, y);
        let mut at = seen;
        for _ in 0..ITERATIONS {
            at = self.through(seen, nearness(disparity_at(at.0, at.1)));
        }
        at
    }

    /// The place of something infinitely far that is seen at an output place.
    #[inline]
    fn seen(&self, x: f32, y: f32) -> (f32, f32) {
        (self.cos * x + self.sin * y + self.aim.0, self.cos * y - self.sin * x + self.aim.1)
    }

    /// The place seen there if it is as near as `near`.
    #[inline]
    fn through(&self, seen: (f32, f32), near: f32) -> (f32, f32) {
        let shrink = 1.0 - near * self.travel_z;
        (seen.0 * shrink + near * self.travel.0, seen.1 * shrink + near * self.travel.1)
    }
}

/// Planes over the output, one value per cell, with one cell more on each side than the frame needs.
#[derive(Debug, Default)]
pub(crate) struct Grid {
    columns: usize,
    rows: usize,
    /// Offsets in x and in y, then whatever else was sampled at the source.
    planes: Vec<Vec<f32>>,
}

/// What a layer brings to a solve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'a> {
    /// At 1/4 of the canvas.
    pub(crate) disparity: &'a Map,
    /// Own movement of the layer's content, in pixels at 1/4 of the canvas: (dx, dy), added to the source.
    pub(crate) movement: Option<(&'a Map, &'a Map)>,
    /// Further maps at 1/4 of the canvas to sample at the source.
    pub(crate) extra: &'a [&'a Map],
}

impl Grid {
    /// Plane of the offset in x.
    pub(crate) const DX: usize = 0;
    /// Plane of the offset in y.
    pub(crate) const DY: usize = 1;
    /// Plane of the first extra map.
    pub(crate) const EXTRA: usize = 2;

    /// Solves a layer; rows in parallel.
    pub(crate) fn solve(frame: &Frame, view: &View, layer: &Layer<'_>) -> Self {
        let (columns, rows) = (frame.width_px / PITCH_PX + 2, frame.height_px / PITCH_PX + 2);
        let planes_count = Self::EXTRA + layer.extra.len();
        let mut cells = vec![0.0f32; columns * rows * planes_count];
        cells.par_chunks_exact_mut(columns * planes_count).enumerate().for_each(|(row, out)| {
            solve_row(frame, view, layer, row, out);
        });
        let planes = (0..planes_count)
            .map(|plane| {
                let mut data = Vec::with_capacity(columns * rows);
                for row in cells.chunks_exact(columns * planes_count) {
                    data.extend_from_slice(&row[plane * columns..][..columns]);
                }
                data
            })
            .collect();
        Self { columns, rows, planes }
    }

    /// One plane (the first) from its value at each cell's place in the output, in pixels; rows in parallel.
    pub(crate) fn from_fn(frame: &Frame, value: impl Fn(f32, f32) -> f32 + Sync) -> Self {
        let (columns, rows) = (frame.width_px / PITCH_PX + 2, frame.height_px / PITCH_PX + 2);
        let mut plane = vec![0.0f32; columns * rows];
        plane.par_chunks_exact_mut(columns).enumerate().for_each(|(row, cells)| {
            for (column, cell) in cells.iter_mut().enumerate() {
                *cell = value(place(column), place(row));
            }
        });
        Self { columns, rows, planes: vec![plane] }
    }

    /// Interpolates a plane along output row `y` into `out`, which is as wide as the frame.
    pub(crate) fn row(&self, plane: usize, y: usize, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let (top, weight) = cell_of(y);
        let top = top.min(self.rows - 2);
        let plane = &self.planes[plane];
        let above = &plane[top * self.columns..][..self.columns];
        let below = &plane[(top + 1) * self.columns..][..self.columns];
        scratch.resize(self.columns, 0.0);
        interpolate(above, below, weight, scratch, out);
    }
}

/// Between two rows of cells, `weight` of the way down, then along the row to pixels.
#[multiversion(targets("x86_64+avx2+fma"))]
#[allow(unsafe_code)]
fn interpolate(above: &[f32], below: &[f32], weight: f32, cells: &mut [f32], out: &mut [f32]) {
    for ((cell, a), b) in cells.iter_mut().zip(above).zip(below) {
        *cell = a + (b - a) * weight;
    }
    let (before, here, after) = (&cells[..], &cells[1..], &cells[2..]);
    for (((out, &c0), &c1), &c2) in
        out.as_chunks_mut::<PITCH_PX>().0.iter_mut().zip(before).zip(here).zip(after)
    {
        let (left, right) = (c1 - c0, c2 - c1);
        *out = [c0 + left * 0.625, c0 + left * 0.875, c1 + right * 0.125, c1 + right * 0.375];
    }
}

/// The grid row above output row `y` and how far `y` is on its way to the next.
fn cell_of(y: usize) -> (usize, f32) {
    let at = (y as f32 - 1.5) / PITCH_PX as f32 + 1.0;
    (at as usize, at.fract())
}

/// Output pixel at the centre of a grid cell, along either axis.
fn place(cell: usize) -> f32 {
    (cell * PITCH_PX) as f32 - PITCH_PX as f32 + 1.5
}

fn solve_row(frame: &Frame, view: &View, layer: &Layer<'_>, row: usize, out: &mut [f32]) {
    let columns = frame.width_px / PITCH_PX + 2;
    let (cx, cy) = frame.centre();
    let y = place(row) - cy;
    let (dx, rest) = out.split_at_mut(columns);
    let (dy, extra) = rest.split_at_mut(columns);
    let spot = |x: f32, y: f32| {
        let (u, v) = frame.quarter(x, y);
        Spot::new(layer.disparity, u, v)
    };
    let first = view.source(place(0) - cx, y, |x, y| spot(x, y).of(layer.disparity));
    let mut near = nearness(spot(first.0, first.1).of(layer.disparity));
    let is_plain = layer.movement.is_none() && layer.extra.is_empty();
    for column in 0..columns {
        let x = place(column) - cx;
        let seen = view.seen(x, y);
        let mut at = view.through(seen, near);
        for _ in 0..ITERATIONS_FROM_NEIGHBOUR {
            near = nearness(spot(at.0, at.1).of(layer.disparity));
            at = view.through(seen, near);
        }
        (dx[column], dy[column]) = (at.0 - x, at.1 - y);
        if is_plain {
            continue;
        }
        let spot = spot(at.0, at.1);
        if let Some((move_x, move_y)) = layer.movement {
            dx[column] += spot.of(move_x);
            dy[column] += spot.of(move_y);
        }
        for (map, out) in layer.extra.iter().zip(extra.chunks_exact_mut(columns)) {
            out[column] = spot.of(map);
        }
    }
}

/// A place between cells, found once for all maps of a size. Beyond the rim the rim's value holds.
#[derive(Debug, Clone, Copy)]
struct Spot {
    first: usize,
    right: usize,
    down: usize,
    u: f32,
    v: f32,
}

impl Spot {
    #[inline(always)]
    fn new(map: &Map, u: f32, v: f32) -> Self {
        let (u, v) = (u.max(0.0).min((map.width - 1) as f32), v.max(0.0).min((map.height - 1) as f32));
        let (x, y) = (u as usize, v as usize);
        Self {
            first: y * map.width + x,
            right: usize::from(x + 1 < map.width),
            down: if y + 1 < map.height { map.width } else { 0 },
            u: u - x as f32,
            v: v - y as f32,
        }
    }

    #[inline(always)]
    fn of(&self, map: &Map) -> f32 {
        let at = |k: usize| map.data[self.first + k];
        let top = at(0) + (at(self.right) - at(0)) * self.u;
        let bottom = at(self.down) + (at(self.down + self.right) - at(self.down)) * self.u;
        top + (bottom - top) * self.v
    }
}
