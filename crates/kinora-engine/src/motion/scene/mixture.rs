//! A mixture of Gaussians over colours, as GrabCut learns for each side.
//!
//! Always true: covariances are regularised by a grey level of noise, so densities are finite for any input.

use super::superpixels::squared_distance;

const PARTS_COUNT: usize = 5;
const KMEANS_ROUNDS: usize = 6;
/// k-means starts from about this many of the colours.
const SEEDING_COLORS: usize = 6000;
/// Variance of noise, in 8-bit levels squared.
const NOISE_VARIANCE: f32 = 2.0;

/// Colours are RGB in 0..255.
#[derive(Debug, Clone)]
pub(crate) struct Mixture {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    mean: [f32; 3],
    /// Inverse covariance: rr, rg, rb, gg, gb, bb.
    inverse: [f32; 6],
    /// log(weight / sqrt(det covariance)).
    log_scale: f32,
}

impl Mixture {
    /// From colours by k-means; `colors` must not be empty.
    pub(crate) fn seeded(colors: &[[f32; 3]]) -> Self {
        let step = (colors.len() / SEEDING_COLORS).max(1);
        let some: Vec<[f32; 3]> = colors.iter().step_by(step).copied().collect();
        let mut means = farthest_points(&some);
        let mut labels = vec![0usize; some.len()];
        for _ in 0..KMEANS_ROUNDS {
            for (label, &color) in labels.iter_mut().zip(&some) {
                *label = nearest(&means, color);
            }
            for (k, mean) in means.iter_mut().enumerate() {
                let (mut sum, mut count) = ([0.0f32; 3], 0.0f32);
                for (color, _) in some.iter().zip(&labels).filter(|(_, l)| **l == k) {
                    (0..3).for_each(|c| sum[c] += color[c]);
                    count += 1.0;
                }
                if count > 0.0 {
                    *mean = sum.map(|v| v / count);
                }
            }
        }
        Self::learned(&some, &labels)
    }

    /// Learned anew from colours, each given to the part that explains it best.
    pub(crate) fn refined(&self, colors: &[[f32; 3]]) -> Self {
        let labels: Vec<usize> = colors
            .iter()
            .map(|&color| {
                let fit = |p: &Part| p.log_density(color);
                (0..self.parts.len())
                    .max_by(|&a, &b| fit(&self.parts[a]).total_cmp(&fit(&self.parts[b])))
                    .unwrap_or(0)
            })
            .collect();
        Self::learned(colors, &labels)
    }

    /// Natural logarithm of the density, up to a constant that all mixtures share.
    pub(crate) fn log_density(&self, color: [f32; 3]) -> f32 {
        let logs = self.parts.iter().map(|p| p.log_density(color));
        let top = logs.clone().fold(f32::NEG_INFINITY, f32::max);
        top + logs.map(|l| (l - top).exp()).sum::<f32>().ln()
    }

    fn learned(colors: &[[f32; 3]], labels: &[usize]) -> Self {
        let mut sums = [[0.0f64; 10]; PARTS_COUNT];
        for (c, &label) in colors.iter().zip(labels) {
            let [r, g, b] = c.map(f64::from);
            let terms = [1.0, r, g, b, r * r, r * g, r * b, g * g, g * b, b * b];
            sums[label].iter_mut().zip(terms).for_each(|(s, t)| *s += t);
        }
        let parts = sums.iter().filter(|s| s[0] > 0.0).map(|s| Part::of(s, colors.len() as f64)).collect();
        Self { parts }
    }
}

impl Part {
    /// From count, sums and sums of products.
    fn of(s: &[f64; 10], total: f64) -> Self {
        let n = s[0];
        let mean = [s[1] / n, s[2] / n, s[3] / n];
        let noise = f64::from(NOISE_VARIANCE);
        let rr = s[4] / n - mean[0] * mean[0] + noise;
        let rg = s[5] / n - mean[0] * mean[1];
        let rb = s[6] / n - mean[0] * mean[2];
        let gg = s[7] / n - mean[1] * mean[1] + noise;
        let gb = s[8] / n - mean[1] * mean[2];
        let bb = s[9] / n - mean[2] * mean[2] + noise;
        let cofactors = [
            gg * bb - gb * gb,
            gb * rb - rg * bb,
            rg * gb - gg * rb,
            rr * bb - rb * rb,
            rb * rg - rr * gb,
            rr * gg - rg * rg,
        ];
        let determinant = (rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]).max(1e-6);
        Self {
            mean: mean.map(|v| v as f32),
            inverse: cofactors.map(|c| (c / determinant) as f32),
            log_scale: ((n / total).ln() - 0.5 * determinant.ln()) as f32,
        }
    }

    fn log_density(&self, color: [f32; 3]) -> f32 {
        let [x, y, z] = [color[0] - self.mean[0], color[1] - self.mean[1], color[2] - self.mean[2]];
        let [rr, rg, rb, gg, gb, bb] = self.inverse;
        let squared = rr * x * x + gg * y * y + bb * z * z + 2.0 * (rg * x * y + rb * x * z + gb * y * z);
        self.log_scale - 0.5 * squared
    }
}

/// Up to [`PARTS_COUNT`] colours, each the farthest from those before it.
fn farthest_points(colors: &[[f32; 3]]) -> Vec<[f32; 3]> {
    let mut sum = [0.0f32; 3];
    colors.iter().for_each(|c| (0..3).for_each(|k| sum[k] += c[k]));
    let mut points = vec![sum.map(|v| v / colors.len().max(1) as f32)];
    while points.len() < PARTS_COUNT {
        let gap = |c: [f32; 3]| points.iter().map(|&p| squared_distance(p, c)).fold(f32::INFINITY, f32::min);
        match colors.iter().copied().max_by(|&a, &b| gap(a).total_cmp(&gap(b))) {
            Some(far) if gap(far) > 0.0 => points.push(far),
            _ => break,
        }
    }
    points
}

fn nearest(points: &[[f32; 3]], color: [f32; 3]) -> usize {
    (0..points.len())
        .min_by(|&a, &b| squared_distance(points[a], color).total_cmp(&squared_distance(points[b], color)))
        .unwrap_or(0)
}
