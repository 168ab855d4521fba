//! A moving test card that drives queue, API and encoder in tests. Never offered to users.

use crate::{
    ClipFormat, Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, Picture, Progress,
};

const WIDTH_PX: u32 = 160;
const HEIGHT_PX: u32 = 96;
const FPS: u32 = 24;

/// Makes a small clip of a bar that walks over a grey ramp; ignores the picture and the words.
#[derive(Debug, Clone, Copy, Default)]
pub struct PatternEngine;

impl Engine for PatternEngine {
    fn name(&self) -> &'static str {
        "pattern"
    }

    fn description(&self) -> &'static str {
        "A moving test card for testing clients: it ignores the picture and the prompt."
    }

    fn clip_format(&self, _: u32, _: u32, spec: &GenerateSpec) -> ClipFormat {
        ClipFormat {
            width_px: WIDTH_PX,
            height_px: HEIGHT_PX,
            fps: FPS,
            frames_count: FPS * spec.duration.seconds(),
        }
    }

    fn generate(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        sink: &mut dyn FrameSink,
        monitor: &dyn Monitor,
    ) -> Result<Generated, EngineError> {
        let format = self.clip_format(picture.width_px(), picture.height_px(), spec);
        let mut rgb = vec![0; format.frame_bytes()];
        for index in 0..format.frames_count {
            if monitor.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            draw(&mut rgb, index, spec.seed);
            sink.frame(&rgb)?;
            monitor.progress(Progress { stage: "render", done: index + 1, total: format.frames_count });
        }
        Ok(Generated::default())
    }
}

/// Fills `[H, W, 3]` with the test card of frame `index`; the seed tints it.
fn draw(rgb: &mut [u8], index: u32, seed: u64) {
    let bar_px = (index * 2) % WIDTH_PX;
    let tint = (seed % 64) as u8;
    for (pixel, at) in rgb.chunks_exact_mut(3).zip(0u32..) {
        let x_px = at % WIDTH_PX;
        let grey = (x_px * 191 / WIDTH_PX) as u8;
        let in_bar = x_px.abs_diff(bar_px) < 6;
        pixel.copy_from_slice(&if in_bar { [235, 64, 52] } else { [grey + tint, grey, grey] });
    }
}
