//! What a large input shows and a frame's size cannot hold, for views that magnify: a push ends in real detail.
//!
//! The input is kept a second time at the size that the clip's closest view asks for, as its difference from the
//! fitted picture enlarged. Adding all of it to the enlarged picture gives the finer picture, none of it the
//! fitted one; in between it comes in as the view magnifies, like a level of a mip pyramid.
//! Always true: a view at rest gets none of it, so the first frame stays exact; beyond the frame it is 0; an
//! input without more pixels, or a path that does not magnify, makes none and costs nothing.
//! Source: Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", IEEE Trans. Comm. 1983.

use multiversion::multiversion;
use rayon::prelude::*;

use super::super::scene::{Foreground, finer};
use super::compose::Cutout;
use super::fetch::{Row, Texel};
use super::{Frame, SHARPNESS, Texture};
use crate::Picture;

/// Magnifications below this show no detail worth having.
const WORTH_FROM: f32 = 1.04;
/// Most texture pixels per frame pixel: bounds the memory to four frames.
const FINEST: f32 = 2.0;
/// Magnification at which all of the detail shows.
const WHOLE_AT: f32 = 1.10;
/// Steps of the texture per grey level, as in [`Foreground`].
const STEPS: f32 = 64.0;

#[derive(Debug)]
pub(super) struct Detail {
    /// Over the frame: the difference in steps, and in the fourth channel the subject's alpha as [`Foreground`] has it.
    texture: Texture<i16>,
    /// Texture pixels per frame pixel.
    scale: (f32, f32),
    margin_px: (f32, f32),
}

/// How much detail shows in a view that magnifies so.
pub(super) fn share(magnification: f32) -> f32 {
    ((magnification - 1.0) / (WHOLE_AT - 1.0)).clamp(0.0, 1.0)
}

impl Detail {
    /// `closest` is the largest magnification of the clip; None where nothing is to be had.
    pub(super) fn of(
        source: &Picture,
        fitted: &Picture,
        closest: f32,
        cutout: Option<&Cutout>,
        frame: &Frame,
    ) -> Option<Self> {
        let (width, height) = (fitted.width_px() as usize, fitted.height_px() as usize);
        let there = (source.width_px() as f32 / width as f32).min(source.height_px() as f32 / height as f32);
        let want = closest.min(there).min(FINEST);
        if want < WORTH_FROM {
            return None;
        }
        let side = |px: usize| (px as f32 * want).round() as u32;
        let fine = finer(source, fitted, (side(width), side(height)));
        let (fine_width, fine_height) = (fine.width_px() as usize, fine.height_px() as usize);
        let scale = (fine_width as f32 / width as f32, fine_height as f32 / height as f32);
        let rgb = fitted.rgb().as_chunks::<3>().0;
        let coarse = Texture::from_fn(width, height, |x, y| {
            let [r, g, b] = rgb[y * width + x];
            [r, g, b, 0]
        });
        let margin_px = (frame.margin_x_px as f32, frame.margin_y_px as f32);
        let mut difference = vec![[0i16; 4]; fine_width * fine_height];
        difference.par_chunks_exact_mut(fine_width).enumerate().for_each(|(y, row)| {
            let xs: Vec<f32> = (0..fine_width).map(|x| (x as f32 + 0.5) / scale.0 - 0.5).collect();
            let ys = vec![(y as f32 + 0.5) / scale.1 - 0.5; fine_width];
            let mut enlarged = vec![[0.0f32; 4]; fine_width];
            u8::fetch(&coarse, Row { x: &xs, y: &ys, sharpness: SHARPNESS }, &mut enlarged);
            let mut subject = vec![[0.0f32; 4]; fine_width];
            if let Some(cutout) = cutout {
                cutout.sample(&xs, &ys, margin_px, &mut subject);
            }
            let fine = &fine.rgb().as_chunks::<3>().0[y * fine_width..][..fine_width];
            // The outermost pixels stay 0: their values go on beyond the frame.
            if y == 0 || y + 1 == fine_height {
                return;
            }
            for x in 1..fine_width.saturating_sub(1) {
                let step = |c: usize| {
                    ((f32::from(fine[x][c]) - enlarged[x][c].clamp(0.0, 255.0)) * STEPS).round() as i16
                };
                let alpha = subject[x][3].clamp(0.0, f32::from(Foreground::ONE)) as i16;
                row[x] = [step(0), step(1), step(2), alpha];
            }
        });
        let texture = Texture::from_fn(fine_width, fine_height, |x, y| difference[y * fine_width + x]);
        Some(Self { texture, scale, margin_px })
    }

    /// The detail at canvas places (less `origin`), into `out`; `x` and `y` are overwritten.
    pub(super) fn fetch(&self, x: &mut [f32], y: &mut [f32], origin: (f32, f32), out: &mut [[f32; 4]]) {
        let place = |v: &mut f32, origin: f32, margin: f32, scale: f32| {
            *v = (*v + origin - margin + 0.5) * scale - 0.5;
        };
        x.iter_mut().for_each(|x| place(x, origin.0, self.margin_px.0, self.scale.0));
        y.iter_mut().for_each(|y| place(y, origin.1, self.margin_px.1, self.scale.1));
        i16::fetch(&self.texture, Row { x, y, sharpness: SHARPNESS }, out);
    }
}

const ALPHA: f32 = 1.0 / Foreground::ONE as f32;

/// Adds a share of the detail to background pixels (0..255): not that of the subject, which stands elsewhere now.
#[multiversion(targets("x86_64+avx2+fma"))]
#[allow(unsafe_code)]
pub(super) fn add_behind(detail: &[[f32; 4]], share: f32, pixels: &mut [[f32; 4]]) {
    for (pixel, detail) in pixels.iter_mut().zip(detail) {
        let gain = share / STEPS * (1.0 - (detail[3] * ALPHA).clamp(0.0, 1.0));
        for c in 0..3 {
            pixel[c] = (pixel[c] + gain * detail[c]).clamp(0.0, 255.0);
        }
    }
}

/// Adds a share of the subject's detail to its premultiplied pixels, both in steps.
#[multiversion(targets("x86_64+avx2+fma"))]
#[allow(unsafe_code)]
pub(super) fn add_to_subject(detail: &[[f32; 4]], share: f32, pixels: &mut [[f32; 4]]) {
    for (pixel, detail) in pixels.iter_mut().zip(detail) {
        let gain = share * (detail[3] * ALPHA).clamp(0.0, 1.0);
        for c in 0..3 {
            pixel[c] += gain * detail[c];
        }
    }
}
