//! Pictures to animate and clips to look at, for the tests.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kinora_engine::{
    Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, MotionEngine, Picture, Progress,
    SinkError,
};

/// All frames of a clip, or the first of them.
pub(crate) struct Clip {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) generated: Option<Generated>,
}

/// Keeps the frames; after `most`, tells the engine to stop.
struct Keep<'a> {
    frames: Vec<Vec<u8>>,
    stop: &'a Stop,
    most: usize,
}

#[derive(Default)]
pub(crate) struct Stop {
    pub(crate) now: AtomicBool,
    pub(crate) progress: AtomicU32,
}

impl Monitor for Stop {
    fn progress(&self, _: Progress) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.now.load(Ordering::Relaxed)
    }
}

impl FrameSink for Keep<'_> {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        self.frames.push(rgb.to_vec());
        self.stop.now.store(self.frames.len() >= self.most, Ordering::Relaxed);
        Ok(())
    }
}

/// The first `most` frames that `motion` makes; the engine is cancelled after them.
pub(crate) fn first_frames(picture: &Picture, spec: &GenerateSpec, most: usize) -> Clip {
    let format = MotionEngine.clip_format(picture.width_px(), picture.height_px(), spec);
    let stop = Stop::default();
    let mut keep = Keep { frames: Vec::new(), stop: &stop, most };
    let generated = match MotionEngine.generate(spec, picture, &mut keep, &stop) {
        Ok(generated) => Some(generated),
        Err(EngineError::Cancelled) => None,
        Err(error) => panic!("{error}"),
    };
    assert!(keep.frames.iter().all(|frame| frame.len() == format.frame_bytes()));
    Clip { frames: keep.frames, generated }
}

pub(crate) fn spec(prompt: &str) -> GenerateSpec {
    GenerateSpec { prompt: prompt.into(), seed: 7, ..GenerateSpec::default() }
}

/// A busy picture: smooth ramps, a disc, fine texture; no two places alike.
pub(crate) fn card(width_px: u32, height_px: u32) -> Picture {
    let mut rgb = Vec::with_capacity((width_px * height_px * 3) as usize);
    for y in 0..height_px {
        for x in 0..width_px {
            let (u, v) = (x as f32 / width_px as f32, y as f32 / height_px as f32);
            let disc = (u - 0.45).hypot(v - 0.55) < 0.2;
            let texture = ((x as f32 * 0.37).sin() * (y as f32 * 0.23 + x as f32 * 0.05).sin() * 40.0) as i32;
            let base = if disc {
                [210, 80, 50]
            } else {
                [(40.0 + 160.0 * u) as i32, (190.0 - 120.0 * v) as i32, 120]
            };
            rgb.extend(base.map(|c| (c + texture).clamp(0, 255) as u8));
        }
    }
    Picture::new(width_px, height_px, rgb).expect("three bytes a pixel")
}
