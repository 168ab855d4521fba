//! Fills holes with texture: every patch of the hole looks like some patch of the known picture.
//!
//! Always true: known pixels stay; the same input gives the same bytes for any number of threads (bands of rows
//! of fixed height see each other's matches of the pass before); no pixel is copied from where `avoid` is set.
//! Sources: Barnes et al., "PatchMatch", SIGGRAPH 2009; Wexler, Shechtman, Irani, "Space-time completion of
//! video", TPAMI 2007 (voting, coarse to fine). The seam is hidden by a membrane: what the votes for the known
//! rim differ by from the rim is spread into the hole, as in Pérez et al., "Poisson image editing", 2003.
//! Patches are compared by absolute differences over 8 x 7 pixels: 32 bytes a row suit every vector unit.

use rayon::prelude::*;

use super::color::Planes;
use super::map::Map;
use super::morphology::distance;
use super::pull_push::filled;

/// What to fill, at the picture's size; 1 is set.
#[derive(Debug)]
pub(crate) struct Hole<'a> {
    pub(crate) fill: &'a Map,
    /// Never copied from, besides the hole itself.
    pub(crate) avoid: Option<&'a Map>,
    /// Cost of copying from another row or column: grey levels times [`PATCH_VALUES`] per squared share of the
    /// picture's longer side.
    pub(crate) row_penalty: f32,
    pub(crate) column_penalty: f32,
}

const REACH: usize = 3;
/// Rows of a patch; it is one pixel wider than tall.
const SIDE: usize = 2 * REACH + 1;
/// Colour values in a patch.
const PATCH_VALUES: f32 = (SIDE * (SIDE + 1) * 3) as f32;
/// Cells around the picture so that patches at its border are whole.
const PAD: usize = REACH + 1;
const LEVELS: usize = 4;
/// From the coarsest level: rounds of matching and voting, passes of matching in each.
const ROUNDS: [usize; LEVELS] = [6, 4, 2, 1];
const PASSES: [usize; LEVELS] = [3, 2, 2, 1];
/// How far the finest level looks beyond what the coarser found, in pixels.
const FINEST_RADIUS: usize = 4;
const BAND_ROWS: usize = 16;
/// Mean difference, in grey levels, at which a patch's vote falls to 1/e.
const VOTE_DIFFERENCE: f32 = 10.0;
/// How far the rim's correction reaches into the hole, in pixels.
const MEMBRANE_PX: f32 = 30.0;

/// A picture whose hole is filled.
#[derive(Debug)]
pub(crate) struct Completed {
    /// 0..1.
    pub(crate) picture: Planes,
    /// The number (row-major) of the pixel that each pixel looks most like: its own outside of the hole.
    pub(crate) origins: Vec<u32>,
}

/// Fills the hole of a picture (0..1). Without enough known picture the fill is merely smooth.
pub(crate) fn complete(picture: &Planes, hole: &Hole<'_>) -> Completed {
    let avoid = hole.avoid.map_or_else(|| hole.fill.clone(), |a| a.zip(hole.fill, f32::max));
    let smooth = filled(&[&picture.0[0], &picture.0[1], &picture.0[2]], &avoid.map(|a| 1.0 - a));
    let base = Planes([0, 1, 2].map(|c| {
        let mixed = |i: usize| if hole.fill.data[i] > 0.5 { smooth[c].data[i] } else { picture.0[c].data[i] };
        Map::from_fn(picture.width(), picture.height(), |x, y| mixed(y * picture.width() + x))
    }));
    let mut pyramid = vec![(base, hole.fill.clone(), avoid)];
    for _ in 1..LEVELS {
        let (picture, fill, avoid) = &pyramid[pyramid.len() - 1];
        pyramid.push((picture.each(quartered_mean), quartered_any(fill), quartered_any(avoid)));
    }
    let mut matches: Option<Level> = None;
    for (k, (picture, fill, avoid)) in pyramid.iter().rev().enumerate() {
        let Some(mut level) = Level::new(picture, fill, avoid, hole) else { continue };
        level.start(matches.as_ref(), k as u32);
        let finest = k + 1 == LEVELS;
        for round in 0..ROUNDS[k] {
            level.measure();
            for pass in 0..PASSES[k] {
                level.search(Pass {
                    seed: (k * 1000 + round * 10 + pass) as u32,
                    reverse: pass % 2 == 1,
                    finest,
                });
            }
            level.vote();
        }
        matches = Some(level);
    }
    let finest_size = (picture.width(), picture.height());
    match matches {
        Some(level) if (level.width, level.height) == finest_size => {
            Completed { picture: level.membrane(&pyramid[0].0, &pyramid[0].2), origins: level.origins() }
        }
        _ => Completed {
            picture: pyramid.swap_remove(0).0,
            origins: (0..(finest_size.0 * finest_size.1) as u32).collect(),
        },
    }
}

/// Mean of 2 x 2 pixels; an odd last row or column is its own.
fn quartered_mean(map: &Map) -> Map {
    let at = |x: usize, y: usize| map.at(x.min(map.width - 1), y.min(map.height - 1));
    Map::from_fn(map.width.div_ceil(2), map.height.div_ceil(2), |x, y| {
        0.25 * (at(2 * x, 2 * y) + at(2 * x + 1, 2 * y) + at(2 * x, 2 * y + 1) + at(2 * x + 1, 2 * y + 1))
    })
}

/// 1 where any of 2 x 2 pixels is set.
fn quartered_any(map: &Map) -> Map {
    quartered_mean(map).map(|v| f32::from(u8::from(v > 0.0)))
}

/// One size of the picture, padded, with the best match of each hole pixel.
struct Level {
    width: usize,
    height: usize,
    stride: usize,
    /// 4 bytes a pixel, the fourth 0.
    pixels: Vec<u8>,
    hole: Vec<bool>,
    /// Whether a whole patch around the pixel may be copied.
    valid: Vec<bool>,
    /// Padded numbers of the valid pixels.
    sources: Vec<u32>,
    /// Trust in a pixel: falls with the distance to the known picture.
    trust: Vec<f32>,
    /// Padded number of each hole pixel's match, and its cost.
    matches: Vec<u32>,
    costs: Vec<f32>,
    /// Per squared pixel.
    row_penalty: f32,
    column_penalty: f32,
}

#[derive(Clone, Copy)]
struct Pass {
    seed: u32,
    reverse: bool,
    finest: bool,
}

impl Level {
    /// None when too little is known to copy from.
    fn new(picture: &Planes, fill: &Map, avoid: &Map, hole: &Hole<'_>) -> Option<Self> {
        let (width, height) = (picture.width(), picture.height());
        let stride = width + 2 * PAD;
        let cells = stride * (height + 2 * PAD);
        let inner = |i: usize| {
            let (x, y) = (i % stride, i / stride);
            let inside = (PAD..PAD + width).contains(&x) && (PAD..PAD + height).contains(&y);
            inside.then(|| (y - PAD) * width + x - PAD)
        };
        let hole_cells: Vec<bool> =
            (0..cells).map(|i| inner(i).is_some_and(|j| fill.data[j] > 0.5)).collect();
        let closed: Vec<bool> = (0..cells).map(|i| inner(i).is_none_or(|j| avoid.data[j] > 0.5)).collect();
        let valid = open_patches(&closed, stride);
        let sources: Vec<u32> = (0..cells as u32).filter(|&i| valid[i as usize]).collect();
        if sources.len() < 50 {
            return None;
        }
        let depth = distance(width, height, |i| fill.data[i] > 0.5);
        let trust =
            (0..cells).map(|i| inner(i).map_or(0.0, |j| 1.3f32.powf(-depth.data[j].min(40.0)))).collect();
        let side = width.max(height) as f32;
        let mut level = Self {
            width,
            height,
            stride,
            pixels: vec![0; cells * 4],
            hole: hole_cells,
            valid,
            sources,
            trust,
            matches: vec![0; cells],
            costs: vec![0.0; cells],
            row_penalty: hole.row_penalty / (side * side),
            column_penalty: hole.column_penalty / (side * side),
        };
        for y in 0..height {
            for x in 0..width {
                let to = ((y + PAD) * stride + x + PAD) * 4;
                let color = picture.at(y * width + x).map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8);
                level.pixels[to..to + 3].copy_from_slice(&color);
            }
        }
        level.pad();
        Some(level)
    }

    /// First matches: those of the level below at twice the place, or anywhere.
    fn start(&mut self, coarser: Option<&Self>, seed: u32) {
        for i in (0..self.hole.len()).filter(|&i| self.hole[i]) {
            let (x, y) = (i % self.stride - PAD, i / self.stride - PAD);
            let doubled = coarser.and_then(|c| {
                let from = c.matches[(y / 2 + PAD) * c.stride + x / 2 + PAD] as usize;
                let (u, v) =
                    ((from % c.stride) as isize - PAD as isize, (from / c.stride) as isize - PAD as isize);
                let u = (2 * u + (x % 2) as isize).clamp(0, self.width as isize - 1) as usize;
                let v = (2 * v + (y % 2) as isize).clamp(0, self.height as isize - 1) as usize;
                let j = (v + PAD) * self.stride + u + PAD;
                self.valid[j].then_some(j as u32)
            });
            let any = self.sources[noise(i as u32, seed, 77) as usize % self.sources.len()];
            self.matches[i] = doubled.unwrap_or(any);
        }
        if coarser.is_some() {
            self.costs.fill(0.0);
            self.vote();
        }
    }

    /// Costs of the present matches in the present picture.
    fn measure(&mut self) {
        let costs: Vec<f32> = (0..self.hole.len())
            .into_par_iter()
            .with_min_len(4096)
            .map(|i| if self.hole[i] { self.cost(i, self.matches[i] as usize, f32::INFINITY) } else { 0.0 })
            .collect();
        self.costs = costs;
    }

    /// One pass: better matches from neighbours, then from around the best so far.
    fn search(&mut self, pass: Pass) {
        let before = std::mem::take(&mut self.matches);
        let mut matches = before.clone();
        let mut costs = std::mem::take(&mut self.costs);
        let band = BAND_ROWS * self.stride;
        let level = &*self;
        matches
            .par_chunks_mut(band)
            .zip(costs.par_chunks_mut(band))
            .enumerate()
            .for_each(|(k, (matches, costs))| level.search_band(k * band, &before, matches, costs, pass));
        self.matches = matches;
        self.costs = costs;
    }

    fn search_band(&self, first: usize, before: &[u32], matches: &mut [u32], costs: &mut [f32], pass: Pass) {
        let (stride, count) = (self.stride as isize, matches.len());
        let step: isize = if pass.reverse { 1 } else { -1 };
        let largest = if pass.finest { FINEST_RADIUS } else { self.width.max(self.height) / 2 };
        for k in 0..count {
            let k = if pass.reverse { count - 1 - k } else { k };
            let i = first + k;
            if !self.hole[i] {
                continue;
            }
            let (mut best, mut cost) = (matches[k] as usize, costs[k]);
            let mut consider = |candidate: usize, best: &mut usize| {
                if candidate != *best && self.valid[candidate] {
                    let c = self.cost(i, candidate, cost);
                    if c < cost {
                        cost = c;
                        *best = candidate;
                    }
                }
            };
            for offset in [step, step * stride] {
                let neighbour = i.wrapping_add_signed(offset);
                if self.hole[neighbour] {
                    let within = neighbour.wrapping_sub(first);
                    let theirs = matches.get(within).copied().unwrap_or(before[neighbour]) as usize;
                    consider(theirs.wrapping_add_signed(-offset), &mut best);
                }
            }
            let mut radius = largest;
            while radius >= 1 {
                let random = noise(i as u32, pass.seed, radius as u32);
                let span = 2 * radius as u32 + 1;
                let dx = (random % span) as isize - radius as isize;
                let dy = ((random >> 16) % span) as isize - radius as isize;
                let (x, y) = ((best % self.stride) as isize + dx, (best / self.stride) as isize + dy);
                if x >= 0 && x < stride && y >= 0 && y < (self.hole.len() / self.stride) as isize {
                    consider((y * stride + x) as usize, &mut best);
                }
                radius /= 2;
            }
            matches[k] = best as u32;
            costs[k] = cost;
        }
    }

    /// Difference of two patches and of their places; anything not below `limit` may come back as infinite.
    fn cost(&self, to: usize, from: usize, limit: f32) -> f32 {
        let (stride, width) = (self.stride, (SIDE + 1) * 4);
        let dy = (to / stride) as f32 - (from / stride) as f32;
        let dx = (to % stride) as f32 - (from % stride) as f32;
        let place = self.row_penalty * dy * dy + self.column_penalty * dx * dx;
        if place >= limit {
            return f32::INFINITY;
        }
        let corner = REACH * stride + REACH;
        let (a, b) = ((to - corner) * 4, (from - corner) * 4);
        let mut sum = 0u32;
        for row in 0..SIDE {
            let skip = row * stride * 4;
            let (p, q) = (&self.pixels[a + skip..a + skip + width], &self.pixels[b + skip..b + skip + width]);
            sum += p.iter().zip(q).map(|(&p, &q)| u32::from(p.abs_diff(q))).sum::<u32>();
            if place + sum as f32 >= limit {
                return f32::INFINITY;
            }
        }
        place + sum as f32
    }

    /// What the patches over a pixel say it should be; None where none covers it.
    fn voted(&self, i: usize, weights: &[f32]) -> Option<[f32; 3]> {
        let (mut sum, mut total) = ([0.0f32; 3], 0.0f32);
        for dy in -(REACH as isize)..=REACH as isize {
            for dx in -(REACH as isize)..=REACH as isize {
                let offset = dy * self.stride as isize + dx;
                let centre = i.wrapping_add_signed(offset);
                if self.hole[centre] {
                    let w = weights[centre];
                    let from = (self.matches[centre] as usize).wrapping_add_signed(-offset) * 4;
                    let p = &self.pixels[from..from + 3];
                    total += w;
                    sum = [0, 1, 2].map(|c| sum[c] + w * f32::from(p[c]));
                }
            }
        }
        (total > 0.0).then(|| sum.map(|v| v / total))
    }

    fn weights(&self) -> Vec<f32> {
        let weigh = |i: usize| {
            let difference = self.costs[i] / PATCH_VALUES;
            self.trust[i] * (-difference / VOTE_DIFFERENCE).exp() + 1e-5
        };
        (0..self.hole.len())
            .into_par_iter()
            .with_min_len(4096)
            .map(|i| if self.hole[i] { weigh(i) } else { 0.0 })
            .collect()
    }

    /// Paints the hole as its patches vote.
    fn vote(&mut self) {
        let weights = self.weights();
        let votes: Vec<Option<[f32; 3]>> = (0..self.hole.len())
            .into_par_iter()
            .with_min_len(4096)
            .map(|i| if self.hole[i] { self.voted(i, &weights) } else { None })
            .collect();
        for (pixel, vote) in self.pixels.chunks_exact_mut(4).zip(votes) {
            if let Some(vote) = vote {
                (0..3).for_each(|c| pixel[c] = (vote[c] + 0.5) as u8);
            }
        }
        self.pad();
    }

    /// Mirrors the picture into the padding.
    fn pad(&mut self) {
        let (stride, width, height) = (self.stride, self.width, self.height);
        let inner = |v: usize, size: usize| {
            let place = super::canvas::mirror(v as isize - PAD as isize, size);
            place + PAD
        };
        for y in 0..height + 2 * PAD {
            for x in 0..stride {
                if (PAD..PAD + width).contains(&x) && (PAD..PAD + height).contains(&y) {
                    continue;
                }
                let from = (inner(y, height) * stride + inner(x, width)) * 4;
                let to = (y * stride + x) * 4;
                self.pixels.copy_within(from..from + 4, to);
            }
        }
    }

    /// See [`Completed`].
    fn origins(&self) -> Vec<u32> {
        let origin = |j: usize| {
            let i = (j / self.width + PAD) * self.stride + j % self.width + PAD;
            let from = if self.hole[i] { self.matches[i] as usize } else { i };
            let (x, y) = (from % self.stride, from / self.stride);
            // Valid patches lie inside the picture.
            ((y - PAD) * self.width + x - PAD) as u32
        };
        (0..self.width * self.height).map(origin).collect()
    }

    /// The picture with the filled hole, shifted so that it meets the known rim.
    fn membrane(&self, picture: &Planes, avoid: &Map) -> Planes {
        let (width, height) = (self.width, self.height);
        let padded = |j: usize| (j / width + PAD) * self.stride + j % width + PAD;
        let weights = self.weights();
        // How far the votes for known pixels near the hole miss them.
        let misses: Vec<Option<[f32; 3]>> = (0..width * height)
            .into_par_iter()
            .with_min_len(4096)
            .map(|j| {
                let i = padded(j);
                if self.hole[i] || avoid.data[j] > 0.5 {
                    return None;
                }
                let vote = self.voted(i, &weights)?;
                let known = picture.at(j);
                Some([0, 1, 2].map(|c| known[c] - vote[c] / 255.0))
            })
            .collect();
        let rim = Map::from_fn(width, height, |x, y| f32::from(u8::from(misses[y * width + x].is_some())));
        let rim_weight = rim.blurred(1.5);
        let depth = distance(width, height, |j| self.hole[padded(j)]);
        let corrections: Vec<Map> = (0..3)
            .map(|c| {
                let miss = |j: usize| misses[j].map_or(0.0, |m| m[c]);
                let map = Map::from_fn(width, height, |x, y| miss(y * width + x)).blurred(1.5);
                map.zip(&rim_weight, |v, w| v / w.max(1e-4))
            })
            .collect();
        let spread = filled(&corrections.iter().collect::<Vec<_>>(), &rim);
        Planes([0, 1, 2].map(|c| {
            Map::from_fn(width, height, |x, y| {
                let j = y * width + x;
                let i = padded(j);
                if !self.hole[i] {
                    return picture.0[c].data[j];
                }
                let reach = (-depth.data[j] / MEMBRANE_PX).exp();
                (f32::from(self.pixels[i * 4 + c]) / 255.0 + spread[c].data[j] * reach).clamp(0.0, 1.0)
            })
        }))
    }
}

/// Where a whole patch around the cell holds no closed cell.
fn open_patches(closed: &[bool], stride: usize) -> Vec<bool> {
    let rows = closed.len() / stride;
    let mut open = vec![false; closed.len()];
    // Closed cells in the rectangle above and to the left of each corner.
    let mut sums = vec![0u32; (stride + 1) * (rows + 1)];
    for y in 0..rows {
        for x in 0..stride {
            let here = u32::from(closed[y * stride + x]);
            sums[(y + 1) * (stride + 1) + x + 1] =
                here + sums[y * (stride + 1) + x + 1] + sums[(y + 1) * (stride + 1) + x]
                    - sums[y * (stride + 1) + x];
        }
    }
    for y in REACH..rows.saturating_sub(REACH) {
        for x in REACH..stride.saturating_sub(REACH + 1) {
            let (x0, x1, y0, y1) = (x - REACH, x + REACH + 2, y - REACH, y + REACH + 1);
            let at = |x: usize, y: usize| sums[y * (stride + 1) + x];
            open[y * stride + x] = at(x1, y1) + at(x0, y0) == at(x0, y1) + at(x1, y0);
        }
    }
    open
}

/// A number that looks random, the same for the same place, pass and draw.
fn noise(place: u32, pass: u32, draw: u32) -> u32 {
    let mut h =
        place.wrapping_mul(0x9E37_79B1) ^ pass.wrapping_mul(0x85EB_CA77) ^ draw.wrapping_mul(0xC2B2_AE3D);
    h ^= h >> 15;
    h = h.wrapping_mul(0x2C1B_3C6D);
    h ^= h >> 12;
    h = h.wrapping_mul(0x297A_2D39);
    h ^ (h >> 15)
}
