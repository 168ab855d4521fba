//! One row of one instant, back to front: background, what flows in it, light, far weather, foreground, near weather.

use multiversion::multiversion;

use super::super::camera::smoothstep;
use super::super::overlays::{Line, Overlays};
use super::super::scene::{Canvas, Foreground, Map};
use super::detail::{self, Detail};
use super::fetch::{Row, Texel};
use super::{Grid, Instant, Renderer, Texture};

/// A flow that shows less than this is not worth a fetch.
const SHOWS: f32 = 0.004;

/// Buffers of one thread, each as long as a row.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Canvas coordinates.
    x: Vec<f32>,
    y: Vec<f32>,
    /// Coordinates of carried texture.
    flow_x: Vec<f32>,
    flow_y: Vec<f32>,
    /// A plane along the row, and what interpolating it needs.
    values: Vec<f32>,
    pub(super) cells: Vec<f32>,
    /// How much of a flow shows, the coverage of the foreground, the background's disparity.
    weights: Vec<f32>,
    covered: Vec<f32>,
    depth: Vec<f32>,
    /// The row so far: 0..255 per channel.
    pub(super) pixels: Vec<[f32; 4]>,
    /// The mean over the shutter so far.
    pub(super) exposed: Vec<[f32; 4]>,
    fetched: [Vec<[f32; 4]>; 3],
}

impl Scratch {
    pub(super) fn new(width_px: usize) -> Self {
        let floats = || vec![0.0; width_px];
        let pixels = || vec![[0.0; 4]; width_px];
        Self {
            x: floats(),
            y: floats(),
            flow_x: floats(),
            flow_y: floats(),
            values: floats(),
            cells: Vec::new(),
            weights: floats(),
            covered: floats(),
            depth: floats(),
            pixels: pixels(),
            exposed: pixels(),
            fetched: [pixels(), pixels(), pixels()],
        }
    }

    /// Adds the row to the mean over the shutter.
    pub(super) fn expose(&mut self, share: f32) {
        for (mean, pixel) in self.exposed.as_flattened_mut().iter_mut().zip(self.pixels.as_flattened()) {
            *mean += share * pixel;
        }
    }

    /// The row as overlays see it.
    fn line(&mut self, y: usize) -> Line<'_> {
        Line {
            y,
            pixels: &mut self.pixels,
            covered: &self.covered,
            depth: &self.depth,
            values: &mut self.values,
            cells: &mut self.cells,
        }
    }

    /// Multiplies the pixels by the plane in `values`.
    fn shade(&mut self) {
        for (pixel, factor) in self.pixels.iter_mut().zip(&self.values) {
            pixel[..3].iter_mut().for_each(|c| *c *= factor);
        }
    }

    /// `flow_x`, `flow_y` = `x`, `y` + two planes.
    fn carry(&mut self, grid: &Grid, plane: usize, y: usize) {
        grid.row(plane, y, &mut self.cells, &mut self.flow_x);
        grid.row(plane + 1, y, &mut self.cells, &mut self.flow_y);
        self.flow_x.iter_mut().zip(&self.x).for_each(|(to, x)| *to += x);
        self.flow_y.iter_mut().zip(&self.y).for_each(|(to, y)| *to += y);
    }
}

impl Renderer {
    /// Composes row `y` into `scratch.pixels`.
    pub(super) fn compose(&self, y: usize, instant: &Instant<'_>, scratch: &mut Scratch) {
        self.place(y, &instant.back, scratch);
        let at = Row { x: &scratch.x, y: &scratch.y, sharpness: instant.sharpness };
        u8::fetch(&self.background, at, &mut scratch.pixels);
        if let Some(detail) = self.detail.as_ref().filter(|_| instant.detail.0 > 0.0) {
            scratch.flow_x.copy_from_slice(&scratch.x);
            scratch.flow_y.copy_from_slice(&scratch.y);
            let found = &mut scratch.fetched[0];
            detail.fetch(&mut scratch.flow_x, &mut scratch.flow_y, (0.0, 0.0), found);
            detail::add_behind(found, instant.detail.0, &mut scratch.pixels);
        }
        for k in 0..instant.flows.len() {
            self.flow(y, instant, k, scratch);
        }
        if let Some(plane) = instant.planes.shade {
            instant.back.row(plane, y, &mut scratch.cells, &mut scratch.values);
            scratch.shade();
        }
        if let Some(plane) = instant.planes.disparity {
            instant.back.row(plane, y, &mut scratch.cells, &mut scratch.depth);
        }
        scratch.covered.fill(0.0);
        Overlays::behind(&instant.seen, &mut scratch.line(y));
        if let (Some(cutout), Some(grid)) = (&self.cutout, &instant.front) {
            self.place(y, grid, scratch);
            let shaded = instant.planes.shade.is_some();
            if shaded {
                grid.row(Grid::EXTRA, y, &mut scratch.cells, &mut scratch.values);
            }
            let detail = self.detail.as_ref().filter(|_| instant.detail.1 > 0.0);
            cutout.over(instant.sharpness, detail.map(|detail| (detail, instant.detail.1)), shaded, scratch);
        }
        Overlays::before(&instant.seen, &mut scratch.line(y));
    }

    /// Puts the canvas coordinates of row `y` into `scratch.x` and `scratch.y`.
    fn place(&self, y: usize, grid: &Grid, scratch: &mut Scratch) {
        grid.row(Grid::DX, y, &mut scratch.cells, &mut scratch.x);
        grid.row(Grid::DY, y, &mut scratch.cells, &mut scratch.y);
        let left = self.frame.margin_x_px;
        scratch.x.iter_mut().enumerate().for_each(|(x, at)| *at += (x + left) as f32);
        let y = (y + self.frame.margin_y_px) as f32;
        scratch.y.iter_mut().for_each(|at| *at += y);
    }

    /// Replaces row `y` by the k-th flow where that shows.
    fn flow(&self, y: usize, instant: &Instant<'_>, k: usize, scratch: &mut Scratch) {
        let (flow, moment) = &instant.flows[k];
        let Some(span) = self.weigh(y, instant, k, scratch) else { return };
        let plane = instant.planes.flows[k];
        scratch.carry(&instant.back, plane + 1, y);
        let sharpness = instant.sharpness;
        let [past, _, mean] = &mut scratch.fetched;
        let at = Row { x: &scratch.flow_x[span.clone()], y: &scratch.flow_y[span.clone()], sharpness };
        u8::fetch(&flow.texture, at, &mut past[span.clone()]);
        let Some(texture) = flow.mean.as_ref().filter(|_| moment.future.is_some()) else {
            for ((pixel, carried), &weight) in
                scratch.pixels[span.clone()].iter_mut().zip(&past[span.clone()]).zip(&scratch.weights[span])
            {
                blend(pixel, carried, weight);
            }
            return;
        };
        // The mean lies on a grid of its own, one texel per 4x4 pixels.
        let quarter = |v: &f32| (v - 1.5) / 4.0;
        let count = span.len();
        scratch.flow_x.iter_mut().zip(&scratch.x[span.clone()]).for_each(|(to, x)| *to = quarter(x));
        scratch.flow_y.iter_mut().zip(&scratch.y[span.clone()]).for_each(|(to, y)| *to = quarter(y));
        let at = Row { x: &scratch.flow_x[..count], y: &scratch.flow_y[..count], sharpness: -0.5 };
        u8::fetch(texture, at, &mut mean[span.clone()]);
        scratch.carry(&instant.back, plane + 3, y);
        let [past, future, mean] = &mut scratch.fetched;
        let at = Row { x: &scratch.flow_x[span.clone()], y: &scratch.flow_y[span.clone()], sharpness };
        u8::fetch(&flow.texture, at, &mut future[span.clone()]);
        let (a, b) = moment.weights;
        for k in span {
            let carried: [f32; 4] = std::array::from_fn(|c| {
                mean[k][c] + a * (past[k][c] - mean[k][c]) + b * (future[k][c] - mean[k][c])
            });
            blend(&mut scratch.pixels[k], &carried, scratch.weights[k]);
        }
    }

    /// How much of the k-th flow shows along row `y`, into `scratch.weights`; the part of the row where it does.
    fn weigh(
        &self,
        y: usize,
        instant: &Instant<'_>,
        k: usize,
        scratch: &mut Scratch,
    ) -> Option<std::ops::Range<usize>> {
        let plane = instant.planes.flows[k];
        instant.back.row(plane, y, &mut scratch.cells, &mut scratch.values);
        let ramp = instant.flows[k].1.ramp;
        // The fine mask says where anything flows, the coarse ones which flow it is.
        for ((weight, pixel), own) in scratch.weights.iter_mut().zip(&scratch.pixels).zip(&scratch.values) {
            let fine = pixel[3] * (1.0 / 255.0);
            *weight = ramp * fine.clamp(0.0, 1.0) * smoothstep(0.25, 0.55, *own);
        }
        let first = scratch.weights.iter().position(|&weight| weight > SHOWS)?;
        let last = scratch.weights.iter().rposition(|&weight| weight > SHOWS)?;
        Some(first..last + 1)
    }
}

/// Mixes colour into a pixel; the fourth channel stays, later flows need it.
fn blend(pixel: &mut [f32; 4], colour: &[f32; 4], weight: f32) {
    for c in 0..3 {
        pixel[c] += weight * (colour[c].clamp(0.0, 255.0) - pixel[c]);
    }
}

/// The foreground, cropped to where it is.
#[derive(Debug)]
pub(super) struct Cutout {
    texture: Texture<i16>,
    pub(super) disparity: Map,
    /// Canvas position of the texture's first pixel.
    x0_px: f32,
    y0_px: f32,
    width_px: f32,
    height_px: f32,
    /// For each row of the texture, the first and the last column that hold anything; first > last in an empty one.
    spans: Vec<(f32, f32)>,
}

impl Cutout {
    /// Transparent pixels kept around the foreground, so that its rim is transparent too.
    const BORDER_PX: usize = 2;

    pub(super) fn new(foreground: Foreground, canvas: &Canvas) -> Self {
        let border = Self::BORDER_PX;
        let x0 = foreground.x0_px as isize - border as isize;
        let y0 = foreground.y0_px as isize - border as isize;
        let width = foreground.x1_px - foreground.x0_px + 2 * border;
        let height = foreground.y1_px - foreground.y0_px + 2 * border;
        let rgba = foreground.rgba.as_chunks::<4>().0;
        let texture = Texture::from_fn(width, height, |x, y| {
            let (x, y) = (x as isize + x0, y as isize + y0);
            let inside =
                x >= 0 && y >= 0 && (x as usize) < canvas.width_px && (y as usize) < canvas.height_px;
            if inside { rgba[y as usize * canvas.width_px + x as usize] } else { [0; 4] }
        });
        let spans = (0..height as isize).map(|y| {
            let row = (y + y0) as usize;
            let inside = y + y0 >= 0 && row < canvas.height_px;
            let set = |p: &[i16; 4]| p.iter().any(|&v| v != 0);
            let row = if inside { &rgba[row * canvas.width_px..][..canvas.width_px] } else { &[] };
            let (first, last) = (row.iter().position(set), row.iter().rposition(set));
            let column = |x: usize| (x as isize - x0) as f32;
            first.zip(last).map_or((f32::MAX, f32::MIN), |(first, last)| (column(first), column(last)))
        });
        let spans = spans.collect();
        Self {
            texture,
            spans,
            disparity: foreground.disparity,
            x0_px: x0 as f32,
            y0_px: y0 as f32,
            width_px: width as f32,
            height_px: height as f32,
        }
    }

    /// The foreground at places of the frame, in the units of [`Foreground`].
    pub(super) fn sample(&self, x: &[f32], y: &[f32], margin_px: (f32, f32), out: &mut [[f32; 4]]) {
        let moved = |at: &[f32], by: f32| at.iter().map(|v| v + by).collect::<Vec<f32>>();
        let (x, y) = (moved(x, margin_px.0 - self.x0_px), moved(y, margin_px.1 - self.y0_px));
        i16::fetch(&self.texture, Row { x: &x, y: &y, sharpness: -0.5 }, out);
    }

    /// Composes the foreground at `scratch`'s coordinates over `scratch.pixels`, touching only where it is, with
    /// a share of the picture's detail; `shaded` multiplies its light by `scratch.values`.
    fn over(&self, sharpness: f32, detail: Option<(&Detail, f32)>, shaded: bool, scratch: &mut Scratch) {
        scratch.x.iter_mut().for_each(|x| *x -= self.x0_px);
        scratch.y.iter_mut().for_each(|y| *y -= self.y0_px);
        let hits = |k: &usize| {
            let (x, y) = (scratch.x[*k], scratch.y[*k]);
            x > -1.0 && x < self.width_px && y > -1.0 && y < self.height_px
        };
        let width = scratch.x.len();
        let Some(first) = (0..width).find(hits) else { return };
        let end = (0..width).rev().find(hits).map_or(first, |last| last + 1);
        let std::ops::Range { start: first, end } = self.narrowed(scratch, first..end);
        let at = Row { x: &scratch.x[first..end], y: &scratch.y[first..end], sharpness };
        let [front, found, _] = &mut scratch.fetched;
        let (front, found) = (&mut front[first..end], &mut found[first..end]);
        i16::fetch(&self.texture, at, front);
        if let Some((detail, share)) = detail {
            let (x, y) = (&mut scratch.x[first..end], &mut scratch.y[first..end]);
            detail.fetch(x, y, (self.x0_px, self.y0_px), found);
            detail::add_to_subject(found, share, front);
        }
        let light = if shaded { Some(&scratch.values[first..end]) } else { None };
        lay_over(front, light, &mut scratch.pixels[first..end], &mut scratch.covered[first..end]);
    }

    /// Narrows a part of the row to where the foreground's rows hold anything.
    fn narrowed(&self, scratch: &Scratch, part: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let rows = &scratch.y[part.clone()];
        let (low, high) = rows.iter().fold((f32::MAX, f32::MIN), |(l, h), &y| (l.min(y), h.max(y)));
        // A cubic tap reaches two texels.
        let last = self.spans.len() - 1;
        let (top, bottom) = ((low - 2.0).max(0.0) as usize, ((high + 2.0).max(0.0) as usize).min(last));
        let widest = self.spans[top.min(last)..=bottom]
            .iter()
            .fold((f32::MAX, f32::MIN), |(l, h), span| (l.min(span.0), h.max(span.1)));
        let hits = |k: &usize| scratch.x[*k] > widest.0 - 3.0 && scratch.x[*k] < widest.1 + 3.0;
        let first = part.clone().find(hits).unwrap_or(part.end);
        first..part.clone().rev().find(hits).map_or(first, |k| k + 1)
    }
}

/// Lays a premultiplied row over pixels, in the units of [`Foreground`]; writes what it covers, 0..1.
#[multiversion(targets("x86_64+avx2+fma"))]
#[allow(unsafe_code)]
fn lay_over(front: &[[f32; 4]], light: Option<&[f32]>, pixels: &mut [[f32; 4]], covered: &mut [f32]) {
    const ALPHA: f32 = 1.0 / Foreground::ONE as f32;
    const COLOUR: f32 = 255.0 * ALPHA;
    for (k, ((over, pixel), covered)) in front.iter().zip(pixels).zip(covered).enumerate() {
        *covered = (over[3] * ALPHA).clamp(0.0, 1.0);
        let light = light.map_or(1.0, |light| 1.0 + *covered * (light[k] - 1.0));
        let (gain, through) = (COLOUR * light, 1.0 - *covered);
        for c in 0..3 {
            pixel[c] = (over[c] * gain + pixel[c] * through).clamp(0.0, 255.0);
        }
    }
}
