//! The seam between the product and whatever computes frames.
//!
//! Always true: frames leave one by one and in order, so encoding overlaps rendering and a clip never sits
//! whole in memory; the engine asks [`Monitor::is_cancelled`] at least once a frame (or solver step).

use std::time::Duration;

use crate::{GenerateSpec, Picture};

/// Turns a picture and a specification into a clip.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// The name users choose it by, such as `motion`.
    fn name(&self) -> &'static str;

    /// One sentence that says what this engine is, fit for the model's public description.
    fn description(&self) -> &'static str;

    /// The format of the clip that [`Engine::generate`] will make of a picture of this size.
    fn clip_format(&self, picture_width_px: u32, picture_height_px: u32, spec: &GenerateSpec) -> ClipFormat;

    /// Makes the clip: exactly `frames_count` frames of `[H, W, 3]` 8-bit sRGB go into `sink`.
    ///
    /// Blocks for the whole clip. Returns [`EngineError::Cancelled`] within a frame of the monitor's word.
    fn generate(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        sink: &mut dyn FrameSink,
        monitor: &dyn Monitor,
    ) -> Result<Generated, EngineError>;

    /// Whether what the engine computes on still works, asked after [`EngineError::Device`] and after a panic.
    ///
    /// Blocks for a moment. An error means that this process can make no clip any more.
    fn probe(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Size and rate of a clip. Width and height are even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipFormat {
    pub width_px: u32,
    pub height_px: u32,
    pub fps: u32,
    pub frames_count: u32,
}

impl ClipFormat {
    /// Bytes of one `[H, W, 3]` frame.
    pub fn frame_bytes(&self) -> usize {
        self.width_px as usize * self.height_px as usize * 3
    }
}

/// Takes finished frames. May block while the frames before are still being encoded.
pub trait FrameSink: Send {
    /// `rgb` is `[H, W, 3]`, 8-bit sRGB, of the clip's format.
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError>;
}

/// Why a sink takes no more frames.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub Box<dyn std::error::Error + Send + Sync>);

/// Hears how far an engine is and tells it when to stop.
pub trait Monitor: Sync {
    fn progress(&self, progress: Progress);
    fn is_cancelled(&self) -> bool;
}

/// The monitor of work that nobody watches or stops.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Monitor for Unwatched {
    fn progress(&self, _: Progress) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// How far a stage is. Stages come in order; `total` is constant within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub stage: &'static str,
    pub done: u32,
    pub total: u32,
}

/// What an engine says of a finished clip.
#[derive(Debug, Clone, Default)]
pub struct Generated {
    /// CPU-bound stages in the order the data takes, each with the wall time spent in it.
    pub stages: Vec<StageTime>,
    /// What the engine made of the words and the picture, for people to read.
    pub plan: Option<serde_json::Value>,
}

/// Wall time spent in a stage over the whole clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageTime {
    pub stage: &'static str,
    pub duration: Duration,
}

/// What made an engine fail, in words that are for the log.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no clip. What an error displays may be told to callers; a [`Cause`] may not.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cancelled")]
    Cancelled,
    #[error("the frames could not be taken: {0}")]
    Sink(#[from] SinkError),
    /// The same input would fail again.
    #[error("{0}")]
    Permanent(String),
    /// Files that the engine computes with were whole when it was opened, and are not now. They may come back.
    #[error("the model's files cannot be used any more")]
    Files(#[source] Cause),
    /// The device that frames are computed on failed, at no fault of the input: it is out of memory, or broken.
    #[error("the device that computes the video failed")]
    Device(#[source] Cause),
    /// What cannot fail did, and would again.
    #[error("the engine failed, which is a defect of the program")]
    Defect(#[source] Cause),
}

impl EngineError {
    /// All that is known, for the log.
    pub fn detail(&self) -> String {
        match self {
            Self::Files(cause) | Self::Device(cause) | Self::Defect(cause) => format!("{self}: {cause}"),
            _ => self.to_string(),
        }
    }
}
