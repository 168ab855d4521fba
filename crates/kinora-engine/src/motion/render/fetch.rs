//! One cubic fetch per pixel and layer: rows of source coordinates in, rows of colour out.
//!
//! Keys' cubic convolution ("Cubic Convolution Interpolation for Digital Image Processing", IEEE TASSP 1981):
//! `sharpness` is his `a`, -0.5 being Catmull-Rom and more negative sharper. Whole coordinates return the
//! texel itself, bit for bit, at any sharpness.
//! The plain code here is the reference; `fetch_x86` holds vector versions that are chosen at run time, and
//! `fetch_neon` the one for aarch64, where NEON is always there.

use super::texture::Texture;

/// How far a vector version may be from the plain code, in units of the texture's elements per unit of range.
#[cfg(test)]
pub(crate) const KERNEL_TOLERANCE: f32 = 2e-6;

/// Element types that can be fetched.
pub(crate) trait Texel: Copy + Default + Send + Sync {
    fn to_f32(self) -> f32;

    /// The fastest fetch for this machine.
    fn fetch(texture: &Texture<Self>, at: Row<'_>, out: &mut [[f32; 4]]);
}

/// Source coordinates of consecutive output pixels, in texture pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) y: &'a [f32],
    pub(crate) sharpness: f32,
}

impl Texel for u8 {
    fn to_f32(self) -> f32 {
        f32::from(self)
    }

    fn fetch(texture: &Texture<Self>, at: Row<'_>, out: &mut [[f32; 4]]) {
        #[cfg(target_arch = "x86_64")]
        if !super::fetch_x86::fetch_u8(texture, at, out) {
            fetch_plain(texture, at, out);
        }
        #[cfg(target_arch = "aarch64")]
        super::fetch_neon::fetch(texture, at, out);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        fetch_plain(texture, at, out);
    }
}

impl Texel for i16 {
    fn to_f32(self) -> f32 {
        f32::from(self)
    }

    fn fetch(texture: &Texture<Self>, at: Row<'_>, out: &mut [[f32; 4]]) {
        #[cfg(target_arch = "x86_64")]
        if !super::fetch_x86::fetch_i16(texture, at, out) {
            fetch_plain(texture, at, out);
        }
        #[cfg(target_arch = "aarch64")]
        super::fetch_neon::fetch(texture, at, out);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        fetch_plain(texture, at, out);
    }
}

/// Coefficients of the four tap weights as cubics in the fraction: `((c3 f + c2) f + c1) f + c0`.
pub(crate) fn weight_coefficients(a: f32) -> [[f32; 4]; 4] {
    [
        [0.0, 1.0, 0.0, 0.0],
        [a, 0.0, -a, 0.0],
        [-2.0 * a, -(a + 3.0), 2.0 * a + 3.0, a],
        [a, a + 2.0, -(a + 2.0), -a],
    ]
}

#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "of the reference"))]
fn weights(coefficients: &[[f32; 4]; 4], f: f32) -> [f32; 4] {
    std::array::from_fn(|k| {
        ((coefficients[3][k] * f + coefficients[2][k]) * f + coefficients[1][k]) * f + coefficients[0][k]
    })
}

/// Clamps a coordinate to the texture; NaN becomes the rim.
#[inline(always)]
pub(crate) fn clamped(v: f32, limit: f32) -> f32 {
    v.max(-1.0).min(limit)
}

/// The reference: `out[k]` is the texture at `(x[k], y[k])`, coordinates clamped to the rim.
#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "the tests hold the vector version to it"))]
pub(crate) fn fetch_plain<T: Texel>(texture: &Texture<T>, at: Row<'_>, out: &mut [[f32; 4]]) {
    let coefficients = weight_coefficients(at.sharpness);
    let (limit_x, limit_y) = texture.limits();
    let (data, stride) = (texture.data(), texture.stride());
    for ((out, &x), &y) in out.iter_mut().zip(at.x).zip(at.y) {
        let (x, y) = (clamped(x, limit_x), clamped(y, limit_y));
        let (x0, y0) = (x.floor(), y.floor());
        let (wx, wy) = (weights(&coefficients, x - x0), weights(&coefficients, y - y0));
        let first = texture.tap(x0 as i32, y0 as i32);
        let mut columns = [0.0f32; 16];
        for (row, w) in wy.iter().enumerate() {
            let taps = &data[first + row * stride..][..16];
            for (sum, &tap) in columns.iter_mut().zip(taps) {
                *sum += tap.to_f32() * w;
            }
        }
        *out = std::array::from_fn(|c| {
            (columns[c] * wx[0] + columns[8 + c] * wx[2]) + (columns[4 + c] * wx[1] + columns[12 + c] * wx[3])
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Noise;

    /// Every vector version that this machine has must agree with the plain code, on odd sizes and lengths.
    fn check<T: Texel>(texel: impl Fn(f32) -> T, range: f32) {
        let noise = Noise::new(3, "texels");
        for (width, height, len) in [(1, 1, 1), (7, 5, 3), (33, 17, 31), (64, 40, 64)] {
            let texture = Texture::from_fn(width, height, |x, y| {
                noise.units((y * width + x) as u64).map(|unit| texel(unit * range))
            });
            let place = |stream: &str, size: usize| -> Vec<f32> {
                (0..len).map(|i| Noise::new(5, stream).unit(i) * (size + 8) as f32 - 4.0).collect()
            };
            let (x, y) = (place("x", width), place("y", height));
            for sharpness in [-0.5, -0.8] {
                let at = Row { x: &x, y: &y, sharpness };
                let (mut plain, mut fast) = (vec![[0.0; 4]; len as usize], vec![[0.0; 4]; len as usize]);
                fetch_plain(&texture, at, &mut plain);
                T::fetch(&texture, at, &mut fast);
                let worst = plain.as_flattened().iter().zip(fast.as_flattened()).map(|(a, b)| (a - b).abs());
                let worst = worst.fold(0.0, f32::max) / range;
                assert!(worst <= KERNEL_TOLERANCE, "{width}x{height}, {len}: {worst}");
            }
        }
    }

    #[test]
    fn the_vector_fetch_of_bytes_equals_the_plain_one() {
        check(|v| v as u8, 255.0);
    }

    #[test]
    fn the_vector_fetch_of_shorts_equals_the_plain_one() {
        check(|v| (v - 8192.0) as i16, 16384.0);
    }

    #[test]
    fn whole_coordinates_return_the_texel() {
        let texture = Texture::from_fn(9, 9, |x, y| [(x * 9 + y) as u8, 1, 2, 3]);
        let mut out = [[0.0; 4]];
        u8::fetch(&texture, Row { x: &[4.0], y: &[7.0], sharpness: -0.75 }, &mut out);
        assert_eq!(out, [[43.0, 1.0, 2.0, 3.0]]);
    }

    #[test]
    fn coordinates_that_are_no_numbers_show_the_rim() {
        let texture = Texture::from_fn(3, 3, |_, _| [200u8; 4]);
        let mut out = [[0.0; 4]; 3];
        let at = Row { x: &[f32::NAN, f32::INFINITY, -1e30], y: &[1e30, f32::NAN, 0.5], sharpness: -0.5 };
        u8::fetch(&texture, at, &mut out);
        for pixel in out.as_flattened() {
            assert!((pixel - 200.0).abs() < 1e-3);
        }
    }
}
