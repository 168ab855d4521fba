//! Fills holes smoothly from what surrounds them.
//!
//! Always true: where the weight is 1 the value stays; nothing leaves the range of the known values. Without
//! any weight the result is 0.
//! Source: Gortler, Grzeszczuk, Szeliski, Cohen, "The lumigraph", SIGGRAPH 1996, section 3.3 (pull-push).

use super::map::Map;

/// Each map with its holes filled; `weight` is 0 (unknown) .. 1 (known), of the maps' size.
pub(crate) fn filled(maps: &[&Map], weight: &Map) -> Vec<Map> {
    let weighted: Vec<Map> = maps.iter().map(|m| m.zip(weight, |v, w| v * w)).collect();
    level(&weighted, weight)
}

/// Values premultiplied by their weight in, values out.
fn level(weighted: &[Map], weight: &Map) -> Vec<Map> {
    let (width, height) = (weight.width, weight.height);
    if width.min(height) <= 2 {
        return weighted.iter().map(|m| divided(m, weight)).collect();
    }
    let coarse_weight = halved(weight);
    // Weights saturate: one known pixel in a window of four is enough to know the window.
    let gain = |w: f32| (2.0 * w).min(1.0) / w.max(1e-6);
    let coarse: Vec<Map> =
        weighted.iter().map(|m| halved(m).zip(&coarse_weight, |v, w| v * gain(w))).collect();
    let saturated = coarse_weight.map(|w| w * gain(w));
    let below = level(&coarse, &saturated);
    weighted
        .iter()
        .zip(below)
        .map(|(m, below)| {
            let up = below.resized(width, height);
            Map::from_rows(width, height, |y, out| {
                let (m, w, u) = (m.row(y), weight.row(y), up.row(y));
                for (x, o) in out.iter_mut().enumerate() {
                    *o = m[x] + (1.0 - w[x].min(1.0)) * u[x];
                }
            })
        })
        .collect()
}

/// Mean value by weight; the mean of all where a place has none.
fn divided(weighted: &Map, weight: &Map) -> Map {
    let (sum, total) = (weighted.data.iter().sum::<f32>(), weight.data.iter().sum::<f32>());
    let mean = if total > 1e-6 { sum / total } else { 0.0 };
    weighted.zip(weight, |v, w| if w > 1e-6 { v / w } else { mean })
}

/// Half the size, rounded up, under a small tent (1 3 3 1) that reaches into the neighbours.
fn halved(map: &Map) -> Map {
    let (width, height) = (map.width.div_ceil(2), map.height.div_ceil(2));
    let across = Map::from_rows(width, map.height, |y, out| {
        let row = map.row(y);
        let at = |x: usize| row[x.min(map.width - 1)];
        for (x, o) in out.iter_mut().enumerate() {
            *o =
                0.125 * (at((2 * x).saturating_sub(1)) + at(2 * x + 2)) + 0.375 * (at(2 * x) + at(2 * x + 1));
        }
    });
    Map::from_rows(width, height, |y, out| {
        let at = |y: usize| across.row(y.min(map.height - 1));
        let (a, b, c, d) = (at((2 * y).saturating_sub(1)), at(2 * y), at(2 * y + 1), at(2 * y + 2));
        for (x, o) in out.iter_mut().enumerate() {
            *o = 0.125 * (a[x] + d[x]) + 0.375 * (b[x] + c[x]);
        }
    })
}
