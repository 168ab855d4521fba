//! Snow, rain, embers, dust, fireflies and petals: points in depth, each with its own course.
//!
//! A particle's place is a closed function of time, so nothing has to be stepped. Places wrap around well
//! outside the frame.

use std::f32::consts::TAU;

use super::super::camera::{Pose, smoothstep};
use super::super::fields::Drive;
use super::super::prompt::Effect;
use super::super::render::{BAND_ROWS, Frame, nearness};
use super::{Light, Line, mix, screen};
use crate::rng::Noise;

/// What a kind of particle is like.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) effect: Effect,
    /// At strength 1, in a frame of 1280x720.
    count: f32,
    /// Particles are far (0) to near (1): `share^depth` of a uniform share.
    depth: f32,
    look: Look,
    course: fn(&Particle, f32, f32) -> Course,
}

/// How a particle is painted; colours 0..1.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Look {
    /// Opaque discs as bright as the picture's light.
    Flake([f32; 3]),
    /// Light added, softly.
    Mote([f32; 3]),
    /// Light with a halo.
    Spark([f32; 3]),
    /// Light along a line.
    Streak([f32; 3]),
    /// Tumbling petals of three tints.
    Petal([[f32; 3]; 3]),
}

/// One particle's own numbers.
#[derive(Debug, Clone, Copy)]
struct Particle {
    x: f32,
    y: f32,
    /// 0 far, 1 near.
    z: f32,
    phase: [f32; 4],
    hz: [f32; 2],
    pace: f32,
    tint: f32,
}

/// Where a particle is and how it looks: x in frame widths, y in frame heights, radius in pixels at 1280.
struct Course {
    x: f32,
    y: f32,
    radius: f32,
    alpha: f32,
}

/// Slow swing of the wind, in frame widths a second.
fn wind(t: f32) -> f32 {
    0.03 + 0.05 * (0.5 * t + 1.0).sin()
}

fn swing(hz: f32, t: f32, phase: f32) -> f32 {
    (TAU * hz * t + phase).sin()
}

/// All kinds. Speeds in frame heights a second.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        effect: Effect::Snow,
        count: 900.0,
        depth: 1.9,
        look: Look::Flake([0.97, 0.98, 1.0]),
        course: |p, t, speed| Course {
            x: p.x + p.z * (wind(t) * t * 0.6 + 0.018 * swing(p.hz[0], t, p.phase[0])),
            y: p.y + (0.15 + 0.85 * p.z) * p.pace * 0.19 * speed * t,
            radius: 0.9 + 5.2 * p.z.powf(1.6),
            alpha: 0.95 * (1.0 - 0.5 * p.z),
        },
    },
    Kind {
        effect: Effect::Rain,
        count: 700.0,
        depth: 1.0,
        look: Look::Streak([0.85, 0.90, 1.0]),
        course: |p, t, speed| Course {
            x: p.x + 0.04 * t,
            y: p.y + (0.70 + 0.75 * p.z) * p.pace * 1.15 * t * speed,
            radius: 22.0 + 46.0 * p.z,
            alpha: (0.22 + 0.18 * p.z) * (0.55 + 0.36 * p.pace),
        },
    },
    Kind {
        effect: Effect::Embers,
        count: 130.0,
        depth: 1.9,
        look: Look::Spark([1.0, 0.55, 0.18]),
        course: |p, t, speed| Course {
            x: p.x + p.z * (0.03 * swing(2.0 * p.hz[0], t, p.phase[0]) + 0.03 * t),
            y: p.y - p.z * p.pace * 0.16 * speed * t,
            radius: 0.7 + 1.9 * p.z,
            alpha: 0.55 + 0.45 * swing(6.0 * p.hz[1], t, p.phase[1]),
        },
    },
    Kind {
        effect: Effect::Dust,
        count: 170.0,
        depth: 1.9,
        look: Look::Mote([1.0, 0.95, 0.82]),
        course: |p, t, speed| Course {
            x: p.x + 0.022 * swing(0.35 * p.hz[0], t * speed, p.phase[0]) + 0.012 * t * p.z,
            y: p.y + 0.020 * swing(0.35 * p.hz[1], t * speed, p.phase[1]) - 0.008 * t * p.z,
            radius: 0.8 + 5.5 * p.z.powi(3),
            alpha: 0.30 * (1.0 - 0.6 * p.z) * (0.55 + 0.45 * swing(p.hz[0], t, p.phase[2])),
        },
    },
    Kind {
        effect: Effect::Fireflies,
        count: 34.0,
        depth: 1.5,
        look: Look::Spark([0.95, 1.0, 0.45]),
        course: |p, t, speed| Course {
            x: p.x + 0.05 * swing(0.5 * p.hz[0], t * speed, p.phase[0]),
            y: 0.25 + 0.65 * p.y + 0.04 * swing(0.5 * p.hz[1], t * speed, p.phase[1]),
            radius: 1.5 + 2.2 * p.z,
            alpha: (0.2 + 0.8 * swing(1.3 * p.hz[0], t, p.phase[2])).clamp(0.0, 1.0),
        },
    },
    Kind {
        effect: Effect::Petals,
        count: 60.0,
        depth: 1.6,
        look: Look::Petal([[0.95, 0.65, 0.70], [1.0, 0.80, 0.82], [0.93, 0.50, 0.58]]),
        course: |p, t, speed| Course {
            x: p.x + p.z * (0.09 * t * speed + 0.03 * swing(p.hz[0], t, p.phase[0])),
            y: p.y + (0.2 + 0.8 * p.z) * p.pace * 0.14 * speed * t,
            radius: 3.5 + 11.0 * p.z.powf(1.4),
            alpha: 0.95,
        },
    },
];

/// Seconds until particles are fully there.
const FADE_S: f32 = 0.9;
/// Beyond the frame, in frame sizes, particles go on: there they wrap around.
const BEYOND: (f32, f32) = (0.15, 0.20);

/// All particles of one kind.
#[derive(Debug)]
pub(super) struct Particles {
    kind: &'static Kind,
    all: Vec<Particle>,
    light: Light,
    near_from: f32,
    frame: Frame,
    drive: Drive,
}

/// Painted shapes, sorted into bands of rows.
#[derive(Debug)]
pub(super) struct Sprites {
    sprites: Vec<Sprite>,
    bands: Vec<Vec<u32>>,
    blend: Blend,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Blend {
    Cover,
    Light,
    Halo,
}

/// One shape: a disc or a petal around (x, y), or a line from there on.
#[derive(Debug, Clone, Copy)]
struct Sprite {
    x: f32,
    y: f32,
    alpha: f32,
    colour: [f32; 3],
    shape: Shape,
    /// Pixels to each side of (x, y), and above and below it, that the shape can touch.
    reach: (f32, f32),
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Disc {
        radius: f32,
        soft: f32,
    },
    Line {
        dx: f32,
        dy: f32,
        half_width: f32,
    },
    /// Round at one end of its axis, narrow at the other.
    Petal {
        axis: (f32, f32),
        long: f32,
        short: f32,
    },
}

impl Particles {
    pub(super) fn new(
        kind: &'static Kind,
        drive: &Drive,
        light: Light,
        near_from: f32,
        seed: u64,
        frame: &Frame,
    ) -> Self {
        let mut draws = Noise::new(seed, &format!("particles {:?}", kind.effect)).draws();
        let count = (kind.count * drive.amount.clamp(0.1, 2.2)) as usize;
        let all = (0..count)
            .map(|_| Particle {
                x: draws.between(-BEYOND.0, 1.0 + BEYOND.0),
                y: draws.between(-BEYOND.1, 1.0 + BEYOND.1),
                z: 0.08 + 0.92 * draws.unit().powf(kind.depth),
                phase: std::array::from_fn(|_| draws.between(0.0, TAU)),
                hz: std::array::from_fn(|_| draws.between(0.15, 0.7)),
                pace: draws.between(0.75, 1.25),
                tint: draws.unit(),
            })
            .collect();
        Self { kind, all, light, near_from, frame: *frame, drive: *drive }
    }

    /// Far and near sprites at a time, seen from `pose`.
    pub(super) fn at(&self, t_s: f32, pose: &Pose) -> (Sprites, Sprites) {
        let fade = smoothstep(0.0, FADE_S, t_s - self.drive.start_s);
        let blend = match self.kind.look {
            Look::Flake(_) | Look::Petal(_) => Blend::Cover,
            Look::Mote(_) | Look::Streak(_) => Blend::Light,
            Look::Spark(_) => Blend::Halo,
        };
        let shown: &[Particle] = if fade > 0.0 { &self.all } else { &[] };
        let (far, near): (Vec<_>, Vec<_>) = shown.iter().partition(|p| nearness(p.z) < self.near_from);
        let sprites = |particles: Vec<Particle>| {
            let all = particles.iter().map(|p| self.sprite(p, t_s, fade, pose)).collect();
            Sprites::new(all, blend, self.frame.height_px)
        };
        (sprites(far), sprites(near))
    }

    fn sprite(&self, particle: &Particle, t_s: f32, fade: f32, pose: &Pose) -> Sprite {
        let speed = self.drive.speed;
        let course = (self.kind.course)(particle, t_s, speed);
        let (width, height) = (self.frame.width_px as f32, self.frame.height_px as f32);
        let px = width / 1280.0;
        let wrapped = |v: f32, beyond: f32| (v + beyond).rem_euclid(1.0 + 2.0 * beyond) - beyond;
        let near = nearness(particle.z);
        let x = (wrapped(course.x, BEYOND.0) - 0.5) * width;
        let y = (wrapped(course.y, BEYOND.1) - 0.5) * height;
        // The camera's view of this depth, forwards.
        let grow = pose.cover * (1.0 + pose.zoom) / (1.0 - near * pose.tz).max(0.1);
        let x = (x - (near * pose.tx + pose.px) * width) * grow + width / 2.0;
        let y = (y - (near * pose.ty + pose.py) * width) * grow + height / 2.0;
        let radius = course.radius * px;
        let (colour, shape, reach) = self.painted(particle, t_s, radius, px);
        Sprite { x, y, alpha: course.alpha.max(0.0) * fade, colour, shape, reach }
    }

    /// Colour 0..1, shape and reach.
    fn painted(&self, particle: &Particle, t_s: f32, radius: f32, px: f32) -> ([f32; 3], Shape, (f32, f32)) {
        let tinted = |colour: [f32; 3], light: f32| colour.map(|c| c * light);
        let disc = |soft: f32| Shape::Disc { radius, soft };
        let round = |reach: f32| (reach, reach);
        match self.kind.look {
            Look::Flake(colour) => {
                let soft = 0.6 + 0.25 * radius;
                (tinted(colour, 0.35 + 0.65 * self.light.ambient), disc(soft), round(radius + soft))
            }
            Look::Mote(colour) => {
                let soft = 0.6 + 0.12 * radius;
                (tinted(colour, 0.35 + 0.4 * self.light.mean), disc(soft), round(radius + soft))
            }
            Look::Spark(colour) => (colour, disc(0.6 + 0.25 * radius), round(radius + HALO_PX * px)),
            Look::Streak(colour) => {
                let half_width = if particle.z < 0.75 { 0.55 } else { 0.95 } * px.max(0.5);
                let dy = radius * (0.7 + 0.3 * self.drive.speed);
                let line = Shape::Line { dx: 0.035 * dy, dy, half_width };
                (tinted(colour, 0.35 + 0.4 * self.light.mean), line, (0.035 * dy + 2.0, dy + 2.0))
            }
            Look::Petal(tints) => {
                let tint = tints[(particle.tint * 3.0) as usize % 3];
                let turn = particle.phase[0] + t_s * (1.0 + 2.0 * particle.hz[0]);
                let squeeze = 0.35 + 0.65 * swing(particle.hz[1], t_s, particle.phase[1]).abs();
                let axis = (turn.cos(), turn.sin());
                let petal = Shape::Petal { axis, long: radius, short: 0.7 * radius * squeeze };
                // Thin as they are, petals let through the light that falls on them.
                (tinted(tint, 0.45 + 0.55 * self.light.ambient), petal, round(radius + 1.5))
            }
        }
    }
}

/// Reach of a spark's halo, in pixels at 1280.
const HALO_PX: f32 = 15.0;

impl Sprites {
    fn new(sprites: Vec<Sprite>, blend: Blend, height_px: usize) -> Self {
        let mut bands = vec![Vec::new(); height_px.div_ceil(BAND_ROWS)];
        for (index, sprite) in sprites.iter().enumerate() {
            let (top, bottom) = (sprite.y - sprite.reach.1, sprite.y + sprite.reach.1 + 1.0);
            if sprite.alpha <= 0.0 || bottom < 0.0 || top >= height_px as f32 {
                continue;
            }
            let band = |y: f32| (y.max(0.0) as usize / BAND_ROWS).min(bands.len() - 1);
            let touched = band(top)..=band(bottom);
            bands[touched].iter_mut().for_each(|band| band.push(index as u32));
        }
        Self { sprites, bands, blend }
    }

    /// Draws the part of every sprite that lies on the line.
    pub(super) fn draw(&self, line: &mut Line<'_>) {
        for &index in &self.bands[line.y / BAND_ROWS] {
            let sprite = &self.sprites[index as usize];
            let dy = line.y as f32 - sprite.y;
            if dy.abs() > sprite.reach.1 {
                continue;
            }
            let from = (sprite.x - sprite.reach.0).max(0.0) as usize;
            let to = ((sprite.x + sprite.reach.0 + 2.0).max(0.0) as usize).min(line.pixels.len());
            for (x, pixel) in line.pixels.iter_mut().enumerate().take(to).skip(from) {
                self.paint(sprite, x as f32 - sprite.x, dy, pixel);
            }
        }
    }

    fn paint(&self, sprite: &Sprite, dx: f32, dy: f32, pixel: &mut [f32; 4]) {
        let alpha = sprite.alpha * sprite.shape.coverage(dx, dy);
        match self.blend {
            Blend::Cover => mix(pixel, &sprite.colour.map(|c| c * 255.0), alpha),
            Blend::Light => {
                for (level, colour) in pixel.iter_mut().zip(sprite.colour) {
                    let room = 1.0 - 0.45 * (*level / 255.0).clamp(0.0, 1.0);
                    *level += 255.0 * alpha * colour * room;
                }
            }
            Blend::Halo => {
                let far = (dx * dx + dy * dy) / (sprite.reach.0 * sprite.reach.0);
                let halo = 0.16 * sprite.alpha * (1.0 - far).max(0.0).powi(3);
                screen(pixel, &sprite.colour, alpha + halo);
            }
        }
    }
}

impl Shape {
    /// Share of a pixel at this distance that the shape covers, about.
    fn coverage(&self, dx: f32, dy: f32) -> f32 {
        match *self {
            Self::Disc { radius, soft } => {
                1.0 - smoothstep(radius - soft * 0.5, radius + soft, (dx * dx + dy * dy).sqrt())
            }
            Self::Line { dx: lx, dy: ly, half_width } => {
                let along = ((dx * lx + dy * ly) / (lx * lx + ly * ly)).clamp(0.0, 1.0);
                let off = (dx - along * lx).hypot(dy - along * ly);
                // Fainter towards its tail, as a streak is.
                (1.0 - smoothstep(half_width - 0.5, half_width + 0.9, off)) * (0.35 + 0.65 * along)
            }
            Self::Petal { axis: (cos, sin), long, short } => {
                let (u, v) = ((dx * cos + dy * sin) / long, dy * cos - dx * sin);
                let inside = 1.0 - u.hypot(v / (short * (1.0 - 0.45 * u.clamp(-1.0, 1.0))));
                smoothstep(-0.5, 0.5, inside * short)
            }
        }
    }
}
