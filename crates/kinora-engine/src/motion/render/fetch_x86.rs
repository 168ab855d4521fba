//! The cubic fetch with AVX2+FMA and with AVX-512, chosen by what the processor says it has.
//!
//! Each pixel's 4x4 taps are four runs of 16 consecutive elements, so they are read with plain loads, not
//! gathers: the vertical sum runs over whole rows of taps and the horizontal one over the register's quarters.
//! Weights are worked out for a block of pixels at once and broadcast from memory, which costs no arithmetic.
//! Not here: the definition of the result, which is `fetch::fetch_plain`.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::block::{BLOCK, Block};
use super::fetch::{Row, weight_coefficients};
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
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512<T: Load>(texture: &Texture<T>, at: Row<'_>, out: &mut [[f32; 4]]) {
    let coefficients = weight_coefficients(at.sharpness);
    let (data, stride) = (texture.data(), texture.stride());
    let mut block = Block::default();
    for ((out, x), y) in out.chunks_mut(BLOCK).zip(at.x.chunks(BLOCK)).zip(at.y.chunks(BLOCK)) {
        block.place(texture, &coefficients, x, y);
        for (k, out) in out.iter_mut().enumerate() {
            let first = block.first[k];
            debug_assert!(first + 3 * stride + 16 <= data.len());
            let tap = |row: usize| {
                // SAFETY: the coordinates were clamped, so the texture's rim and tail hold all 4 rows of 16 elements.
                unsafe { T::load16(data.as_ptr().add(first + row * stride)) }
            };
            let down = |row: usize| _mm512_set1_ps(block.down[row][k]);
            let mut sum = _mm512_mul_ps(tap(0), down(0));
            sum = _mm512_fmadd_ps(tap(1), down(1), sum);
            sum = _mm512_fmadd_ps(tap(2), down(2), sum);
            sum = _mm512_fmadd_ps(tap(3), down(3), sum);
            // Lanes hold 4 columns of 4 channels.
            let across = |column: usize| _mm_set1_ps(block.across[column][k]);
            let left = _mm_mul_ps(_mm512_castps512_ps128(sum), across(0));
            let left = _mm_fmadd_ps(_mm512_extractf32x4_ps::<1>(sum), across(1), left);
            let right = _mm_mul_ps(_mm512_extractf32x4_ps::<2>(sum), across(2));
            let right = _mm_fmadd_ps(_mm512_extractf32x4_ps::<3>(sum), across(3), right);
            // SAFETY: `out` is four f32.
            unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(left, right)) };
        }
    }
}

/// # Safety
/// The caller must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<T: Load>(texture: &Texture<T>, at: Row<'_>, out: &mut [[f32; 4]]) {
    let coefficients = weight_coefficients(at.sharpness);
    let (data, stride) = (texture.data(), texture.stride());
    let mut block = Block::default();
    for ((out, x), y) in out.chunks_mut(BLOCK).zip(at.x.chunks(BLOCK)).zip(at.y.chunks(BLOCK)) {
        block.place(texture, &coefficients, x, y);
        for (k, out) in out.iter_mut().enumerate() {
            let first = block.first[k];
            debug_assert!(first + 3 * stride + 16 <= data.len());
            let (mut a, mut b) = (_mm256_setzero_ps(), _mm256_setzero_ps());
            for row in 0..4 {
                // SAFETY: the coordinates were clamped, so the texture's rim and tail hold all 4 rows of 16 elements.
                let (l, r) = unsafe {
                    let p = data.as_ptr().add(first + row * stride);
                    (T::load8(p), T::load8(p.add(8)))
                };
                let down = _mm256_set1_ps(block.down[row][k]);
                a = _mm256_fmadd_ps(l, down, a);
                b = _mm256_fmadd_ps(r, down, b);
            }
            // Halves hold a column of 4 channels each.
            let across = |column: usize| _mm_set1_ps(block.across[column][k]);
            let left = _mm_mul_ps(_mm256_castps256_ps128(a), across(0));
            let left = _mm_fmadd_ps(_mm256_extractf128_ps::<1>(a), across(1), left);
            let right = _mm_mul_ps(_mm256_castps256_ps128(b), across(2));
            let right = _mm_fmadd_ps(_mm256_extractf128_ps::<1>(b), across(3), right);
            // SAFETY: `out` is four f32.
            unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(left, right)) };
        }
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
