//! Draws the still picture that the README animates: a lighthouse over a lake before mountains at dusk.
//!
//! Everything is computed, from value noise and a few curves, so the picture is ours to give away.
//! `cargo run --release -p kinora-engine --example draw_still -- examples/still.jpg`

use std::error::Error;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

const WIDTH_PX: u32 = 1600;
const HEIGHT_PX: u32 = 1000;
const JPEG_QUALITY: u8 = 88;
/// Heights, in picture heights from the top.
const HORIZON: f32 = 0.60;
const SUN: (f32, f32) = (0.52, 0.475);
const TOWER_X: f32 = 1.14;

type Colour = [f32; 3];

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("say where to write the picture: draw_still OUT.jpg")?;
    let picture = RgbImage::from_fn(WIDTH_PX, HEIGHT_PX, |x, y| {
        // Four samples a pixel keep edges smooth.
        let mut sum = [0.0; 3];
        for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
            // x runs 0..1.6 so that both axes have one unit.
            let place = ((x as f32 + dx) / HEIGHT_PX as f32, (y as f32 + dy) / HEIGHT_PX as f32);
            let colour = scene(place.0, place.1);
            (0..3).for_each(|c| sum[c] += colour[c] / 4.0);
        }
        let grain = (hash(x as i32, y as i32, 99) - 0.5) * 0.012;
        Rgb(sum.map(|v| ((v + grain).clamp(0.0, 1.0) * 255.0 + 0.5) as u8))
    });
    let file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    JpegEncoder::new_with_quality(file, JPEG_QUALITY).encode_image(&picture)?;
    Ok(())
}

/// The colour seen at (x, y), front to back.
fn scene(x: f32, y: f32) -> Colour {
    if let Some(colour) = tower(x, y) {
        return colour;
    }
    if let Some(colour) = headland(x, y) {
        return colour;
    }
    if let Some(colour) = meadow(x, y) {
        return colour;
    }
    if y > HORIZON { lake(x, y) } else { distance(x, y) }
}

/// Sky and mountains.
fn distance(x: f32, y: f32) -> Colour {
    let ranges = [
        // Base height, roughness, noise scale, colour.
        (0.60, 0.050, 9.0, [0.07, 0.13, 0.10]),
        (0.575, 0.085, 5.0, [0.13, 0.20, 0.18]),
        (0.53, 0.150, 3.1, [0.25, 0.28, 0.30]),
        (0.50, 0.120, 2.0, [0.36, 0.37, 0.41]),
    ];
    for (layer, (base, rough, scale, colour)) in ranges.into_iter().enumerate() {
        let seed = 10 + layer as i32;
        let ridge = base
            - rough * (1.0 - 2.0 * (fbm(x * scale + 3.7 * layer as f32, 0.5, seed, 6) - 0.5).abs()).powi(2);
        if y > ridge {
            let depth = ((y - ridge) / 0.16).min(1.0);
            // Light falls from the sun's side; snow and rock alternate on the far ranges.
            let rock = fbm(x * 26.0 + y * 19.0, y * 34.0 - x * 7.0, seed + 20, 5) - 0.5;
            let snow =
                smooth(0.06, 0.0, y - ridge) * smooth(-0.02, 0.12, rock) * if layer >= 2 { 0.6 } else { 0.0 };
            let haze = depth * 0.16 * (1.0 + layer as f32) / 3.0;
            let lit = scale_colour(colour, 1.0 + 1.1 * rock);
            return mix(mix(lit, [0.95, 0.88, 0.86], snow), [0.93, 0.72, 0.60], haze);
        }
    }
    sky(x, y)
}

fn sky(x: f32, y: f32) -> Colour {
    let up = (y / HORIZON).clamp(0.0, 1.0);
    let clear = mix(
        mix([0.16, 0.29, 0.52], [0.52, 0.60, 0.74], smooth(0.0, 0.65, up)),
        [1.0, 0.77, 0.55],
        smooth(0.5, 1.0, up),
    );
    let (dx, dy) = (x - SUN.0, y - SUN.1);
    let from_sun = (dx * dx + dy * dy).sqrt();
    let glow = (-from_sun * 4.5).exp() * 0.55 + smooth(0.043, 0.038, from_sun);
    let lit = add(clear, scale_colour([1.0, 0.80, 0.52], glow));
    // Clouds thin out upwards and stretch towards the horizon.
    let stretch = 1.0 / (0.30 + 0.9 * (HORIZON - y).max(0.0));
    let (u, v) = (x * 2.0 + 1.3, y * 4.2 * stretch);
    let warp = fbm(u * 1.7, v * 1.7, 3, 4);
    let density = smooth(0.50, 0.74, fbm(u + 0.6 * warp, v + 0.35 * warp, 4, 6));
    let shade = fbm(u + 0.05, v + 0.16, 4, 5);
    let cloud = mix([1.0, 0.83, 0.70], [0.58, 0.50, 0.60], smooth(0.40, 0.72, shade));
    mix(lit, mix(cloud, [1.0, 0.86, 0.66], (-from_sun * 3.0).exp()), density * 0.88)
}

/// The far shore upside down, broken by ripples that grow towards the viewer.
fn lake(x: f32, y: f32) -> Colour {
    let near = (y - HORIZON) / (1.0 - HORIZON);
    let row = 1.0 / (near + 0.035);
    let ripple = fbm(x * row * 2.2, row * 16.0, 31, 4) - 0.5;
    let fine = fbm(x * row * 7.0, row * 44.0, 32, 3) - 0.5;
    let bend = (ripple * 0.055 + fine * 0.02) * (0.25 + near);
    let mirrored = (2.0 * HORIZON - y + bend).clamp(0.0, HORIZON - 0.001);
    let reflected = distance(x + bend * 0.4, mirrored);
    let deep = [0.06, 0.17, 0.20];
    let glint =
        smooth(0.16, 0.30, ripple + fine * 0.6) * (-((x - SUN.0) / (0.06 + 0.22 * near)).powi(2)).exp();
    add(mix(reflected, deep, 0.50 + 0.25 * near), scale_colour([1.0, 0.78, 0.50], 0.55 * glint))
}

/// The rock that the lighthouse stands on.
fn headland(x: f32, y: f32) -> Option<Colour> {
    let rough = (fbm(x * 7.0, 2.0, 41, 5) - 0.5) * 0.07;
    let top = 0.715 + rough + 0.55 * (x - TOWER_X - 0.10).powi(2).min(0.5) + 0.30 * smooth(1.00, 0.84, x);
    if y < top {
        return None;
    }
    let under = y - top;
    let rock = fbm(x * 22.0, y * 15.0 + x * 5.0, 42, 5);
    let crack = smooth(0.035, 0.0, (fbm(x * 9.0 + 0.5 * rock, y * 20.0, 43, 4) - 0.5).abs());
    let grass = smooth(0.050, 0.012, under + 0.03 * (rock - 0.5));
    let grit = 0.75 + 0.5 * fbm(x * 95.0, y * 95.0, 45, 3);
    let stone = scale_colour(mix([0.42, 0.37, 0.34], [0.20, 0.19, 0.21], rock), (1.15 - 0.45 * crack) * grit);
    let turf = mix([0.23, 0.33, 0.13], [0.50, 0.52, 0.20], fbm(x * 60.0, y * 22.0, 44, 3));
    Some(scale_colour(mix(stone, turf, grass), 1.0 - smooth(0.0, 0.30, under) * 0.45))
}

/// Tall grass along the lower edge on the left.
fn meadow(x: f32, y: f32) -> Option<Colour> {
    let ground = 0.905 + 0.05 * (fbm(x * 2.6, 7.0, 51, 3) - 0.5) + 0.16 * smooth(0.55, 0.95, x);
    for layer in 0..4 {
        let lean = (fbm(x * 4.0, 1.0, 52 + layer, 2) - 0.5) * 0.5;
        let spread = 70.0 - 11.0 * layer as f32;
        let along = (x + lean * (ground - y)) * spread;
        let blade = along.floor() as i32;
        let height = (0.05 + 0.085 * hash(blade, layer, 53)) * (1.0 - 0.13 * layer as f32);
        let rise = (ground + 0.018 * layer as f32 - y) / height;
        let across = (along - along.floor() - 0.5).abs() * 2.0;
        if rise < 1.0 && across < 0.92 * (1.0 - rise.max(0.0)).powf(0.7) {
            let tint = hash(blade, layer, 54);
            let green = mix([0.15, 0.25, 0.09], [0.55, 0.56, 0.22], tint * 0.6 + 0.4 * rise.clamp(0.0, 1.0));
            return Some(scale_colour(green, 0.45 + 0.55 * rise.clamp(0.0, 1.0)));
        }
    }
    (y > ground + 0.01).then(|| scale_colour([0.20, 0.29, 0.11], 0.6 + 0.7 * fbm(x * 40.0, y * 40.0, 55, 4)))
}

/// The lighthouse: tapered, banded, with a gallery, a lit lantern and a cap.
fn tower(x: f32, y: f32) -> Option<Colour> {
    let (base, gallery, lantern, cap, tip) = (0.735, 0.300, 0.245, 0.205, 0.180);
    let off = x - TOWER_X;
    let round = |half: f32| (1.0 - (off / half).powi(2)).max(0.0).sqrt();
    // The sun stands to the left.
    let light = |half: f32| 0.52 + 0.34 * round(half) - 0.42 * off / half;
    if (gallery..base).contains(&y) {
        let half = 0.040 + 0.026 * (y - gallery) / (base - gallery);
        if off.abs() < half {
            let band = ((y - gallery) / (base - gallery) * 5.0) as i32 % 2 == 1;
            let wall = if band { [0.74, 0.20, 0.16] } else { [0.33, 0.30, 0.31] };
            let plaster = 0.94 + 0.12 * fbm(x * 60.0, y * 26.0, 61, 4);
            let window = off.abs() < 0.008 && ((y - gallery) * 9.0).fract() < 0.22 && y > gallery + 0.05;
            let colour = if window { [0.10, 0.11, 0.15] } else { scale_colour(wall, plaster * light(half)) };
            return Some(colour);
        }
    }
    if (gallery - 0.014..gallery + 0.006).contains(&y) && off.abs() < 0.060 {
        return Some(scale_colour([0.26, 0.25, 0.28], 0.6 + light(0.060)));
    }
    if (lantern..gallery).contains(&y) && off.abs() < 0.030 {
        let bar = (off / 0.030 * 3.0 + 0.5).fract().abs() < 0.10;
        let lamp = (-(off * 60.0).powi(2) - ((y - 0.272) * 55.0).powi(2)).exp();
        let glass = mix([0.95, 0.75, 0.42], [1.0, 0.97, 0.82], lamp);
        return Some(if bar { [0.22, 0.20, 0.22] } else { glass });
    }
    if (cap..lantern).contains(&y) && off.abs() < 0.040 * ((y - cap) / (lantern - cap)).sqrt() {
        return Some(scale_colour([0.62, 0.17, 0.15], light(0.042)));
    }
    ((tip..cap + 0.004).contains(&y) && off.abs() < 0.0028).then_some([0.20, 0.19, 0.22])
}

fn mix(a: Colour, b: Colour, t: f32) -> Colour {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * t.clamp(0.0, 1.0))
}

fn add(a: Colour, b: Colour) -> Colour {
    std::array::from_fn(|c| a[c] + b[c])
}

fn scale_colour(a: Colour, k: f32) -> Colour {
    a.map(|v| v * k)
}

/// 0 at `from`, 1 at `to`, either way round.
fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Octaves of value noise, about 0..1 around 0.5.
fn fbm(x: f32, y: f32, seed: i32, octaves: i32) -> f32 {
    let (mut sum, mut amplitude, mut total) = (0.0, 1.0, 0.0);
    for octave in 0..octaves {
        let k = (1 << octave) as f32;
        sum += amplitude * value_noise(x * k, y * k, seed + 131 * octave);
        total += amplitude;
        amplitude *= 0.5;
    }
    sum / total
}

fn value_noise(x: f32, y: f32, seed: i32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let (u, v) = (smooth(0.0, 1.0, x - x0), smooth(0.0, 1.0, y - y0));
    let corner = |i: i32, j: i32| hash(x0 as i32 + i, y0 as i32 + j, seed);
    let (top, bottom) =
        (corner(0, 0) + (corner(1, 0) - corner(0, 0)) * u, corner(0, 1) + (corner(1, 1) - corner(0, 1)) * u);
    top + (bottom - top) * v
}

/// A number in 0..1 for a lattice point.
fn hash(x: i32, y: i32, seed: i32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1)
        ^ (y as u32).wrapping_mul(0x85EB_CA77)
        ^ (seed as u32).wrapping_mul(0xC2B2_AE3D);
    for multiplier in [0x7FEB_352D_u32, 0x846C_A68B] {
        h = (h ^ (h >> 15)).wrapping_mul(multiplier);
    }
    (h ^ (h >> 16)) as f32 / u32::MAX as f32
}
