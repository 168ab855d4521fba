use super::super::prompt::plan;
use super::super::scene::FoundRegion;
use super::super::stage::Stage;
use super::*;
use crate::GenerateSpec;

fn fields(stage: Stage, prompt: &str, cfg_scale: f32, sky_confidence: f32) -> Fields {
    let (mut scene, _) = stage.build();
    scene.found.regions.push(FoundRegion { kind: "sky", confidence: sky_confidence, area: 0.4 });
    let spec = GenerateSpec { prompt: prompt.into(), cfg_scale, ..GenerateSpec::default() };
    let frame = Frame::of(&scene.canvas);
    Fields::new(&plan(&spec), &scene, &frame, 120)
}

#[test]
fn only_a_sure_region_moves_unasked() {
    let flows = |prompt, cfg, sky| fields(Stage::default(), prompt, cfg, sky).flows().len();
    assert_eq!(flows("", 0.0, 0.9), 1, "a sure sky drifts");
    assert_eq!(flows("", 0.0, 0.4), 0, "an unsure one does not");
    assert_eq!(flows("clouds drift", 0.0, 0.4), 1, "unless it was asked to");
    assert_eq!(flows("", 1.0, 0.9), 0, "cfg 1 leaves nothing to chance");
    assert_eq!(flows("no clouds", 0.0, 0.9), 0);
}

#[test]
fn nothing_has_moved_at_the_start() {
    let fields = fields(Stage::default(), "waves, grass sways", 0.5, 0.9);
    assert!(fields.at(0.0).is_none());
    assert!(fields.flows().iter().all(|flow| flow.at(0.0, 24.0).is_none()));
    let soon = fields.at(0.05).expect("something moves");
    assert!(soon.dx.data.iter().chain(&soon.dy.data).all(|d| d.abs() < 0.5), "it starts gently");
}

#[test]
fn a_cycle_is_whole_where_it_starts_over() {
    let fields = fields(Stage { ball: false, ..Stage::default() }, "waves", 1.0, 0.4);
    let flow = &fields.flows()[0];
    let still = |map: &Map| map.data.iter().all(|d| d.abs() < 0.3);
    // Waves renew themselves every 58 frames: just before, all is the future arriving; then all is the past leaving.
    let before = flow.at(57.9, 24.0).expect("it shows");
    let after = flow.at(58.0, 24.0).expect("it shows");
    let future = before.future.as_ref().expect("a cycle has a future");
    assert!(before.weights.1 > 0.98 && still(&future.0) && still(&future.1), "{:?}", before.weights);
    assert!(after.weights.0 > 0.98 && still(&after.past.0) && still(&after.past.1), "{:?}", after.weights);
}

#[test]
fn effects_without_a_place_are_named() {
    let (scene, _) = Stage::default().build();
    let spec = GenerateSpec {
        prompt: "clouds drift, hair blows, fire burns, snow".into(),
        ..GenerateSpec::default()
    };
    assert_eq!(without_place(&plan(&spec), &scene.regions), [Effect::Hair, Effect::Fire]);
}
