//! Scene, plan and path become frames: solve where each pixel comes from, fetch, compose, finish.
//!
//! Always true: the frame at rest is the fitted picture bit for bit; a frame is a function of its index alone,
//! rows are computed apart, so neither order nor number of threads can show.

mod fetch;
#[cfg(target_arch = "x86_64")]
mod fetch_x86;
mod solve;
mod texture;

use rayon::prelude::*;

use super::camera::{CameraPath, Pose};
use super::finish::{Finish, FrameFinish};
use super::prompt::Plan;
use super::scene::{Canvas, Foreground, Map, Scene};
use fetch::{Row, Texel};
pub(crate) use solve::{Frame, View, nearness};
use solve::{Grid, Layer};
use texture::Texture;

/// Rows that one thread computes at a time.
const BAND_ROWS: usize = 8;
/// The fetch's sharpness at rest, and how much sharper it gets as the view magnifies: enlarging softens.
const SHARPNESS: f32 = -0.6;
const SHARPNESS_PER_MAGNIFICATION: f32 = -1.2;
const SHARPEST: f32 = -0.85;

/// Renders the frames of one clip.
#[derive(Debug)]
pub(crate) struct Renderer {
    frame: Frame,
    background: Texture<u8>,
    background_disparity: Map,
    cutout: Option<Cutout>,
    path: CameraPath,
    finish: Finish,
}

/// The foreground, cropped to where it is.
#[derive(Debug)]
struct Cutout {
    texture: Texture<i16>,
    disparity: Map,
    /// Canvas position of the texture's first pixel.
    x0_px: f32,
    y0_px: f32,
    width_px: f32,
    height_px: f32,
}

/// Buffers of one thread.
#[derive(Debug)]
struct Scratch {
    x: Vec<f32>,
    y: Vec<f32>,
    cells: Vec<f32>,
    pixels: Vec<[f32; 4]>,
    front: Vec<[f32; 4]>,
}

impl Scratch {
    fn new(width_px: usize) -> Self {
        let floats = || vec![0.0; width_px];
        let pixels = || vec![[0.0; 4]; width_px];
        Self { x: floats(), y: floats(), cells: Vec::new(), pixels: pixels(), front: pixels() }
    }
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

impl Renderer {
    /// Readies `scene` for `frames_count` frames of `plan`.
    pub(crate) fn new(scene: Scene, plan: &Plan, frames_count: usize) -> Self {
        let frame = Frame::of(&scene.canvas);
        let path = CameraPath::new(plan, &scene, &frame, frames_count);
        let width = scene.canvas.width_px;
        let rgb = scene.background.rgb.as_chunks::<3>().0;
        let background = Texture::from_fn(width, scene.canvas.height_px, |x, y| {
            let [r, g, b] = rgb[y * width + x];
            [r, g, b, 255]
        });
        let cutout = scene.foreground.map(|foreground| Cutout::new(foreground, &scene.canvas));
        Self {
            frame,
            background,
            background_disparity: scene.background.disparity,
            cutout,
            path,
            finish: Finish::new(plan.seed, plan.grain),
        }
    }

    /// Renders frame `index` into `rgb`, `[H, W, 3]`.
    pub(crate) fn frame(&self, index: usize, rgb: &mut [u8]) {
        let pose = self.path.at(index as f32);
        let view = View::new(&pose, self.frame.width_px);
        let plain = |disparity| Layer { disparity, movement: None, extra: &[] };
        let back = Grid::solve(&self.frame, &view, &plain(&self.background_disparity));
        let front =
            self.cutout.as_ref().map(|cutout| Grid::solve(&self.frame, &view, &plain(&cutout.disparity)));
        let instant = Instant { back, front, sharpness: sharpness(&pose), finish: self.finish.frame(index) };
        let row_bytes = self.frame.width_px * 3;
        rgb.par_chunks_mut(row_bytes * BAND_ROWS).enumerate().for_each_init(
            || Scratch::new(self.frame.width_px),
            |scratch, (band, rgb)| {
                for (row, rgb) in rgb.chunks_exact_mut(row_bytes).enumerate() {
                    let y = band * BAND_ROWS + row;
                    self.compose(y, &instant, scratch);
                    instant.finish.row(y, &scratch.pixels, rgb);
                }
            },
        );
    }

    /// Composes row `y` into `scratch.pixels`.
    fn compose(&self, y: usize, instant: &Instant<'_>, scratch: &mut Scratch) {
        self.place(y, &instant.back, scratch);
        let at = Row { x: &scratch.x, y: &scratch.y, sharpness: instant.sharpness };
        u8::fetch(&self.background, at, &mut scratch.pixels);
        if let (Some(cutout), Some(grid)) = (&self.cutout, &instant.front) {
            self.place(y, grid, scratch);
            cutout.over(instant.sharpness, scratch);
        }
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
}

/// What the rows of one frame share.
struct Instant<'a> {
    back: Grid,
    front: Option<Grid>,
    sharpness: f32,
    finish: FrameFinish<'a>,
}

impl Cutout {
    /// Transparent pixels kept around the foreground, so that its rim is transparent too.
    const BORDER_PX: usize = 2;

    fn new(foreground: Foreground, canvas: &Canvas) -> Self {
        let border = Self::BORDER_PX;
        let (x0, y0) =
            (foreground.x0_px as isize - border as isize, foreground.y0_px as isize - border as isize);
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

    /// Composes the foreground at `scratch`'s coordinates over `scratch.pixels`, touching only where it is.
    fn over(&self, sharpness: f32, scratch: &mut Scratch) {
        for x in &mut scratch.x {
            *x -= self.x0_px;
        }
        for y in &mut scratch.y {
            *y -= self.y0_px;
        }
        let hits = |k: &usize| {
            let (x, y) = (scratch.x[*k], scratch.y[*k]);
            x > -1.0 && x < self.width_px && y > -1.0 && y < self.height_px
        };
        let width = scratch.x.len();
        let Some(first) = (0..width).find(hits) else { return };
        let end = (0..width).rev().find(hits).map_or(first, |last| last + 1);
        let at = Row { x: &scratch.x[first..end], y: &scratch.y[first..end], sharpness };
        let front = &mut scratch.front[first..end];
        i16::fetch(&self.texture, at, front);
        let (colour, alpha) = (255.0 / f32::from(Foreground::ONE), 1.0 / f32::from(Foreground::ONE));
        for (pixel, over) in scratch.pixels[first..end].iter_mut().zip(front) {
            let through = 1.0 - (over[3] * alpha).clamp(0.0, 1.0);
            for c in 0..3 {
                pixel[c] = (over[c] * colour + pixel[c] * through).clamp(0.0, 255.0);
            }
        }
    }
}

/// The fetch's sharpness for a pose: more where the view magnifies.
fn sharpness(pose: &Pose) -> f32 {
    let typical = 1.0 - pose.tz * nearness(0.5);
    let magnification = pose.cover * (1.0 + pose.zoom) / typical.max(0.2);
    (SHARPNESS + SHARPNESS_PER_MAGNIFICATION * (magnification - 1.0).max(0.0)).max(SHARPEST)
}

#[cfg(test)]
mod tests;
