//! Frames as pictures, beside the clip.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinora_engine::{
    ClipFormat, Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, Picture, SinkError,
};

/// An engine whose frames are also written into a folder as `frame_00000.png` and on.
#[derive(Debug)]
pub(super) struct FramesOut {
    engine: Arc<dyn Engine>,
    folder: PathBuf,
}

impl FramesOut {
    /// Makes the folder. Frames of an earlier clip are written over, but for those of a longer one: whoever reads the folder
    /// afterwards could not tell the two clips apart.
    pub(super) fn new(engine: Arc<dyn Engine>, folder: &Path, frames_count: u32) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let next = frame_path(folder, frames_count as usize);
        anyhow::ensure!(
            !next.exists(),
            "--frames-out {}: it holds frames of a longer clip, {} and on; remove them or name another folder",
            folder.display(),
            next.file_name().unwrap_or_default().display()
        );
        Ok(Self { engine, folder: folder.to_owned() })
    }
}

fn frame_path(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("frame_{index:05}.png"))
}

impl Engine for FramesOut {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn description(&self) -> &'static str {
        self.engine.description()
    }

    fn clip_format(&self, picture_width_px: u32, picture_height_px: u32, spec: &GenerateSpec) -> ClipFormat {
        self.engine.clip_format(picture_width_px, picture_height_px, spec)
    }

    fn generate(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        sink: &mut dyn FrameSink,
        monitor: &dyn Monitor,
    ) -> Result<Generated, EngineError> {
        let format = self.clip_format(picture.width_px(), picture.height_px(), spec);
        let mut both = Both { sink, format, folder: &self.folder, next: 0 };
        self.engine.generate(spec, picture, &mut both, monitor)
    }
}

struct Both<'a> {
    sink: &'a mut dyn FrameSink,
    format: ClipFormat,
    folder: &'a Path,
    next: usize,
}

impl FrameSink for Both<'_> {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        let path = frame_path(self.folder, self.next);
        self.next += 1;
        let picture = Picture::new(self.format.width_px, self.format.height_px, rgb.to_vec());
        let png = picture.map_err(|e| SinkError(e.into()))?;
        let png = kinora_media::lossless_png(&png).map_err(|e| SinkError(e.into()))?;
        if let Err(error) = std::fs::write(&path, png) {
            // Half a picture is worse than none. Why it could not be written is what is told.
            let _ = std::fs::remove_file(&path);
            return Err(SinkError(format!("{}: {error}", path.display()).into()));
        }
        self.sink.frame(rgb)
    }
}
