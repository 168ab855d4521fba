//! The cubic fetch with AVX2+FMA and with AVX-512, chosen by what the processor says it has.
//!
//! Each pixel's 4x4 taps are four runs of 16 consecutive elements, so they are read with plain loads, not
//! gathers: the vertical sum runs over whole rows of taps and the horizontal one folds the register.
//! Not here: the definition of the result, which is `fetch::fetch_plain`.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::fetch::{Row, clamped, weight_coefficients};
use super::texture::Texture;

/// Fetches if this machine has the instructions; false if it has not.
pub(super) fn fetch_u8(texture: &Texture<u8>, at: Row<'_>, out: &mut [[f32; 4]]) -> bool {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected just above.
        unsafe { avx512::<u8>(texture, at, out) };
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: both features were detected just above.
        unsafe { avx2::<u8>(texture, at, out) };
    } else {
        return false;
    }
    true
}

/// Fetches if this machine has the instructions; false if it has not.
pub(super) fn fetch_i16(texture: &Texture<i16>, at: Row<'_>, out: &mut [[f32; 4]]) -> bool {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected just above.
        unsafe { avx512::<i16>(texture, at, out) };
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: both features were detected just above.
        unsafe { avx2::<i16>(texture, at, out) };
    } else {
        return false;
    }
    true
}

/// Elements that load as vectors of f32.
trait Load: Copy + Default {
    /// # Safety
    /// 8 elements must be readable at `p`; the caller must have AVX2.
    unsafe fn load8(p: *const Self) -> __m256;
    /// # Safety
    /// 16 elements must be readable at `p`; the caller must have AVX-512F.
    unsafe fn load16(p: *const Self) -> __m512;
}

impl Load for u8 {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load8(p: *const Self) -> __m256 {
        // SAFETY: the caller vouches for 8 readable bytes.
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(p.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(p: *const Self) -> __m512 {
        // SAFETY: the caller vouches for 16 readable bytes.
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(p.cast()) }))
    }
}

impl Load for i16 {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load8(p: *const Self) -> __m256 {
        // SAFETY: the caller vouches for 8 readable elements.
        _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(p.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(p: *const Self) -> __m512 {
        // SAFETY: the caller vouches for 16 readable elements.
        _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(unsafe { _mm256_loadu_si256(p.cast()) }))
    }
}

/// # Safety
/// The caller must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn avx512<T: Load>(texture: &Texture<T>, at: Row<'_>, out: &mut [[f32; 4]]) {
    let coefficients = weight_coefficients(at.sharpness);
    let spread = |c: [f32; 4]| {
        // SAFETY: an array of 16 f32 is readable.
        unsafe { _mm512_loadu_ps([[c[0]; 4], [c[1]; 4], [c[2]; 4], [c[3]; 4]].as_flattened().as_ptr()) }
    };
    let [c0, c1, c2, c3] = coefficients.map(spread);
    let lane = |k: i32| _mm512_set1_epi32(4 * k);
    let lanes = [lane(0), lane(1), lane(2), lane(3)];
    let (limit_x, limit_y) = texture.limits();
    let (data, stride) = (texture.data(), texture.stride());
    for ((out, &x), &y) in out.iter_mut().zip(at.x).zip(at.y) {
        let (x, y) = (clamped(x, limit_x), clamped(y, limit_y));
        let (x0, y0) = (x.floor(), y.floor());
        let (fx, fy) = (_mm512_set1_ps(x - x0), _mm512_set1_ps(y - y0));
        let cubic = |f| _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c3, f, c2), f, c1), f, c0);
        let (wx, wy) = (cubic(fx), cubic(fy));
        let first = texture.tap(x0 as i32, y0 as i32);
        debug_assert!(first + 3 * stride + 16 <= data.len());
        let tap = |row: usize| {
            // SAFETY: the coordinates are clamped, so the texture's rim and tail hold all 4 rows of 16 elements.
            unsafe { T::load16(data.as_ptr().add(first + row * stride)) }
        };
        let mut sum = _mm512_mul_ps(tap(0), _mm512_permutexvar_ps(lanes[0], wy));
        sum = _mm512_fmadd_ps(tap(1), _mm512_permutexvar_ps(lanes[1], wy), sum);
        sum = _mm512_fmadd_ps(tap(2), _mm512_permutexvar_ps(lanes[2], wy), sum);
        sum = _mm512_fmadd_ps(tap(3), _mm512_permutexvar_ps(lanes[3], wy), sum);
        sum = _mm512_mul_ps(sum, wx);
        // Lanes hold 4 columns of 4 channels: fold columns 2,3 onto 0,1, then 1 onto 0.
        let high = _mm512_shuffle_f32x4::<0b11_10_11_10>(sum, sum);
        let half = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_castps512_ps256(high));
        let folded = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
        // SAFETY: `out` is four f32.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), folded) };
    }
}

/// # Safety
/// The caller must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<T: Load>(texture: &Texture<T>, at: Row<'_>, out: &mut [[f32; 4]]) {
    let coefficients = weight_coefficients(at.sharpness);
    // SAFETY: an array of 4 f32 is readable.
    let [c0, c1, c2, c3] = coefficients.map(|c| unsafe { _mm_loadu_ps(c.as_ptr()) });
    let (limit_x, limit_y) = texture.limits();
    let (data, stride) = (texture.data(), texture.stride());
    for ((out, &x), &y) in out.iter_mut().zip(at.x).zip(at.y) {
        let (x, y) = (clamped(x, limit_x), clamped(y, limit_y));
        let (x0, y0) = (x.floor(), y.floor());
        let cubic = |f| _mm_fmadd_ps(_mm_fmadd_ps(_mm_fmadd_ps(c3, f, c2), f, c1), f, c0);
        let wx = cubic(_mm_set1_ps(x - x0));
        let wy = cubic(_mm_set1_ps(y - y0));
        let pair = _mm256_set_m128(wx, wx);
        let left = _mm256_permutevar8x32_ps(pair, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
        let right = _mm256_permutevar8x32_ps(pair, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3));
        let rows = [
            _mm256_broadcastss_ps(wy),
            _mm256_broadcastss_ps(_mm_shuffle_ps::<0b01_01_01_01>(wy, wy)),
            _mm256_broadcastss_ps(_mm_shuffle_ps::<0b10_10_10_10>(wy, wy)),
            _mm256_broadcastss_ps(_mm_shuffle_ps::<0b11_11_11_11>(wy, wy)),
        ];
        let first = texture.tap(x0 as i32, y0 as i32);
        debug_assert!(first + 3 * stride + 16 <= data.len());
        let (mut a, mut b) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for (row, w) in rows.into_iter().enumerate() {
            // SAFETY: the coordinates are clamped, so the texture's rim and tail hold all 4 rows of 16 elements.
            let (l, r) = unsafe {
                let p = data.as_ptr().add(first + row * stride);
                (T::load8(p), T::load8(p.add(8)))
            };
            a = _mm256_fmadd_ps(l, w, a);
            b = _mm256_fmadd_ps(r, w, b);
        }
        let sum = _mm256_fmadd_ps(b, right, _mm256_mul_ps(a, left));
        let folded = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        // SAFETY: `out` is four f32.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), folded) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetch::{KERNEL_TOLERANCE, fetch_plain};
    use super::*;

    /// A machine with AVX-512 would otherwise never run the AVX2 version.
    #[test]
    fn the_avx2_fetch_equals_the_plain_one() {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            println!("skipped: this processor has no AVX2+FMA");
            return;
        }
        let texture =
            Texture::from_fn(31, 23, |x, y| [(x * 8) as u8, (y * 9) as u8, (x * y % 251) as u8, 255]);
        let x: Vec<f32> = (0..200).map(|i| i as f32 * 0.173 - 2.0).collect();
        let y: Vec<f32> = (0..200).map(|i| i as f32 * 0.131 - 1.5).collect();
        let at = Row { x: &x, y: &y, sharpness: -0.6 };
        let (mut plain, mut fast) = (vec![[0.0; 4]; 200], vec![[0.0; 4]; 200]);
        fetch_plain(&texture, at, &mut plain);
        // SAFETY: both features were detected above.
        unsafe { avx2(&texture, at, &mut fast) };
        for (a, b) in plain.as_flattened().iter().zip(fast.as_flattened()) {
            assert!((a - b).abs() <= KERNEL_TOLERANCE * 255.0, "{a} {b}");
        }
    }
}
