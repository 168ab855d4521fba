//! Superpixels: the picture in a few hundred patches of one colour.
//!
//! Always true: labels are `0..count`, each patch hangs together, none is empty.
//! Sources: Achanta et al., "SLIC superpixels", TPAMI 2012; searching from the pixel's side, so that rows are
//! independent, as in Ren, Reid, "gSLIC", 2011.

use rayon::prelude::*;

use super::color::Planes;
use super::map::Map;

const PATCHES_COUNT: usize = 350;
/// Weight of a patch's width of distance, in Lab units.
const COMPACTNESS: f32 = 12.0;
const ROUNDS: usize = 7;
/// Patches smaller than this share of the mean size join a neighbour.
const SMALLEST_SHARE: f32 = 0.25;

/// A labelling of the analysed picture and what each patch looks like.
#[derive(Debug)]
pub(crate) struct Superpixels {
    pub(crate) width: usize,
    pub(crate) labels: Vec<u32>,
    pub(crate) sizes: Vec<f32>,
    /// Mean Lab of each patch.
    pub(crate) colors: Vec<[f32; 3]>,
    /// Mean place of each patch over the longer side of the picture.
    pub(crate) places: Vec<[f32; 2]>,
    /// Pairs of patches that touch, each once, lower label first, sorted.
    pub(crate) edges: Vec<(u32, u32)>,
    /// Whether the patch touches the picture's border.
    pub(crate) on_border: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Centre {
    color: [f32; 3],
    x: f32,
    y: f32,
}

impl Superpixels {
    /// `lab` is best smoothed a little.
    pub(crate) fn of(lab: &Planes) -> Self {
        let (width, height) = (lab.width(), lab.height());
        let labels = connected(width, height, &clustered(lab));
        Self::described(lab, width, height, labels)
    }

    pub(crate) fn count(&self) -> usize {
        self.sizes.len()
    }

    /// Mean of a map over each patch.
    pub(crate) fn means(&self, map: &Map) -> Vec<f32> {
        let mut sums = vec![0.0f32; self.count()];
        for (&label, &v) in self.labels.iter().zip(&map.data) {
            sums[label as usize] += v;
        }
        sums.iter().zip(&self.sizes).map(|(sum, size)| sum / size).collect()
    }

    /// A map that is constant on each patch.
    pub(crate) fn painted(&self, values: &[f32]) -> Map {
        let data = self.labels.iter().map(|&l| values[l as usize]).collect();
        Map { width: self.width, height: self.labels.len() / self.width, data }
    }

    fn described(lab: &Planes, width: usize, height: usize, labels: Vec<u32>) -> Self {
        let count = labels.iter().max().map_or(0, |&l| l as usize + 1);
        let longer = width.max(height) as f32;
        let mut sizes = vec![0.0f32; count];
        let mut colors = vec![[0.0f32; 3]; count];
        let mut places = vec![[0.0f32; 2]; count];
        let mut on_border = vec![false; count];
        let mut edges = Vec::new();
        for (i, &label) in labels.iter().enumerate() {
            let (x, y, l) = (i % width, i / width, label as usize);
            sizes[l] += 1.0;
            for (sum, v) in colors[l].iter_mut().zip(lab.at(i)) {
                *sum += v;
            }
            places[l][0] += x as f32 / longer;
            places[l][1] += y as f32 / longer;
            on_border[l] |= x == 0 || y == 0 || x + 1 == width || y + 1 == height;
            let mut meet = |other: u32| {
                if other != label {
                    edges.push((label.min(other), label.max(other)));
                }
            };
            if x + 1 < width {
                meet(labels[i + 1]);
            }
            if y + 1 < height {
                meet(labels[i + width]);
            }
        }
        for l in 0..count {
            colors[l].iter_mut().for_each(|v| *v /= sizes[l]);
            places[l].iter_mut().for_each(|v| *v /= sizes[l]);
        }
        edges.sort_unstable();
        edges.dedup();
        Self { width, labels, sizes, colors, places, edges, on_border }
    }
}

/// k-means in colour and place, each pixel looking at the nine centres that started around it.
fn clustered(lab: &Planes) -> Vec<u32> {
    let (width, height) = (lab.width(), lab.height());
    let step = ((width * height) as f32 / PATCHES_COUNT as f32).sqrt().max(1.0);
    let columns = ((width as f32 / step).round() as usize).max(1);
    let rows = ((height as f32 / step).round() as usize).max(1);
    let mut centres: Vec<Centre> = (0..columns * rows)
        .map(|c| {
            let x = ((c % columns) as f32 + 0.5) * width as f32 / columns as f32;
            let y = ((c / columns) as f32 + 0.5) * height as f32 / rows as f32;
            let i = (y as usize).min(height - 1) * width + (x as usize).min(width - 1);
            Centre { color: lab.at(i), x, y }
        })
        .collect();
    let nearness = (COMPACTNESS / step).powi(2);
    let mut labels = vec![0u32; width * height];
    for _ in 0..ROUNDS {
        labels.par_chunks_mut(width).enumerate().for_each(|(y, out)| {
            let cell_y = y * rows / height;
            for (x, label) in out.iter_mut().enumerate() {
                let color = lab.at(y * width + x);
                let cell_x = x * columns / width;
                let mut best = f32::INFINITY;
                for cy in cell_y.saturating_sub(1)..(cell_y + 2).min(rows) {
                    for cx in cell_x.saturating_sub(1)..(cell_x + 2).min(columns) {
                        let c = &centres[cy * columns + cx];
                        let place = (c.x - x as f32).powi(2) + (c.y - y as f32).powi(2);
                        let d = squared_distance(c.color, color) + nearness * place;
                        if d < best {
                            best = d;
                            *label = (cy * columns + cx) as u32;
                        }
                    }
                }
            }
        });
        recentre(lab, &labels, &mut centres);
    }
    labels
}

fn recentre(lab: &Planes, labels: &[u32], centres: &mut [Centre]) {
    let width = lab.width();
    let mut sums = vec![[0.0f32; 6]; centres.len()];
    for (i, &label) in labels.iter().enumerate() {
        let [l, a, b] = lab.at(i);
        let s = &mut sums[label as usize];
        for (sum, v) in s.iter_mut().zip([l, a, b, (i % width) as f32, (i / width) as f32, 1.0]) {
            *sum += v;
        }
    }
    for (centre, s) in centres.iter_mut().zip(&sums).filter(|(_, s)| s[5] > 0.0) {
        let n = s[5];
        *centre = Centre { color: [s[0] / n, s[1] / n, s[2] / n], x: s[3] / n, y: s[4] / n };
    }
}

/// Gives every connected part its own label, small parts that of the part before them.
fn connected(width: usize, height: usize, labels: &[u32]) -> Vec<u32> {
    let smallest = SMALLEST_SHARE * (width * height) as f32 / PATCHES_COUNT as f32;
    const NONE: u32 = u32::MAX;
    let mut out = vec![NONE; labels.len()];
    let mut next = 0;
    let mut part = Vec::new();
    for start in 0..labels.len() {
        if out[start] != NONE {
            continue;
        }
        // A neighbour above or to the left is labelled already.
        let before = if start % width > 0 { out[start - 1] } else { NONE };
        let above = if start >= width { out[start - width] } else { NONE };
        let neighbour = if before != NONE { before } else { above };
        part.clear();
        part.push(start);
        out[start] = next;
        let mut at = 0;
        while at < part.len() {
            let i = part[at];
            at += 1;
            let (x, y) = (i % width, i / width);
            let mut visit = |j: usize| {
                if out[j] == NONE && labels[j] == labels[start] {
                    out[j] = next;
                    part.push(j);
                }
            };
            if x > 0 {
                visit(i - 1);
            }
            if x + 1 < width {
                visit(i + 1);
            }
            if y > 0 {
                visit(i - width);
            }
            if y + 1 < height {
                visit(i + width);
            }
        }
        if (part.len() as f32) < smallest && neighbour != NONE {
            part.iter().for_each(|&i| out[i] = neighbour);
        } else {
            next += 1;
        }
    }
    out
}

pub(crate) fn squared_distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2) + (a[2] - b[2]).powi(2)
}
