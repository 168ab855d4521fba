//! From a cut-out in whole pixels to a soft outline: how much of each pixel is subject.
//!
//! Always true: 1 well inside the cut-out, 0 well outside, never NaN. Where the two sides do not differ in
//! colour the cut-out is trusted as it is.
//! Sources: He, Sun, Tang, "Guided image filtering", 2010 (section on matting); local colour models as in Ruzon,
//! Tomasi, "Alpha estimation in natural images", CVPR 2000.

use super::Canvas;
use super::color::Planes;
use super::guided::{Affine, Guide};
use super::map::{Map, ramp, smoothstep};
use super::morphology::{Components, dilated, distance};

/// Half of the unknown band, in half-size pixels at a frame of 1280.
const BAND_PX: f32 = 9.0;
/// Windows of the colour models, in bands.
const MODEL_BANDS: usize = 4;
/// Variance that no model falls below.
const VARIANCE_FLOOR: f32 = 0.003;
/// How far likelihood may overrule the cut-out.
const LIKELIHOOD_WEIGHT: f32 = 0.85;
const REFINE_RADIUS: usize = 6;
const REFINE_EPSILON: f32 = 1e-4;
/// The last refinement is computed at half size and applied at full size.
const FINISH_RADIUS: usize = 3;
const FINISH_EPSILON: f32 = 4e-4;

/// The matte at half of the canvas, ready to be applied at full size.
#[derive(Debug)]
pub(crate) struct Matte {
    affine: Affine,
    sure_inside: Map,
    sure_outside: Map,
    /// Alpha at half of the canvas.
    pub(crate) half: Map,
}

impl Matte {
    /// `mask` is the cut-out laid onto half of the canvas, `half` the canvas at half size.
    pub(crate) fn of(canvas: &Canvas, half: &Planes, mask: &Map) -> Self {
        let (width, height) = (mask.width, mask.height);
        let soft = mask.blurred(1.0).map(|v| smoothstep(v, 0.3, 0.7));
        let frame_width = (canvas.width_px - 2 * canvas.margin_x_px) as f32;
        let band = (BAND_PX * frame_width / 1280.0).round().max(4.0);
        let depth_inside = distance(width, height, |i| soft.data[i] > 0.5);
        let depth_outside = distance(width, height, |i| soft.data[i] <= 0.5);
        let sure_inside = depth_inside.map(|d| f32::from(u8::from(d > band)));
        let sure_outside = depth_outside.map(|d| f32::from(u8::from(d > band)));
        let likely = likelihood(half, &soft, &sure_inside, &sure_outside, band as usize);
        let calm = median5(&likely, |i| sure_inside.data[i] < 0.5 && sure_outside.data[i] < 0.5);
        let refined =
            Guide::new(half, REFINE_RADIUS, REFINE_EPSILON).filter(&calm).map(|a| ramp(a, 0.12, 0.88));
        let attached = attached(&refined, &sure_inside);
        let affine = Guide::new(half, FINISH_RADIUS, FINISH_EPSILON).affine(&attached);
        let applied = affine.apply(half);
        let half_alpha = Map::from_fn(width, height, |x, y| {
            let i = y * width + x;
            finished(applied.data[i], sure_inside.data[i], sure_outside.data[i])
        });
        Self { affine, sure_inside, sure_outside, half: half_alpha }
    }

    /// Alpha of a full-size canvas pixel of colour `rgb` (0..1).
    pub(crate) fn at(&self, x_px: usize, y_px: usize, rgb: [f32; 3]) -> f32 {
        let (i, j) = (x_px / 2, y_px / 2);
        let (inside, outside) = (self.sure_inside.at(i, j), self.sure_outside.at(i, j));
        if inside > 0.5 || outside > 0.5 {
            return finished(0.0, inside, outside);
        }
        let (x, y) = ((x_px as f32 - 0.5) / 2.0, (y_px as f32 - 0.5) / 2.0);
        let slope = [0, 1, 2].map(|c| self.affine.slope.0[c].bilinear(x, y));
        let value =
            slope[0] * rgb[0] + slope[1] * rgb[1] + slope[2] * rgb[2] + self.affine.offset.bilinear(x, y);
        finished(value, inside, outside)
    }
}

fn finished(value: f32, sure_inside: f32, sure_outside: f32) -> f32 {
    if sure_inside > 0.5 {
        1.0
    } else if sure_outside > 0.5 {
        0.0
    } else {
        ramp(value, 0.08, 0.92)
    }
}

/// In the unknown band: which side's colours, learned nearby, explain the pixel better.
fn likelihood(half: &Planes, soft: &Map, inside: &Map, outside: &Map, band: usize) -> Map {
    let side = |side: &Map| {
        let window = |m: &Map| m.box_blurred(MODEL_BANDS * band);
        let weight = window(side);
        let mean = half.each(|p| window(&p.zip(side, |v, s| v * s)).zip(&weight, |v, w| v / (w + 1e-4)));
        let energy = Map::from_fn(soft.width, soft.height, |x, y| {
            let i = y * soft.width + x;
            side.data[i] * half.at(i).iter().map(|v| v * v).sum::<f32>()
        });
        let square = window(&energy).zip(&weight, |v, w| v / (w + 1e-4));
        (weight, mean, square)
    };
    let ((fg_weight, fg_mean, fg_square), (bg_weight, bg_mean, bg_square)) =
        rayon::join(|| side(inside), || side(outside));
    let squared = |v: [f32; 3]| v.iter().map(|v| v * v).sum::<f32>();
    let difference = |a: [f32; 3], b: [f32; 3]| squared([a[0] - b[0], a[1] - b[1], a[2] - b[2]]);
    Map::from_fn(soft.width, soft.height, |x, y| {
        let i = y * soft.width + x;
        let cut = soft.data[i];
        if inside.data[i] > 0.5
            || outside.data[i] > 0.5
            || fg_weight.data[i] < 0.01
            || bg_weight.data[i] < 0.01
        {
            return cut;
        }
        let (fg, bg, color) = (fg_mean.at(i), bg_mean.at(i), half.at(i));
        let fg_variance = (fg_square.data[i] - squared(fg)).clamp(0.0, 3.0) + VARIANCE_FLOOR;
        let bg_variance = (bg_square.data[i] - squared(bg)).clamp(0.0, 3.0) + VARIANCE_FLOOR;
        let score = difference(color, fg) / fg_variance + 1.5 * fg_variance.ln()
            - difference(color, bg) / bg_variance
            - 1.5 * bg_variance.ln();
        let likely = 1.0 / (1.0 + (0.5 * score).clamp(-20.0, 20.0).exp());
        let apart = difference(fg, bg) / (fg_variance + bg_variance);
        let weight = LIKELIHOOD_WEIGHT * smoothstep(apart, 0.35, 1.4);
        cut * (1.0 - weight) + likely * weight
    })
}

/// Median of 5 x 5 where `unsure`, else as it is.
fn median5(map: &Map, unsure: impl Fn(usize) -> bool + Sync) -> Map {
    let (width, height) = (map.width, map.height);
    Map::from_fn(width, height, |x, y| {
        let i = y * width + x;
        if !unsure(i) {
            return map.data[i];
        }
        let mut window = [0.0f32; 25];
        let mut n = 0;
        for v in y.saturating_sub(2)..(y + 3).min(height) {
            for u in x.saturating_sub(2)..(x + 3).min(width) {
                window[n] = map.data[v * width + u];
                n += 1;
            }
        }
        *window[..n].select_nth_unstable_by(n / 2, f32::total_cmp).1
    })
}

/// Alpha only of what hangs together with the sure inside.
fn attached(alpha: &Map, sure_inside: &Map) -> Map {
    let parts = Components::of(alpha.width, alpha.height, |i| alpha.data[i] > 0.3);
    let mut keep = vec![false; parts.sizes.len()];
    for (&label, &sure) in parts.labels.iter().zip(&sure_inside.data) {
        keep[label as usize] |= sure > 0.5;
    }
    alpha.zip(&dilated(&parts.mask(alpha.width, |l| keep[l]), 3), |a, k| a * k)
}
