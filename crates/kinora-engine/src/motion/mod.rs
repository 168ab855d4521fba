//! The embedded engine: a photo becomes a depth-aware camera move with movement in the scene. No weights, CPU only.
//!
//! Stages in the order the data takes: `prompt` (words to plan), `scene` (picture to layers, depth and masks),
//! `camera` (plan to poses), `render` (to frames), `finish` (to bytes).
//! Always true: the first frame is the fitted picture bit for bit; the same specification and picture give the
//! same frames on the same machine at any number of threads.
//! Not here: poses, expressions, new things. What this engine shows was in the picture or is drawn weather.

mod camera;
#[cfg(test)]
mod checks;
mod fields;
mod finish;
mod overlays;
mod prompt;
mod render;
mod scene;
#[cfg(test)]
mod stage;

use std::time::Instant;

pub use prompt::vocabulary_table;
pub use scene::inspect::{SceneView, scene_views};

use crate::{
    ClipFormat, Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, Picture, Progress,
    StageTime,
};
use render::{FPS, Renderer};

/// Animates a still picture in 2.5 D.
#[derive(Debug, Clone, Copy, Default)]
pub struct MotionEngine;

impl MotionEngine {
    /// What [`Engine::generate`] would make of `spec` and `picture`, without rendering it: the plan, which words
    /// were understood and which not, and what was found in the picture. The same value as [`Generated::plan`].
    ///
    /// Costs the analysis of the picture. Fails only when the monitor cancels.
    pub fn explain(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        monitor: &dyn Monitor,
    ) -> Result<serde_json::Value, EngineError> {
        let plan = prompt::plan(spec);
        let scene = scene::analyze(&scene::fit(picture), monitor)?;
        Ok(explanation(&plan, &scene))
    }

    /// Some frames of a clip, `[H, W, 3]` each, as [`Engine::generate`] would make them; for contact sheets.
    ///
    /// Costs the analysis of the picture and those frames. Fails only when the monitor cancels.
    pub fn stills(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        indices: &[u32],
        monitor: &dyn Monitor,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        let format = self.clip_format(picture.width_px(), picture.height_px(), spec);
        let fitted = scene::fit(picture);
        let scene = scene::analyze(&fitted, monitor)?;
        let renderer = Renderer::new(scene, &prompt::plan(spec), format.frames_count as usize)
            .with_detail(picture, &fitted);
        let still = |&index: &u32| {
            let mut rgb = vec![0; format.frame_bytes()];
            renderer.frame(index.min(format.frames_count - 1) as usize, &mut rgb);
            rgb
        };
        Ok(indices.iter().map(still).collect())
    }
}

impl Engine for MotionEngine {
    fn name(&self) -> &'static str {
        "motion"
    }

    fn description(&self) -> &'static str {
        "Kinora's embedded engine: depth-aware camera moves and natural motion over the still picture, on the CPU; \
         it animates what the picture shows and invents no new poses, expressions or content."
    }

    fn clip_format(&self, picture_width_px: u32, picture_height_px: u32, spec: &GenerateSpec) -> ClipFormat {
        let (width_px, height_px) = scene::output_size(picture_width_px, picture_height_px);
        ClipFormat { width_px, height_px, fps: FPS, frames_count: FPS * spec.duration.seconds() }
    }

    fn generate(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        sink: &mut dyn FrameSink,
        monitor: &dyn Monitor,
    ) -> Result<Generated, EngineError> {
        let format = self.clip_format(picture.width_px(), picture.height_px(), spec);
        let mut stages = Stages::new();
        let plan = prompt::plan(spec);
        let fitted = scene::fit(picture);
        stages.ended("fit");
        let scene = scene::analyze(&fitted, monitor)?;
        let explanation = explanation(&plan, &scene);
        stages.ended("analyze");
        let renderer =
            Renderer::new(scene, &plan, format.frames_count as usize).with_detail(picture, &fitted);
        drop(fitted);
        stages.ended("prepare");
        let mut rgb = vec![0; format.frame_bytes()];
        for index in 0..format.frames_count {
            if monitor.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            renderer.frame(index as usize, &mut rgb);
            stages.add("render");
            sink.frame(&rgb)?;
            stages.add("sink");
            monitor.progress(Progress { stage: "render", done: index + 1, total: format.frames_count });
        }
        Ok(Generated { stages: stages.times, plan: Some(explanation) })
    }
}

fn explanation(plan: &prompt::Plan, scene: &scene::Scene) -> serde_json::Value {
    let mut value = serde_json::json!({
        "engine": "motion",
        "plan": plan,
        "picture": scene.found,
        "without_a_place_in_the_picture": fields::without_place(plan, &scene.regions),
    });
    round(&mut value);
    value
}

/// Four decimals: more of a single-precision number is noise to a reader.
fn round(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(|v| (v * 1e4).round() / 1e4);
            *value = rounded.map_or(Value::Null, Value::from);
        }
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        _ => {}
    }
}

/// Measures where the time goes. Wall times are reported, never computed with.
struct Stages {
    times: Vec<StageTime>,
    since: Instant,
}

impl Stages {
    fn new() -> Self {
        Self { times: Vec::new(), since: Instant::now() }
    }

    /// Books the time since the last call under a new stage.
    fn ended(&mut self, stage: &'static str) {
        let now = Instant::now();
        self.times.push(StageTime { stage, duration: now - self.since });
        self.since = now;
    }

    /// Books the time since the last call under a stage that goes on.
    fn add(&mut self, stage: &'static str) {
        let now = Instant::now();
        let duration = now - self.since;
        match self.times.iter_mut().find(|time| time.stage == stage) {
            Some(time) => time.duration += duration,
            None => self.times.push(StageTime { stage, duration }),
        }
        self.since = now;
    }
}
