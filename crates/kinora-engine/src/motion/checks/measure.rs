//! Measurements on frames: movement by block matching, steadiness, sharpness, flicker.

/// A grey frame, 0..255.
#[derive(Debug, Clone)]
pub(super) struct Grey {
    pub(super) width: usize,
    pub(super) height: usize,
    data: Vec<f32>,
}

impl Grey {
    pub(super) fn of(rgb: &[u8], width: usize) -> Self {
        let data: Vec<f32> = rgb
            .as_chunks::<3>()
            .0
            .iter()
            .map(|&[r, g, b]| 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b))
            .collect();
        Self { width, height: data.len() / width, data }
    }

    pub(super) fn at(&self, x: usize, y: usize) -> f32 {
        self.data[y * self.width + x]
    }

    pub(super) fn mean(&self) -> f32 {
        self.data.iter().sum::<f32>() / self.data.len() as f32
    }

    /// Mean absolute difference where `inside` holds.
    pub(super) fn change(&self, other: &Self, inside: &dyn Fn(usize, usize) -> bool) -> f32 {
        let (mut sum, mut count) = (0.0, 0);
        for y in 0..self.height {
            for x in (0..self.width).filter(|&x| inside(x, y)) {
                sum += (self.at(x, y) - other.at(x, y)).abs();
                count += 1;
            }
        }
        sum / count.max(1) as f32
    }

    /// Variance of the Laplacian.
    pub(super) fn sharpness(&self) -> f32 {
        let (mut sum, mut squares, mut count) = (0.0f64, 0.0f64, 0.0f64);
        for y in 1..self.height - 1 {
            for x in 1..self.width - 1 {
                let around = self.at(x - 1, y) + self.at(x + 1, y) + self.at(x, y - 1) + self.at(x, y + 1);
                let value = f64::from(around - 4.0 * self.at(x, y));
                (sum, squares, count) = (sum + value, squares + value * value, count + 1.0);
            }
        }
        (squares / count - (sum / count).powi(2)) as f32
    }

    /// Each pixel the mean of itself and its neighbours along the row.
    pub(super) fn blurred(&self) -> Self {
        let at = |k: usize, step: usize| self.data[(k + step).clamp(1, self.data.len()) - 1];
        let data = (0..self.data.len()).map(|k| (at(k, 0) + 2.0 * at(k, 1) + at(k, 2)) / 4.0).collect();
        Self { width: self.width, height: self.height, data }
    }

    /// The darkest grey on the outermost rows and columns.
    pub(super) fn darkest_border(&self) -> f32 {
        let rows = (0..self.width).flat_map(|x| [self.at(x, 0), self.at(x, self.height - 1)]);
        let columns = (0..self.height).flat_map(|y| [self.at(0, y), self.at(self.width - 1, y)]);
        rows.chain(columns).fold(f32::INFINITY, f32::min)
    }
}

const BLOCK: usize = 16;
const SEARCH: isize = 9;

/// Where the block around (x, y) of `from` is in `to`: (dx, dy) to a fraction of a pixel, and the mean difference left.
fn matched(from: &Grey, to: &Grey, x: f32, y: f32) -> Option<(f32, f32, f32)> {
    let (cx, cy) = (x.round() as isize, y.round() as isize);
    let half = (BLOCK / 2) as isize;
    let fits = |x: isize, y: isize, grey: &Grey| {
        x >= half && y >= half && x + half <= grey.width as isize && y + half <= grey.height as isize
    };
    if !fits(cx, cy, from) {
        return None;
    }
    let cost = |dx: isize, dy: isize| -> f32 {
        if !fits(cx + dx, cy + dy, to) {
            return f32::INFINITY;
        }
        let mut sum = 0.0;
        for row in -half..half {
            let a = &from.data[(cy + row) as usize * from.width + (cx - half) as usize..][..BLOCK];
            let b = &to.data[(cy + dy + row) as usize * to.width + (cx + dx - half) as usize..][..BLOCK];
            sum += a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>();
        }
        sum / (BLOCK * BLOCK) as f32
    };
    let candidates = (-SEARCH..=SEARCH).flat_map(|dy| (-SEARCH..=SEARCH).map(move |dx| (dx, dy)));
    let (dx, dy) = candidates.min_by(|a, b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1)))?;
    let best = cost(dx, dy);
    // The bottom of a parabola through the neighbours.
    let fraction = |before: f32, after: f32| {
        let bend = before + after - 2.0 * best;
        if bend.is_finite() && bend > 1e-3 { (0.5 * (before - after) / bend).clamp(-0.5, 0.5) } else { 0.0 }
    };
    let fx = fraction(cost(dx - 1, dy), cost(dx + 1, dy));
    let fy = fraction(cost(dx, dy - 1), cost(dx, dy + 1));
    Some((dx as f32 + fx, dy as f32 + fy, best))
}

/// What the camera did between the first and the last of `frames`.
#[derive(Debug, Clone, Copy)]
pub(super) struct CameraMotion {
    /// Median growth around the centre.
    pub(super) scale: f32,
    /// Median movement of the content, in frame widths and heights.
    pub(super) dx: f32,
    pub(super) dy: f32,
    /// 90th percentile of the distance from the median movement, in frame widths.
    pub(super) parallax: f32,
}

/// Where blocks are in the first frame and in the last: x, y, x, y in pixels.
fn tracks(frames: &[Grey]) -> Vec<[f32; 4]> {
    let (width, height) = (frames[0].width as f32, frames[0].height as f32);
    (0..15 * 9)
        .map(|k| ((k % 15) as f32 + 0.5, (k / 15) as f32 + 0.5))
        .map(|(i, j)| (i / 15.0 * width, j / 9.0 * height))
        .filter_map(|(x, y)| {
            let (mut tx, mut ty) = (x, y);
            for pair in frames.windows(2) {
                // The block is found around its rounded place: keep the fraction.
                let (dx, dy, _) = matched(&pair[0], &pair[1], tx, ty)?;
                (tx, ty) = (tx + dx, ty + dy);
            }
            Some([x, y, tx, ty])
        })
        .collect()
}

/// The value at a share of the order.
fn median(mut values: Vec<f32>, share: f32) -> f32 {
    assert!(values.len() > 2, "too few blocks could be followed");
    values.sort_by(f32::total_cmp);
    values[((values.len() - 1) as f32 * share) as usize]
}

/// Median movement to the right, in frame widths, of what starts where `hit` holds (shares of width and height).
pub(super) fn shift_of(frames: &[Grey], hit: impl Fn(f32, f32) -> bool) -> f32 {
    let (width, height) = (frames[0].width as f32, frames[0].height as f32);
    let own = tracks(frames).into_iter().filter(|t| hit(t[0] / width, t[1] / height));
    median(own.map(|t| (t[2] - t[0]) / width).collect(), 0.5)
}

/// Follows blocks through all frames.
pub(super) fn camera(frames: &[Grey]) -> CameraMotion {
    let (width, height) = (frames[0].width as f32, frames[0].height as f32);
    let tracks = tracks(frames);
    let dx = median(tracks.iter().map(|t| t[2] - t[0]).collect(), 0.5);
    let dy = median(tracks.iter().map(|t| t[3] - t[1]).collect(), 0.5);
    let growth = tracks
        .iter()
        .filter_map(|t| {
            let (x, y) = (t[0] - width / 2.0, t[1] - height / 2.0);
            let distance = x.hypot(y);
            (distance > 0.15 * width).then(|| ((t[2] - t[0]) * x + (t[3] - t[1]) * y) / (distance * distance))
        })
        .collect();
    let off = tracks.iter().map(|t| (t[2] - t[0] - dx).hypot(t[3] - t[1] - dy)).collect();
    CameraMotion {
        scale: 1.0 + median(growth, 0.5),
        dx: dx / width,
        dy: dy / height,
        parallax: median(off, 0.9) / width,
    }
}

/// How far from one frame to the next the content moves in the median, per pair: (dx, dy) in pixels, and the mean
/// difference that movement does not explain.
pub(super) fn steps(frames: &[Grey]) -> Vec<(f32, f32, f32)> {
    frames
        .windows(2)
        .map(|pair| {
            let (width, height) = (pair[0].width as f32, pair[0].height as f32);
            let mut found: Vec<_> = (0..8 * 5)
                .filter_map(|k| {
                    let (x, y) =
                        (((k % 8) as f32 + 0.5) / 8.0 * width, ((k / 8) as f32 + 0.5) / 5.0 * height);
                    matched(&pair[0], &pair[1], x, y)
                })
                .collect();
            let left = found.iter().map(|f| f.2).sum::<f32>() / found.len() as f32;
            let middle = found.len() / 2;
            found.sort_by(|a, b| a.0.total_cmp(&b.0));
            let dx = found[middle].0;
            found.sort_by(|a, b| a.1.total_cmp(&b.1));
            (dx, found[middle].1, left)
        })
        .collect()
}

/// Mean absolute second difference of the frames' mean grey.
pub(super) fn flicker(frames: &[Grey]) -> f32 {
    let means: Vec<f32> = frames.iter().map(Grey::mean).collect();
    let seconds = means.windows(3).map(|w| (w[2] - 2.0 * w[1] + w[0]).abs());
    seconds.sum::<f32>() / (means.len() - 2) as f32
}

/// The 99th percentile over 16x16 blocks of the mean absolute second difference of their grey.
pub(super) fn block_flicker(frames: &[Grey]) -> f32 {
    let (columns, rows) = (frames[0].width / 16, frames[0].height / 16);
    let mean = |frame: &Grey, cell: usize| {
        let (x, y) = (cell % columns * 16, cell / columns * 16);
        (0..256).map(|k| frame.at(x + k % 16, y + k / 16)).sum::<f32>() / 256.0
    };
    let flicker = |cell: usize| {
        let course: Vec<f32> = frames.iter().map(|frame| mean(frame, cell)).collect();
        let seconds = course.windows(3).map(|w| (w[2] - 2.0 * w[1] + w[0]).abs());
        seconds.sum::<f32>() / (course.len() - 2) as f32
    };
    median((0..columns * rows).map(flicker).collect(), 0.99)
}

/// Share above 6 Hz of the power of the greys of 12x12 blocks over time, at 24 frames a second.
pub(super) fn fast_power(frames: &[Grey]) -> f32 {
    let n = frames.len();
    let (columns, rows) = (frames[0].width / 12, frames[0].height / 12);
    let (mut fast, mut all) = (0.0f64, 0.0f64);
    for cell in 0..columns * rows {
        let course: Vec<f64> = frames
            .iter()
            .map(|frame| {
                let (x, y) = (cell % columns * 12, cell / columns * 12);
                (0..144).map(|k| f64::from(frame.at(x + k % 12, y + k / 12))).sum::<f64>() / 144.0
            })
            .collect();
        let mean = course.iter().sum::<f64>() / n as f64;
        for k in 1..n / 2 {
            let (mut re, mut im) = (0.0, 0.0);
            for (t, value) in course.iter().enumerate() {
                let window = 0.5 - 0.5 * (std::f64::consts::TAU * t as f64 / n as f64).cos();
                let angle = std::f64::consts::TAU * (k * t) as f64 / n as f64;
                re += (value - mean) * window * angle.cos();
                im += (value - mean) * window * angle.sin();
            }
            let power = re * re + im * im;
            all += power;
            fast += if k as f64 * 24.0 / n as f64 > 6.0 { power } else { 0.0 };
        }
    }
    (fast / all.max(1e-9)) as f32
}
