//! The canvas continued beyond the picture.
//!
//! Always true: inside its margins the canvas is the fitted picture, bit for bit.
//! Where the picture's rim is sharp the margin is made of its patches, with the fine detail of the places that
//! they come from. Where nothing is sharp colours go on as they came: point-reflected in the rim, so that neither
//! they nor their slopes have a seam, and held back as they leave what the rim had.

use rayon::prelude::*;

use super::Canvas;
use super::canvas::mirror;
use super::color::Planes;
use super::layers::{at_half, halved};
use super::map::{Map, smoothstep};
use super::patch_match::{Hole, complete};
use crate::Picture;

/// Grey levels times patch values per squared share of the longer side: see [`Hole`]. What lies far off does not
/// belong here.
const PENALTIES: (f32, f32) = (60_000.0, 25_000.0);
/// How much of the picture's finest detail goes on.
const DETAIL: f32 = 0.8;
/// From how far to how far beyond the rim the mirror's detail gives way to the patches', in pixels.
const SEAM_PX: (f32, f32) = (3.0, 14.0);
/// Blur of the colours that go on, in half-size pixels, and how far they may leave the rim's.
const SOFT_PX: f32 = 4.0;
const LEAVES_AT_MOST: f32 = 0.15;
/// Mean distance of a colour from its surroundings where nothing is sharp, and where something is.
const SHARP: (f32, f32) = (0.004, 0.010);

/// The margin at half of the canvas.
struct Margin<'a> {
    canvas: &'a Canvas,
    picture: &'a Picture,
    /// The picture at half size.
    small: Planes,
    /// The canvas, the margin included.
    half: Planes,
    calm: Calm,
    /// Which cell each cell was copied from.
    origins: Vec<u32>,
}

impl Canvas {
    fn frame(&self) -> (usize, usize) {
        (self.width_px - 2 * self.margin_x_px, self.height_px - 2 * self.margin_y_px)
    }

    /// `[H, W, 3]`: the picture, continued into the margin.
    pub(crate) fn outpainted(&self, picture: &Picture) -> Vec<u8> {
        let (width, height) = self.frame();
        let margin = Margin::of(self, picture);
        let mut rgb = self.mirrored(picture);
        let (columns, rows) =
            (self.margin_x_px..self.margin_x_px + width, self.margin_y_px..self.margin_y_px + height);
        rgb.par_chunks_mut(self.width_px * 3).enumerate().for_each(|(y, row)| {
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                if !(rows.contains(&y) && columns.contains(&x)) {
                    *pixel = margin.pixel(x, y);
                }
            }
        });
        rgb
    }
}

impl<'a> Margin<'a> {
    fn of(canvas: &'a Canvas, picture: &'a Picture) -> Self {
        let (width, height) = canvas.frame();
        let (mx, my) = (canvas.margin_x_px / 2, canvas.margin_y_px / 2);
        let (half_width, half_height) = (canvas.width_px / 2, canvas.height_px / 2);
        let small = halved(width, height, picture.rgb());
        let mirrored = small.each(|p| {
            Map::from_fn(half_width, half_height, |x, y| {
                let u = mirror(x as isize - mx as isize, width / 2);
                let v = mirror(y as isize - my as isize, height / 2);
                p.at(u, v)
            })
        });
        let fill = Map::from_fn(half_width, half_height, |x, y| {
            let inside = (mx..mx + width / 2).contains(&x) && (my..my + height / 2).contains(&y);
            f32::from(u8::from(!inside))
        });
        let known = mirrored.each(|p| p.zip(&fill, |v, hole| v * (1.0 - hole)));
        let (row_penalty, column_penalty) = PENALTIES;
        let patched = complete(&known, &Hole { fill: &fill, avoid: None, row_penalty, column_penalty });
        let calm = Calm::of(&mirrored, (mx, my));
        let half = Planes([0, 1, 2].map(|c| {
            let on = calm.continued(&mirrored.0[c]);
            let patched = &patched.picture.0[c];
            Map::from_fn(half_width, half_height, |x, y| {
                let (patch, on) = (patched.at(x, y), on.at(x, y));
                patch + calm.rim.at(x, y) * (on - patch)
            })
        }));
        Self { canvas, picture, small, half, calm, origins: patched.origins }
    }

    /// A pixel of the margin.
    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let cell = y / 2 * (self.canvas.width_px / 2) + x / 2;
        let rim = self.calm.rim.data[cell];
        // A patch brings its own detail, but at the rim itself only the mirror's has no seam.
        let copied = (1.0 - rim) * smoothstep(self.depth(x, y), SEAM_PX.0, SEAM_PX.1);
        let mirrored = DETAIL * (1.0 - copied) * (1.0 - rim * (1.0 - self.calm.here.data[cell]));
        let of_mirror = self.detail(self.mirrored(x, y));
        let of_copy = self.detail(self.copied(x, y));
        [0, 1, 2].map(|c| {
            let detail = mirrored * of_mirror[c] + DETAIL * copied * of_copy[c];
            // The cast clamps.
            ((at_half(&self.half.0[c], x, y) + detail) * 255.0 + 0.5) as u8
        })
    }

    /// A pixel of the picture less its own soft version.
    fn detail(&self, (u, v): (usize, usize)) -> [f32; 3] {
        let own = &self.picture.rgb()[(v * self.picture.width_px() as usize + u) * 3..][..3];
        [0, 1, 2].map(|c| f32::from(own[c]) / 255.0 - at_half(&self.small.0[c], u, v))
    }

    /// How far a place in the margin is from the picture, in pixels.
    fn depth(&self, x: usize, y: usize) -> f32 {
        let beyond = |v: usize, margin: usize, size: usize| {
            margin.saturating_sub(v).max((v + margin + 1).saturating_sub(size))
        };
        let across = beyond(x, self.canvas.margin_x_px, self.canvas.width_px);
        across.max(beyond(y, self.canvas.margin_y_px, self.canvas.height_px)) as f32
    }

    /// The picture's pixel that a mirror at the rim shows in the margin.
    fn mirrored(&self, x: usize, y: usize) -> (usize, usize) {
        let (width, height) = self.canvas.frame();
        let (mx, my) = (self.canvas.margin_x_px as isize, self.canvas.margin_y_px as isize);
        (mirror(x as isize - mx, width), mirror(y as isize - my, height))
    }

    /// The picture's pixel that the margin's patch was copied from.
    fn copied(&self, x: usize, y: usize) -> (usize, usize) {
        let (width, height) = self.canvas.frame();
        let columns = self.canvas.width_px / 2;
        let from = self.origins[y / 2 * columns + x / 2] as usize;
        let at = |cell: usize, odd: usize, margin: usize, size: usize| {
            (2 * cell + odd).saturating_sub(margin).min(size - 1)
        };
        (
            at(from % columns, x % 2, self.canvas.margin_x_px, width),
            at(from / columns, y % 2, self.canvas.margin_y_px, height),
        )
    }
}

/// Where nothing is sharp, 0..1, on a canvas that mirrors its inside into the margin.
struct Calm {
    margin: (usize, usize),
    /// At the place itself.
    here: Map,
    /// At the rim nearest to the place.
    rim: Map,
}

impl Calm {
    fn of(mirrored: &Planes, margin: (usize, usize)) -> Self {
        let sharpness = mirrored.each(|p| {
            let fine = p.blurred(0.8);
            fine.zip(&fine.blurred(3.0), |fine, soft| (fine - soft).abs()).blurred(8.0)
        });
        let [r, g, b] = &sharpness.0;
        let here = r.zip(g, f32::max).zip(b, f32::max).map(|d| 1.0 - smoothstep(d, SHARP.0, SHARP.1));
        let rim = Map::from_fn(here.width, here.height, |x, y| {
            let (u, v) = inward(&here, margin, x, y);
            here.at(u, v)
        });
        Self { margin, here, rim: rim.blurred(2.0) }
    }

    /// Colours that go on with the slope they had at the rim, and what detail the mirror shows of calm places.
    fn continued(&self, mirrored: &Map) -> Map {
        let (width, height) = (mirrored.width, mirrored.height);
        let (mx, my) = self.margin;
        let reflected = Map::from_fn(width, height, |x, y| {
            let (u, v) = inward(mirrored, self.margin, x, y);
            let (here, rim) = (mirrored.at(x, y), mirrored.at(u, v));
            let leaves = LEAVES_AT_MOST * ((rim - here) / LEAVES_AT_MOST).tanh();
            if (u, v) == (x, y) { here } else { rim + self.here.at(x, y) * leaves }
        });
        let soft = reflected.blurred(SOFT_PX);
        Map::from_fn(width, height, |x, y| {
            let u = mirror(x as isize - mx as isize, width - 2 * mx) + mx;
            let v = mirror(y as isize - my as isize, height - 2 * my) + my;
            soft.at(x, y) + self.here.at(x, y) * (mirrored.at(x, y) - soft.at(u, v))
        })
    }
}

/// The place inside the margins that is nearest to (x, y).
fn inward(map: &Map, (mx, my): (usize, usize), x: usize, y: usize) -> (usize, usize) {
    (x.clamp(mx, map.width - mx - 1), y.clamp(my, map.height - my - 1))
}
