//! What a clip must look like, measured on drawn scenes whose depth and masks are known.
//!
//! The limits are data (`checks/limits.json`), each with the value observed when it was set and with what clips
//! of a broken engine gave (`checks/broken.rs`): every check measures those, too, and must notice.

mod broken;
mod exact;
mod finer;
mod measure;
mod regions;
mod steady;

use std::collections::BTreeMap;

use super::prompt::{self, Plan};
use super::render::{FPS, Renderer};
use super::scene::Scene;
use super::stage::Stage;
use crate::GenerateSpec;
use measure::{CameraMotion, Grey, camera};

/// A limit and which side of it is right.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    least: Option<f32>,
    most: Option<f32>,
    /// Measured when the limit was set.
    observed: f32,
    /// Measured then on what was broken on purpose, in the order of the check.
    broken: Vec<f32>,
}

impl Limit {
    fn holds(&self, value: f32) -> bool {
        value.is_finite()
            && self.least.is_none_or(|least| value >= least)
            && self.most.is_none_or(|most| value <= most)
    }
}

/// Measurements held against their limits; all failures are reported at once.
struct Checks {
    limits: BTreeMap<String, Limit>,
    failures: Vec<String>,
}

impl Checks {
    fn new() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/motion/checks/limits.json");
        let text = std::fs::read_to_string(path).expect("the limits lie beside this file");
        let limits = serde_json::from_str(&text).expect("limits.json maps checks to limits");
        Self { limits, failures: Vec::new() }
    }

    /// `broken` are the same measure of clips of which something was broken, none of which may pass.
    fn hold(&mut self, name: &str, value: f32, broken: &[f32]) {
        println!("measured {name:?}: {value}, broken {broken:?}");
        let Some(limit) = self.limits.get(name) else {
            self.failures
                .push(format!("{name}: no limit in limits.json; measured {value}, broken {broken:?}"));
            return;
        };
        if !limit.holds(value) {
            self.failures.push(format!("{name}: {value} (broken {broken:?}) is outside {limit:?}"));
        }
        if broken.is_empty() || broken.iter().any(|&broken| limit.holds(broken)) {
            self.failures.push(format!("{name}: a broken clip passes: {broken:?} (whole {value})"));
        }
        let recorded = limit.broken.len() == broken.len() && !limit.broken.iter().any(|&b| limit.holds(b));
        if !limit.holds(limit.observed) || !recorded {
            self.failures.push(format!("{name}: what limits.json records contradicts its limit: {limit:?}"));
        }
    }

    fn done(self) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
    }
}

const SMALL: Stage = Stage { width_px: 320, height_px: 192, ball: true, stream: false, margin: true };

/// A clip of the stage, whole unless something is broken on purpose.
#[derive(Clone)]
struct Take {
    stage: Stage,
    spec: GenerateSpec,
    /// Every so many frames are looked at, and the last.
    step: usize,
    plan: fn(&mut Plan),
    scene: fn(&mut Scene),
    /// Done to the scene anew for each frame, if at all.
    each: Option<fn(&mut Scene, usize)>,
}

/// Plain words at the strictest cfg, without what would disturb a measurement.
fn take(prompt: &str) -> Take {
    let spec = GenerateSpec {
        prompt: prompt.into(),
        negative_prompt: "film grain, shaky".into(),
        cfg_scale: 1.0,
        seed: 3,
        ..GenerateSpec::default()
    };
    Take { stage: SMALL, spec, step: 6, plan: |_| (), scene: |_| (), each: None }
}

impl Take {
    fn negative(self, words: &str) -> Self {
        Self { spec: GenerateSpec { negative_prompt: words.into(), ..self.spec.clone() }, ..self }
    }

    fn cfg(self, cfg_scale: f32) -> Self {
        Self { spec: GenerateSpec { cfg_scale, ..self.spec.clone() }, ..self }
    }

    fn on(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    fn every(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// The same clip by a planner that fails so.
    fn planned(&self, plan: fn(&mut Plan)) -> Self {
        Self { plan, ..self.clone() }
    }

    /// The same clip of a scene that was found so.
    fn found(&self, scene: fn(&mut Scene)) -> Self {
        Self { scene, ..self.clone() }
    }

    /// The same clip of a scene that is found otherwise for each frame.
    fn found_anew(&self, each: fn(&mut Scene, usize)) -> Self {
        Self { each: Some(each), ..self.clone() }
    }

    fn count(&self) -> usize {
        (FPS * self.spec.duration.seconds()) as usize
    }

    fn renderer(&self, index: usize) -> Renderer {
        let (mut scene, _) = self.stage.build();
        (self.scene)(&mut scene);
        if let Some(each) = self.each {
            each(&mut scene, index);
        }
        let mut plan = prompt::plan(&self.spec);
        (self.plan)(&mut plan);
        Renderer::new(scene, &plan, self.count())
    }

    /// One frame, `[H, W, 3]`.
    fn rgb(&self, index: usize) -> Vec<u8> {
        let mut rgb = vec![0; self.stage.width_px * self.stage.height_px * 3];
        self.renderer(index).frame(index, &mut rgb);
        rgb
    }

    fn frames(&self) -> Vec<Grey> {
        let mut renderer = self.renderer(0);
        let mut rgb = vec![0; self.stage.width_px * self.stage.height_px * 3];
        let shown =
            (0..self.count()).filter(|index| index.is_multiple_of(self.step) || index + 1 == self.count());
        shown
            .map(|index| {
                if self.each.is_some() {
                    renderer = self.renderer(index);
                }
                renderer.frame(index, &mut rgb);
                Grey::of(&rgb, self.stage.width_px)
            })
            .collect()
    }

    fn motion(&self) -> CameraMotion {
        camera(&self.frames())
    }
}

#[test]
fn a_static_camera_stands_still() {
    let mut checks = Checks::new();
    let still = take("static camera");
    let (whole, pushed) = (still.motion(), still.planned(broken::pushing_anyway).motion());
    let drifting = still.planned(broken::drifting_anyway).motion();
    checks.hold("static: scale - 1", (whole.scale - 1.0).abs(), &[(pushed.scale - 1.0).abs()]);
    checks.hold("static: shift", whole.dx.hypot(whole.dy), &[drifting.dx.hypot(drifting.dy)]);
    checks.done();
}

#[test]
fn a_zoom_goes_its_way_at_its_speed() {
    let mut checks = Checks::new();
    let (zoom, out) = (take("zoom in"), take("zoom out"));
    let plain = zoom.motion().scale;
    checks.hold("zoom in: scale", plain, &[zoom.planned(broken::turned_round).motion().scale]);
    let cramped = out.clone().on(Stage { margin: false, ..SMALL });
    checks.hold(
        "zoom out: scale",
        out.motion().scale,
        &[out.planned(broken::turned_round).motion().scale, cramped.motion().scale],
    );
    let over_plain = |take: &Take| (take.motion().scale - 1.0) / (plain - 1.0);
    for (name, slow_or_fast) in
        [("slow zoom over normal", take("slow zoom in")), ("fast zoom over normal", take("fast zoom in"))]
    {
        let deaf = over_plain(&slow_or_fast.planned(broken::deaf_to_haste));
        checks.hold(name, over_plain(&slow_or_fast), &[deaf]);
    }
    let loose = zoom.clone().cfg(0.0);
    let strict = over_plain(&loose.planned(|plan| *plan = prompt::plan(&take("zoom in").spec)));
    checks.hold("zoom at cfg 0 over cfg 1", over_plain(&loose), &[strict]);
    let denied = zoom.clone().negative("zoom, shaky");
    let pushed = denied.planned(broken::pushing_anyway).motion().scale;
    checks.hold("negative zoom: scale - 1", (denied.motion().scale - 1.0).abs(), &[(pushed - 1.0).abs()]);
    let calm = zoom.clone().negative("fast motion, shaky");
    let unlimited = over_plain(&calm.planned(|plan| plan.camera_limit = 1.0));
    checks.hold("negative fast motion over plain", over_plain(&calm), &[unlimited]);
    checks.done();
}

#[test]
fn pans_and_tilts_go_their_way() {
    let mut checks = Checks::new();
    let across = |take: &Take| take.motion().dx;
    let down = |take: &Take| take.motion().dy;
    let mut hold = |name: &str, words: &str, way: &dyn Fn(&Take) -> f32| {
        let take = take(words);
        checks.hold(name, way(&take), &[way(&take.planned(broken::turned_round))]);
    };
    hold("pan left: content goes right", "pan left", &across);
    hold("pan right: content goes left", "pan right", &across);
    hold("tilt up: content goes down", "tilt up", &down);
    hold("tilt down: content goes up", "tilt down", &down);
    checks.done();
}

#[test]
fn depth_shows_in_what_moves_how_far() {
    let mut checks = Checks::new();
    let orbit = take("orbit left");
    let whole = orbit.motion();
    checks.hold("orbit: parallax", whole.parallax, &[orbit.found(broken::flat).motion().parallax]);
    let astray = orbit.found(broken::torn_apart).motion();
    checks.hold("orbit: shift of the whole", whole.dx.abs(), &[astray.dx.abs()]);
    let truck = take("truck left");
    let lead = |take: &Take| {
        let frames = take.frames();
        measure::shift_of(&frames, |u, v| (u - 0.42).hypot(v - 0.58) < 0.12)
            - measure::shift_of(&frames, |_, v| v < 0.35)
    };
    checks.hold(
        "truck: the near leads the far",
        lead(&truck),
        &[lead(&truck.found(broken::flat)), lead(&truck.found(broken::inside_out))],
    );
    checks.done();
}

#[test]
fn a_longer_clip_keeps_developing() {
    let mut checks = Checks::new();
    let mut long = take("zoom in").every(30);
    long.spec.duration = crate::ClipDuration::TenSeconds;
    let least_growth = |take: &Take| {
        let frames = take.frames();
        let scales = (2..frames.len() - 1).map(|k| camera(&frames[k - 1..=k]).scale);
        scales.fold(f32::INFINITY, f32::min)
    };
    checks.hold(
        "10 s: growth in each 30 frames",
        least_growth(&long),
        &[least_growth(&long.planned(broken::ending_early))],
    );
    checks.done();
}

/// Writes frames for a person to look at: `KINORA_SHEET=dir cargo test ... sheet -- --ignored`.
#[test]
#[ignore = "draws pictures to look at; checks nothing"]
fn sheet() {
    let dir = std::path::PathBuf::from(std::env::var("KINORA_SHEET").expect("KINORA_SHEET names a folder"));
    let big = Stage { width_px: 960, height_px: 544, ..Stage::default() };
    let cases = [
        ("clouds", Stage { ball: false, ..big }, "static camera, clouds drift fast"),
        ("lake", Stage { ball: false, ..big }, "static camera, waves"),
        ("stream", Stage { ball: false, stream: true, ..big }, "static camera, the stream flows"),
        ("weather", big, "pan right, heavy snow, rain"),
        ("vapour", big, "static camera, fog and smoke"),
        ("drift", big, "static camera, sun rays, falling petals, fireflies, embers, dust"),
    ];
    for (name, stage, prompt) in cases {
        let renderer = Renderer::new(stage.build().0, &prompt::plan(&take(prompt).spec), 120);
        let (width, height) = (stage.width_px as u32, stage.height_px as u32);
        let mut sheet = image::RgbImage::new(2 * width, 2 * height);
        for (k, index) in [0, 40, 80, 119].into_iter().enumerate() {
            let mut rgb = vec![0; stage.width_px * stage.height_px * 3];
            renderer.frame(index, &mut rgb);
            let tile = image::RgbImage::from_raw(width, height, rgb).unwrap();
            image::imageops::replace(
                &mut sheet,
                &tile,
                (k as u32 % 2 * width).into(),
                (k as u32 / 2 * height).into(),
            );
        }
        sheet.save(dir.join(format!("{name}.png"))).unwrap();
    }
}
