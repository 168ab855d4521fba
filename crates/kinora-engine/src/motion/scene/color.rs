//! Pictures as planes: sRGB to linear-light-free floats, CIE Lab, HSV, luma.
//!
//! Always true: RGB planes hold gamma-encoded sRGB in 0..1; Lab is L 0..100, a and b about -100..100 (D65);
//! hue is in degrees 0..360, saturation and value 0..1.
//! Sources: IEC 61966-2-1 (sRGB), CIE 15 (Lab).

use rayon::prelude::*;

use super::map::Map;

/// Three planes of one size.
#[derive(Debug, Clone)]
pub(crate) struct Planes(pub(crate) [Map; 3]);

impl Planes {
    /// From interleaved 8-bit `[H, W, 3]` to 0..1.
    pub(crate) fn from_rgb8(width: usize, height: usize, rgb: &[u8]) -> Self {
        let plane = |c: usize| {
            Map::from_rows(width, height, |y, out| {
                let row = &rgb[y * width * 3..(y + 1) * width * 3];
                for (o, pixel) in out.iter_mut().zip(row.chunks_exact(3)) {
                    *o = f32::from(pixel[c]) / 255.0;
                }
            })
        };
        Self([plane(0), plane(1), plane(2)])
    }

    pub(crate) fn width(&self) -> usize {
        self.0[0].width
    }

    pub(crate) fn height(&self) -> usize {
        self.0[0].height
    }

    pub(crate) fn at(&self, i: usize) -> [f32; 3] {
        [self.0[0].data[i], self.0[1].data[i], self.0[2].data[i]]
    }

    pub(crate) fn each(&self, f: impl Fn(&Map) -> Map) -> Self {
        Self([f(&self.0[0]), f(&self.0[1]), f(&self.0[2])])
    }

    /// Rec. 601 luma of gamma-encoded values, 0..1.
    pub(crate) fn luma(&self) -> Map {
        Map::from_rows(self.width(), self.height(), |y, out| {
            let [r, g, b] = [self.0[0].row(y), self.0[1].row(y), self.0[2].row(y)];
            for (x, o) in out.iter_mut().enumerate() {
                *o = 0.299 * r[x] + 0.587 * g[x] + 0.114 * b[x];
            }
        })
    }
}

/// CIE Lab of sRGB planes.
pub(crate) fn lab(rgb: &Planes) -> Planes {
    let linear: Vec<f32> = (0..=255).map(|v| to_linear(v as f32 / 255.0)).collect();
    convert(rgb, move |pixel| {
        // The planes hold 8-bit steps; the table is exact for them.
        let [r, g, b] = pixel.map(|v| linear[(v.clamp(0.0, 1.0) * 255.0).round() as usize]);
        let x = lab_curve((0.412_456 * r + 0.357_576 * g + 0.180_437 * b) / 0.950_47);
        let y = lab_curve(0.212_673 * r + 0.715_152 * g + 0.072_175 * b);
        let z = lab_curve((0.019_334 * r + 0.119_192 * g + 0.950_304 * b) / 1.088_83);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    })
}

fn to_linear(v: f32) -> f32 {
    if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
}

fn lab_curve(t: f32) -> f32 {
    if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 }
}

/// Hue, saturation, value of sRGB planes; the hue of greys is 0.
pub(crate) fn hsv(rgb: &Planes) -> Planes {
    convert(rgb, |[r, g, b]| {
        let high = r.max(g).max(b);
        let range = high - r.min(g).min(b);
        if range <= 0.0 {
            return [0.0, 0.0, high];
        }
        let sixth = if high == r {
            (g - b) / range
        } else if high == g {
            2.0 + (b - r) / range
        } else {
            4.0 + (r - g) / range
        };
        [(sixth * 60.0).rem_euclid(360.0), range / high, high]
    })
}

fn convert(planes: &Planes, f: impl Fn([f32; 3]) -> [f32; 3] + Sync) -> Planes {
    let (width, height) = (planes.width(), planes.height());
    let mut out = Planes([0, 1, 2].map(|_| Map::filled(width, height, 0.0)));
    let [p, q, r] = &mut out.0;
    p.data
        .par_chunks_mut(width)
        .zip(q.data.par_chunks_mut(width))
        .zip(r.data.par_chunks_mut(width))
        .enumerate()
        .for_each(|(y, ((p, q), r))| {
            for x in 0..width {
                [p[x], q[x], r[x]] = f(planes.at(y * width + x));
            }
        });
    out
}
