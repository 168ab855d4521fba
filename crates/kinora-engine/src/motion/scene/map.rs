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

/// A rectangle of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Window {
    /// Around the cells that are set, `margin` cells wider each way where the map reaches; None if none is set.
    pub(crate) fn around(map: &Map, margin: usize) -> Option<Self> {
        let set = |row: &[f32]| row.iter().any(|&v| v > 0.5);
        let top = (0..map.height).find(|&y| set(map.row(y)))?;
        let bottom = (0..map.height).rfind(|&y| set(map.row(y)))?;
        let columns = |y: usize| {
            let row = map.row(y);
            Some((row.iter().position(|&v| v > 0.5)?, row.iter().rposition(|&v| v > 0.5)?))
        };
        let (left, right) = (top..=bottom)
            .filter_map(columns)
            .fold((map.width, 0), |(left, right), (first, last)| (left.min(first), right.max(last)));
        let (x, y) = (left.saturating_sub(margin), top.saturating_sub(margin));
        let (x1, y1) = ((right + 1 + margin).min(map.width), (bottom + 1 + margin).min(map.height));
        Some(Self { x, y, width: x1 - x, height: y1 - y })
    }
}

impl Map {
    pub(crate) fn filled(width: usize, height: usize, value: f32) -> Self {
        Self { width, height, data: vec![value; width * height] }
    }

    /// Fills each row by `row(y, out)`, rows in parallel.
    pub(crate) fn from_rows(width: usize, height: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let mut map = Self::filled(width, height, 0.0);
        for_rows(&mut map.data, width, &row);
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

    /// The part that lies in a window.
    pub(crate) fn cropped(&self, window: &Window) -> Self {
        Self::from_rows(window.width, window.height, |y, out| {
            out.copy_from_slice(&self.row(window.y + y)[window.x..window.x + window.width]);
        })
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

    pub(crate) fn mean(&self) -> f32 {
        let sum: f64 = self.data.iter().map(|&v| f64::from(v)).sum();
        (sum / self.data.len().max(1) as f64) as f32
    }

    /// Bilinear resampling onto another grid over the same area (cell edges aligned).
    pub(crate) fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let places = |size: usize, of: usize| -> Vec<f32> {
            (0..size).map(|i| (i as f32 + 0.5) * of as f32 / size as f32 - 0.5).collect()
        };
        self.sampled(&places(width, self.width), &places(height, self.height))
    }

    /// Bilinear values at every pair of places (in cell units), the border repeated beyond it.
    pub(crate) fn sampled(&self, xs: &[f32], ys: &[f32]) -> Self {
        let split = |place: f32, size: usize| {
            let place = place.clamp(0.0, (size - 1) as f32);
            (place as usize, (place as usize + 1).min(size - 1), place.fract())
        };
        let columns: Vec<(usize, usize, f32)> = xs.iter().map(|&x| split(x, self.width)).collect();
        Self::from_rows(xs.len(), ys.len(), |j, out| {
            let (y0, y1, fy) = split(ys[j], self.height);
            let (top, low) = (self.row(y0), self.row(y1));
            let between: Vec<f32> = top.iter().zip(low).map(|(t, l)| t + (l - t) * fy).collect();
            for (o, &(x0, x1, fx)) in out.iter_mut().zip(&columns) {
                *o = between[x0] + (between[x1] - between[x0]) * fx;
            }
        })
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

    /// A Gaussian blur; a wide one is nearly so: three box blurs whose variances add up to `sigma²`.
    ///
    /// Source: Kovesi, "Fast almost-Gaussian filtering", DICTA 2010.
    pub(crate) fn blurred(&self, sigma: f32) -> Self {
        // Boxes are too coarse for less.
        const BOXES_FROM_SIGMA: f32 = 2.0;
        if sigma < BOXES_FROM_SIGMA {
            return self.convolved(sigma);
        }
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

    /// A Gaussian blur by its kernel, the border's values repeated.
    fn convolved(&self, sigma: f32) -> Self {
        let radius = (3.0 * sigma).ceil() as usize;
        let weigh = |k: usize| (-(k as f32 - radius as f32).powi(2) / (2.0 * sigma * sigma)).exp();
        let kernel: Vec<f32> = (0..=2 * radius).map(weigh).collect();
        let total: f32 = kernel.iter().sum();
        let (width, height) = (self.width, self.height);
        let across = Self::from_rows(width, height, |y, out| {
            let row = self.row(y);
            for (k, w) in kernel.iter().enumerate() {
                for (x, o) in out.iter_mut().enumerate() {
                    *o += w * row[(x + k).saturating_sub(radius).min(width - 1)];
                }
            }
        });
        Self::from_rows(width, height, |y, out| {
            for (k, w) in kernel.iter().enumerate() {
                let row = across.row((y + k).saturating_sub(radius).min(height - 1));
                out.iter_mut().zip(row).for_each(|(o, v)| *o += w * v / (total * total));
            }
        })
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

/// Runs over the rows of a plane in parallel. Not generic: each instance would compile the thread pool's code anew.
pub(crate) fn for_rows(data: &mut [f32], width: usize, row: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    const ROWS_PER_JOB: usize = 8;
    data.par_chunks_mut(width.max(1) * ROWS_PER_JOB).enumerate().for_each(|(job, rows)| {
        for (k, out) in rows.chunks_mut(width.max(1)).enumerate() {
            row(job * ROWS_PER_JOB + k, out);
        }
    });
}

/// Hermite step from 0 at `low` to 1 at `high`.
pub(crate) fn smoothstep(value: f32, low: f32, high: f32) -> f32 {
    let t = ramp(value, low, high);
    t * t * (3.0 - 2.0 * t)
}

/// Linear ramp from 0 at `low` to 1 at `high`.
pub(crate) fn ramp(value: f32, low: f32, high: f32) -> f32 {
    ((value - low) / (high - low)).clamp(0.0, 1.0)
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
