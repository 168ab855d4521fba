//! Movement in the scene stays where it belongs, and the subject takes nothing with it and leaves nothing behind.

use super::{Checks, SMALL, Stage, Take, broken, take};

/// Movement inside a region over movement outside of it.
fn contrast(take: &Take, inside: &dyn Fn(f32, f32) -> bool, outside: &dyn Fn(f32, f32) -> bool) -> f32 {
    let frames = take.frames();
    let stage = take.stage;
    let change = |hit: &dyn Fn(f32, f32) -> bool| {
        let hit =
            |x: usize, y: usize| hit(x as f32 / stage.width_px as f32, y as f32 / stage.height_px as f32);
        frames[2..].windows(2).map(|pair| pair[0].change(&pair[1], &hit)).sum::<f32>()
    };
    change(inside) / change(outside).max(1e-3)
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
    let mut hold = |name: &str, stage, words: &str, inside: &dyn Fn(f32, f32) -> bool, outside| {
        let whole = take(words).negative("film grain").on(stage);
        let idle = whole.planned(|plan| plan.scene.clear());
        let measured =
            [&whole, &idle, &whole.found(broken::leaking)].map(|take| contrast(take, inside, outside));
        checks.hold(name, measured[0], &measured[1..]);
    };
    hold("clouds: inside over outside", running, "static camera, clouds drift", &in_sky, &in_hills);
    hold("stream: inside over outside", running, "static camera, the stream flows", &in_stream, &off_stream);
    hold("lake: inside over outside", bare, "static camera, water ripples", &in_lake, &in_sky);
    hold("sway: inside over outside", bare, "static camera, grass sways", &in_grass, &in_sky);
    checks.done();
}

/// How far the frames differ from the same clip without the subject, where the subject is not.
fn left_behind(take: &Take) -> f32 {
    let bare = Take { scene: |_| (), ..take.clone() }.found(|scene| {
        if let Some(foreground) = &mut scene.foreground {
            foreground.rgba.fill(0);
        }
    });
    let (frames, bare, subject) = (take.frames(), bare.frames(), take.found(broken::silhouette).frames());
    let off = frames.iter().zip(&bare).zip(&subject);
    off.map(|((frame, bare), subject)| frame.change(bare, &|x, y| subject.at(x, y) < 1.0)).fold(0.0, f32::max)
}

#[test]
fn the_subject_leaves_nothing_behind() {
    let mut checks = Checks::new();
    let orbit = take("strong orbit left").every(30);
    checks.hold(
        "off the subject: difference from a scene without it",
        left_behind(&orbit),
        &[left_behind(&orbit.found(broken::no_matte)), left_behind(&orbit.found(broken::unfilled))],
    );
    checks.done();
}
