//! The sky: smooth, sky-coloured, reaching down from the frame's top; and the horizon below it.
//!
//! Always true: the mask is 0 or 1 and every part of it touches the top; the confidence is 0..1.

use super::map::{Map, percentile_of, ramp};
use super::morphology::{Components, dilated, eroded};
use super::study::Study;
use super::superpixels::squared_distance;

/// Mean slope of luma per pixel above which a place is not smooth enough to start from, and to belong.
const SEED_SLOPE: f32 = 0.022;
const MEMBER_SLOPE: f32 = 0.09;
/// How many spreads of a row's sky colour still belong.
const MEMBER_SPREADS: f32 = 2.2;
/// Half of the widest gap through which a sky does not go on, in pixels.
const NARROW_RADIUS: usize = 4;
/// The horizon of a sky, in frame heights from the top.
const HORIZON_MIN: f32 = 0.2;
const HORIZON_MAX: f32 = 0.75;

#[derive(Debug)]
pub(crate) struct Sky {
    pub(crate) mask: Map,
    pub(crate) confidence: f32,
    /// Frame heights from the top; only where there is a sky.
    pub(crate) horizon: Option<f32>,
}

impl Sky {
    pub(crate) fn of(study: &Study) -> Self {
        let none = Self { mask: study.map(|_| 0.0), confidence: 0.0, horizon: None };
        let slope = study.slope_x.zip(&study.slope_y, f32::hypot).blurred(2.0);
        let top_rows = (study.height / 20).clamp(3.min(study.height), study.height);
        let Some(seeds) = seeds(study, &slope, top_rows) else { return none };
        let mask = grown(study, &slope, &seeds, top_rows);
        let confidence = confidence(study, &mask, &slope, top_rows);
        let horizon = (confidence > 0.3).then(|| horizon(&mask)).flatten();
        Self { mask, confidence, horizon }
    }

    /// `mask` and the small things that stick out of it into the sky: spires, masts, finials.
    pub(crate) fn with_spires(&self, mask: &Map) -> Map {
        const SIZE_MAX: f32 = 0.006;
        /// Width of the rim between a subject and the sky that neither mask holds.
        const RIM: usize = 2;
        if !self.is_found() {
            return mask.clone();
        }
        let width = mask.width;
        let open = |i: usize| mask.data[i] < 0.5 && self.mask.data[i] < 0.5;
        let rim = dilated(mask, RIM);
        let parts = Components::of(width, mask.height, |i| open(i) && rim.data[i] < 0.5);
        let near = dilated(mask, RIM + 1);
        let mut touches = vec![false; parts.sizes.len()];
        for (i, &part) in parts.labels.iter().enumerate() {
            touches[part as usize] |= near.data[i] > 0.5;
        }
        let small = (SIZE_MAX * mask.data.len() as f32) as usize;
        let spires = dilated(&parts.mask(width, |l| l > 0 && touches[l] && parts.sizes[l] < small), RIM + 1);
        Map::from_fn(width, mask.height, |x, y| {
            let i = y * width + x;
            if open(i) { spires.data[i] } else { mask.data[i] }
        })
    }

    /// Whether there is a sky to rely on.
    pub(crate) fn is_found(&self) -> bool {
        self.confidence > 0.3
    }
}

/// Smooth sky-coloured places that hang together with a good part of the top.
fn seeds(study: &Study, slope: &Map, top_rows: usize) -> Option<Map> {
    let candidates = study.map(|i| {
        let [hue, saturation, value] = study.hsv.at(i);
        let v = study.v(i / study.width);
        let blue = hue > 175.0 && hue < 265.0 && saturation > 0.08;
        let grey = saturation < 0.16 && value > 0.35;
        let warm = !(60.0..=300.0).contains(&hue) && value > 0.35 && v < 0.6;
        let leafy = hue > 60.0 && hue < 165.0 && saturation > 0.15;
        f32::from(u8::from(slope.data[i] < SEED_SLOPE && (blue || grey || warm) && !leafy))
    });
    let closed = eroded(&dilated(&candidates, 2), 2);
    let parts = Components::of(study.width, study.height, |i| closed.data[i] > 0.5);
    let top = top_rows * study.width;
    let mut at_top = vec![0usize; parts.sizes.len()];
    parts.labels[..top].iter().for_each(|&l| at_top[l as usize] += 1);
    let seeds = parts.mask(study.width, |l| at_top[l] as f32 > 0.05 * top as f32);
    (seeds.mean() > 0.03).then_some(seeds)
}

/// The seeds and what has their colour in nearby rows, down to the first long stretch of something else.
fn grown(study: &Study, slope: &Map, seeds: &Map, top_rows: usize) -> Map {
    let (width, height) = (study.width, study.height);
    let lowest = seeds.data.iter().rposition(|&v| v > 0.5).map_or(0, |i| i / width);
    let models = row_models(study, seeds);
    let likely = study.map(|i| {
        let y = i / width;
        if y >= lowest + 4 {
            return 0.0;
        }
        let Some((mean, spread)) = models[y] else { return seeds.data[i] };
        let d2 = squared_distance(study.lab.at(i), mean) / (spread * MEMBER_SPREADS).powi(2);
        let near = (-d2).exp() > 0.5 && slope.data[i] < MEMBER_SLOPE;
        seeds.data[i].max(f32::from(u8::from(near)))
    });
    // Closing brings in small clouds, and would bring in masts and spires.
    let closed = eroded(&dilated(&likely, 3), 3).zip(&thin_and_dark(study), |c, dark| c * (1.0 - dark));
    let parts = Components::of(width, height, |i| closed.data[i] > 0.5);
    let mut at_top = vec![false; parts.sizes.len()];
    parts.labels[..top_rows * width].iter().for_each(|&l| at_top[l as usize] = true);
    let mask = parts.mask(width, |l| at_top[l]);
    // What hangs on by a narrow gap only, between trees or below an arch, is water or ground.
    let wide = eroded(&mask, NARROW_RADIUS);
    let parts = Components::of(width, height, |i| wide.data[i] > 0.5);
    let mut at_top = vec![false; parts.sizes.len()];
    parts.labels[..top_rows * width].iter().for_each(|&l| at_top[l as usize] = true);
    let reached = dilated(&parts.mask(width, |l| at_top[l]), NARROW_RADIUS + 1);
    mask.zip(&reached, |m, r| m * r)
}

/// 1 where something narrow is clearly darker than what is on both sides: things, where clouds would be soft.
fn thin_and_dark(study: &Study) -> Map {
    const RADIUS: usize = 4;
    const STEP: f32 = 9.0;
    let lightness = study.lab.0[0].blurred(0.5);
    let without = eroded(&dilated(&lightness, RADIUS), RADIUS);
    dilated(&without.zip(&lightness, |w, l| f32::from(u8::from(w - l > STEP))), 1)
}

/// Mean Lab and spread of the seeds around each row; rows without seeds take those of the row above.
fn row_models(study: &Study, seeds: &Map) -> Vec<Option<([f32; 3], f32)>> {
    let (width, height) = (study.width, study.height);
    // count, sums, sums of squares per row
    let rows: Vec<[f32; 7]> = (0..height)
        .map(|y| {
            let mut s = [0.0f32; 7];
            for i in y * width..(y + 1) * width {
                if seeds.data[i] > 0.5 {
                    let lab = study.lab.at(i);
                    s[0] += 1.0;
                    (0..3).for_each(|c| {
                        s[1 + c] += lab[c];
                        s[4 + c] += lab[c] * lab[c];
                    });
                }
            }
            s
        })
        .collect();
    let reach = height / 16;
    let mut last = None;
    (0..height)
        .map(|y| {
            let mut s = [0.0f32; 7];
            for row in &rows[y.saturating_sub(reach)..(y + reach + 1).min(height)] {
                s.iter_mut().zip(row).for_each(|(a, b)| *a += b);
            }
            if s[0] > 20.0 {
                let mean = [s[1] / s[0], s[2] / s[0], s[3] / s[0]];
                let deviation: f32 =
                    (0..3).map(|c| (s[4 + c] / s[0] - mean[c] * mean[c]).max(0.0).sqrt()).sum::<f32>() / 3.0;
                last = Some((mean, (2.0 * deviation).max(6.0)));
            }
            last
        })
        .collect()
}

/// A sky is neither tiny nor everything, holds the top, leaves the bottom, and looks like one.
fn confidence(study: &Study, mask: &Map, slope: &Map, top_rows: usize) -> f32 {
    let area = mask.mean();
    if area <= 0.0 || area >= 1.0 {
        return 0.0;
    }
    let share = |cells: std::ops::Range<usize>| {
        let count = cells.len().max(1);
        mask.data[cells].iter().filter(|&&v| v > 0.5).count() as f32 / count as f32
    };
    let at_top = share(0..top_rows * study.width);
    let below = share((study.height * 85 / 100) * study.width..study.area());
    let leaves_bottom = if area < 0.8 { ramp(0.3 - below, 0.0, 0.2) } else { 1.0 };
    let looks = Looks::of(study, mask, slope).evidence();
    ramp(area, 0.03, 0.09)
        * ramp(at_top, 0.15, 0.45)
        * leaves_bottom
        * ramp(0.985 - area, 0.0, 0.03)
        * ramp(looks, 0.2, 0.6)
}

/// What tells a sky from a wall, a table or fur.
#[derive(Debug)]
struct Looks {
    /// Mean L and b of Lab in the mask, and how much lighter that is than the rest.
    lightness: f32,
    yellow: f32,
    lighter: f32,
    /// Mean slope in the mask, and over that of the rest.
    slope: f32,
    slope_ratio: f32,
    /// Shares of the mask.
    blue: f32,
    grey: f32,
    dark_teal: f32,
    /// Share of the lower edge at which the colour really changes.
    edged: f32,
}

impl Looks {
    fn of(study: &Study, mask: &Map, slope: &Map) -> Self {
        let inside = |i: usize| mask.data[i] > 0.5;
        let mean = |side: bool, value: &dyn Fn(usize) -> f32| {
            let cells = (0..study.area()).filter(|&i| inside(i) == side);
            let (sum, count) = cells.fold((0.0, 0.0f32), |(sum, count), i| (sum + value(i), count + 1.0));
            sum / count.max(1.0)
        };
        let share = |is: &dyn Fn([f32; 3]) -> bool| mean(true, &|i| f32::from(u8::from(is(study.lab.at(i)))));
        let lightness = mean(true, &|i| study.lab.at(i)[0]);
        let mean_slope = mean(true, &|i| slope.data[i]);
        Self {
            lightness,
            yellow: mean(true, &|i| study.lab.at(i)[2]),
            lighter: lightness - mean(false, &|i| study.lab.at(i)[0]),
            slope: mean_slope,
            slope_ratio: mean_slope / mean(false, &|i| slope.data[i]).max(1e-6),
            blue: share(&|[_, a, b]| b < -4.0 && a > -14.0),
            grey: share(&|[_, a, b]| a.hypot(b) < 9.0),
            dark_teal: share(&|[l, a, _]| a < -8.0 && l < 45.0),
            edged: edged(study, mask),
        }
    }

    /// About 0 (none) to 1; set on photos of skies, studio walls, wood, fur, leaves and blossoms.
    fn evidence(&self) -> f32 {
        let other = 1.0 - self.blue;
        let for_it = 0.5 * self.blue
            + 0.35 * ramp(self.lighter, 5.0, 25.0)
            + 0.45 * ramp(self.edged, 0.4, 0.8)
            + if self.slope_ratio < 0.4 { 0.15 } else { 0.0 };
        let against = 0.5 * ramp(self.slope_ratio, 0.6, 0.9)
            + 0.5 * ramp(self.slope, 0.022, 0.03)
            + 0.5 * other * ramp(self.slope, 0.015, 0.022)
            + 0.6 * ramp(self.yellow, 35.0, 55.0)
            + 0.4 * self.grey * ramp(-self.lighter, -15.0, -5.0)
            + 0.7 * self.grey * ramp(self.slope, 0.008, 0.013)
            + 0.5 * other * ramp(-self.lighter, 8.0, 20.0)
            + 0.5 * self.dark_teal;
        (for_it - against) * ramp(self.lightness, 8.0, 16.0)
    }
}

/// Share of the columns whose lowest sky ends at a change of colour rather than by decree.
fn edged(study: &Study, mask: &Map) -> f32 {
    const REACH: usize = 4;
    const CHANGE: f32 = 8.0;
    let (mut ends, mut real) = (0.0f32, 0.0f32);
    for x in 0..study.width {
        let Some(y) = (0..study.height).rev().find(|&y| mask.at(x, y) > 0.5) else { continue };
        if y + REACH >= study.height {
            continue;
        }
        let above = study.lab.at(y.saturating_sub(REACH) * study.width + x);
        let below = study.lab.at((y + REACH) * study.width + x);
        ends += 1.0;
        real += f32::from(u8::from(squared_distance(above, below).sqrt() > CHANGE));
    }
    if ends > 0.0 { real / ends } else { 0.5 }
}

/// 70th percentile of the columns' lowest sky.
fn horizon(mask: &Map) -> Option<f32> {
    let mut lowest: Vec<f32> = (0..mask.width)
        .filter_map(|x| (0..mask.height).rev().find(|&y| mask.at(x, y) > 0.5))
        .map(|y| y as f32 / (mask.height - 1).max(1) as f32)
        .collect();
    if lowest.len() * 10 <= mask.width {
        return None;
    }
    percentile_of(&mut lowest, 0.7).map(|v| v.clamp(HORIZON_MIN, HORIZON_MAX))
}
