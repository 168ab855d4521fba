//! The last step of a frame: film grain, which also dithers, and rounding to 8 bits.
//!
//! Always true: the first frame is rounded and nothing else, so it stays the fitted picture bit for bit.

use multiversion::multiversion;

use super::camera::smoothstep;
use super::scene::Map;
use crate::rng::Noise;

/// Side of the grain's tile, in pixels; the tile repeats without a seam.
const TILE_PX: usize = 512;
/// Standard deviation of grain in black, in grey levels.
const GRAIN_LEVELS: f32 = 1.5;
/// Least standard deviation of the noise, in grey levels: it is the dither that hides banding, in bright skies and
/// where grain is unwanted, too.
const DITHER_LEVELS: f32 = 0.35;
/// Radius of the grain's clumps, in pixels.
const CLUMP_PX: f32 = 0.6;
/// Frames until the grain is fully there.
const RAMP_FRAMES: f32 = 8.0;

/// Turns rows of floats into rows of bytes.
#[derive(Debug)]
pub(crate) struct Finish {
    tile: Vec<f32>,
    levels: f32,
    offsets: Noise,
}

/// What one frame's finish needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameFinish<'a> {
    tile: &'a [f32],
    levels: f32,
    least: f32,
    offset: (usize, usize),
}

impl Finish {
    pub(crate) fn new(seed: u64, grain: bool) -> Self {
        Self {
            tile: grain_tile(Noise::new(seed, "grain")),
            levels: if grain { GRAIN_LEVELS } else { 0.0 },
            offsets: Noise::new(seed, "grain offset"),
        }
    }

    pub(crate) fn frame(&self, index: usize) -> FrameFinish<'_> {
        let [x, y, ..] = self.offsets.bits(index as u64);
        let ramp = smoothstep(0.0, RAMP_FRAMES, index as f32);
        FrameFinish {
            tile: &self.tile,
            levels: self.levels * ramp,
            least: DITHER_LEVELS * ramp,
            offset: (x as usize % TILE_PX, y as usize % TILE_PX),
        }
    }
}

impl FrameFinish<'_> {
    /// Rounds row `y` (0..255 per channel, the fourth ignored) into `rgb`.
    pub(crate) fn row(&self, y: usize, pixels: &[[f32; 4]], rgb: &mut [u8]) {
        let grain = &self.tile[(y + self.offset.1) % TILE_PX * TILE_PX..][..TILE_PX];
        let rgb = rgb.as_chunks_mut::<3>().0;
        let (mut done, mut from) = (0, self.offset.0);
        while done < pixels.len() {
            let run = (TILE_PX - from).min(pixels.len() - done);
            let span = done..done + run;
            let grain = &grain[from..from + run];
            grained(&pixels[span.clone()], grain, (self.levels, self.least), &mut rgb[span]);
            (done, from) = (done + run, 0);
        }
    }
}

/// Adding this to a float leaves the nearest integer in its low mantissa bits.
const ROUND: f32 = 8_388_608.0;

/// Adds `levels` of grain, but never less than `least`, to pixels and rounds them; all of one length.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
#[allow(unsafe_code)]
fn grained(pixels: &[[f32; 4]], grain: &[f32], (levels, least): (f32, f32), rgb: &mut [[u8; 3]]) {
    for ((pixel, rgb), grain) in pixels.iter().zip(rgb).zip(grain) {
        let [r, g, b, _] = *pixel;
        // Film grain shows least in the highlights.
        let luma = (0.299 * r + 0.587 * g + 0.114 * b) * (1.0 / 255.0);
        let noise = grain * (levels * (1.15 - luma.clamp(0.0, 1.0))).max(least);
        let byte = |v: f32| ((v + noise).clamp(0.0, 255.0) + ROUND).to_bits() as u8;
        *rgb = [byte(r), byte(g), byte(b)];
    }
}

/// Gaussian noise of unit variance, blurred to clumps; wraps around at the edges.
fn grain_tile(noise: Noise) -> Vec<f32> {
    let raw = Map::from_fn(TILE_PX, TILE_PX, |x, y| noise.normal((y * TILE_PX + x) as u64));
    let side = (-0.5 / (CLUMP_PX * CLUMP_PX)).exp();
    let kernel = [side / (1.0 + 2.0 * side), 1.0 / (1.0 + 2.0 * side), side / (1.0 + 2.0 * side)];
    let wrapped = |k: usize, step: usize| (k + TILE_PX + step - 1) % TILE_PX;
    let blurred = Map::from_fn(TILE_PX, TILE_PX, |x, y| {
        let tap = |i: usize, j: usize| kernel[i] * kernel[j] * raw.at(wrapped(x, i), wrapped(y, j));
        (0..9).map(|k| tap(k % 3, k / 3)).sum()
    });
    let power = blurred.data.iter().map(|v| v * v).sum::<f32>() / blurred.data.len() as f32;
    blurred.data.iter().map(|v| v / power.sqrt()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_only_rounded() {
        let finish = Finish::new(1, true);
        let mut rgb = [0; 9];
        finish.frame(0).row(
            3,
            &[[0.0, 254.6, 255.0, 9.0], [12.4, 12.6, -3.0, 0.0], [300.0, 7.0, 8.0, 1.0]],
            &mut rgb,
        );
        assert_eq!(rgb, [0, 255, 255, 12, 13, 0, 255, 7, 8]);
    }

    #[test]
    fn grain_has_its_strength_and_no_mean() {
        let finish = Finish::new(1, true);
        let grey = vec![[100.0; 4]; 1280];
        let mut rgb = vec![0; 1280 * 3];
        let (mut sum, mut squares) = (0.0f32, 0.0f32);
        for y in 0..64 {
            finish.frame(30).row(y, &grey, &mut rgb);
            for pixel in rgb.as_chunks::<3>().0 {
                sum += f32::from(pixel[0]) - 100.0;
                squares += (f32::from(pixel[0]) - 100.0).powi(2);
            }
        }
        let n = 64.0 * 1280.0;
        assert!((sum / n).abs() < 0.05, "{}", sum / n);
        let want = GRAIN_LEVELS * (1.15 - 100.0 / 255.0);
        assert!(((squares / n).sqrt() - want).abs() < 0.15);
    }

    /// The largest distance of local means from a gradient so flat that plain rounding shows it as bands, in levels.
    fn banding(finish: &FrameFinish<'_>, from_level: f32) -> f32 {
        const WIDTH: usize = 1024;
        const ROWS: usize = 256;
        const BLOCK: usize = 16;
        let gradient = |x: usize| from_level + 4.0 * x as f32 / WIDTH as f32;
        let row: Vec<[f32; 4]> = (0..WIDTH).map(|x| [gradient(x); 4]).collect();
        let (mut rgb, mut sums) = (vec![0; WIDTH * 3], [0.0f32; WIDTH / BLOCK]);
        for y in 0..ROWS {
            finish.row(y, &row, &mut rgb);
            for (x, pixel) in rgb.as_chunks::<3>().0.iter().enumerate() {
                sums[x / BLOCK] += f32::from(pixel[1]) - gradient(x);
            }
        }
        sums.iter().map(|sum| (sum / (ROWS * BLOCK) as f32).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn gradients_show_no_bands_however_bright() {
        const MOST: f32 = 0.1;
        for grain in [true, false] {
            let finish = Finish::new(1, grain);
            for from_level in [8.0, 120.0, 245.0] {
                let found = banding(&finish.frame(30), from_level);
                assert!(found < MOST, "grain {grain}, from level {from_level}: bands of {found}");
            }
        }
        let finish = Finish::new(1, true);
        let plain = FrameFinish { levels: 0.0, least: 0.0, ..finish.frame(30) };
        assert!(banding(&plain, 120.0) > 2.0 * MOST, "plain rounding went unnoticed");
    }
}
