//! Smoothness over time, borders and sharpness.

use super::measure::{Grey, block_flicker, fast_power, flicker, steps};
use super::{Checks, Take, broken, take};

fn jerk(frames: &[Grey]) -> f32 {
    let second = |w: &[(f32, f32, f32)]| (w[1].0 - w[0].0).hypot(w[1].1 - w[0].1);
    steps(frames).windows(2).map(second).fold(0.0, f32::max)
}

fn residue(frames: &[Grey]) -> f32 {
    let steps = steps(frames);
    steps.iter().map(|step| step.2).sum::<f32>() / steps.len() as f32
}

#[test]
fn a_move_is_smooth_and_clean() {
    let mut checks = Checks::new();
    let take = take("zoom in and orbit right").every(1);
    let frames = take.frames();
    // A clock that stands still for two frames of three.
    let stuttering: Vec<Grey> = (0..frames.len()).map(|k| frames[k / 3 * 3].clone()).collect();
    checks.hold("jerk", jerk(&frames), &[jerk(&stuttering)]);
    let boiling = take.found_anew(broken::boiling).frames();
    checks.hold("change that movement does not explain", residue(&frames), &[residue(&boiling)]);
    let pulsing = take.found_anew(broken::pulsing).frames();
    checks.hold("flicker", flicker(&frames), &[flicker(&pulsing)]);
    checks.hold("power above 6 Hz", fast_power(&frames), &[fast_power(&pulsing)]);
    checks.done();
}

/// What people get who ask for nothing special: grain, drift and what moves of itself.
#[test]
fn grain_and_life_do_not_flicker() {
    let mut checks = Checks::new();
    let plain = take("slow push in, clouds drift, water ripples").negative("").cfg(0.5).every(1);
    let frames = plain.frames();
    let pulsing = plain.found_anew(broken::pulsing).frames();
    checks.hold("flicker, with grain", flicker(&frames), &[flicker(&pulsing)]);
    checks.hold("flicker of the worst block, with grain", block_flicker(&frames), &[block_flicker(&pulsing)]);
    checks.done();
}

#[test]
fn a_move_shows_no_border_and_stays_sharp() {
    let mut checks = Checks::new();
    let darkest = |take: &Take| take.frames().iter().map(Grey::darkest_border).fold(f32::INFINITY, f32::min);
    for words in
        ["fast zoom out", "fast pan left and tilt up", "strong handheld, roll left", "vertigo effect"]
    {
        let whole = take(words).negative("").every(17);
        let bordered = darkest(&whole.found(broken::black_margin));
        checks.hold(&format!("darkest border: {words}"), darkest(&whole), &[bordered]);
    }
    let zoom = take("zoom in").every(119);
    let kept = |frames: &[Grey]| frames[1].sharpness() / frames[0].sharpness();
    let frames = zoom.frames();
    let soft = [frames[0].clone(), frames[1].blurred()];
    checks.hold("sharpness kept in a zoom", kept(&frames), &[kept(&soft)]);
    checks.done();
}
