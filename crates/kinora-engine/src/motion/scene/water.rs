//! Water: still surfaces below a waterline, and streams that are cooler in colour than what they run through.
//!
//! Always true: water lies below its waterline, and neither in the sky nor in the subject.

use super::Map;
use super::map::{percentile_of, ramp, smoothstep};
use super::morphology::Components;
use super::regions::{Kind, Seen};
use super::sky::Sky;
use super::study::Study;
use super::superpixels::squared_distance;

/// A waterline is at least this clear, over at least this share of the columns.
const LINE_SCORE_MIN: f32 = 0.25;
const LINE_COLUMNS_MIN: f32 = 0.4;
/// Step of lightness across a waterline.
const LINE_STEP: f32 = 4.0;
/// Water is this calm, looks this much like the water next to it and like that below the line.
const CALM: f32 = 0.075;
const LIKE_NEIGHBOUR: f32 = 11.0;
const LIKE_SEED: f32 = 15.0;

/// Still water and running water, both at the study's size.
pub(crate) fn seen(study: &Study, sky: &Sky, behind: &Map, vegetation: &Map) -> (Seen, Seen) {
    let open = behind.zip(&sky.mask, |b, s| if sky.is_found() { b * (1.0 - s) } else { b });
    let traits = Traits::of(study, vegetation, &open);
    let line = waterline(study, sky, behind);
    let grown = line.map(|line| grown(study, &traits, &line));
    let surface = surface(study, sky, &traits, &open);
    let (mask, confidence) = match (grown, line) {
        (Some(grown), Some(line)) if grown.mean() > 0.015 => {
            let top = line.row + 1;
            let both = grown.zip(&surface, f32::max);
            let mask = study.map(|i| if i / study.width > top { both.data[i] * open.data[i] } else { 0.0 });
            // Water-coloured, or only smooth like a wall or a road?
            let likeness = weighted(&traits.painted(study, |t| t.likeness), &grown);
            (mask, ramp(line.score, 0.15, 0.5) * (0.4 + 0.6 * ramp(likeness, 0.15, 0.5)))
        }
        _ => {
            let confidence = weighted(&traits.painted(study, |t| t.likeness), &surface);
            (surface, 0.8 * confidence)
        }
    };
    // Without a sky above it, what is blue and calm is as often a wall.
    let outdoor = 0.4 + 0.6 * sky.confidence;
    let bright = if sky.is_found() { mirrors(study, sky, &mask) } else { 1.0 };
    let water = Seen { kind: Kind::Water, mask, confidence: confidence * outdoor * bright };
    // Indoors, what is cooler than the rest is fur, porcelain or shade.
    let nature = ramp(vegetation.mean(), 0.04, 0.15).max(0.6 * sky.confidence);
    let stream = Seen { kind: Kind::Stream, mask: stream(study, &traits, &open), confidence: 0.4 * nature };
    (water, stream)
}

/// Whether it is bright enough to mirror the sky, 0..1; a wet road is as level and as calm as a lake.
fn mirrors(study: &Study, sky: &Sky, water: &Map) -> f32 {
    let lightness = &study.lab.0[0];
    ramp(weighted(lightness, water) / weighted(lightness, &sky.mask).max(1.0), 0.25, 0.45)
}

fn weighted(map: &Map, weight: &Map) -> f32 {
    let sum: f32 = map.data.iter().zip(&weight.data).map(|(v, w)| v * w).sum();
    sum / weight.data.iter().sum::<f32>().max(1e-6)
}

/// What each patch says about water.
struct Traits(Vec<Trait>);

#[derive(Debug, Clone, Copy)]
struct Trait {
    /// Height in the picture from the top, 0..1.
    v: f32,
    texture: f32,
    leafy: f32,
    open: f32,
    value: f32,
    /// How far its colour and streaks are those of a still surface, 0..1.
    likeness: f32,
}

impl Traits {
    fn of(study: &Study, vegetation: &Map, open: &Map) -> Self {
        let means = |map: &Map| study.patches.means(map);
        let v = means(&Map::from_fn(study.width, study.height, |_, y| study.v(y)));
        let blue = means(&study.hsv.0[0].map(|h| f32::from(u8::from(h > 165.0 && h < 260.0))));
        let (saturation, value) = (means(&study.hsv.0[1]), means(&study.hsv.0[2]));
        let (across, down) = (means(&study.slope_x), means(&study.slope_y));
        let (leafy, open) = (means(vegetation), means(open));
        let traits = (0..study.patches.count()).map(|i| {
            let texture = across[i] + down[i];
            let coloured = blue[i] * (saturation[i] / 0.12).min(1.0);
            let foam = ramp(value[i], 0.45, 0.75)
                * ramp(0.22 - saturation[i], 0.0, 0.12)
                * (texture / 0.05).min(1.0);
            // Ripples seen at an angle are streaks across.
            let streaks = 1.0 / (1.0 + ((across[i] / (down[i] + 1e-4) - 0.95) / 0.12).exp());
            let likeness = coloured.max(0.75 * foam)
                * (0.35 + 0.65 * streaks)
                * (1.0 - 0.9 * ramp(leafy[i], 0.15, 0.92))
                * (1.0 - smoothstep(texture, 0.035, 0.075));
            Trait { v: v[i], texture, leafy: leafy[i], open: open[i], value: value[i], likeness }
        });
        Self(traits.collect())
    }

    fn painted(&self, study: &Study, value: impl Fn(&Trait) -> f32) -> Map {
        study.patches.painted(&self.0.iter().map(value).collect::<Vec<_>>())
    }
}

#[derive(Debug, Clone, Copy)]
struct Waterline {
    row: usize,
    score: f32,
}

/// The row with the strongest long level edge, from above the horizon to well below it.
fn waterline(study: &Study, sky: &Sky, behind: &Map) -> Option<Waterline> {
    let lightness = study.lab.0[0].blurred(1.2);
    let horizon = sky.horizon.unwrap_or(0.35);
    let (width, height) = (study.width, study.height);
    let first = ((horizon - 0.12).max(0.12) * height as f32) as usize;
    let last = (0.78 * height as f32) as usize;
    let step = |x: usize, y: usize| {
        let (above, below) = (y.saturating_sub(2), (y + 2).min(height - 1));
        lightness.at(x, below) - lightness.at(x, above)
    };
    let mut best: Option<(Waterline, f32)> = None;
    for y in first.max(1)..last.min(height.saturating_sub(3)) {
        for sign in [1.0f32, -1.0] {
            let (mut long, mut strength, mut open) = (0.0f32, 0.0f32, 0.0f32);
            for x in (0..width).filter(|&x| behind.at(x, y) > 0.5) {
                let here = (y - 1..=y + 1).map(|v| step(x, v) * sign).fold(f32::NEG_INFINITY, f32::max);
                open += 1.0;
                long += f32::from(u8::from(here > LINE_STEP));
                strength += here.clamp(0.0, 20.0);
            }
            let share = long / width as f32;
            let score = share * (strength / open.max(1.0) / 8.0).min(1.0);
            if best.is_none_or(|(line, _)| score > line.score) {
                best = Some((Waterline { row: y, score }, share));
            }
        }
    }
    best.filter(|(line, share)| line.score > LINE_SCORE_MIN && *share > LINE_COLUMNS_MIN)
        .map(|(line, _)| line)
}

/// Calm patches that hang together with those just below the line and look like them.
fn grown(study: &Study, traits: &Traits, line: &Waterline) -> Map {
    let patches = &study.patches;
    let (near, far) = ((study.height / 80).max(2), (study.height / 22).max(6));
    let below = Map::from_fn(study.width, study.height, |_, y| {
        f32::from(u8::from((line.row + near..line.row + far).contains(&y)))
    });
    let share = patches.means(&below);
    let traits = &traits.0;
    let seeds: Vec<usize> = (0..patches.count())
        .filter(|&i| {
            share[i] > 0.35 && traits[i].texture < 0.085 && traits[i].leafy < 0.45 && traits[i].open > 0.5
        })
        .collect();
    let mut neighbours = vec![Vec::new(); patches.count()];
    for &(a, b) in &patches.edges {
        neighbours[a as usize].push(b as usize);
        neighbours[b as usize].push(a as usize);
    }
    let top = line.row as f32 / study.height as f32;
    let shaded = |i: usize| {
        let [l, a, b] = patches.colors[i];
        [0.6 * l, a, b]
    };
    let mut water = vec![0.0f32; patches.count()];
    seeds.iter().for_each(|&i| water[i] = 1.0);
    let mut open = seeds.clone();
    while let Some(i) = open.pop() {
        for &j in &neighbours[i] {
            let t = &traits[j];
            if water[j] > 0.0 || t.v < top || t.texture >= CALM || t.leafy >= 0.5 || t.open <= 0.5 {
                continue;
            }
            let like_parent = squared_distance(patches.colors[i], patches.colors[j]).sqrt();
            let like_seed = seeds
                .iter()
                .map(|&s| squared_distance(shaded(s), shaded(j)))
                .fold(f32::INFINITY, f32::min)
                .sqrt();
            if like_parent < LIKE_NEIGHBOUR && like_seed < LIKE_SEED {
                water[j] = 1.0;
                open.push(j);
            }
        }
    }
    patches.painted(&water)
}

/// Water without a clear line: water-like patches in one large piece with a level top.
fn surface(study: &Study, sky: &Sky, traits: &Traits, open: &Map) -> Map {
    let horizon = sky.horizon.unwrap_or(0.35);
    let score = traits.painted(study, |t| t.likeness * smoothstep(t.v, horizon - 0.06, horizon + 0.05));
    let mask = score.zip(open, |s, o| s * o).blurred(3.0).map(|v| smoothstep(v, 0.30, 0.48));
    let (width, height) = (study.width, study.height);
    let parts = Components::of(width, height, |i| mask.data[i] > 0.5);
    let level: Vec<bool> = (0..parts.sizes.len())
        .map(|label| {
            if label == 0 || (parts.sizes[label] as f32) < 0.008 * study.area() as f32 {
                return false;
            }
            let own = |x: usize, y: usize| parts.labels[y * width + x] as usize == label;
            let tops: Vec<f32> =
                (0..width).filter_map(|x| (0..height).find(|&y| own(x, y))).map(|y| y as f32).collect();
            let edge = percentile_of(&mut tops.clone(), 0.15).unwrap_or(0.0);
            let flat = tops.iter().filter(|&&t| (t - edge).abs() < 0.03 * height as f32).count();
            flat as f32 > 0.45 * tops.len() as f32
        })
        .collect();
    let kept = super::morphology::dilated(&parts.mask(width, |l| level[l]), 2);
    mask.zip(&kept, |m, k| m * k)
}

/// Cooler in colour than the picture's land, in its lower part, and not leaves.
fn stream(study: &Study, traits: &Traits, open: &Map) -> Map {
    let cool = study.patches.means(&study.lab.0[2]);
    let land = study.lab.0[2].percentile(0.5, |i| open.data[i] > 0.5).unwrap_or(0.0);
    let values: Vec<f32> = traits
        .0
        .iter()
        .zip(cool)
        .map(|(t, b)| {
            smoothstep(land - b, 2.5, 7.0)
                * smoothstep(t.v, 0.25, 0.45)
                * (1.0 - ramp(t.leafy, 0.13, 0.8))
                * (t.value / 0.25).min(1.0)
        })
        .collect();
    study.patches.painted(&values).zip(open, |v, o| v * o).blurred(1.5).map(|v| smoothstep(v, 0.35, 0.6))
}
