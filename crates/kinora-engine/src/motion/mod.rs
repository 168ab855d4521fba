//! The embedded engine: a photo becomes a depth-aware camera move. No weights, CPU only.

mod scene;

pub use scene::inspect::{SceneView, scene_views};

use crate::{ClipFormat, Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, Picture};

#[derive(Debug, Clone, Copy, Default)]
pub struct MotionEngine;

impl Engine for MotionEngine {
    fn name(&self) -> &'static str {
        "motion"
    }

    fn description(&self) -> &'static str {
        "Kinora's embedded engine: depth-aware camera moves over the still picture, on the CPU."
    }

    fn clip_format(&self, _: u32, _: u32, spec: &GenerateSpec) -> ClipFormat {
        ClipFormat { width_px: 1280, height_px: 720, fps: 24, frames_count: 24 * spec.duration.seconds() }
    }

    fn generate(
        &self,
        _spec: &GenerateSpec,
        _picture: &Picture,
        _sink: &mut dyn FrameSink,
        _monitor: &dyn Monitor,
    ) -> Result<Generated, EngineError> {
        Err(EngineError::Permanent("not built yet".into()))
    }
}
