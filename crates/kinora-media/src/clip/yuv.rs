//! RGB to the encoder's planes: BT.709, limited range, 4:2:0.
//!
//! Chroma sits where H.264 says it sits when a stream is silent about it (ITU-T H.264, annex E,
//! `chroma_sample_loc_type` 0): on the even columns, half-way between two rows. Hence the 1-2-1 filter
//! across and the plain mean down; averaging 2x2 blocks would shift colour by a quarter of a pixel.
//!
//! Single-precision throughout, so every compiler target vectorises it and gives the same bytes; the loops are
//! compiled for wider vectors, too, and chosen by what the processor says it has. Values are
//! rounded by adding 2^23, where a float's last mantissa bit is worth one.

use multiversion::multiversion;

/// Planes of one frame, filled up to whole blocks by repeating the last column and row. The picture's width and
/// height are even.
#[derive(Debug)]
pub(super) struct YuvFrame {
    /// Size of the picture.
    width_px: usize,
    height_px: usize,
    pub(super) luma: Plane,
    /// Half size, blue difference.
    pub(super) cb: Plane,
    /// Half size, red difference.
    pub(super) cr: Plane,
    rows: RowPair,
}

/// One plane, `[H, stride]`, of which the picture takes the upper left part.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    pub(super) stride_px: usize,
}

/// The encoder works on blocks of this side.
pub(super) const BLOCK_PX: usize = 16;

/// Two rows of colour in planes, with one column more on the left for the chroma filter.
#[derive(Debug)]
struct RowPair {
    /// The row at hand, `[3][W]`.
    now: [Vec<f32>; 3],
    /// The sum of both rows, `[3][1 + W]`; column 0 repeats the first pixel.
    sum: [Vec<f32>; 3],
}

/// ITU-R BT.709-6, item 3.2: the weights of red and blue in luma.
const KR: f64 = 0.2126;
const KB: f64 = 0.0722;
/// Code values from black to white, and from the least to the greatest colour difference.
const LUMA_SPAN: f64 = 219.0 / 255.0;
const CHROMA_SPAN: f64 = 224.0 / 255.0;

const LUMA: [f32; 3] =
    [(LUMA_SPAN * KR) as f32, (LUMA_SPAN * (1.0 - KR - KB)) as f32, (LUMA_SPAN * KB) as f32];
const CB: [f32; 3] = difference_weights([-KR, KR + KB - 1.0, 1.0 - KB], 1.0 - KB);
const CR: [f32; 3] = difference_weights([1.0 - KR, KR + KB - 1.0, -KB], 1.0 - KR);

/// Adding this leaves the nearest integer in a float's low mantissa bits.
const ROUND: f32 = 8_388_608.0;
const LUMA_OFFSET: f32 = ROUND + 16.0;
const CHROMA_OFFSET: f32 = ROUND + 128.0;

/// Weights of a colour difference over the eight samples of the chroma filter.
const fn difference_weights(weights: [f64; 3], scale: f64) -> [f32; 3] {
    let k = CHROMA_SPAN / (2.0 * scale) / 8.0;
    [(weights[0] * k) as f32, (weights[1] * k) as f32, (weights[2] * k) as f32]
}

impl YuvFrame {
    /// Black planes for a picture of an even size.
    pub(super) fn new(width_px: usize, height_px: usize) -> Self {
        let (blocks_px, rows_px) =
            (width_px.next_multiple_of(BLOCK_PX), height_px.next_multiple_of(BLOCK_PX));
        let plane = |value: u8, scale: usize| Plane {
            samples: vec![value; blocks_px / scale * (rows_px / scale)],
            stride_px: blocks_px / scale,
        };
        Self {
            width_px,
            height_px,
            luma: plane(16, 1),
            cb: plane(128, 2),
            cr: plane(128, 2),
            rows: RowPair {
                now: std::array::from_fn(|_| vec![0.0; width_px]),
                sum: std::array::from_fn(|_| vec![0.0; width_px + 1]),
            },
        }
    }

    /// Size of the planes in pixels of luma.
    pub(super) fn filled_size_px(&self) -> (usize, usize) {
        (self.luma.stride_px, self.luma.samples.len() / self.luma.stride_px)
    }

    /// Replaces the planes by those of `rgb`, `[H, W, 3]` of this frame's size.
    pub(super) fn convert(&mut self, rgb: &[u8]) {
        let width_px = self.width_px;
        assert_eq!(rgb.len(), width_px * self.height_px * 3, "the caller checks the size of the frame");
        let rgb_rows = rgb.chunks_exact(width_px * 6);
        let luma_stride_px = self.luma.stride_px;
        let luma_rows = self.luma.samples.chunks_exact_mut(luma_stride_px * 2);
        let cb_rows = self.cb.samples.chunks_exact_mut(self.cb.stride_px);
        let cr_rows = self.cr.samples.chunks_exact_mut(self.cr.stride_px);
        for (((rgb, luma), cb), cr) in rgb_rows.zip(luma_rows).zip(cb_rows).zip(cr_rows) {
            let (rgb_above, rgb_below) = rgb.split_at(width_px * 3);
            let (luma_above, luma_below) = luma.split_at_mut(luma_stride_px);
            self.rows.spread(rgb_above);
            self.rows.start_sum();
            self.rows.luma(&mut luma_above[..width_px]);
            self.rows.spread(rgb_below);
            self.rows.add_sum();
            self.rows.luma(&mut luma_below[..width_px]);
            self.rows.chroma(CB, &mut cb[..width_px / 2]);
            self.rows.chroma(CR, &mut cr[..width_px / 2]);
        }
        self.luma.fill_up(width_px, self.height_px);
        self.cb.fill_up(width_px / 2, self.height_px / 2);
        self.cr.fill_up(width_px / 2, self.height_px / 2);
    }
}

impl Plane {
    /// Repeats the picture's last column and row to the plane's end.
    fn fill_up(&mut self, width_px: usize, height_px: usize) {
        if width_px < self.stride_px {
            for row in self.samples.chunks_exact_mut(self.stride_px).take(height_px) {
                let last = row[width_px - 1];
                row[width_px..].fill(last);
            }
        }
        let picture_end = height_px * self.stride_px;
        let (picture, below) = self.samples.split_at_mut(picture_end);
        for row in below.chunks_exact_mut(self.stride_px) {
            row.copy_from_slice(&picture[picture_end - self.stride_px..]);
        }
    }

    /// `[height_px, width_px]` without what fills it up.
    #[cfg(test)]
    pub(super) fn cropped(&self, width_px: usize, height_px: usize) -> Vec<u8> {
        self.samples
            .chunks_exact(self.stride_px)
            .take(height_px)
            .flat_map(|row| &row[..width_px])
            .copied()
            .collect()
    }
}

impl RowPair {
    /// `[W, 3]` bytes to `[3][W]` floats.
    fn spread(&mut self, rgb: &[u8]) {
        let [red, green, blue] = &mut self.now;
        part(rgb, red, green, blue);
    }

    fn start_sum(&mut self) {
        for (sum, now) in self.sum.iter_mut().zip(&self.now) {
            sum[1..].copy_from_slice(now);
        }
    }

    fn add_sum(&mut self) {
        for (sum, now) in self.sum.iter_mut().zip(&self.now) {
            for (sum, now) in sum[1..].iter_mut().zip(now) {
                *sum += now;
            }
            sum[0] = sum[1];
        }
    }

    fn luma(&self, out: &mut [u8]) {
        let [red, green, blue] = &self.now;
        luma(red, green, blue, out);
    }

    /// Column `i` of the output weighs columns `2i - 1`, `2i` and `2i + 1` of the picture by 1, 2 and 1.
    fn chroma(&self, weights: [f32; 3], out: &mut [u8]) {
        let [red, green, blue] = &self.sum;
        chroma(red, green, blue, weights, out);
    }
}

/// `[W, 3]` bytes to `[3][W]` floats.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
#[allow(unsafe_code)]
fn part(rgb: &[u8], red: &mut [f32], green: &mut [f32], blue: &mut [f32]) {
    let planes = red.iter_mut().zip(green).zip(blue);
    for (pixel, ((red, green), blue)) in rgb.as_chunks::<3>().0.iter().zip(planes) {
        *red = f32::from(pixel[0]);
        *green = f32::from(pixel[1]);
        *blue = f32::from(pixel[2]);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
#[allow(unsafe_code)]
fn luma(red: &[f32], green: &[f32], blue: &[f32], out: &mut [u8]) {
    for (((out, red), green), blue) in out.iter_mut().zip(red).zip(green).zip(blue) {
        let value = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2] + LUMA_OFFSET;
        *out = value.to_bits() as u8;
    }
}

/// See [`RowPair::chroma`].
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
#[allow(unsafe_code)]
fn chroma(red: &[f32], green: &[f32], blue: &[f32], weights: [f32; 3], out: &mut [u8]) {
    let width_px = out.len() * 2;
    let (red, green, blue) = (&red[..=width_px], &green[..=width_px], &blue[..=width_px]);
    for (at, out) in out.iter_mut().enumerate() {
        let at = at * 2;
        let filtered = |sum: &[f32]| sum[at] + 2.0 * sum[at + 1] + sum[at + 2];
        let value = filtered(red) * weights[0]
            + filtered(green) * weights[1]
            + filtered(blue) * weights[2]
            + CHROMA_OFFSET;
        *out = value.to_bits() as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::YuvFrame;

    /// The definition in double precision, one sample at a time.
    fn reference(rgb: &[u8], width_px: usize, height_px: usize) -> [Vec<u8>; 3] {
        let at = |x: usize, y: usize, c: usize| f64::from(rgb[(y * width_px + x) * 3 + c]) / 255.0;
        let luma_of = |r: f64, g: f64, b: f64| 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let mut planes = [Vec::new(), Vec::new(), Vec::new()];
        for y in 0..height_px {
            for x in 0..width_px {
                let luma = luma_of(at(x, y, 0), at(x, y, 1), at(x, y, 2));
                planes[0].push((16.0 + 219.0 * luma).round() as u8);
            }
        }
        for y in (0..height_px).step_by(2) {
            for x in (0..width_px).step_by(2) {
                let mean = |c: usize| {
                    let column = |x: usize| (at(x, y, c) + at(x, y + 1, c)) / 2.0;
                    (column(x.saturating_sub(1)) + 2.0 * column(x) + column(x + 1)) / 4.0
                };
                let (r, g, b) = (mean(0), mean(1), mean(2));
                let luma = luma_of(r, g, b);
                planes[1].push((128.0 + 224.0 * (b - luma) / 1.8556).round() as u8);
                planes[2].push((128.0 + 224.0 * (r - luma) / 1.5748).round() as u8);
            }
        }
        planes
    }

    proptest! {
        #[test]
        fn equals_the_definition_within_rounding(
            (width_px, height_px, rgb) in (1usize..=20, 1usize..=4).prop_flat_map(|(w, h)| {
                (Just(w * 2), Just(h * 2), proptest::collection::vec(any::<u8>(), w * h * 12))
            })
        ) {
            let mut frame = YuvFrame::new(width_px, height_px);
            frame.convert(&rgb);
            let want = reference(&rgb, width_px, height_px);
            let got = [
                frame.luma.cropped(width_px, height_px),
                frame.cb.cropped(width_px / 2, height_px / 2),
                frame.cr.cropped(width_px / 2, height_px / 2),
            ];
            for (got, want) in got.iter().zip(&want) {
                prop_assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(want) {
                    prop_assert!(got.abs_diff(*want) <= 1, "{} is not {}", got, want);
                }
            }
        }
    }

    #[test]
    fn black_white_and_the_primaries_have_the_standard_codes() {
        let table: [([u8; 3], [u8; 3]); 5] = [
            ([0, 0, 0], [16, 128, 128]),
            ([255, 255, 255], [235, 128, 128]),
            ([255, 0, 0], [63, 102, 240]),
            ([0, 255, 0], [173, 42, 26]),
            ([0, 0, 255], [32, 240, 118]),
        ];
        for (rgb, want) in table {
            let mut frame = YuvFrame::new(4, 2);
            frame.convert(&rgb.repeat(8));
            let got = [&frame.luma, &frame.cb, &frame.cr].map(|plane| plane.samples[0]);
            assert_eq!(got, want, "{rgb:?}");
        }
    }

    #[test]
    fn chroma_sits_on_the_even_columns() {
        // A red line on an even column keeps half of its colour there; on an odd one it is shared by both sides.
        let line_at = |x: usize| {
            let mut rgb = [128u8; 8 * 2 * 3];
            for y in 0..2 {
                rgb[(y * 8 + x) * 3..][..3].copy_from_slice(&[255, 0, 0]);
            }
            let mut frame = YuvFrame::new(8, 2);
            frame.convert(&rgb);
            frame.cr.cropped(4, 1)
        };
        let red = 240 - 128;
        assert_eq!(line_at(4), [128, 128, 128 + red / 2, 128]);
        assert_eq!(line_at(3), [128, 128 + red / 4, 128 + red / 4, 128]);
    }

    #[test]
    fn blocks_are_filled_up_with_the_edges() {
        let mut frame = YuvFrame::new(18, 6);
        let rgb: Vec<u8> = (0..18 * 6).flat_map(|at| [at as u8 * 2; 3]).collect();
        frame.convert(&rgb);
        assert_eq!(frame.filled_size_px(), (32, 16));
        let row = |y: usize| &frame.luma.samples[y * 32..][..32];
        for y in 0..6 {
            assert!(row(y)[18..].iter().all(|luma| *luma == row(y)[17]), "row {y}");
        }
        for y in 6..16 {
            assert_eq!(row(y), row(5), "row {y}");
        }
        assert_eq!(frame.cb.samples.len(), 16 * 8);
    }
}
