//! What will move and how: the readings of prompt and negative prompt weighed with cfg and seed.
//!
//! Always true: the plan is pure data and a function of the specification alone; a higher cfg makes prompted
//! movement larger and unprompted movement smaller.

use std::collections::BTreeSet;

use serde::Serialize;

use super::clauses::{Reading, Text};
use super::lexicon::{Effect, Meaning, Move, Restraint};
use crate::GenerateSpec;
use crate::rng::Noise;

/// One camera move.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CameraMove {
    pub(crate) kind: Move,
    /// Signed: positive pushes in, goes right, down or clockwise. 1 is the usual extent.
    pub(crate) amount: f32,
    /// Share of the clip at which the move starts and ends.
    pub(crate) start: f32,
    pub(crate) end: f32,
    pub(crate) prompted: bool,
}

/// One kind of movement in the scene.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SceneMotion {
    pub(crate) effect: Effect,
    /// 1 is the usual extent.
    pub(crate) amount: f32,
    pub(crate) speed: f32,
    /// Share of the clip at which it starts.
    pub(crate) start: f32,
    pub(crate) prompted: bool,
}

/// What the words were taken for.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Words {
    pub(crate) understood: Vec<Understood>,
    /// Asks for what this engine cannot do.
    pub(crate) beyond_this_engine: Vec<String>,
    /// Describes looks; changes nothing.
    pub(crate) without_effect: Vec<String>,
    pub(crate) not_understood: Vec<String>,
}

/// One phrase and its meaning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Understood {
    pub(crate) text: String,
    pub(crate) meaning: &'static str,
    pub(crate) strength: f32,
    pub(crate) speed: f32,
    /// Which part of a sequence, from 1.
    pub(crate) part: usize,
    pub(crate) denied: bool,
}

/// Everything the renderer does, before it has seen the picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    pub(crate) camera: Vec<CameraMove>,
    /// Strength of handheld shake; 1 where asked for.
    pub(crate) handheld: f32,
    /// Whether the camera may drift with the seed.
    pub(crate) drift: bool,
    pub(crate) scene: Vec<SceneMotion>,
    /// Effects that must not appear.
    pub(crate) denied: BTreeSet<Effect>,
    /// Scale of all camera moves.
    pub(crate) camera_limit: f32,
    /// Scale of all movement in the scene.
    pub(crate) scene_limit: f32,
    /// Strength of movement in the scene that nobody asked for.
    pub(crate) unprompted: f32,
    pub(crate) grain: bool,
    pub(crate) flicker: bool,
    pub(crate) motion_blur: bool,
    pub(crate) cfg_scale: f32,
    pub(crate) seed: u64,
    pub(crate) duration_s: u32,
    pub(crate) words: Words,
}

/// Shake that a camera in a hand has even when nobody asks for it.
const UNPROMPTED_SHAKE: f32 = 0.10;

impl Plan {
    /// Whether the camera as a whole moves out.
    pub(crate) fn zooms_out(&self) -> bool {
        let push = |m: &CameraMove| if m.kind == Move::Push { m.amount } else { 0.0 };
        self.camera.iter().map(push).sum::<f32>() < 0.0
    }

    /// The prompted motion of this effect, if any.
    #[cfg(test)]
    pub(crate) fn wanted(&self, effect: Effect) -> Option<&SceneMotion> {
        self.scene.iter().find(|motion| motion.effect == effect)
    }

    pub(super) fn new(spec: &GenerateSpec, prompt: Text, negative: Text) -> Self {
        let words = words(&prompt, &negative);
        let readings: Vec<Reading> = prompt.readings.into_iter().chain(negative.readings).collect();
        let (denied, asked): (Vec<_>, Vec<_>) = readings.into_iter().partition(|reading| reading.denied);
        let denials = Denials::of(&denied);
        let cfg = spec.cfg_scale.clamp(0.0, 1.0);
        let free = 1.0 - cfg;
        let parts = Parts::of(&asked);
        let is_static =
            denials.camera_motion || (!denials.moves.contains(&Move::Static) && asked_static(&asked));
        let asks_shake = asked.iter().find(|r| matches!(r.meaning, Meaning::Camera(Move::Handheld, _)));
        let shake_denied = denials.moves.contains(&Move::Handheld) || denials.camera_motion;
        let handheld = match asks_shake {
            _ if shake_denied => 0.0,
            Some(reading) => reading.strength,
            None if is_static => 0.0,
            None => UNPROMPTED_SHAKE * (0.4 + 0.6 * free),
        };
        let scene_limit = denials.limit.sqrt() * if denials.distortion { 0.5 } else { 1.0 };
        let scene = scene_motions(&asked, &denials, &parts, 0.7 + 0.6 * cfg);
        let camera = if denials.camera_motion {
            Vec::new()
        } else {
            camera_moves(
                &asked,
                &denials,
                &parts,
                &Default { spec, free, is_static, busy: !scene.is_empty() },
            )
        };
        Self {
            camera,
            handheld,
            drift: free > 0.0 && !is_static,
            scene,
            denied: denials.effects,
            camera_limit: denials.limit * denials.haste,
            scene_limit,
            unprompted: 0.55 * free,
            grain: !denials.restraints.contains(&Restraint::Grain),
            flicker: !denials.restraints.contains(&Restraint::Flicker),
            motion_blur: !denials.restraints.contains(&Restraint::Blur),
            cfg_scale: cfg,
            seed: spec.seed,
            duration_s: spec.duration.seconds(),
            words,
        }
    }
}

fn words(prompt: &Text, negative: &Text) -> Words {
    let mut words = Words::default();
    for reading in prompt.readings.iter().chain(&negative.readings) {
        match reading.meaning {
            Meaning::Beyond => words.beyond_this_engine.push(reading.text.clone()),
            Meaning::Look => words.without_effect.push(reading.text.clone()),
            Meaning::Camera(..) | Meaning::Scene(_) | Meaning::Restraint(_) => {
                words.understood.push(Understood {
                    text: reading.text.clone(),
                    meaning: reading.label,
                    strength: reading.strength,
                    speed: reading.speed,
                    part: reading.part + 1,
                    denied: reading.denied,
                });
            }
        }
    }
    words.not_understood = prompt.unknown.iter().chain(&negative.unknown).cloned().collect();
    words
}

/// What must not happen.
struct Denials {
    moves: BTreeSet<Move>,
    effects: BTreeSet<Effect>,
    restraints: Vec<Restraint>,
    camera_motion: bool,
    distortion: bool,
    /// Scale of movement where haste is denied.
    limit: f32,
    /// Scale of camera moves where slowness is denied.
    haste: f32,
}

impl Denials {
    fn of(denied: &[Reading]) -> Self {
        let restraints: Vec<Restraint> = denied
            .iter()
            .filter_map(
                |r| if let Meaning::Restraint(restraint) = r.meaning { Some(restraint) } else { None },
            )
            .collect();
        let mut moves: BTreeSet<Move> = denied
            .iter()
            .filter_map(|r| if let Meaning::Camera(kind, _) = r.meaning { Some(kind) } else { None })
            .collect();
        if moves.contains(&Move::Push) {
            moves.insert(Move::DollyZoom);
        }
        let has = |restraint| restraints.contains(&restraint);
        if has(Restraint::Stillness) {
            moves.insert(Move::Static);
        }
        Self {
            moves,
            effects: denied
                .iter()
                .filter_map(|r| if let Meaning::Scene(effect) = r.meaning { Some(effect) } else { None })
                .filter(|&effect| effect != Effect::Breath)
                .collect(),
            camera_motion: has(Restraint::CameraMotion),
            distortion: has(Restraint::Distortion),
            limit: if has(Restraint::FastMotion) { 0.55 } else { 1.0 },
            haste: if has(Restraint::SlowMotion) { 1.4 } else { 1.0 },
            restraints,
        }
    }
}

/// A "then" sequence divides the clip evenly among its parts that ask for something.
struct Parts(Vec<usize>);

impl Parts {
    fn of(asked: &[Reading]) -> Self {
        let acting = |r: &&Reading| matches!(r.meaning, Meaning::Camera(..) | Meaning::Scene(_));
        Self(asked.iter().filter(acting).map(|r| r.part).collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Share of the clip at which a part starts and ends.
    fn span(&self, part: usize) -> (f32, f32) {
        let count = self.0.len().max(1) as f32;
        let index = self.0.iter().position(|&p| p == part).unwrap_or(0) as f32;
        (index / count, (index + 1.0) / count)
    }

    fn is_sequence(&self) -> bool {
        self.0.len() > 1
    }
}

fn asked_static(asked: &[Reading]) -> bool {
    let moves = |r: &Reading| matches!(r.meaning, Meaning::Camera(kind, _) if !matches!(kind, Move::Static | Move::Handheld));
    asked.iter().any(|r| matches!(r.meaning, Meaning::Camera(Move::Static, _))) && !asked.iter().any(moves)
}

fn scene_motions(asked: &[Reading], denials: &Denials, parts: &Parts, cfg_factor: f32) -> Vec<SceneMotion> {
    let mut motions: Vec<SceneMotion> = Vec::new();
    for reading in asked {
        let Meaning::Scene(effect) = reading.meaning else { continue };
        if denials.effects.contains(&effect) || motions.iter().any(|motion| motion.effect == effect) {
            continue;
        }
        let amount = reading.strength * cfg_factor;
        let (start, _) = parts.span(reading.part);
        motions.push(SceneMotion { effect, amount, speed: reading.speed, start, prompted: true });
    }
    motions
}

/// What decides the camera where the words do not.
struct Default<'a> {
    spec: &'a GenerateSpec,
    free: f32,
    is_static: bool,
    /// The scene moves of itself.
    busy: bool,
}

fn camera_moves(
    asked: &[Reading],
    denials: &Denials,
    parts: &Parts,
    default: &Default<'_>,
) -> Vec<CameraMove> {
    let mut moves: Vec<CameraMove> = Vec::new();
    for reading in asked {
        let Meaning::Camera(kind, direction) = reading.meaning else { continue };
        if matches!(kind, Move::Static | Move::Handheld) || denials.moves.contains(&kind) {
            continue;
        }
        // Said once in general and once with its direction: one move.
        let directed = |r: &Reading| {
            r.part == reading.part && matches!(r.meaning, Meaning::Camera(k, d) if k == kind && d != 0)
        };
        if direction == 0 && asked.iter().any(directed) {
            continue;
        }
        let sign = if direction == 0 { seeded_sign(default.spec.seed, kind) } else { f32::from(direction) };
        let amount = sign * reading.strength.powf(0.8) * reading.speed;
        let (start, end) = parts.span(reading.part);
        let same = |m: &&mut CameraMove| m.kind == kind && m.start == start;
        match moves.iter_mut().find(same) {
            Some(before) if before.amount * amount > 0.0 => {
                before.amount = before.amount.signum() * before.amount.abs().max(amount.abs());
            }
            _ => moves.push(CameraMove { kind, amount, start, end, prompted: true }),
        }
    }
    take_turns(&mut moves);
    let asks_static = asked.iter().any(|r| matches!(r.meaning, Meaning::Camera(Move::Static, _)));
    if moves.is_empty() && !default.is_static && !(parts.is_sequence() && asks_static) {
        moves.extend(unprompted_move(denials, default));
    }
    moves
}

/// Opposite moves of one kind in one part follow each other: at once they would cancel.
fn take_turns(moves: &mut [CameraMove]) {
    for k in 0..moves.len() {
        let (kind, start) = (moves[k].kind, moves[k].start);
        let rivals: Vec<usize> =
            (0..moves.len()).filter(|&j| moves[j].kind == kind && moves[j].start == start).collect();
        if rivals.len() < 2 {
            continue;
        }
        let span = moves[k].end - start;
        for (turn, &j) in rivals.iter().enumerate() {
            moves[j].start = start + span * turn as f32 / rivals.len() as f32;
            moves[j].end = start + span * (turn + 1) as f32 / rivals.len() as f32;
        }
    }
}

fn seeded_sign(seed: u64, kind: Move) -> f32 {
    Noise::new(seed, &format!("direction {kind:?}")).draws().sign()
}

/// A push, or at low cfg what the seed likes.
fn unprompted_move(denials: &Denials, default: &Default<'_>) -> Option<CameraMove> {
    let mut draws = Noise::new(default.spec.seed, "default move").draws();
    let likes_push = draws.unit() < 0.45;
    let (orbit_sign, truck_sign) = (draws.sign(), draws.sign());
    let mut choices =
        vec![(Move::Push, 0.55), (Move::Orbit, 0.5 * orbit_sign), (Move::Truck, 0.4 * truck_sign)];
    choices.retain(|(kind, _)| !denials.moves.contains(kind));
    let pick = (draws.unit() * choices.len() as f32) as usize;
    let index = if default.spec.cfg_scale >= 0.75 || likes_push { 0 } else { pick };
    let &(kind, amount) = choices.get(index)?;
    let calmer = if default.busy { 0.7 } else { 1.0 };
    let amount = amount * (0.75 + 0.5 * default.free * draws.unit()) * calmer;
    Some(CameraMove { kind, amount, start: 0.0, end: 1.0, prompted: false })
}
