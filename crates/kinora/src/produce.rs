//! Makes one clip: picture and specification through an engine into an MP4 and a thumbnail. Serves CLI and worker.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use kinora_engine::{
    ClipFormat, Engine, EngineError, FrameSink, GenerateSpec, Generated, Monitor, Picture, SinkError,
    StageTime,
};
use kinora_media::{ClipError, ClipInfo, ClipMetadata, ClipWriter};

use crate::allocator::ReleasedAtEnd;

/// The longer side of a thumbnail.
const THUMBNAIL_SIDE_MAX_PX: u32 = 512;

/// A finished clip.
#[derive(Debug)]
pub struct Produced {
    pub info: ClipInfo,
    pub thumbnail_jpeg: Vec<u8>,
    pub generated: Generated,
}

/// Why there is no clip.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Engine(EngineError),
    #[error("{0}")]
    Clip(#[from] ClipError),
    #[error("the thumbnail could not be made: {0}")]
    Thumbnail(String),
}

impl ProduceError {
    /// Whether frames could not be written, as on a full disk.
    pub fn is_of_the_output(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Sink(_)) | Self::Clip(ClipError::Output(_)))
    }

    /// Whether there was no room for the clip.
    pub fn is_of_a_full_disk(&self) -> bool {
        let cause: &(dyn std::error::Error + 'static) = match self {
            Self::Engine(EngineError::Sink(SinkError(cause))) => cause.as_ref(),
            cause => cause,
        };
        says_full(cause)
    }

    /// Whether another attempt at the same job may succeed. A full disk may be freed; a picture stays as it is.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Engine(EngineError::Files(_) | EngineError::Device(_) | EngineError::Sink(_))
            | Self::Clip(ClipError::Output(_)) => true,
            Self::Cancelled | Self::Engine(_) | Self::Clip(_) | Self::Thumbnail(_) => false,
        }
    }
}

/// Whether an error comes of a disk or a quota that is used up.
pub fn says_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Runs `engine` and writes the MP4 to `output`, which the caller syncs and names. Blocks for the whole clip.
pub fn produce(
    engine: &dyn Engine,
    spec: &GenerateSpec,
    picture: &Picture,
    output: File,
    monitor: &dyn Monitor,
) -> Result<Produced, ProduceError> {
    let format = engine.clip_format(picture.width_px(), picture.height_px(), spec);
    let metadata = ClipMetadata::generated(engine.name(), spec.seed);
    let writer = ClipWriter::new(output, format, &metadata)?;
    let mut sink = EncodingSink { writer, format, thumbnail_jpeg: None, blocked: Duration::ZERO };
    let large_blocks = ReleasedAtEnd;
    let generated = engine.generate(spec, picture, &mut sink, monitor);
    drop(large_blocks);
    let mut generated = generated.map_err(|error| match error {
        EngineError::Cancelled => ProduceError::Cancelled,
        error => ProduceError::Engine(error),
    })?;
    let EncodingSink { writer, thumbnail_jpeg, mut blocked, .. } = sink;
    let finishing = Instant::now();
    let (info, _) = writer.finish()?;
    blocked += finishing.elapsed();
    generated.stages.push(StageTime { stage: "encode (waited for)", duration: blocked });
    let thumbnail_jpeg =
        thumbnail_jpeg.ok_or_else(|| ProduceError::Thumbnail("the clip has no frame".into()))?;
    Ok(Produced { info, thumbnail_jpeg, generated })
}

/// Encodes what the engine hands over, and keeps the first frame as thumbnail.
struct EncodingSink {
    writer: ClipWriter<File>,
    format: ClipFormat,
    thumbnail_jpeg: Option<Vec<u8>>,
    blocked: Duration,
}

impl FrameSink for EncodingSink {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        let started = Instant::now();
        if self.thumbnail_jpeg.is_none() {
            let picture = Picture::new(self.format.width_px, self.format.height_px, rgb.to_vec());
            let picture = picture.map_err(|e| SinkError(e.into()))?;
            let jpeg = kinora_media::thumbnail_jpeg(&picture, THUMBNAIL_SIDE_MAX_PX);
            self.thumbnail_jpeg = Some(jpeg.map_err(|e| SinkError(e.into()))?);
        }
        let taken = self.writer.push(rgb).map_err(|e| SinkError(e.into()));
        self.blocked += started.elapsed();
        taken
    }
}
