//! The pipeline behind the seam that the product sees.

use std::path::Path;

use kinora_engine::{
    ClipFormat, Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, Picture, SinkError,
};

use crate::condition::Family;
use crate::device::Target;
use crate::picture::Size;
use crate::pipeline::{Pipeline, Settings, open};
use crate::{Needs, WanError};

/// The neural engine over one model.
#[derive(Debug)]
pub struct WanEngine {
    pipeline: Pipeline,
}

impl WanEngine {
    /// Opens the model in `folder` to compute so many clips at the same time as `target` says. Everything that can be checked
    /// without computing is.
    pub fn open(
        folder: &Path,
        target: Target,
        settings: Settings,
        clips_count: u32,
    ) -> Result<Self, WanError> {
        Ok(Self { pipeline: open(folder, target, settings, clips_count)? })
    }
}

impl Engine for WanEngine {
    fn name(&self) -> &'static str {
        "wan"
    }

    fn description(&self) -> &'static str {
        match self.pipeline.model().family {
            Family::PerTokenTimes => {
                "A video diffusion transformer of the Wan2.2 TI2V kind, computed here from the weights its owner chose."
            }
            Family::Concatenated => {
                "A video diffusion transformer of the Wan2.2 I2V kind, computed here from the weights its owner chose."
            }
        }
    }

    fn clip_format(&self, picture_width_px: u32, picture_height_px: u32, spec: &GenerateSpec) -> ClipFormat {
        let picture = Size { width_px: picture_width_px as usize, height_px: picture_height_px as usize };
        let size = self.pipeline.size(picture);
        ClipFormat {
            width_px: size.width_px as u32,
            height_px: size.height_px as u32,
            fps: self.pipeline.fps(),
            frames_count: self.pipeline.frames(spec.duration) as u32,
        }
    }

    fn generate(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        sink: &mut dyn FrameSink,
        monitor: &dyn Monitor,
    ) -> Result<Generated, EngineError> {
        let made = self.pipeline.run(spec, picture, sink, monitor, &mut |_| {});
        let made = made.map_err(|error| self.told(error))?;
        let mut plan = self.pipeline.recipe(spec, picture);
        plan["model"] = self.model_name().into();
        if let Some(psnr_db) = made.seam_psnr_db {
            plan["seam_psnr_db"] = psnr_db.into();
        }
        Ok(Generated { stages: made.times, plan: Some(plan) })
    }

    fn probe(&self) -> Result<(), EngineError> {
        self.pipeline.model().target.probe().map_err(|error| self.told(error))
    }
}

impl WanEngine {
    /// What a clip takes of the machine's memory.
    pub fn needs(&self) -> Result<Needs, WanError> {
        self.pipeline.needs()
    }

    /// What users should know of the files that were opened, a sentence each.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.pipeline.model().warnings()
    }

    fn model_name(&self) -> String {
        let folder = &self.pipeline.model().folder;
        folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn told(&self, error: WanError) -> EngineError {
        told(error, self.pipeline.model().target.device.is_cpu())
    }
}

/// An error of work on the CPU, or on another device, as the product takes it. Callers read what it displays, so that says
/// nothing of the server's disk, nor what a library said.
fn told(error: WanError, is_cpu: bool) -> EngineError {
    match error {
        WanError::Cancelled => EngineError::Cancelled,
        WanError::Sink(SinkError(cause)) => EngineError::Sink(SinkError(cause)),
        WanError::Request(problem) => EngineError::Permanent(problem),
        // On the CPU, weights and sizes that were checked leave nothing to go wrong.
        WanError::Tensor(_) if is_cpu => EngineError::Defect(error.into()),
        WanError::Tensor(_) | WanError::Device(_) => EngineError::Device(error.into()),
        WanError::Read { .. }
        | WanError::Config { .. }
        | WanError::Damaged { .. }
        | WanError::MissingTensor { .. }
        | WanError::WrongShape { .. }
        | WanError::WrongType { .. } => EngineError::Files(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_says_of_a_failed_operation_is_for_the_log_alone() {
        let failed = || WanError::Tensor(candle_core::Error::Msg("CUDA_ERROR_ILLEGAL_ADDRESS".into()));
        let (on_device, on_cpu) = (told(failed(), false), told(failed(), true));
        assert!(matches!(on_device, EngineError::Device(_)), "{on_device:?}");
        assert!(matches!(on_cpu, EngineError::Defect(_)), "{on_cpu:?}");
        for error in [on_device, on_cpu] {
            assert!(
                !error.to_string().contains("CUDA") && error.detail().contains("CUDA_ERROR"),
                "{error:?}"
            );
        }
    }
}
