//! What `motion` promises whatever the picture and the words.

use std::sync::atomic::Ordering;

use kinora_engine::{
    ClipDuration, Engine, EngineError, FrameSink, GenerateSpec, MotionEngine, Picture, SinkError,
};
use proptest::prelude::*;

use crate::clip::{Stop, card, first_frames, spec};

/// A picture that already has its clip's size, so that fitting it changes nothing.
fn at_size() -> Picture {
    let format = MotionEngine.clip_format(1280, 720, &spec(""));
    card(format.width_px, format.height_px)
}

#[test]
fn the_first_frame_is_the_picture_bit_for_bit() {
    let picture = at_size();
    for prompt in ["", "fast zoom in, handheld", "heavy snow, waves, orbit left"] {
        let clip = first_frames(&picture, &spec(prompt), 1);
        assert!(clip.frames[0] == picture.rgb(), "{prompt:?} changed the first frame");
    }
}

#[test]
fn a_seed_gives_the_same_frames_at_any_number_of_threads() {
    let picture = card(400, 320);
    let frames = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| first_frames(&picture, &spec("pan right, handheld, rain"), 14).frames)
    };
    let one = frames(1);
    assert_eq!(one.len(), 14);
    for threads in [2, 3, 8] {
        assert!(frames(threads) == one, "{threads} threads changed the clip");
    }
}

#[test]
fn another_seed_gives_another_clip() {
    let picture = card(400, 320);
    let last = |seed| first_frames(&picture, &GenerateSpec { seed, ..spec("") }, 20).frames.pop();
    assert!(last(1) != last(2));
}

#[test]
fn a_whole_clip_has_its_frames_its_plan_and_its_stage_times() {
    let picture = card(320, 300);
    let stop = Stop::default();
    let spec = spec("slow push in while a unicorn smiles");
    struct Count(u32);
    impl FrameSink for Count {
        fn frame(&mut self, _: &[u8]) -> Result<(), SinkError> {
            self.0 += 1;
            Ok(())
        }
    }
    let mut count = Count(0);
    let generated = MotionEngine.generate(&spec, &picture, &mut count, &stop).unwrap();
    assert_eq!(count.0, 120);
    assert!(stop.progress.load(Ordering::Relaxed) >= 120);
    let stages: Vec<_> = generated.stages.iter().map(|stage| stage.stage).collect();
    for stage in ["analyze", "render"] {
        assert!(stages.contains(&stage), "{stages:?}");
    }
    let plan = generated.plan.unwrap();
    assert_eq!(plan["plan"]["words"]["not_understood"], serde_json::json!(["unicorn"]));
    assert_eq!(plan["plan"]["words"]["beyond_this_engine"], serde_json::json!(["smiles"]));
    assert_eq!(plan, MotionEngine.explain(&spec, &picture, &Stop::default()).unwrap());
}

#[test]
fn cancelling_stops_within_a_frame() {
    let clip = first_frames(&card(400, 300), &spec(""), 3);
    assert_eq!(clip.frames.len(), 3);
    assert!(clip.generated.is_none());
    let stop = Stop::default();
    stop.now.store(true, Ordering::Relaxed);
    let explained = MotionEngine.explain(&spec(""), &card(400, 300), &stop);
    assert!(matches!(explained, Err(EngineError::Cancelled)));
}

#[test]
fn a_sink_that_fails_ends_the_clip_with_its_error() {
    struct Full;
    impl FrameSink for Full {
        fn frame(&mut self, _: &[u8]) -> Result<(), SinkError> {
            Err(SinkError("the disk is full".into()))
        }
    }
    let error = MotionEngine.generate(&spec(""), &card(400, 300), &mut Full, &Stop::default()).unwrap_err();
    assert_eq!(error.to_string(), "the frames could not be taken: the disk is full");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Any size and ratio that the service allows, any words, any seed, both durations.
    #[test]
    fn any_request_renders(
        (width_px, height_px) in sizes(),
        duration in prop_oneof![Just(ClipDuration::FiveSeconds), Just(ClipDuration::TenSeconds)],
        prompt in words(),
        negative_prompt in words(),
        cfg_scale in 0.0f32..=1.0,
        seed in 0..=GenerateSpec::SEED_MAX,
    ) {
        let picture = card(width_px, height_px);
        let spec = GenerateSpec { prompt, negative_prompt, cfg_scale, duration, seed };
        let format = MotionEngine.clip_format(width_px, height_px, &spec);
        prop_assert!(format.width_px.is_multiple_of(2) && format.height_px.is_multiple_of(2));
        let last = format.frames_count - 1;
        let frames = MotionEngine.stills(&spec, &picture, &[0, last * 2 / 5, last], &Stop::default()).unwrap();
        let plain = MotionEngine.stills(&GenerateSpec::default(), &picture, &[0], &Stop::default()).unwrap();
        prop_assert!(frames[0] == plain[0], "the words changed the first frame");
        for frame in &frames {
            prop_assert!(!has_border(frame, format.width_px as usize));
        }
    }
}

/// Whether a whole side of the frame is black; the card is nowhere.
fn has_border(rgb: &[u8], width: usize) -> bool {
    let pixels = rgb.as_chunks::<3>().0;
    let height = pixels.len() / width;
    let black = |p: &[u8; 3]| p.iter().all(|&c| c < 12);
    let row = |y: usize| pixels[y * width..][..width].iter().all(black);
    let column = |x: usize| (0..height).all(|y| black(&pixels[y * width + x]));
    row(0) || row(height - 1) || column(0) || column(width - 1)
}

#[test]
fn a_black_side_is_noticed() {
    let mut rgb = vec![200u8; 8 * 4 * 3];
    assert!(!has_border(&rgb, 8));
    (0..4).for_each(|y| rgb[(y * 8 + 7) * 3..][..3].fill(0));
    assert!(has_border(&rgb, 8));
}

#[test]
fn stills_are_frames_of_the_clip() {
    let picture = card(400, 320);
    let spec = spec("orbit left, rain");
    let clip = first_frames(&picture, &spec, 9);
    let stills = MotionEngine.stills(&spec, &picture, &[8, 3], &Stop::default()).unwrap();
    assert!(stills[0] == clip.frames[8] && stills[1] == clip.frames[3]);
}

/// Most are small, for time's sake; some have more pixels than a clip.
fn sizes() -> impl Strategy<Value = (u32, u32)> {
    let short = prop_oneof![3 => 300u32..700, 1 => 700u32..2600];
    (short, 0.4f32..=2.5).prop_map(|(short, ratio)| {
        let long = |ratio: f32| (short as f32 / ratio) as u32;
        if ratio < 1.0 { (short, long(ratio)) } else { (long(1.0 / ratio), short) }
    })
}

/// Vocabulary, modifiers and noise in any order.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("zoom"),
        Just("in"),
        Just("out"),
        Just("pan left"),
        Just("tilt up"),
        Just("orbit"),
        Just("roll"),
        Just("handheld"),
        Just("static"),
        Just("then"),
        Just("and"),
        Just(","),
        Just("no"),
        Just("very"),
        Just("slow"),
        Just("fast"),
        Just("waves"),
        Just("clouds"),
        Just("snow"),
        Just("rain"),
        Just("fire"),
        Just("wind"),
        Just("lights flicker"),
        Just("镜头"),
        Just("推近"),
        Just("不要"),
        Just("下雪"),
        Just("🦄"),
        Just("\u{0}"),
        Just("é'"),
    ];
    prop_oneof![proptest::collection::vec(word, 0..12).prop_map(|words| words.join(" ")), "\\PC{0,60}",]
}
