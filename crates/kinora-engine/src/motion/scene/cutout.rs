//! The subject cut out of the picture, and how far that can be trusted.
//!
//! Always true: the mask is 0 or 1; the confidence is 0..1, and 0 unless every gate lets it through. A wrong
//! cut-out tears the picture apart in motion while a missing one only makes it calmer, so doubt counts as no.
//! Sources: Rother, Kolmogorov, Blake, "GrabCut", SIGGRAPH 2004, started from a prior instead of a rectangle.

use rayon::prelude::*;

use super::graph_cut::{GridGraph, NEIGHBOURS};
use super::map::{Map, percentile_of, ramp};
use super::mixture::Mixture;
use super::morphology::{Components, eroded, hull_area};
use super::saliency::saliency;
use super::study::Study;

/// Says where a picture's subject may be. A learned mask would be another of these.
pub(crate) trait SubjectMask: Sync {
    /// The likelihood of subject, 0..1, at the study's size; None when there is nothing to say.
    fn prior(&self, study: &Study) -> Option<Map>;
}

/// What stands out against what reaches the border.
#[derive(Debug)]
pub(crate) struct Salient;

impl SubjectMask for Salient {
    fn prior(&self, study: &Study) -> Option<Map> {
        let salient = study.patches.painted(&saliency(&study.patches));
        let top = study.sharpness.percentile(0.97, |_| true)?.max(1e-6);
        let prior = salient.zip(&study.sharpness, |s, d| s * (0.75 + 0.25 * (d / top).min(1.0)));
        let peak = prior.data.iter().copied().fold(0.0, f32::max);
        (peak > 0.0).then(|| prior.map(|v| v / peak))
    }
}

/// A subject found in the study.
#[derive(Debug)]
pub(crate) struct Cutout {
    /// 1 on the subject.
    pub(crate) mask: Map,
    pub(crate) confidence: f32,
    /// Difference in colour between the two sides of the outline around each pixel, in their spread.
    pub(crate) contrast: Map,
    pub(crate) gates: Gates,
}

/// What the confidence is the product of, for people who tune it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Gates {
    /// How far prior and cut agree, as intersection over union.
    pub agreement: f32,
    /// Share of the parts' convex hulls that is filled.
    pub solidity: f32,
    /// Share of the outline with a clear difference in colour.
    pub outlined: f32,
    /// Share of the outline across which the colour hardly changes.
    pub faint: f32,
    /// Of the frame's width.
    pub width: f32,
    /// Of the frame.
    pub area: f32,
    /// Share of the frame's sides that it touches, the lower side counting less.
    pub touch: f32,
    pub parts: usize,
}

const UNSURE_BELOW: f32 = 0.22;
const LIKELY_ABOVE: f32 = 0.42;
const ROUNDS: usize = 3;
/// GrabCut's weight of smoothness against colour.
const SMOOTHNESS: f32 = 50.0;
/// Energy steps per unit, for the integer cut.
const ENERGY_STEPS: f32 = 256.0;
const OUTLINE_RADIUS: usize = 7;

/// The most trusted cut-out that a prior leads to; None when none leads to any.
pub(crate) fn best_cutout(study: &Study, priors: &[&dyn SubjectMask]) -> Option<Cutout> {
    let candidates = priors.iter().filter_map(|p| cut(study, &p.prior(study)?));
    // The first of equals.
    candidates.reduce(|best, next| if next.confidence > best.confidence { next } else { best })
}

fn cut(study: &Study, prior: &Map) -> Option<Cutout> {
    let trimap = Trimap::of(prior)?;
    let raw = trimap.cut(study);
    let mask = cleaned(&raw);
    if mask.data.iter().filter(|&&v| v > 0.5).count() < 30 {
        return None;
    }
    let contrast = outline_contrast(study, &mask);
    let gates = Gates::of(study, &mask, prior, &contrast)?;
    let confidence = if cloud_on_blue(study, &mask) { 0.0 } else { gates.confidence() };
    Some(Cutout { mask, confidence, contrast, gates })
}

/// What is certain before the cut.
struct Trimap {
    width: usize,
    height: usize,
    labels: Vec<Label>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Background,
    Unsure { likely: bool },
    Foreground,
}

impl Trimap {
    /// None when too little is certain on either side to learn colours from.
    fn of(prior: &Map) -> Option<Self> {
        let high = (prior.percentile(0.9, |_| true)? * 0.85).max(0.62);
        let sure = eroded(&prior.map(|v| f32::from(u8::from(v > high))), 2);
        let labels: Vec<Label> = prior
            .data
            .iter()
            .zip(&sure.data)
            .map(|(&p, &sure)| match p {
                _ if sure > 0.5 => Label::Foreground,
                p if p < UNSURE_BELOW => Label::Background,
                p => Label::Unsure { likely: p > LIKELY_ABOVE },
            })
            .collect();
        let count = |label: Label| labels.iter().filter(|&&l| l == label).count();
        let enough = count(Label::Foreground) > 30 && count(Label::Background) > 100;
        enough.then_some(Self { width: prior.width, height: prior.height, labels })
    }

    fn cut(&self, study: &Study) -> Map {
        let colors: Vec<[f32; 3]> = (0..study.area()).map(|i| study.rgb.at(i).map(|v| v * 255.0)).collect();
        let mut inside: Vec<bool> = self
            .labels
            .iter()
            .map(|l| matches!(l, Label::Foreground | Label::Unsure { likely: true }))
            .collect();
        let sides = |inside: &[bool], side: bool| -> Vec<[f32; 3]> {
            colors.iter().zip(inside).filter(|(_, s)| **s == side).map(|(&c, _)| c).collect()
        };
        let mut mixtures = [false, true].map(|side| Mixture::seeded(&sides(&inside, side)));
        let links = self.link_costs(&colors);
        for _ in 0..ROUNDS {
            mixtures = [false, true].map(|side| {
                let own = sides(&inside, side);
                if own.is_empty() {
                    mixtures[usize::from(side)].clone()
                } else {
                    mixtures[usize::from(side)].refined(&own)
                }
            });
            inside = self.cut_once(&colors, &mixtures, &links);
        }
        let data = inside.iter().map(|&s| f32::from(u8::from(s))).collect();
        Map { width: self.width, height: self.height, data }
    }

    /// What it costs to part each pixel from its neighbours to the right and below.
    fn link_costs(&self, colors: &[[f32; 3]]) -> Vec<[i32; 4]> {
        let (width, height) = (self.width, self.height);
        let squared = |i: usize, d: usize| {
            let (dx, dy) = NEIGHBOURS[d];
            let (x, y) = ((i % width) as isize + dx, (i / width) as isize + dy);
            (x >= 0 && x < width as isize && y < height as isize).then(|| {
                super::superpixels::squared_distance(colors[i], colors[y as usize * width + x as usize])
            })
        };
        let all: Vec<[Option<f32>; 4]> =
            (0..colors.len()).into_par_iter().map(|i| FORWARD.map(|d| squared(i, d))).collect();
        let (sum, count) = all
            .iter()
            .flatten()
            .flatten()
            .fold((0.0f64, 0usize), |(sum, count), &v| (sum + f64::from(v), count + 1));
        let beta = if sum > 0.0 { (count as f64 / (2.0 * sum)) as f32 } else { 0.0 };
        all.par_iter()
            .map(|links| {
                let mut costs = [0; 4];
                for (k, link) in links.iter().enumerate() {
                    let diagonal = if FORWARD[k] >= 4 { std::f32::consts::FRAC_1_SQRT_2 } else { 1.0 };
                    costs[k] = link.map_or(0, |v| {
                        (SMOOTHNESS * diagonal * (-beta * v).exp() * ENERGY_STEPS).round() as i32
                    });
                }
                costs
            })
            .collect()
    }

    fn cut_once(&self, colors: &[[f32; 3]], mixtures: &[Mixture; 2], links: &[[i32; 4]]) -> Vec<bool> {
        let mut graph = GridGraph::new(self.width, self.height);
        let terminals: Vec<i32> = colors
            .par_iter()
            .zip(&self.labels)
            .map(|(&color, label)| match label {
                Label::Unsure { .. } => {
                    let gain = mixtures[1].log_density(color) - mixtures[0].log_density(color);
                    (gain.clamp(-1e4, 1e4) * ENERGY_STEPS).round() as i32
                }
                _ => 0,
            })
            .collect();
        let certain = |i: usize| match self.labels[i] {
            Label::Foreground => Some(1),
            Label::Background => Some(-1),
            Label::Unsure { .. } => None,
        };
        for (i, &cost) in terminals.iter().enumerate() {
            graph.add_terminal(i, cost);
        }
        for (i, costs) in links.iter().enumerate() {
            for (k, &cost) in costs.iter().enumerate().filter(|(_, c)| **c > 0) {
                let (dx, dy) = NEIGHBOURS[FORWARD[k]];
                let j = i.wrapping_add_signed(dy * self.width as isize + dx);
                // What is certain needs no place in the graph: it pulls its neighbours to its side.
                match (certain(i), certain(j)) {
                    (None, None) => graph.add_link(i, FORWARD[k], cost),
                    (None, Some(side)) => graph.add_terminal(i, side * cost),
                    (Some(side), None) => graph.add_terminal(j, side * cost),
                    (Some(_), Some(_)) => {}
                }
            }
        }
        let mut inside = graph.cut();
        for (i, side) in inside.iter_mut().enumerate() {
            if let Some(known) = certain(i) {
                *side = known > 0;
            }
        }
        inside
    }
}

/// Right, below, below right, below left: each pair of neighbours once.
const FORWARD: [usize; 4] = [0, 2, 4, 6];

/// Smooth outline, no crumbs, no pinholes.
fn cleaned(raw: &Map) -> Map {
    let (width, height) = (raw.width, raw.height);
    let area = (width * height) as f32;
    let smooth = raw.blurred(1.5);
    let parts = Components::of(width, height, |i| smooth.data[i] > 0.5);
    let largest = parts.sizes[1..].iter().copied().max().unwrap_or(0) as f32;
    let kept = parts.mask(width, |l| {
        let size = parts.sizes[l] as f32;
        size > 0.12 * largest && size > 0.002 * area
    });
    let holes = Components::of(width, height, |i| kept.data[i] < 0.5);
    let filled = holes.mask(width, |l| (holes.sizes[l] as f32) < 0.004 * area);
    kept.zip(&filled, f32::max)
}

/// Distance of the mean colours on both sides of the outline over their spread, in windows.
fn outline_contrast(study: &Study, mask: &Map) -> Map {
    let outside = mask.map(|v| 1.0 - v);
    let energy = study.map(|i| study.lab.at(i).iter().map(|v| v * v).sum());
    let side = |side: &Map| {
        let weight = side.box_blurred(OUTLINE_RADIUS).map(|v| v + 1e-3);
        let window =
            |p: &Map| p.zip(side, |v, w| v * w).box_blurred(OUTLINE_RADIUS).zip(&weight, |v, w| v / w);
        let means = study.lab.each(window);
        let square = window(&energy);
        let spread =
            study.map(|i| (square.data[i] - means.at(i).iter().map(|v| v * v).sum::<f32>()).max(0.0));
        (means, spread)
    };
    let ((inner, inner_spread), (outer, outer_spread)) = rayon::join(|| side(mask), || side(&outside));
    study.map(|i| {
        let difference = super::superpixels::squared_distance(inner.at(i), outer.at(i));
        (difference / (inner_spread.data[i] + outer_spread.data[i] + 60.0)).sqrt()
    })
}

impl Gates {
    /// None without an outline inside the frame.
    fn of(study: &Study, mask: &Map, prior: &Map, contrast: &Map) -> Option<Self> {
        let (width, height) = (mask.width, mask.height);
        let inside = |i: usize| mask.data[i] > 0.5;
        let (mut both, mut either) = (0usize, 0usize);
        for i in 0..mask.data.len() {
            let likely = prior.data[i] > 0.5;
            both += usize::from(likely && inside(i));
            either += usize::from(likely || inside(i));
        }
        let parts = Components::of(width, height, inside);
        let total = mask.data.len() - parts.sizes[0];
        let large: Vec<usize> =
            (1..parts.sizes.len()).filter(|&l| parts.sizes[l] as f32 > 0.1 * total as f32).collect();
        let hulls: f32 =
            large.iter().map(|&l| hull_area(width, height, |i| parts.labels[i] as usize == l)).sum();
        let outline = outline(mask);
        let clear = outline.iter().filter(|&&i| contrast.data[i] > 0.8).count();
        let columns: Vec<usize> =
            (0..width).filter(|&x| (0..height).any(|y| inside(y * width + x))).collect();
        let share = |cells: &mut dyn Iterator<Item = usize>, of: usize| {
            cells.filter(|&i| inside(i)).count() as f32 / of as f32
        };
        let touch = share(&mut (0..width), width)
            + 0.3 * share(&mut ((height - 1) * width..height * width), width)
            + share(&mut (0..height).map(|y| y * width), height)
            + share(&mut (0..height).map(|y| (y + 1) * width - 1), height);
        (outline.len() > 20).then(|| Self {
            agreement: both as f32 / (either + 1) as f32,
            solidity: total as f32 / (hulls + 1.0),
            outlined: clear as f32 / outline.len() as f32,
            faint: faint(study, &outline),
            width: (columns.last().unwrap_or(&0) - columns.first().unwrap_or(&0)) as f32 / width as f32,
            area: total as f32 / mask.data.len() as f32,
            touch,
            parts: large.len(),
        })
    }

    /// Thresholds are set so that no photo of a set of 56 is cut wrongly.
    fn confidence(&self) -> f32 {
        if self.parts != 1 {
            return 0.0;
        }
        // A perfect outline makes up for a vague prior.
        let crisp = ramp(self.outlined, 0.88, 0.97) * ramp(0.02 - self.faint, 0.0, 0.015);
        ramp(self.agreement, 0.66 - 0.10 * crisp, 0.74 - 0.08 * crisp)
            * ramp(self.solidity, 0.72, 0.80)
            * ramp(self.outlined, 0.48, 0.62)
            * ramp(0.018 - self.faint, 0.0, 0.010)
            * ramp(0.75 - self.width, 0.0, 0.12)
            * ramp(self.area, 0.006, 0.018)
            * ramp(1.1 - self.touch, 0.0, 0.3)
    }
}

/// Share of the outline's pixels across which the colour changes by less than a just visible step.
fn faint(study: &Study, outline: &[usize]) -> f32 {
    const REACH: isize = 3;
    const STEP: f32 = 6.0;
    let lab = study.lab.each(|p| p.blurred(0.7));
    let at = |x: isize, y: isize| {
        let x = x.clamp(0, study.width as isize - 1) as usize;
        let y = y.clamp(0, study.height as isize - 1) as usize;
        lab.at(y * study.width + x)
    };
    let change = |i: usize| {
        let (x, y) = ((i % study.width) as isize, (i / study.width) as isize);
        [(REACH, 0), (0, REACH), (2, 2), (2, -2)]
            .map(|(dx, dy)| super::superpixels::squared_distance(at(x + dx, y + dy), at(x - dx, y - dy)))
            .into_iter()
            .fold(0.0, f32::max)
    };
    let faint = outline.iter().filter(|&&i| change(i) < STEP * STEP).count();
    faint as f32 / outline.len().max(1) as f32
}

/// The pixels on either side of the mask's outline, but for those at the frame's border.
pub(crate) fn outline(mask: &Map) -> Vec<usize> {
    let (width, height) = (mask.width, mask.height);
    let mut cells = Vec::new();
    for y in 3..height.saturating_sub(3) {
        for x in 3..width.saturating_sub(3) {
            let here = mask.at(x, y) > 0.5;
            let differs = (y - 1..=y + 1).any(|v| (x - 1..=x + 1).any(|u| (mask.at(u, v) > 0.5) != here));
            if differs {
                cells.push(y * width + x);
            }
        }
    }
    cells
}

/// A pale mass before blue is a cloud, not a subject.
fn cloud_on_blue(study: &Study, mask: &Map) -> bool {
    let share = |side: bool, is: &dyn Fn([f32; 3]) -> bool| {
        let cells: Vec<usize> = (0..study.area()).filter(|&i| (mask.data[i] > 0.5) == side).collect();
        cells.iter().filter(|&&i| is(study.hsv.at(i))).count() as f32 / cells.len().max(1) as f32
    };
    share(true, &|[_, s, v]| s < 0.22 && v > 0.55) > 0.7
        && share(false, &|[h, s, _]| h > 195.0 && h < 255.0 && s > 0.3) > 0.6
}

/// How clearly the outline is a line in the picture: the weakest fifth of it, 0..1.
pub(crate) fn outline_support(cutout: &Cutout) -> f32 {
    let mut support: Vec<f32> =
        outline(&cutout.mask).iter().map(|&i| ramp(cutout.contrast.data[i], 0.35, 1.0)).collect();
    percentile_of(&mut support, 0.22).unwrap_or(0.3)
}
