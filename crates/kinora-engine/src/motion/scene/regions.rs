//! Where things are that can move: sky, vegetation, lights, hair, cloth, fire; water has a file of its own.
//!
//! Always true: masks lie in 0..1; what covers next to nothing is not a region. Colour and texture decide, not
//! knowledge of things: the words of a prompt say which of these to believe.

use super::map::{Map, ramp, smoothstep};
use super::morphology::Components;
use super::sky::Sky;
use super::study::Study;
use super::water;

/// A region at the study's size, not yet refined.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) mask: Map,
    pub(crate) confidence: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sky,
    Water,
    Stream,
    Vegetation,
    Lights,
    Hair,
    Cloth,
    Fire,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sky => "sky",
            Self::Water => "water",
            Self::Stream => "stream",
            Self::Vegetation => "vegetation",
            Self::Lights => "lights",
            Self::Hair => "hair",
            Self::Cloth => "cloth",
            Self::Fire => "fire",
        }
    }

    /// Smallest share of the frame worth moving.
    fn area_min(self) -> f32 {
        match self {
            Self::Lights => 0.0002,
            Self::Fire => 0.002,
            Self::Hair | Self::Cloth => 0.005,
            Self::Water | Self::Stream | Self::Sky => 0.015,
            // Less is as often a pair of green eyes.
            Self::Vegetation => 0.03,
        }
    }

    /// Regions less sure than this are none, even for one who asks. Whoever moves one unasked should demand far
    /// more.
    fn confidence_min(self) -> f32 {
        match self {
            // Skin, fur and lawns look a little like water, and every warm colour a little like fire.
            Self::Water | Self::Fire => 0.25,
            _ => 0.1,
        }
    }

    /// Whether it is never part of a subject.
    pub(crate) fn lies_behind(self) -> bool {
        matches!(self, Self::Sky | Self::Water | Self::Stream)
    }

    /// Whether its edge follows the picture's; a light's glow does not.
    pub(crate) fn is_refined(self) -> bool {
        self != Self::Lights
    }
}

/// Everything that may move. `subject` is the cut-out where there is a layer for it.
pub(crate) fn seen(study: &Study, sky: &Sky, subject: Option<&Map>) -> Vec<Seen> {
    let behind = study.map(|i| subject.map_or(1.0, |s| 1.0 - s.data[i]));
    let vegetation = vegetation(study, sky);
    let (water, stream) = water::seen(study, sky, &behind, &vegetation);
    let mut all = vec![
        Seen { kind: Kind::Sky, mask: sky.mask.zip(&behind, |s, b| s * b), confidence: sky.confidence },
        water,
        stream,
        sure(Kind::Lights, lights(study, sky)),
        sure(Kind::Cloth, cloth(study, sky, &vegetation, subject)),
        fire(study),
    ];
    all.extend(subject.map(|s| sure(Kind::Hair, hair(study, s))));
    all.push(sure(Kind::Vegetation, vegetation));
    all.retain(|s| s.confidence > s.kind.confidence_min() && s.mask.mean() > s.kind.area_min());
    all
}

/// Of what only colour decides, half is believed.
fn sure(kind: Kind, mask: Map) -> Seen {
    Seen { kind, mask, confidence: 0.5 }
}

/// Green, or yellow-brown and saturated, and textured.
fn vegetation(study: &Study, sky: &Sky) -> Map {
    let leafy = study.map(|i| match study.hsv.at(i) {
        [hue, saturation, _] if hue > 58.0 && hue < 170.0 && saturation > 0.12 => 1.0,
        [hue, saturation, value] if hue > 30.0 && hue <= 58.0 && saturation > 0.3 && value > 0.15 => 0.8,
        _ => 0.0,
    });
    let texture = study.slope_x.zip(&study.slope_y, |x, y| x + y).blurred(4.0);
    let soft = leafy.blurred(2.0);
    let not_sky = if sky.is_found() { 1.0 } else { 0.0 };
    study.map(|i| {
        smoothstep(soft.data[i], 0.35, 0.7)
            * smoothstep(texture.data[i], 0.012, 0.05)
            * (1.0 - not_sky * sky.mask.data[i])
    })
}

/// Small blobs near the picture's brightest.
fn lights(study: &Study, sky: &Sky) -> Map {
    let value = &study.hsv.0[2];
    let bright = value.percentile(0.99, |_| true).unwrap_or(1.0) * 0.92;
    let sky_counts = sky.is_found();
    let blobs = Components::of(study.width, study.height, |i| {
        value.data[i] > bright.max(0.80) && !(sky_counts && sky.mask.data[i] > 0.5 && !dark_around(study, i))
    });
    let bounds = blobs.bounds(study.width);
    let small = blobs.mask(study.width, |l| {
        let [x0, y0, x1, y1] = bounds[l];
        let wide = (x1 - x0).max(y1 - y0) as f32;
        let size = blobs.sizes[l] as f32;
        size >= 2.0 && size < 0.004 * study.area() as f32 && wide < 0.07 * study.width as f32
    });
    // A light outshines what is around it; a white wall's specks do not.
    let around = value.box_blurred(8);
    let lit = small.zip(&around, |s, a| if a < 0.55 { s } else { 0.0 });
    lit.blurred(1.4).map(|v| smoothstep(v, 0.12, 0.7))
}

/// Whether a bright place in the sky's mask stands before a dark sky.
fn dark_around(study: &Study, i: usize) -> bool {
    let x = (i % study.width + 12).min(study.width - 1);
    study.hsv.0[2].data[i - i % study.width + x] < 0.5
}

/// The upper part of the subject that is not skin.
fn hair(study: &Study, subject: &Map) -> Map {
    let rows: Vec<usize> = (0..study.height).filter(|&y| subject.row(y).iter().any(|&v| v > 0.5)).collect();
    let (Some(&top), Some(&bottom)) = (rows.first(), rows.last()) else { return study.map(|_| 0.0) };
    let skin = study.map(|i| f32::from(u8::from(is_skin(study.hsv.at(i))))).blurred(2.0);
    // Hair without a face below is fur, stone or petals.
    let upper = top + (bottom - top) / 2;
    let in_upper = |i: usize| subject.data[i] > 0.5 && i / study.width <= upper;
    let (mut cells, mut faces) = (0.0f32, 0.0f32);
    for i in (0..study.area()).filter(|&i| in_upper(i)) {
        cells += 1.0;
        faces += f32::from(u8::from(skin.data[i] > 0.5));
    }
    if !(0.12..0.8).contains(&(faces / cells.max(1.0))) {
        return study.map(|_| 0.0);
    }
    // Strands have texture; porcelain, lacquer and petals shine.
    let texture = study.slope_x.zip(&study.slope_y, |x, y| x + y).blurred(3.0);
    study.map(|i| {
        let below_top = ((i / study.width) as f32 - top as f32) / (bottom - top + 1) as f32;
        subject.data[i]
            * (1.0 - smoothstep(below_top, 0.45, 0.7))
            * (1.0 - smoothstep(skin.data[i], 0.35, 0.65))
            * smoothstep(texture.data[i], 0.012, 0.03)
    })
}

/// The colours of faces, among others.
fn is_skin([hue, saturation, value]: [f32; 3]) -> bool {
    !(35.0..=345.0).contains(&hue) && saturation > 0.15 && saturation < 0.62 && value > 0.3
}

/// Saturated, neither leaves nor skin; what someone wears rather than what else is coloured.
fn cloth(study: &Study, sky: &Sky, vegetation: &Map, subject: Option<&Map>) -> Map {
    const WORN_FROM: f32 = 0.02;
    let sky_counts = sky.is_found();
    let saturated = study
        .map(|i| {
            let colour @ [_, saturation, value] = study.hsv.at(i);
            // A face that ripples is worse than a dress that does not.
            if value > 0.2 && !is_skin(colour) { saturation * (1.0 - vegetation.data[i]) } else { 0.0 }
        })
        .blurred(2.0);
    let all = study.map(|i| {
        let sky = if sky_counts { sky.mask.data[i] } else { 0.0 };
        smoothstep(saturated.data[i], 0.35, 0.55) * (1.0 - sky)
    });
    let worn = subject.map(|subject| all.zip(subject, |a, s| a * s));
    worn.filter(|worn| worn.mean() > WORN_FROM).unwrap_or(all)
}

/// Bright, saturated, between red and yellow; believed where it outshines everything else.
fn fire(study: &Study) -> Seen {
    let flames = study.map(|i| {
        let [hue, saturation, value] = study.hsv.at(i);
        f32::from(u8::from(!(55.0..=345.0).contains(&hue) && saturation > 0.45 && value > 0.72))
    });
    let mask = flames.blurred(1.5).map(|v| smoothstep(v, 0.3, 0.5));
    let mean = |weight: &dyn Fn(usize) -> f32| {
        let cells = 0..study.area();
        let (sum, total) = cells.fold((0.0, 0.0f32), |(sum, total), i| {
            (sum + weight(i) * study.hsv.0[2].data[i], total + weight(i))
        });
        sum / total.max(1e-6)
    };
    let brighter = mean(&|i| mask.data[i]) - mean(&|i| 1.0 - mask.data[i]);
    Seen { kind: Kind::Fire, confidence: 0.2 + 0.6 * ramp(brighter, 0.45, 0.7), mask }
}
