//! Sums of travelling waves over chosen cells, with the phases turned in advance.
//!
//! A wave is `gain cos(w t + shift + phase(cell)) amplitude(cell)`. Storing `amplitude cos(phase)` and
//! `amplitude sin(phase)` once makes a moment cost two multiplications per wave and cell, and no sines.

use rayon::prelude::*;

use super::super::scene::Map;

/// Cells that one thread sums at a time.
const CHUNK: usize = 2048;

/// Waves over the active cells of a map.
#[derive(Debug)]
pub(super) struct Modes {
    /// Indices into the map, ascending.
    cells: Vec<u32>,
    width: usize,
    height: usize,
    waves: Vec<Wave>,
}

#[derive(Debug)]
struct Wave {
    radians_per_s: f32,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// One sum over all waves: each wave's gain, and a phase shift common to all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output<'a> {
    pub(super) gains: &'a [f32],
    pub(super) shift: f32,
}

impl Modes {
    /// Waves will live where `mask` exceeds `threshold`.
    pub(super) fn over(mask: &Map, threshold: f32) -> Self {
        let cells = (0..mask.data.len() as u32).filter(|&k| mask.data[k as usize] > threshold).collect();
        Self { cells, width: mask.width, height: mask.height, waves: Vec::new() }
    }

    /// Adds a wave; `wave(x, y)` gives its amplitude and phase at a cell.
    pub(super) fn push(&mut self, radians_per_s: f32, wave: impl Fn(usize, usize) -> (f32, f32) + Sync) {
        let width = self.width;
        let (cos, sin) = self
            .cells
            .par_iter()
            .map(|&cell| {
                let (amplitude, phase) = wave(cell as usize % width, cell as usize / width);
                (amplitude * phase.cos(), amplitude * phase.sin())
            })
            .unzip();
        self.waves.push(Wave { radians_per_s, cos, sin });
    }

    /// Root mean square over the cells of the sum of all waves with gain 1.
    pub(super) fn power(&self) -> f32 {
        let sum: f64 = self
            .waves
            .iter()
            .flat_map(|wave| wave.cos.iter().zip(&wave.sin))
            .map(|(c, s)| f64::from(c * c + s * s) / 2.0)
            .sum();
        (sum / self.cells.len().max(1) as f64).sqrt() as f32
    }

    /// Sums at time `t_s`, calling `put(cell, sums)` for each active cell's value in `targets`.
    ///
    /// `targets` are maps of the mask's size; `add` mixes the K sums of a cell into the cell of each target.
    pub(super) fn at<const K: usize, const T: usize>(
        &self,
        t_s: f32,
        outputs: &[Output<'_>; K],
        targets: &mut [&mut Map; T],
        add: impl Fn(usize, [f32; K], &mut [f32; T]) + Sync,
    ) {
        let turned: Vec<[(f32, f32); K]> = (self.waves.iter().enumerate())
            .map(|(m, wave)| {
                outputs.each_ref().map(|output| {
                    let angle = wave.radians_per_s * t_s + output.shift;
                    (output.gains[m] * angle.cos(), -output.gains[m] * angle.sin())
                })
            })
            .collect();
        let chunks: Vec<Vec<[f32; K]>> = (0..self.cells.len().div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| self.sums(chunk * CHUNK..((chunk + 1) * CHUNK).min(self.cells.len()), &turned))
            .collect();
        debug_assert!(targets.iter().all(|map| (map.width, map.height) == (self.width, self.height)));
        for (&cell, sums) in self.cells.iter().zip(chunks.iter().flatten()) {
            let mut values: [f32; T] = std::array::from_fn(|k| targets[k].data[cell as usize]);
            add(cell as usize, *sums, &mut values);
            (0..T).for_each(|k| targets[k].data[cell as usize] = values[k]);
        }
    }

    fn sums<const K: usize>(
        &self,
        cells: std::ops::Range<usize>,
        turned: &[[(f32, f32); K]],
    ) -> Vec<[f32; K]> {
        let mut sums = vec![[0.0; K]; cells.len()];
        for (wave, turned) in self.waves.iter().zip(turned) {
            let (cos, sin) = (&wave.cos[cells.clone()], &wave.sin[cells.clone()]);
            for ((sums, c), s) in sums.iter_mut().zip(cos).zip(sin) {
                for (sum, (a, b)) in sums.iter_mut().zip(turned) {
                    *sum += a * c + b * s;
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turned_phases_equal_cosines() {
        let mask = Map::from_fn(40, 30, |x, y| if (x + y) % 3 == 0 { 1.0 } else { 0.0 });
        let mut modes = Modes::over(&mask, 0.5);
        let phase = |x: usize, y: usize| 0.3 * x as f32 - 0.7 * y as f32;
        modes.push(2.0, |x, y| (1.5, phase(x, y)));
        modes.push(5.0, |x, y| (0.5, 2.0 * phase(x, y)));
        let mut map = Map::filled(40, 30, 9.0);
        let output = Output { gains: &[1.0, -2.0], shift: 0.4 };
        modes.at(1.3, &[output], &mut [&mut map], |_, [sum], [value]| *value += sum);
        for (k, value) in map.data.iter().enumerate() {
            let (x, y) = (k % 40, k / 40);
            let p = phase(x, y);
            let sum = 1.5 * (2.6 + 0.4 + p).cos() - 2.0 * 0.5 * (6.5 + 0.4 + 2.0 * p).cos();
            let want = if (x + y) % 3 == 0 { 9.0 + sum } else { 9.0 };
            assert!((value - want).abs() < 1e-4);
        }
    }
}
