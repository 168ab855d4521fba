//! One row of one instant, back to front: background, what flows in it, light, far weather, foreground, near weather.

use super::super::camera::smoothstep;
use super::super::overlays::{Line, Overlays};
use super::super::scene::{Canvas, Foreground, Map};
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
    cells: Vec<f32>,
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
            cutout.over(instant.sharpness, shaded, scratch);
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
        Self {
            texture,
            disparity: foreground.disparity,
            x0_px: x0 as f32,
            y0_px: y0 as f32,
            width_px: width as f32,
            height_px: height as f32,
        }
    }

    /// Composes the foreground at `scratch`'s coordinates over `scratch.pixels`, touching only where it is;
    /// `shaded` multiplies its light by `scratch.values`.
    fn over(&self, sharpness: f32, shaded: bool, scratch: &mut Scratch) {
        scratch.x.iter_mut().for_each(|x| *x -= self.x0_px);
        scratch.y.iter_mut().for_each(|y| *y -= self.y0_px);
        let hits = |k: &usize| {
            let (x, y) = (scratch.x[*k], scratch.y[*k]);
            x > -1.0 && x < self.width_px && y > -1.0 && y < self.height_px
        };
        let width = scratch.x.len();
        let Some(first) = (0..width).find(hits) else { return };
        let end = (0..width).rev().find(hits).map_or(first, |last| last + 1);
        let at = Row { x: &scratch.x[first..end], y: &scratch.y[first..end], sharpness };
        let front = &mut scratch.fetched[0][first..end];
        i16::fetch(&self.texture, at, front);
        let (colour, alpha) = (255.0 / f32::from(Foreground::ONE), 1.0 / f32::from(Foreground::ONE));
        for (k, over) in (first..end).zip(front) {
            let covered = (over[3] * alpha).clamp(0.0, 1.0);
            let light = if shaded { 1.0 + covered * (scratch.values[k] - 1.0) } else { 1.0 };
            scratch.covered[k] = covered;
            let pixel = &mut scratch.pixels[k];
            for c in 0..3 {
                pixel[c] = (over[c] * colour * light + pixel[c] * (1.0 - covered)).clamp(0.0, 255.0);
            }
        }
    }
}
