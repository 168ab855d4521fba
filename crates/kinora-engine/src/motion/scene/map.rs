//! Planes of floats and the plain operations on them: resampling, blurs, order statistics.
//!
//! Always true: every operation computes each output row from its inputs alone, so the result is the same
//! for any number of threads. Borders are replicated. Sums run left to right in f32 over short windows.

use rayon::prelude::*;

/// A plane of floats, row-major; what the values mean is said where a map is used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Map {
    pub width: usize,
    pub height: usize,
    pub data: Vec<f32>,
}

impl Map {
    pub(crate) fn filled(width: usize, height: usize, value: f32) -> Self {
        Self { width, height, data: vec![value; width * height] }
    }

    /// Fills each row by `row(y, out)`, rows in parallel.
    pub(crate) fn from_rows(width: usize, height: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let mut map = Self::filled(width, height, 0.0);
        map.data.par_chunks_mut(width.max(1)).enumerate().for_each(|(y, out)| row(y, out));
        map
    }

    /// Each value from its own place: `value(x, y)`.
    pub(crate) fn from_fn(width: usize, height: usize, value: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        Self::from_rows(width, height, |y, out| {
            for (x, v) in out.iter_mut().enumerate() {
                *v = value(x, y);
            }
        })
    }

    pub(crate) fn row(&self, y: usize) -> &[f32] {
        &self.data[y * self.width..(y + 1) * self.width]
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> f32 {
        self.data[y * self.width + x]
    }

    pub(crate) fn map(&self, f: impl Fn(f32) -> f32 + Sync) -> Self {
        Self::from_rows(self.width, self.height, |y, out| {
            for (o, &v) in out.iter_mut().zip(self.row(y)) {
                *o = f(v);
            }
        })
    }

    /// `f(self, other)` value by value; both maps have the same size.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32 + Sync) -> Self {
        assert_eq!((self.width, self.height), (other.width, other.height), "maps of one size");
        Self::from_rows(self.width, self.height, |y, out| {
            for ((o, &a), &b) in out.iter_mut().zip(self.row(y)).zip(other.row(y)) {
                *o = f(a, b);
            }
        })
    }

    /// Bilinear value at a place in cell units, where cell `(i, j)` is centred on `(i, j)`.
    pub(crate) fn bilinear(&self, x: f32, y: f32) -> f32 {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (x0, y0) = (x as usize, y as usize);
        let (x1, y1) = ((x0 + 1).min(self.width - 1), (y0 + 1).min(self.height - 1));
        let (fx, fy) = (x - x0 as f32, y - y0 as f32);
        let top = self.at(x0, y0) * (1.0 - fx) + self.at(x1, y0) * fx;
        let low = self.at(x0, y1) * (1.0 - fx) + self.at(x1, y1) * fx;
        top * (1.0 - fy) + low * fy
    }

    /// Mean over the `(2 radius + 1)²` window, the window cut at the border.
    pub(crate) fn box_blurred(&self, radius: usize) -> Self {
        if radius == 0 || self.data.is_empty() {
            return self.clone();
        }
        let across = Self::from_rows(self.width, self.height, |y, out| box_row(self.row(y), radius, out));
        across.box_blurred_down(radius)
    }

    /// Vertical running mean, in fixed bands so that threads do not change the sums.
    fn box_blurred_down(&self, radius: usize) -> Self {
        const BAND_ROWS: usize = 64;
        let (width, height) = (self.width, self.height);
        let mut map = Self::filled(width, height, 0.0);
        map.data.par_chunks_mut(BAND_ROWS * width).enumerate().for_each(|(band, out)| {
            let first = band * BAND_ROWS;
            let mut sum = vec![0.0f32; width];
            let add = |sum: &mut [f32], y: usize, sign: f32| {
                for (s, &v) in sum.iter_mut().zip(self.row(y)) {
                    *s += sign * v;
                }
            };
            let mut low = first.saturating_sub(radius);
            let mut high = low;
            for (k, row) in out.chunks_mut(width).enumerate() {
                let y = first + k;
                while high < (y + radius + 1).min(height) {
                    add(&mut sum, high, 1.0);
                    high += 1;
                }
                while low < y.saturating_sub(radius) {
                    add(&mut sum, low, -1.0);
                    low += 1;
                }
                let scale = 1.0 / (high - low) as f32;
                for (o, &s) in row.iter_mut().zip(&sum) {
                    *o = s * scale;
                }
            }
        });
        map
    }

    /// A near-Gaussian blur: three box blurs whose variances add up to `sigma²`.
    ///
    /// Source: Kovesi, "Fast almost-Gaussian filtering", DICTA 2010.
    pub(crate) fn blurred(&self, sigma: f32) -> Self {
        let ideal = (4.0 * sigma * sigma + 1.0).sqrt();
        let low = ((ideal - 1.0) / 2.0) as usize;
        let variance = |r: usize| ((2 * r + 1).pow(2) as f32 - 1.0) / 12.0;
        // As many of the wider boxes as bring the sum of the variances nearest to the one wanted.
        let wider = (0..=3)
            .min_by(|&a, &b| {
                let error = |n: usize| {
                    ((3 - n) as f32 * variance(low) + n as f32 * variance(low + 1) - sigma * sigma).abs()
                };
                error(a).total_cmp(&error(b))
            })
            .unwrap_or(0);
        let mut map = self.clone();
        for pass in 0..3 {
            map = map.box_blurred(if pass < wider { low + 1 } else { low });
        }
        map
    }

    /// The value below which the share `fraction` of the values that `keep` picks lies; None if it picks none.
    pub(crate) fn percentile(&self, fraction: f32, keep: impl Fn(usize) -> bool) -> Option<f32> {
        let mut values: Vec<f32> =
            self.data.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, &v)| v).collect();
        percentile_of(&mut values, fraction)
    }
}

/// The value at the given share of the sorted order; None of nothing. Reorders `values`.
pub(crate) fn percentile_of(values: &mut [f32], fraction: f32) -> Option<f32> {
    if values.is_empty() {
        return None;
    }
    let at = ((values.len() - 1) as f32 * fraction.clamp(0.0, 1.0)).round() as usize;
    Some(*values.select_nth_unstable_by(at, f32::total_cmp).1)
}

/// Running mean of one row, the window cut at the ends.
fn box_row(row: &[f32], radius: usize, out: &mut [f32]) {
    let width = row.len();
    let mut sum: f32 = row.iter().take(radius.min(width)).sum();
    for x in 0..width {
        if x + radius < width {
            sum += row[x + radius];
        }
        if x > radius {
            sum -= row[x - radius - 1];
        }
        let count = (x + radius + 1).min(width) - x.saturating_sub(radius);
        out[x] = sum / count as f32;
    }
}
