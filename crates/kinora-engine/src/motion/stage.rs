//! A stage for the tests: a drawn scene whose depth, layers and masks are known because it was made from them.
//!
//! Sky with clouds over hills, a lake or a stream, a strip of grass, and a ball that stands before it all.

use super::fields::smooth_noise;
use super::scene::{Background, Canvas, Foreground, Found, Map, Regions, Scene};
use crate::rng::Noise;

/// What the stage holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) width_px: usize,
    pub(super) height_px: usize,
    pub(super) ball: bool,
    pub(super) stream: bool,
    /// Whether the canvas goes on beyond the frame.
    pub(super) margin: bool,
}

impl Default for Stage {
    fn default() -> Self {
        Self { width_px: 480, height_px: 272, ball: true, stream: false, margin: true }
    }
}

/// Heights in frame heights.
const SKYLINE: f32 = 0.45;
const SHORE: f32 = 0.52;
const BANK: f32 = 0.84;
const BALL: (f32, f32, f32) = (0.42, 0.58, 0.17);
const STREAM: (f32, f32) = (0.66, 0.10);

impl Stage {
    pub(super) fn canvas(&self) -> Canvas {
        let margin = if self.margin { self.width_px / 10 / 4 * 4 } else { 0 };
        Canvas {
            width_px: self.width_px + 2 * margin,
            height_px: self.height_px + 2 * margin,
            margin_x_px: margin,
            margin_y_px: margin,
        }
    }

    /// From canvas pixels to frame widths and heights.
    fn share(&self, x: f32, y: f32) -> (f32, f32) {
        let canvas = self.canvas();
        (
            (x - canvas.margin_x_px as f32) / self.width_px as f32,
            (y - canvas.margin_y_px as f32) / self.height_px as f32,
        )
    }

    fn skyline(u: f32) -> f32 {
        SKYLINE - 0.05 * (u * 9.0).sin() - 0.03 * (u * 23.0).cos()
    }

    fn in_ball(&self, u: f32, v: f32) -> bool {
        let aspect = self.height_px as f32 / self.width_px as f32;
        self.ball && (u - BALL.0).hypot((v - BALL.1) * aspect) < BALL.2 * aspect
    }

    /// Which thing of the background is at (u, v).
    fn is_sky(u: f32, v: f32) -> bool {
        v < Self::skyline(u)
    }

    fn is_water(&self, _: f32, v: f32) -> bool {
        !self.stream && (SHORE..BANK).contains(&v)
    }

    fn is_stream(&self, u: f32, v: f32) -> bool {
        self.stream && v > SHORE && (u - STREAM.0 - 0.06 * (v * 9.0).sin()).abs() < STREAM.1 * (0.5 + v)
    }

    fn mask(&self, inside: impl Fn(f32, f32) -> bool + Sync) -> Map {
        let canvas = self.canvas();
        Map::from_fn(canvas.width_px / 2, canvas.height_px / 2, |x, y| {
            let (u, v) = self.share(2.0 * x as f32 + 0.5, 2.0 * y as f32 + 0.5);
            if inside(u, v) { 1.0 } else { 0.0 }
        })
    }

    /// The scene, and the picture it is a scene of.
    pub(super) fn build(&self) -> (Scene, Vec<u8>) {
        let canvas = self.canvas();
        let (width, height) = (canvas.width_px, canvas.height_px);
        let texture = smooth_noise(Noise::new(5, "texture"), width, height, 22.0, 4);
        let clouds = smooth_noise(Noise::new(6, "clouds"), width, height, 60.0, 4);
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                let (u, v) = self.share(x as f32, y as f32);
                let base = if Self::is_sky(u, v) {
                    let cloud = 60.0 * clouds.at(x, y).clamp(-1.0, 2.0);
                    [110.0 + cloud, 140.0 + cloud, 190.0 + 0.5 * cloud]
                } else if self.is_water(u, v) || self.is_stream(u, v) {
                    [60.0, 95.0, 130.0].map(|c| c + 26.0 * texture.at(x, y))
                } else if v > BANK {
                    [70.0, 120.0, 50.0].map(|c| c + 35.0 * texture.at(x, y))
                } else {
                    [120.0, 105.0, 90.0].map(|c| c + 30.0 * texture.at(x, y))
                };
                rgb.extend(base.map(|c: f32| c.clamp(0.0, 255.0) as u8));
            }
        }
        let disparity = Map::from_fn(width / 4, height / 4, |x, y| {
            let (u, v) = self.share(4.0 * x as f32 + 1.5, 4.0 * y as f32 + 1.5);
            if Self::is_sky(u, v) {
                0.03
            } else {
                (0.1 + 0.8 * ((v - SKYLINE) / (1.0 - SKYLINE)).max(0.0)).min(0.95)
            }
        })
        .blurred(1.5);
        let foreground = self.ball.then(|| self.foreground(&texture));
        let picture = self.composed(&rgb, foreground.as_ref());
        let regions = Regions {
            sky: Some(self.mask(Self::is_sky)),
            water: (!self.stream).then(|| self.mask(|u, v| self.is_water(u, v))),
            stream: self.stream.then(|| self.mask(|u, v| self.is_stream(u, v))),
            vegetation: Some(self.mask(|u, v| v > BANK && !self.is_stream(u, v))),
            horizon: Some(SKYLINE),
            ..Regions::default()
        };
        let background = Background { rgb, disparity };
        (Scene { canvas, background, foreground, regions, found: Found::default() }, picture)
    }

    fn foreground(&self, texture: &Map) -> Foreground {
        let canvas = self.canvas();
        let one = i32::from(Foreground::ONE);
        let mut rgba = vec![0i16; canvas.width_px * canvas.height_px * 4];
        let (mut x0, mut y0, mut x1, mut y1) = (usize::MAX, usize::MAX, 0, 0);
        for y in 0..canvas.height_px {
            for x in 0..canvas.width_px {
                // Two by two samples soften the edge.
                let inside = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)]
                    .iter()
                    .filter(|(dx, dy)| {
                        let (u, v) = self.share(x as f32 + dx, y as f32 + dy);
                        self.in_ball(u, v)
                    })
                    .count() as i32;
                if inside == 0 {
                    continue;
                }
                (x0, y0, x1, y1) = (x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1));
                let light = 30.0 * texture.at(x, y);
                let pixel = &mut rgba[(y * canvas.width_px + x) * 4..][..4];
                for (c, base) in [205.0, 90.0, 60.0].into_iter().enumerate() {
                    let level = (base + light).clamp(0.0, 255.0) as i32;
                    // A little more than the level, so that no sum falls on a tie of the rounding.
                    pixel[c] = (level * 64 * inside / 4 + 3) as i16;
                }
                pixel[3] = (one * inside / 4) as i16;
            }
        }
        let disparity = Map::filled(canvas.width_px / 4, canvas.height_px / 4, 0.75);
        Foreground { rgba, disparity, x0_px: x0, y0_px: y0, x1_px: x1, y1_px: y1 }
    }

    /// The frame at rest.
    fn composed(&self, rgb: &[u8], foreground: Option<&Foreground>) -> Vec<u8> {
        let canvas = self.canvas();
        let one = f32::from(Foreground::ONE);
        let mut picture = Vec::with_capacity(self.width_px * self.height_px * 3);
        for y in 0..self.height_px {
            for x in 0..self.width_px {
                let at = (y + canvas.margin_y_px) * canvas.width_px + x + canvas.margin_x_px;
                for c in 0..3 {
                    let back = f32::from(rgb[at * 3 + c]);
                    let level = foreground.map_or(back, |foreground| {
                        let over = &foreground.rgba[at * 4..][..4];
                        f32::from(over[c]) * 255.0 / one + back * (1.0 - f32::from(over[3]) / one)
                    });
                    picture.push((level + 0.5) as u8);
                }
            }
        }
        picture
    }
}
