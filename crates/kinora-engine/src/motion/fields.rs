//! Movement in the scene, each kind in its own file: what the plan asks for, where the picture has a place for it.
//!
//! Always true: everything starts from nothing at its start time, so the first frame is still; every effect is
//! a function of time, and acts inside its region only.
//! Units: displacements in pixels, maps at 1/4 of the canvas.

mod breath;
mod flow;
mod glow;
mod lake;
mod modes;
mod noise;
mod steady;
mod sway;

use super::camera::smoothstep;
use super::prompt::{Effect, Plan};
use super::render::Frame;
use super::scene::{Background, Map, Regions, Scene};
use crate::rng::Noise;
use breath::Breath;
use flow::Renewal;
pub(crate) use flow::{Flow, FlowMoment};
use glow::Glow;
use lake::Lake;
#[cfg(test)]
pub(crate) use noise::smooth_noise;
use sway::{Kind, Sway};

/// Movement and light at one moment.
#[derive(Debug)]
pub(crate) struct Moment {
    /// Where content comes from, relative to its place at rest.
    pub(crate) dx: Map,
    pub(crate) dy: Map,
    /// Factor on the light.
    pub(crate) shade: Map,
    /// Further movement of the foreground alone.
    pub(crate) front: Option<(Map, Map)>,
}

/// How strongly an effect is driven.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drive {
    pub(crate) amount: f32,
    pub(crate) speed: f32,
    pub(crate) start_s: f32,
}

/// What the fields need to know of the stage.
struct Place<'a> {
    frame: Frame,
    canvas_width_px: usize,
    background: &'a Background,
    horizon: Option<f32>,
    /// -1 or 1: where the wind and everything in it goes.
    wind: f32,
    seed: u64,
    frames_count: usize,
}

impl Place<'_> {
    /// Pixels per pixel of a frame 1280 wide.
    fn px(&self) -> f32 {
        self.frame.width_px as f32 / 1280.0
    }

    /// A row's distance from the frame's top, in frame heights.
    fn height_share(&self, y: usize) -> f32 {
        (y as f32 * 4.0 + 1.5 - self.frame.margin_y_px as f32) / self.frame.height_px as f32
    }
}

/// Everything that moves in a scene.
#[derive(Debug)]
pub(crate) struct Fields {
    sways: Vec<Sway>,
    lake: Option<Lake>,
    glows: Vec<Glow>,
    breath: Option<Breath>,
    flows: Vec<Flow>,
    /// Where any flow is, 0..1 at 1/2 of the canvas.
    flow_mask: Option<Map>,
    size: (usize, usize),
}

/// Unprompted movement, as a share of what the plan leaves to chance. Running water that stands still looks worse
/// than a still lake, which looks worse than still leaves.
const UNPROMPTED: [(Effect, f32); 4] =
    [(Effect::Stream, 0.9), (Effect::Clouds, 0.9), (Effect::Water, 0.8), (Effect::Foliage, 0.6)];

/// How strongly `effect` is driven, prompted or not; None if it is not.
pub(crate) fn drive_of(plan: &Plan, effect: Effect) -> Option<Drive> {
    if plan.denied.contains(&effect) {
        return None;
    }
    if let Some(motion) = plan.scene.iter().find(|motion| motion.effect == effect) {
        let start_s = motion.start * plan.duration_s as f32;
        return Some(Drive { amount: motion.amount * plan.scene_limit, speed: motion.speed, start_s });
    }
    let share = UNPROMPTED.iter().find(|(free, _)| *free == effect).map_or(0.0, |(_, share)| *share);
    let amount = share * plan.unprompted * plan.scene_limit;
    (amount > 0.01).then_some(Drive { amount, speed: 1.0, start_s: 0.0 })
}

/// Confidence from which a region may move without being asked.
const SURE: f32 = 0.7;

/// How sure the analysis is of a region, 0..1; sure of what it does not rate.
fn confidence(scene: &Scene, kind: &str) -> f32 {
    scene.found.regions.iter().find(|region| region.kind == kind).map_or(1.0, |region| region.confidence)
}

/// Like [`drive_of`], but nothing moves unasked in a region that is not sure to be one.
fn placed_drive(plan: &Plan, scene: &Scene, effect: Effect) -> Option<Drive> {
    let region = match effect {
        Effect::Stream => "stream",
        Effect::Clouds => "sky",
        Effect::Water => "water",
        Effect::Foliage => "vegetation",
        _ => return drive_of(plan, effect),
    };
    let prompted = plan.scene.iter().any(|motion| motion.effect == effect);
    if prompted || confidence(scene, region) >= SURE { drive_of(plan, effect) } else { None }
}

/// The stronger of two drives.
fn either(a: Option<Drive>, b: Option<Drive>) -> Option<Drive> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.amount >= b.amount { a } else { b }),
        (a, b) => a.or(b),
    }
}

/// Prompted effects that have no place in the picture.
pub(crate) fn without_place(plan: &Plan, regions: &Regions) -> Vec<Effect> {
    let has = |region: &Option<Map>| region.is_some();
    let placed = |effect: Effect| match effect {
        Effect::Water | Effect::Waves | Effect::Stream => has(&regions.water) || has(&regions.stream),
        Effect::Clouds => has(&regions.sky),
        Effect::Foliage | Effect::Wind => has(&regions.vegetation),
        Effect::Hair => has(&regions.hair),
        Effect::Fabric => has(&regions.cloth),
        Effect::Fire => has(&regions.fire),
        Effect::Lights => has(&regions.lights),
        _ => true,
    };
    plan.scene.iter().map(|motion| motion.effect).filter(|&effect| !placed(effect)).collect()
}

impl Fields {
    pub(crate) fn new(plan: &Plan, scene: &Scene, frame: &Frame, frames_count: usize) -> Self {
        let regions = &scene.regions;
        let place = Place {
            frame: *frame,
            canvas_width_px: scene.canvas.width_px,
            background: &scene.background,
            horizon: regions.horizon,
            wind: Noise::new(plan.seed, "wind").draws().sign(),
            seed: plan.seed,
            frames_count,
        };
        let of = |effect| placed_drive(plan, scene, effect);
        let wind = of(Effect::Wind);
        let mut sways = Vec::new();
        let mut sway = |kind, region: &Option<Map>, drive: Option<Drive>| {
            if let (Some(mask), Some(drive)) = (region, drive) {
                sways.push(Sway::new(kind, &quarter(mask), &drive, &place));
            }
        };
        sway(Kind::Foliage, &regions.vegetation, either(of(Effect::Foliage), wind));
        // Little more than colour says what is hair or cloth: wind alone does not move them, words must name them.
        sway(Kind::Hair, &regions.hair, of(Effect::Hair));
        sway(Kind::Cloth, &regions.cloth, of(Effect::Fabric));
        let mut glows = Vec::new();
        if let (Some(mask), Some(drive)) = (&regions.lights, of(Effect::Lights))
            && plan.flicker
        {
            glows.push(Glow::lamps(&quarter(mask), &drive, plan.seed));
        }
        let mut water = Waters { flows: Vec::new(), lake: None, mask: None };
        water.add_all(plan, scene, &place);
        if let (Some(mask), Some(drive)) = (&regions.fire, of(Effect::Fire)) {
            let velocity = steady::fire(&quarter(mask), &drive, &place);
            water.flow(
                mask,
                &velocity,
                Renewal::Cycle { frames: 17, correlation: 0.1 },
                drive.start_s,
                &place,
            );
            if plan.flicker {
                glows.push(Glow::of_fire(&quarter(mask), &drive, plan.seed));
            }
        }
        let breath = of(Effect::Breath)
            .filter(|_| !plan.denied.contains(&Effect::Breath))
            .and_then(|drive| Some(Breath::new(scene.foreground.as_ref()?, &drive)));
        let size = (scene.background.disparity.width, scene.background.disparity.height);
        Self { sways, lake: water.lake, glows, breath, flows: water.flows, flow_mask: water.mask, size }
    }

    pub(crate) fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Where any flow is, at 1/2 of the canvas.
    pub(crate) fn flow_mask(&self) -> Option<&Map> {
        self.flow_mask.as_ref()
    }

    /// Movement and light at a time; None if nothing but flows moves.
    pub(crate) fn at(&self, t_s: f32) -> Option<Moment> {
        let idle =
            self.sways.is_empty() && self.lake.is_none() && self.glows.is_empty() && self.breath.is_none();
        if idle || t_s <= 0.0 {
            return None;
        }
        let (width, height) = self.size;
        let still = || Map::filled(width, height, 0.0);
        let mut moment =
            Moment { dx: still(), dy: still(), shade: Map::filled(width, height, 1.0), front: None };
        self.sways.iter().for_each(|sway| sway.add(t_s, &mut moment));
        if let Some(lake) = &self.lake {
            lake.add(t_s, &mut moment);
        }
        self.glows.iter().for_each(|glow| glow.add(t_s, &mut moment));
        moment.front = self.breath.as_ref().map(|breath| breath.at(t_s, &moment));
        Some(moment)
    }
}

/// Collects what flows.
struct Waters {
    flows: Vec<Flow>,
    lake: Option<Lake>,
    mask: Option<Map>,
}

impl Waters {
    fn add_all(&mut self, plan: &Plan, scene: &Scene, place: &Place<'_>) {
        let regions = &scene.regions;
        let of = |effect| placed_drive(plan, scene, effect);
        if let (Some(sky), Some(drive)) = (&regions.sky, of(Effect::Clouds)) {
            let velocity = steady::clouds(&quarter(sky), &drive, place);
            self.flow(&well_inside(sky), &velocity, Renewal::Drift, drive.start_s, place);
        }
        let waves = of(Effect::Waves);
        let ripples =
            if scene.foreground.is_some() && !asked_for_water(plan) { None } else { of(Effect::Water) };
        let surface = either(waves, ripples);
        let running = of(Effect::Stream);
        // Words and picture may disagree about what kind of water it is; the picture wins.
        // Unless it is surely a stream, only one who says so gets one.
        let wet = if confidence(scene, "stream") >= SURE { surface } else { None };
        if let (Some(mask), Some(drive)) = (&regions.stream, either(running, wet)) {
            let velocity = steady::stream(&quarter(mask), &drive, place);
            self.flow(
                mask,
                &velocity,
                Renewal::Cycle { frames: 28, correlation: 0.15 },
                drive.start_s,
                place,
            );
        }
        let asked_running = running.filter(|_| asked_for_water(plan) && regions.stream.is_none());
        if let (Some(mask), Some(drive)) = (&regions.water, either(surface, asked_running)) {
            let swell = waves.is_some();
            let small = quarter(mask);
            self.lake = Some(Lake::new(&small, &drive, swell, place));
            let frames = (58.0 / drive.speed.clamp(0.6, 1.5)) as usize;
            let velocity = steady::lake(&small, &drive, swell, place);
            self.flow(mask, &velocity, Renewal::Cycle { frames, correlation: 0.30 }, drive.start_s, place);
        }
    }

    fn flow(
        &mut self,
        mask: &Map,
        velocity: &flow::Velocity,
        renewal: Renewal,
        start_s: f32,
        place: &Place<'_>,
    ) {
        self.flows.push(Flow::new(quarter(mask), velocity, renewal, start_s, place));
        let crisp = mask.map(|m| smoothstep(0.5, 0.95, m));
        self.mask = Some(match self.mask.take() {
            Some(before) => before.zip(&crisp, f32::max),
            None => crisp,
        });
    }
}

fn asked_for_water(plan: &Plan) -> bool {
    let water = [Effect::Water, Effect::Waves, Effect::Stream];
    plan.scene.iter().any(|motion| water.contains(&motion.effect))
}

/// The part of a region at 1/2 of the canvas that is clear of its edge: what drifts there drags no edge along,
/// and takes nothing with it of the things that stand before it.
fn well_inside(half: &Map) -> Map {
    const REACH_CELLS: f32 = 4.0;
    half.blurred(REACH_CELLS)
        .zip(half, |around, own| smoothstep(0.72, 0.97, around) * smoothstep(0.5, 0.95, own))
}

/// From 1/2 to 1/4 of the canvas: means of 2x2 cells.
fn quarter(half: &Map) -> Map {
    Map::from_fn(half.width / 2, half.height / 2, |x, y| {
        (half.at(2 * x, 2 * y)
            + half.at(2 * x + 1, 2 * y)
            + half.at(2 * x, 2 * y + 1)
            + half.at(2 * x + 1, 2 * y + 1))
            / 4.0
    })
}

#[cfg(test)]
mod tests;
