//! Shapes on a grid: growing, shrinking, connected parts, distances, convexity.
//!
//! Sources: Borgefors, "Distance transformations in digital images", 1986 (chamfer distance);
//! Andrew, "Another efficient algorithm for convex hulls", 1979 (monotone chain).

use super::map::Map;

/// The largest value in the `(2 radius + 1)²` window.
pub(crate) fn dilated(map: &Map, radius: usize) -> Map {
    extreme(map, radius, f32::max)
}

/// The smallest value in the `(2 radius + 1)²` window.
pub(crate) fn eroded(map: &Map, radius: usize) -> Map {
    extreme(map, radius, f32::min)
}

fn extreme(map: &Map, radius: usize, pick: impl Fn(f32, f32) -> f32 + Sync) -> Map {
    let (width, height) = (map.width, map.height);
    let across = Map::from_rows(width, height, |y, out| {
        let row = map.row(y);
        for (x, o) in out.iter_mut().enumerate() {
            let window = &row[x.saturating_sub(radius)..(x + radius + 1).min(width)];
            *o = window.iter().copied().reduce(&pick).unwrap_or(0.0);
        }
    });
    Map::from_rows(width, height, |y, out| {
        out.copy_from_slice(across.row(y));
        for v in y.saturating_sub(radius)..(y + radius + 1).min(height) {
            for (o, &value) in out.iter_mut().zip(across.row(v)) {
                *o = pick(*o, value);
            }
        }
    })
}

/// The parts of a mask that hang together over edges (not corners).
#[derive(Debug)]
pub(crate) struct Components {
    /// Per cell the part's number from 1, or 0 outside the mask.
    pub(crate) labels: Vec<u32>,
    /// Cells of each part; `[0]` counts the outside.
    pub(crate) sizes: Vec<usize>,
}

impl Components {
    /// The parts of what `inside` picks; cells are numbered in rows.
    pub(crate) fn of(width: usize, height: usize, inside: impl Fn(usize) -> bool) -> Self {
        let mut labels = vec![0u32; width * height];
        let mut sizes = vec![0usize];
        let mut open = Vec::new();
        for start in 0..width * height {
            if labels[start] != 0 || !inside(start) {
                continue;
            }
            let label = sizes.len() as u32;
            sizes.push(0);
            labels[start] = label;
            open.push(start);
            while let Some(i) = open.pop() {
                sizes[label as usize] += 1;
                let (x, y) = (i % width, i / width);
                let mut visit = |j: usize| {
                    if labels[j] == 0 && inside(j) {
                        labels[j] = label;
                        open.push(j);
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
        }
        sizes[0] = labels.len() - sizes.iter().sum::<usize>();
        Self { labels, sizes }
    }

    /// 1 where the cell's part satisfies `keep(label)`.
    pub(crate) fn mask(&self, width: usize, keep: impl Fn(usize) -> bool) -> Map {
        let kept: Vec<bool> = (0..self.sizes.len()).map(|l| l > 0 && keep(l)).collect();
        let data = self.labels.iter().map(|&l| f32::from(u8::from(kept[l as usize]))).collect();
        Map { width, height: self.labels.len() / width.max(1), data }
    }

    /// Bounds of each part: x0, y0, x1, y1 (exclusive).
    pub(crate) fn bounds(&self, width: usize) -> Vec<[usize; 4]> {
        let mut bounds = vec![[usize::MAX, usize::MAX, 0, 0]; self.sizes.len()];
        for (i, &label) in self.labels.iter().enumerate() {
            let (x, y) = (i % width, i / width);
            let b = &mut bounds[label as usize];
            *b = [b[0].min(x), b[1].min(y), b[2].max(x + 1), b[3].max(y + 1)];
        }
        bounds
    }
}

/// Distance in cells from each cell that `inside` picks to the nearest that it does not; 0 outside.
///
/// Cells beyond the border do not count, so a shape cut by the border is not thin there. A mask without an
/// outside has the distance `width + height` throughout. Within 8 % of Euclid.
pub(crate) fn distance(width: usize, height: usize, inside: impl Fn(usize) -> bool) -> Map {
    const DIAGONAL: f32 = std::f32::consts::SQRT_2;
    let far = (width + height) as f32;
    let mut d: Vec<f32> = (0..width * height).map(|i| if inside(i) { far } else { 0.0 }).collect();
    let relax = |d: &mut [f32], i: usize, j: usize, step: f32| d[i] = d[i].min(d[j] + step);
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            if d[i] == 0.0 {
                continue;
            }
            if x > 0 {
                relax(&mut d, i, i - 1, 1.0);
            }
            if y > 0 {
                relax(&mut d, i, i - width, 1.0);
                if x > 0 {
                    relax(&mut d, i, i - width - 1, DIAGONAL);
                }
                if x + 1 < width {
                    relax(&mut d, i, i - width + 1, DIAGONAL);
                }
            }
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            let i = y * width + x;
            if d[i] == 0.0 {
                continue;
            }
            if x + 1 < width {
                relax(&mut d, i, i + 1, 1.0);
            }
            if y + 1 < height {
                relax(&mut d, i, i + width, 1.0);
                if x > 0 {
                    relax(&mut d, i, i + width - 1, DIAGONAL);
                }
                if x + 1 < width {
                    relax(&mut d, i, i + width + 1, DIAGONAL);
                }
            }
        }
    }
    Map { width, height, data: d }
}

/// Area in cells of the convex hull of the cells that `inside` picks.
pub(crate) fn hull_area(width: usize, height: usize, inside: impl Fn(usize) -> bool) -> f32 {
    // Only the outer corners of each row's first and last cell can lie on the hull.
    let mut points: Vec<(f32, f32)> = Vec::new();
    for y in 0..height {
        let mut cells = (0..width).filter(|x| inside(y * width + x));
        if let Some(first) = cells.next() {
            let last = cells.next_back().unwrap_or(first);
            for dy in [0.0, 1.0] {
                points.push((first as f32, y as f32 + dy));
                points.push((last as f32 + 1.0, y as f32 + dy));
            }
        }
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let lower = half_hull(points.iter().copied());
    let upper = half_hull(points.iter().rev().copied());
    let ring: Vec<_> = lower.iter().chain(&upper).copied().collect();
    let twice: f32 = ring.iter().zip(ring.iter().cycle().skip(1)).map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
    twice.abs() / 2.0
}

fn half_hull(points: impl Iterator<Item = (f32, f32)>) -> Vec<(f32, f32)> {
    let mut hull: Vec<(f32, f32)> = Vec::new();
    for p in points {
        while let [.., a, b] = hull[..] {
            if (b.0 - a.0) * (p.1 - a.1) - (b.1 - a.1) * (p.0 - a.0) > 0.0 {
                break;
            }
            hull.pop();
        }
        hull.push(p);
    }
    hull
}
