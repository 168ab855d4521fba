//! 3×3 kernels by Winograd's minimal filtering F(2×2, 3×3): 16 products for 4 pixels instead of 36.
//!
//! A frame is cut into tiles of 2×2 pixels that see 4×4; tiles and kernels are transformed, multiplied number by number
//! (a matrix product over channels and steps in time for each of the 16 places) and transformed back. Kernels are
//! transformed a block of channels at a time as they are needed, so the larger form is never held.
//! Where pixels are doubled first, rows and columns 1 and 2 of every tile are the same, place 2 of both is zero, and 9
//! products remain.
//! Source: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, "Fast Algorithms for Convolutional
//! Neural Networks" (2015), section 4.1.

use rayon::prelude::*;

use super::super::matmul::{Mat, MatMut, Threads, multiply_add};
use super::super::simd::vectorised;
use super::{ConvShape, Sampling, output_size};
use crate::weights::Matrix;

/// Rows and columns of a transformed tile, and places in it.
const SIDE: usize = 4;
const PLACES: usize = SIDE * SIDE;
/// Numbers at most in the transformed tiles of a block, and in its products: 32 MB each.
const BLOCK_NUMBERS: usize = 1 << 23;
/// Channels times steps in time of a block of kernels.
const DEPTH: usize = 256;

/// Adds to `out` `[O, H', W']` the convolution of `window`, whose frames `[C, H, W]` are zeros where `None`.
pub(super) fn convolve(
    out: &mut [f32],
    window: &[Option<&[f32]>],
    size: [usize; 2],
    shape: &ConvShape,
    weight: &Matrix,
) {
    let there: Vec<_> =
        window.iter().enumerate().filter_map(|(step, frame)| Some((step, (*frame)?))).collect();
    if there.is_empty() {
        return;
    }
    let [height, width] = output_size(size, shape.sampling);
    let grid = [height.div_ceil(2), width.div_ceil(2)];
    let rows = (BLOCK_NUMBERS / (PLACES * shape.outputs.max(DEPTH) * grid[1])).clamp(1, grid[0]);
    let double = shape.sampling == Sampling::Double;
    let places: Vec<usize> = (0..PLACES).filter(|at| !double || (at / SIDE != 2 && at % SIDE != 2)).collect();
    let mut product = vec![0.0; PLACES * shape.outputs * rows * grid[1]];
    for top in (0..grid[0]).step_by(rows) {
        let block = Block { size, double, top, rows: rows.min(grid[0] - top), columns: grid[1] };
        let product = &mut product[..PLACES * shape.outputs * block.tiles()];
        product.fill(0.0); // what no product is written to counts as zero
        multiply(product, &there, &block, shape, weight, &places);
        let block_planes = |plane: &mut [f32], output: usize| {
            block.restore(plane, [height, width], product, output, shape.outputs);
        };
        out.par_chunks_mut(height * width)
            .enumerate()
            .for_each(|(output, plane)| block_planes(plane, output));
    }
}

/// Fills `product` `[16, O, tiles]`.
fn multiply(
    product: &mut [f32],
    there: &[(usize, &[f32])],
    block: &Block,
    shape: &ConvShape,
    weight: &Matrix,
    places: &[usize],
) {
    let (tiles, outputs) = (block.tiles(), shape.outputs);
    let at_once = (DEPTH / there.len()).clamp(1, shape.inputs);
    let mut seen = vec![0.0; at_once * there.len() * PLACES * tiles];
    let mut kernels = vec![0.0; outputs * PLACES * at_once * there.len()];
    for first in (0..shape.inputs).step_by(at_once) {
        let channels = first..(first + at_once).min(shape.inputs);
        let depth = channels.len() * there.len();
        let seen = &mut seen[..depth * PLACES * tiles]; // [depth, 16, tiles]
        seen.par_chunks_mut(PLACES * tiles).enumerate().for_each(|(row, into)| {
            let (channel, (_, frame)) = (first + row / there.len(), there[row % there.len()]);
            block.transform(frame, channel, into);
        });
        let kernels = &mut kernels[..outputs * PLACES * depth]; // [O, 16, depth]
        kernels.par_chunks_mut(PLACES * depth).enumerate().for_each_init(
            Vec::new,
            |numbers, (output, into)| {
                kernel_row(weight, output, channels.clone(), shape, numbers);
                transform_kernels(numbers, shape.kernel[0], there, into);
            },
        );
        let keep = if first == 0 { 0.0 } else { 1.0 };
        product
            .par_chunks_mut(outputs * tiles)
            .enumerate()
            .filter(|(place, _)| places.contains(place))
            .for_each(|(place, into)| {
                let left = Mat::rows(&kernels[place * depth..], outputs, depth, PLACES * depth);
                let right = Mat::rows(&seen[place * tiles..], depth, tiles, PLACES * tiles);
                let mut into = MatMut { numbers: into, rows: outputs, columns: tiles, row_stride: tiles };
                multiply_add(&mut into, keep, left, right, 1.0, Threads::One);
            });
    }
}

/// The kernels of one output for some inputs, `[channels, kt, 3, 3]`, into `numbers`.
fn kernel_row(
    weight: &Matrix,
    output: usize,
    channels: std::ops::Range<usize>,
    shape: &ConvShape,
    numbers: &mut Vec<f32>,
) {
    let each = shape.kernel[0] * 9;
    let start = output * weight.columns();
    numbers.resize(channels.len() * each, 0.0);
    weight.widen(start + channels.start * each..start + channels.end * each, numbers);
}

/// `[channels, kt, 3, 3]` to `[16, channels · steps that are there]`: `G g Gᵀ`.
fn transform_kernels(numbers: &[f32], steps: usize, there: &[(usize, &[f32])], into: &mut [f32]) {
    let depth = into.len() / PLACES;
    let mut column = 0;
    for channel in numbers.chunks_exact(steps * 9) {
        for (step, _) in there {
            let kernel = &channel[step * 9..][..9];
            let mut half = [[0.0; 3]; SIDE]; // G g
            for x in 0..3 {
                let (a, b, c) = (kernel[x], kernel[3 + x], kernel[6 + x]);
                (half[0][x], half[3][x]) = (a, c);
                (half[1][x], half[2][x]) = (0.5 * (a + b + c), 0.5 * (a - b + c));
            }
            for (y, [a, b, c]) in half.into_iter().enumerate() {
                let row = [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
                for (x, number) in row.into_iter().enumerate() {
                    into[(y * SIDE + x) * depth + column] = number;
                }
            }
            column += 1;
        }
    }
}

/// Whole rows of tiles of one frame.
struct Block {
    /// Rows and columns of the frame, before any doubling.
    size: [usize; 2],
    double: bool,
    /// The first row of tiles, and how many.
    top: usize,
    rows: usize,
    columns: usize,
}

impl Block {
    fn tiles(&self) -> usize {
        self.rows * self.columns
    }

    /// `Bᵀ d B` of the tiles of one channel, into `[16, tiles]`.
    fn transform(&self, frame: &[f32], channel: usize, into: &mut [f32]) {
        let [height, width] = self.size;
        let plane = &frame[channel * height * width..][..height * width];
        let length = self.columns + 1;
        let mut split = vec![0.0; SIDE * 2 * length];
        for row in 0..self.rows {
            let tile = self.top + row;
            for (source, split) in self.source_rows(tile).into_iter().zip(split.chunks_exact_mut(2 * length))
            {
                let (even, odd) = split.split_at_mut(length);
                match source {
                    Some(y) if self.double => deal_doubled(&plane[y * width..][..width], even, odd),
                    Some(y) => deal(&plane[y * width..][..width], even, odd),
                    None => split.fill(0.0),
                }
            }
            transform_row(&split, length, into, self.tiles(), row * self.columns);
        }
    }

    /// The rows of the frame that the tiles of row `tile` see; `None` stands for zeros.
    fn source_rows(&self, tile: usize) -> [Option<usize>; SIDE] {
        std::array::from_fn(|row| {
            let y = (2 * tile + row).checked_sub(1)?;
            let y = if self.double { y / 2 } else { y };
            (y < self.size[0]).then_some(y)
        })
    }

    /// Adds `Aᵀ m A` of the tiles to `plane` `[H', W']`.
    fn restore(
        &self,
        plane: &mut [f32],
        [height, width]: [usize; 2],
        product: &[f32],
        output: usize,
        outputs: usize,
    ) {
        let mut sums = vec![0.0; 2 * SIDE * self.columns];
        for row in 0..self.rows {
            let start = output * self.tiles() + row * self.columns;
            restore_columns(product, outputs * self.tiles(), start, &mut sums);
            for (odd, sums) in sums.chunks_exact(SIDE * self.columns).enumerate() {
                let y = 2 * (self.top + row) + odd;
                if y < height {
                    restore_row(sums, &mut plane[y * width..][..width]);
                }
            }
        }
    }
}

/// Deals a row out to two hands, with a zero before it: `even[i] = row[2i-1]`, `odd[i] = row[2i]`, zero outside.
fn deal(row: &[f32], even: &mut [f32], odd: &mut [f32]) {
    let at = |x: usize| row.get(x).copied().unwrap_or(0.0);
    even[0] = 0.0;
    let inner = row.len() / 2; // pairs (2i, 2i+1) that lie inside
    for ((pair, odd), even) in row.chunks_exact(2).zip(odd.iter_mut()).zip(even[1..].iter_mut()) {
        *odd = pair[0];
        *even = pair[1];
    }
    for index in inner..odd.len() {
        odd[index] = at(2 * index);
        if index + 1 < even.len() {
            even[index + 1] = at(2 * index + 1);
        }
    }
}

/// The same for a row whose pixels are doubled: `even[i] = row[i-1]`, `odd[i] = row[i]`.
fn deal_doubled(row: &[f32], even: &mut [f32], odd: &mut [f32]) {
    even[0] = 0.0;
    even[1..=row.len()].copy_from_slice(row);
    odd[..row.len()].copy_from_slice(row);
    odd[row.len()..].fill(0.0);
}

vectorised! {
    /// Tiles of one row from their four dealt rows `[4, 2, length]`, into `into[place][start..]`, places `stride` apart.
    fn transform_row(split: &[f32], length: usize, into: &mut [f32], stride: usize, start: usize) {
        let columns = length - 1;
        let rows: [(&[f32], &[f32]); SIDE] = std::array::from_fn(|row| split[row * 2 * length..][..2 * length].split_at(length));
        for (y, (plus, other, sign)) in [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)].into_iter().enumerate() {
            let ((a_even, a_odd), (b_even, b_odd)) = (rows[plus], rows[other]);
            let places = &mut into[y * SIDE * stride..][..SIDE * stride];
            let (first, rest) = places.split_at_mut(stride);
            let (second, rest) = rest.split_at_mut(stride);
            let (third, fourth) = rest.split_at_mut(stride);
            let first = &mut first[start..][..columns];
            let second = &mut second[start..][..columns];
            let third = &mut third[start..][..columns];
            let fourth = &mut fourth[start..][..columns];
            let (a_even_next, b_even_next) = (&a_even[1..][..columns], &b_even[1..][..columns]);
            let (a_odd_next, b_odd_next) = (&a_odd[1..][..columns], &b_odd[1..][..columns]);
            let (a_even, a_odd) = (&a_even[..columns], &a_odd[..columns]);
            let (b_even, b_odd) = (&b_even[..columns], &b_odd[..columns]);
            for x in 0..columns {
                let d0 = a_even[x] + sign * b_even[x];
                let d1 = a_odd[x] + sign * b_odd[x];
                let d2 = a_even_next[x] + sign * b_even_next[x];
                let d3 = a_odd_next[x] + sign * b_odd_next[x];
                first[x] = d0 - d2;
                second[x] = d1 + d2;
                third[x] = d2 - d1;
                fourth[x] = d1 - d3;
            }
        }
    }
}

vectorised! {
    /// `Aᵀ m` of a row of tiles: `sums` `[2, 4, columns]` from `product[place * stride + start..]`.
    fn restore_columns(product: &[f32], stride: usize, start: usize, sums: &mut [f32]) {
        let columns = sums.len() / (2 * SIDE);
        let (upper, lower) = sums.split_at_mut(SIDE * columns);
        for x in 0..SIDE {
            let row = |y: usize| &product[(y * SIDE + x) * stride + start..][..columns];
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let upper = &mut upper[x * columns..][..columns];
            let lower = &mut lower[x * columns..][..columns];
            for i in 0..columns {
                upper[i] = a[i] + b[i] + c[i];
                lower[i] = b[i] - c[i] - d[i];
            }
        }
    }
}

/// Adds a row of pixels, two from each tile: `sums` is `[4, columns]`.
fn restore_row(sums: &[f32], out: &mut [f32]) {
    let columns = sums.len() / SIDE;
    let (a, rest) = sums.split_at(columns);
    let (b, rest) = rest.split_at(columns);
    let (c, d) = rest.split_at(columns);
    for (i, pair) in out.chunks_mut(2).enumerate() {
        pair[0] += a[i] + b[i] + c[i];
        if let Some(right) = pair.get_mut(1) {
            *right += b[i] - c[i] - d[i];
        }
    }
}
