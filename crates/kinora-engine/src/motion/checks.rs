//! What a clip must look like, measured on drawn scenes whose depth and masks are known.
//!
//! The limits are data (`checks/limits.json`), each with the value observed when it was set. Every check also
//! runs on a clip that was broken on purpose, and must notice.

mod measure;

use std::collections::BTreeMap;

use super::prompt;
use super::render::{FPS, Renderer};
use super::stage::Stage;
use crate::GenerateSpec;
use measure::{CameraMotion, Grey, camera, fast_power, flicker, steps};

/// A limit and which side of it is right.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    least: Option<f32>,
    most: Option<f32>,
    /// Measured when the limit was set.
    observed: f32,
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

    /// `broken` is the same measure of a clip that was spoilt and must not pass.
    fn hold(&mut self, name: &str, value: f32, broken: f32) {
        let Some(limit) = self.limits.get(name) else {
            self.failures.push(format!("{name}: no limit in limits.json; measured {value}, broken {broken}"));
            return;
        };
        if !limit.holds(value) {
            self.failures.push(format!("{name}: {value} (broken {broken}) is outside {limit:?}"));
        }
        if limit.holds(broken) {
            self.failures.push(format!("{name}: a broken clip passes with {broken} (whole {value})"));
        }
        if !limit.holds(limit.observed) {
            self.failures.push(format!("{name}: the observed value is outside its own limit"));
        }
    }

    fn done(self) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
    }
}

const SMALL: Stage = Stage { width_px: 320, height_px: 192, ball: true, stream: false };

/// Frames of the stage under `spec`, every `step`-th.
fn clip(stage: Stage, spec: &GenerateSpec, step: usize) -> Vec<Grey> {
    let (scene, _) = stage.build();
    let count = (FPS * spec.duration.seconds()) as usize;
    let renderer = Renderer::new(scene, &prompt::plan(spec), count);
    let mut rgb = vec![0; stage.width_px * stage.height_px * 3];
    let shown = (0..count).filter(|index| index.is_multiple_of(step) || index + 1 == count);
    shown
        .map(|index| {
            renderer.frame(index, &mut rgb);
            Grey::of(&rgb, stage.width_px)
        })
        .collect()
}

/// Plain words at the strictest cfg, without what would disturb a measurement.
fn spec(prompt: &str) -> GenerateSpec {
    GenerateSpec {
        prompt: prompt.into(),
        negative_prompt: "film grain, shaky".into(),
        cfg_scale: 1.0,
        seed: 3,
        ..GenerateSpec::default()
    }
}

fn moved(spec: &GenerateSpec) -> CameraMotion {
    camera(&clip(SMALL, spec, 6))
}

#[test]
fn a_static_camera_stands_still() {
    let mut checks = Checks::new();
    let still = moved(&spec("static camera"));
    let drifting = moved(&spec("slow zoom in"));
    let panning = moved(&spec("slow pan left"));
    checks.hold("static: scale - 1", (still.scale - 1.0).abs(), (drifting.scale - 1.0).abs());
    checks.hold("static: shift", still.dx.hypot(still.dy), panning.dx.hypot(panning.dy));
    checks.done();
}

#[test]
fn a_zoom_goes_its_way_at_its_speed() {
    let mut checks = Checks::new();
    let scale = |prompt: &str| moved(&spec(prompt)).scale;
    let (plain, out) = (scale("zoom in"), scale("zoom out"));
    checks.hold("zoom in: scale", plain, out);
    checks.hold("zoom out: scale", out, plain);
    let (slow, fast) = (scale("slow zoom in"), scale("fast zoom in"));
    checks.hold("slow zoom over normal", (slow - 1.0) / (plain - 1.0), (fast - 1.0) / (plain - 1.0));
    checks.hold("fast zoom over normal", (fast - 1.0) / (plain - 1.0), (slow - 1.0) / (plain - 1.0));
    let loose = moved(&GenerateSpec { cfg_scale: 0.0, ..spec("zoom in") }).scale;
    checks.hold("zoom at cfg 0 over cfg 1", (loose - 1.0) / (plain - 1.0), 1.0);
    let denied = moved(&GenerateSpec { negative_prompt: "zoom, shaky".into(), ..spec("zoom in") }).scale;
    checks.hold("negative zoom: scale - 1", (denied - 1.0).abs(), plain - 1.0);
    let calm = moved(&GenerateSpec { negative_prompt: "fast motion, shaky".into(), ..spec("zoom in") }).scale;
    checks.hold("negative fast motion over plain", (calm - 1.0) / (plain - 1.0), 1.0);
    checks.done();
}

#[test]
fn pans_and_tilts_go_their_way() {
    let mut checks = Checks::new();
    let (left, right) = (moved(&spec("pan left")).dx, moved(&spec("pan right")).dx);
    checks.hold("pan left: content goes right", left, right);
    checks.hold("pan right: content goes left", right, left);
    let (up, down) = (moved(&spec("tilt up")).dy, moved(&spec("tilt down")).dy);
    checks.hold("tilt up: content goes down", up, down);
    checks.hold("tilt down: content goes up", down, up);
    checks.done();
}

#[test]
fn an_orbit_shows_parallax_around_its_subject() {
    let mut checks = Checks::new();
    let orbit = moved(&spec("orbit left"));
    let still = moved(&spec("static camera"));
    checks.hold("orbit: parallax", orbit.parallax, still.parallax);
    let pan = moved(&spec("pan left"));
    checks.hold("orbit: shift of the whole", orbit.dx.abs(), pan.dx.abs());
    checks.done();
}

#[test]
fn a_move_is_smooth_and_clean() {
    let mut checks = Checks::new();
    let frames = clip(SMALL, &spec("zoom in and orbit right"), 1);
    let jerk = |steps: &[(f32, f32, f32)]| {
        let second = |w: &[(f32, f32, f32)]| (w[1].0 - w[0].0).hypot(w[1].1 - w[0].1);
        steps.windows(2).map(second).fold(0.0, f32::max)
    };
    let mut stuttering = frames.clone();
    stuttering.swap(60, 63);
    checks.hold("jerk", jerk(&steps(&frames)), jerk(&steps(&stuttering)));
    let residue = |steps: &[(f32, f32, f32)]| steps.iter().map(|s| s.2).sum::<f32>() / steps.len() as f32;
    let grainy =
        clip(SMALL, &GenerateSpec { negative_prompt: String::new(), ..spec("heavy rain, heavy snow") }, 1);
    checks.hold("change that movement does not explain", residue(&steps(&frames)), residue(&steps(&grainy)));
    let alternating: Vec<Grey> = frames
        .iter()
        .enumerate()
        .map(|(k, frame)| if k % 2 == 0 { frame.clone() } else { frames[k / 2].clone() })
        .collect();
    checks.hold("flicker", flicker(&frames), flicker(&alternating));
    checks.hold("power above 6 Hz", fast_power(&frames), fast_power(&alternating));
    checks.done();
}

#[test]
fn a_move_shows_no_border_and_stays_sharp() {
    let mut checks = Checks::new();
    for prompt in
        ["fast zoom out", "fast pan left and tilt up", "strong handheld, roll left", "vertigo effect"]
    {
        let frames = clip(SMALL, &GenerateSpec { negative_prompt: String::new(), ..spec(prompt) }, 17);
        for frame in &frames {
            assert!(frame.darkest_border() > 8.0, "{prompt}: a dark border");
        }
    }
    let frames = clip(SMALL, &spec("zoom in"), 119);
    let kept = |frames: &[Grey]| frames[1].sharpness() / frames[0].sharpness();
    let soft = [frames[0].clone(), frames[1].blurred()];
    checks.hold("sharpness kept in a zoom", kept(&frames), kept(&soft));
    checks.done();
}

/// Movement inside a region over movement outside of it, with the camera still.
fn contrast(
    stage: Stage,
    prompt: &str,
    inside: &dyn Fn(f32, f32) -> bool,
    clear: &dyn Fn(f32, f32) -> bool,
) -> f32 {
    let spec = GenerateSpec { negative_prompt: "film grain".into(), ..spec(prompt) };
    let frames = clip(stage, &spec, 6);
    let share = |x: usize, y: usize| (x as f32 / stage.width_px as f32, y as f32 / stage.height_px as f32);
    let change = |hit: &dyn Fn(f32, f32) -> bool| {
        let hit = |x: usize, y: usize| {
            let (u, v) = share(x, y);
            hit(u, v)
        };
        frames[2..].windows(2).map(|pair| pair[0].change(&pair[1], &hit)).sum::<f32>()
    };
    change(inside) / change(clear).max(1e-3)
}

#[test]
fn scene_motion_stays_in_its_region() {
    let mut checks = Checks::new();
    let bare = Stage { ball: false, ..SMALL };
    let running = Stage { stream: true, ..bare };
    let in_sky = |_: f32, v: f32| v < 0.3;
    let in_hills = |_: f32, v: f32| (0.54..0.80).contains(&v);
    let in_lake = |_: f32, v: f32| (0.60..0.80).contains(&v);
    let in_grass = |_: f32, v: f32| v > 0.9;
    let in_stream = |u: f32, v: f32| v > 0.6 && (u - 0.66 - 0.06 * (v * 9.0).sin()).abs() < 0.06;
    let off_stream = |u: f32, v: f32| v > 0.6 && u < 0.35;
    let still = "static camera";
    checks.hold(
        "clouds: inside over outside",
        contrast(running, "static camera, clouds drift", &in_sky, &in_hills),
        contrast(running, still, &in_sky, &in_hills),
    );
    checks.hold(
        "stream: inside over outside",
        contrast(running, "static camera, the stream flows", &in_stream, &off_stream),
        contrast(running, still, &in_stream, &off_stream),
    );
    checks.hold(
        "lake: inside over outside",
        contrast(bare, "static camera, water ripples", &in_lake, &in_sky),
        contrast(bare, still, &in_lake, &in_sky),
    );
    checks.hold(
        "sway: inside over outside",
        contrast(bare, "static camera, grass sways", &in_grass, &in_sky),
        contrast(bare, still, &in_grass, &in_sky),
    );
    checks.done();
}

#[test]
fn every_effect_starts_from_the_picture_and_shows() {
    let effects = [
        "water",
        "waves",
        "clouds",
        "grass",
        "snow",
        "rain",
        "embers",
        "dust",
        "fireflies",
        "falling petals",
        "smoke",
        "fog",
        "sun rays",
        "lightning",
        "breathing",
    ];
    let (scene, picture) = SMALL.build();
    let size = picture.len();
    drop(scene);
    for effect in effects {
        let spec = spec(&format!("static camera, strong {effect}"));
        let renderer = Renderer::new(SMALL.build().0, &prompt::plan(&spec), 120);
        let mut rgb = vec![0; size];
        renderer.frame(0, &mut rgb);
        assert!(rgb == picture, "{effect}: the first frame is not the picture");
        let shows = (24..120).step_by(19).any(|index| {
            renderer.frame(index, &mut rgb);
            let change: u64 = rgb.iter().zip(&picture).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            change > size as u64 / 100
        });
        assert!(shows, "{effect} does not show");
    }
}

#[test]
fn a_longer_clip_keeps_developing() {
    let mut checks = Checks::new();
    let spec = GenerateSpec { duration: crate::ClipDuration::TenSeconds, ..spec("zoom in") };
    let frames = clip(SMALL, &spec, 30);
    let scales: Vec<f32> = (1..frames.len() - 1).map(|k| camera(&frames[k - 1..=k]).scale).collect();
    let least = scales[1..].iter().copied().fold(f32::INFINITY, f32::min);
    checks.hold(
        "10 s: growth in each 30 frames",
        least,
        camera(&[frames[3].clone(), frames[3].clone()]).scale,
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
        let renderer = Renderer::new(stage.build().0, &prompt::plan(&spec(prompt)), 120);
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
