//! What must hold to the bit: the first frame, the seed, and that nothing is ever no number.

use super::super::render::Renderer;
use super::{GenerateSpec, SMALL, Scene, Stage, Take, broken, prompt, take};

const EFFECTS: [&str; 15] = [
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

/// Whether the first frame is the picture, bit for bit.
fn starts_from_the_picture(take: &Take) -> bool {
    take.rgb(0) == take.stage.build().1
}

#[test]
fn every_effect_starts_from_the_picture_and_shows() {
    for effect in EFFECTS {
        let strong = take(&format!("static camera, strong {effect}"));
        assert!(starts_from_the_picture(&strong), "{effect}: the first frame is not the picture");
        let (renderer, without) = (strong.renderer(0), strong.planned(|plan| plan.scene.clear()).renderer(0));
        let change = |other: &Renderer, index: usize| -> u64 {
            let [a, b] = [&renderer, other].map(|renderer| {
                let mut rgb = vec![0; SMALL.width_px * SMALL.height_px * 3];
                renderer.frame(index, &mut rgb);
                rgb
            });
            a.iter().zip(&b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
        };
        let size = (SMALL.width_px * SMALL.height_px * 3) as u64;
        // The same dither lies over both.
        let shows = |other| (24..120).step_by(19).any(|index| change(other, index) > size / 100);
        assert!(shows(&without), "{effect} does not show");
        assert!(!shows(&renderer), "{effect} shows against itself");
    }
}

#[test]
fn a_first_frame_that_is_not_the_picture_is_noticed() {
    for words in ["zoom in", "orbit right, handheld", "static camera, heavy snow"] {
        let whole = take(words);
        assert!(starts_from_the_picture(&whole), "{words}");
        for (what, spoilt) in [
            ("a shift by one pixel", whole.found(broken::shifted)),
            ("a level in one pixel", whole.found(broken::one_level_off)),
            ("a subject left out", whole.found(|scene| scene.foreground = None)),
        ] {
            assert!(!starts_from_the_picture(&spoilt), "{words}: {what} went unnoticed");
        }
        let late = whole.rgb(1);
        assert!(late != whole.stage.build().1, "{words}: a clip that begins with its second frame");
    }
}

/// Whether some frames are the same on one, two and five threads; `seed` is asked there.
fn is_the_same_on_any_number_of_threads(seed: fn() -> u64) -> bool {
    let frames = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be had");
        pool.install(|| {
            let mut take = take("pan right, handheld, rain, waves");
            take.spec = GenerateSpec { negative_prompt: String::new(), seed: seed(), ..take.spec };
            [5, 41].map(|index| take.rgb(index))
        })
    };
    let one = frames(1);
    [2, 5].into_iter().all(|threads| frames(threads) == one)
}

#[test]
fn a_seed_gives_the_same_frames_at_any_number_of_threads() {
    assert!(is_the_same_on_any_number_of_threads(|| 3));
    assert!(
        !is_the_same_on_any_number_of_threads(|| rayon::current_num_threads() as u64),
        "a seed that hangs on the threads went unnoticed"
    );
}

/// The first number that is none, looking at everything some frames are made of.
fn not_finite(take: &Take) -> Option<&'static str> {
    let renderer = take.renderer(0);
    [0, 1, 19, 58, 119].into_iter().find_map(|index| renderer.not_finite(index))
}

#[test]
fn nothing_is_ever_no_number() {
    let running = Stage { stream: true, ball: false, ..SMALL };
    for effect in EFFECTS {
        for move_ in ["zoom in, handheld", "fast orbit left and roll right", "pull out"] {
            for stage in [SMALL, running] {
                let take = take(&format!("{move_}, strong {effect}")).on(stage);
                assert_eq!(not_finite(&take), None, "{move_}, {effect}");
            }
        }
    }
}

#[test]
fn a_number_that_is_none_is_noticed() {
    type Spoil = fn(&mut Scene);
    let whole = take("zoom in, waves, grass sways, clouds drift");
    assert_eq!(not_finite(&whole), None);
    let spoilt: [(&str, Spoil); 5] = [
        ("the background's depth", |scene| broken::no_number(&mut scene.background.disparity)),
        ("the foreground's depth", |scene| {
            broken::no_number(&mut scene.foreground.as_mut().expect("the stage has a ball").disparity);
        }),
        ("the water", |scene| broken::no_number(scene.regions.water.as_mut().expect("the stage has a lake"))),
        ("the sky", |scene| broken::no_number(scene.regions.sky.as_mut().expect("the stage has a sky"))),
        ("the horizon", |scene| scene.regions.horizon = Some(f32::NAN)),
    ];
    for (what, spoil) in spoilt {
        assert!(not_finite(&whole.found(spoil)).is_some(), "{what}: no number, and nobody noticed");
    }
    let plan = whole.planned(|plan| plan.camera_limit = f32::NAN);
    assert!(not_finite(&plan).is_some(), "a pose that is no number went unnoticed");
    assert!(prompt::plan(&whole.spec).camera_limit.is_finite());
}
