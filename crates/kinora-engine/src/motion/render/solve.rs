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
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) planes_count: usize,
    /// `[rows, planes, columns]`: offsets in x and in y, then whatever else was sampled at the source.
    pub(super) cells: Vec<f32>,
}

/// What a layer brings to a solve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'a> {
    /// At 1/4 of the canvas, at least two cells in either direction.
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
        Self { columns, rows, planes_count, cells }
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
        Self { columns, rows, planes_count: 1, cells: plane }
    }

    /// Interpolates a plane along output row `y` into `out`, which is as wide as the frame.
    pub(crate) fn row(&self, plane: usize, y: usize, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let (top, weight) = cell_of(y);
        let top = top.min(self.rows - 2);
        let cells =
            |row: usize| &self.cells[(row * self.planes_count + plane) * self.columns..][..self.columns];
        scratch.resize(self.columns, 0.0);
        interpolate(cells(top), cells(top + 1), weight, scratch, out);
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
pub(super) fn place(cell: usize) -> f32 {
    (cell * PITCH_PX) as f32 - PITCH_PX as f32 + 1.5
}

/// Cells that are solved side by side, so that none waits for another's fixed point.
const LANES: usize = 16;
type Lanes = [f32; LANES];

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
#[allow(unsafe_code)]
#[allow(clippy::needless_range_loop, reason = "lanes of several arrays go together")]
fn solve_row(frame: &Frame, view: &View, layer: &Layer<'_>, row: usize, out: &mut [f32]) {
    let columns = frame.width_px / PITCH_PX + 2;
    let (cx, cy) = frame.centre();
    let y = place(row) - cy;
    for first in (0..columns).step_by(LANES) {
        let count = LANES.min(columns - first);
        let x0 = place(first) - cx;
        let mut block = Block::default();
        for k in 0..LANES {
            let x = x0 + (k * PITCH_PX) as f32;
            (block.seen_x[k], block.seen_y[k]) = view.seen(x, y);
        }
        block.converge(frame, view, layer.disparity);
        let (mut offsets, mut value) = ([[0.0; LANES]; 2], [0.0; LANES]);
        for k in 0..LANES {
            let x = x0 + (k * PITCH_PX) as f32;
            (offsets[0][k], offsets[1][k]) = (block.x[k] - x, block.y[k] - y);
        }
        let mut planes = out.chunks_exact_mut(columns).map(|plane| &mut plane[first..first + count]);
        let spots = block.spots(frame, layer.disparity);
        let movement = layer.movement.map(|(x, y)| [x, y]);
        for (axis, mut offset) in offsets.into_iter().enumerate() {
            if let Some(movement) = movement {
                spots.of(movement[axis], &mut value);
                (0..LANES).for_each(|k| offset[k] += value[k]);
            }
            planes.by_ref().take(1).for_each(|plane| plane.copy_from_slice(&offset[..count]));
        }
        for (map, plane) in layer.extra.iter().zip(planes) {
            spots.of(map, &mut value);
            plane.copy_from_slice(&value[..count]);
        }
    }
}

/// Places of a block of cells, in pixels around the frame's centre.
#[derive(Default)]
struct Block {
    /// Of what is infinitely far.
    seen_x: Lanes,
    seen_y: Lanes,
    /// Of the layer.
    x: Lanes,
    y: Lanes,
}

impl Block {
    /// [`View::source`] for each cell.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "lanes of several arrays go together")]
    fn converge(&mut self, frame: &Frame, view: &View, disparity: &Map) {
        (self.x, self.y) = (self.seen_x, self.seen_y);
        let mut near = [0.0; LANES];
        for _ in 0..ITERATIONS {
            self.spots(frame, disparity).of(disparity, &mut near);
            for k in 0..LANES {
                let seen = (self.seen_x[k], self.seen_y[k]);
                (self.x[k], self.y[k]) = view.through(seen, nearness(near[k]));
            }
        }
    }

    #[inline(always)]
    fn spots(&self, frame: &Frame, map: &Map) -> Spots {
        let (mut u, mut v) = ([0.0; LANES], [0.0; LANES]);
        for k in 0..LANES {
            (u[k], v[k]) = frame.quarter(self.x[k], self.y[k]);
        }
        Spots::new(map, &u, &v)
    }
}

/// Places between cells, found once for all maps of a size. Beyond the rim the rim's value holds.
struct Spots {
    /// The cell above and to the left; one to its right and one below it exist.
    first: [u32; LANES],
    u: Lanes,
    v: Lanes,
}

impl Spots {
    #[inline(always)]
    fn new(map: &Map, u: &Lanes, v: &Lanes) -> Self {
        let (last_column, last_row) = (map.width as u32 - 1, map.height as u32 - 1);
        let mut spots = Self { first: [0; LANES], u: [0.0; LANES], v: [0.0; LANES] };
        for k in 0..LANES {
            let u = u[k].max(0.0).min(last_column as f32);
            let v = v[k].max(0.0).min(last_row as f32);
            let (x, y) = ((u as u32).min(last_column - 1), (v as u32).min(last_row - 1));
            spots.first[k] = y * map.width as u32 + x;
            (spots.u[k], spots.v[k]) = (u - x as f32, v - y as f32);
        }
        spots
    }

    #[inline(always)]
    fn of(&self, map: &Map, out: &mut Lanes) {
        let (mut above, mut below) = ([[0.0; LANES]; 2], [[0.0; LANES]; 2]);
        for k in 0..LANES {
            let first = self.first[k] as usize;
            let (top, bottom) = (&map.data[first..first + 2], &map.data[first + map.width..][..2]);
            (above[0][k], above[1][k]) = (top[0], top[1]);
            (below[0][k], below[1][k]) = (bottom[0], bottom[1]);
        }
        for k in 0..LANES {
            let top = above[0][k] + (above[1][k] - above[0][k]) * self.u[k];
            let bottom = below[0][k] + (below[1][k] - below[0][k]) * self.u[k];
            out[k] = top + (bottom - top) * self.v[k];
        }
    }
}
