//! Pictures as planes: sRGB to linear-light-free floats, CIE Lab, HSV, luma.
//!
//! Always true: RGB planes hold gamma-encoded sRGB in 0..1; Lab is L 0..100, a and b about -100..100 (D65);
//! hue is in degrees 0..360, saturation and value 0..1.
//! Sources: IEC 61966-2-1 (sRGB), CIE 15 (Lab).

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
