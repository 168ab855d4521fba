//! Frames to a playing MP4 file: colour, H.264 and container.
//!
//! [`ClipWriter`] takes frames from the caller's thread; colour, encoding and writing have a thread of their own, so
//! that the caller's cores need not stand still meanwhile. A fixed set of buffers travels between the two: a fast
//! caller waits and memory stays bounded. No thread outlives the writer, however it ends.

mod h264;
mod mp4;
mod sps;
#[cfg(test)]
mod tests;
mod yuv;

use std::io::{Seek, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use kinora_engine::{ClipFormat, FrameSink, SinkError};

use self::h264::H264Encoder;
use self::mp4::Mp4Writer;
use self::yuv::YuvFrame;

/// Frames under way between the caller and the encoder.
const BUFFERS_COUNT: usize = 3;
/// The encoder's largest picture, in either direction (level 5.2).
const LONG_SIDE_MAX_PX: u32 = 3840;
const SHORT_SIDE_MAX_PX: u32 = 2160;
const SIDE_MIN_PX: u32 = 16;
const FPS_MAX: u32 = 120;
/// An hour at the highest rate.
const FRAMES_MAX: u32 = FPS_MAX * 3600;

/// What the file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipMetadata {
    /// Program and version that made the file.
    pub encoder: String,
    pub title: Option<String>,
    /// Anything people should know of the clip.
    pub comment: String,
}

impl ClipMetadata {
    /// Says that the clip is generated, by which engine, and with which seed.
    pub fn generated(engine: &str, seed: u64) -> Self {
        Self {
            encoder: concat!("Kinora ", env!("CARGO_PKG_VERSION")).to_owned(),
            title: None,
            comment: format!(
                "AI-generated video: made from a still picture by Kinora, engine {engine}, seed {seed}"
            ),
        }
    }
}

/// A finished clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipInfo {
    pub format: ClipFormat,
    pub duration_ms: u64,
    pub size_bytes: u64,
}

/// Why there is no clip.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    #[error(
        "a clip of {}x{} pixels, {} frames per second and {} frames cannot be encoded: sides must be even and at least \
         {SIDE_MIN_PX} pixels, at most {LONG_SIDE_MAX_PX}x{SHORT_SIDE_MAX_PX} either way up, and there must be 1 to \
         {FPS_MAX} frames per second and 1 to {FRAMES_MAX} frames",
        .0.width_px, .0.height_px, .0.fps, .0.frames_count
    )]
    Format(ClipFormat),
    #[error("a frame must have {want_bytes} bytes, not {got_bytes}")]
    FrameSize { got_bytes: usize, want_bytes: usize },
    #[error("the clip already has its {0} frames")]
    TooManyFrames(u32),
    #[error("the clip has {got} of its {want} frames")]
    FramesMissing { got: u32, want: u32 },
    #[error("the H.264 encoder failed: {0}")]
    Encoder(#[from] openh264::Error),
    #[error("the H.264 encoder gave nothing for frame {index}")]
    FrameDropped { index: u64 },
    #[error("the H.264 encoder wrote a parameter set that cannot be cropped")]
    ParameterSet,
    #[error("the MP4 could not be put together: {0}")]
    Container(#[from] shiguredo_mp4::mux::MuxError),
    #[error("the MP4 could not be put together: {0}")]
    ContainerBox(#[from] shiguredo_mp4::Error),
    #[error("the MP4's index outgrew the room left for it")]
    IndexTooLarge,
    #[error("the clip could not be written: {0}")]
    Output(#[from] std::io::Error),
    #[error("the clip's writer has already failed")]
    AlreadyFailed,
    #[error("the clip's encoder thread died")]
    ThreadDied,
}

/// Encodes frames to an MP4 in `W`.
///
/// Dropping it before [`ClipWriter::finish`] stops the encoder and leaves an unplayable stump in the output.
#[derive(Debug)]
pub struct ClipWriter<W> {
    format: ClipFormat,
    taken_count: u32,
    /// Frames to encode, as they were given; closed to say that no more will come.
    filled: Option<Sender<Vec<u8>>>,
    /// Frames to fill.
    spare: Receiver<Vec<u8>>,
    worker: Option<JoinHandle<Result<(W, u64), ClipError>>>,
}

impl<W: Write + Seek + Send + 'static> ClipWriter<W> {
    /// Starts a clip at the output's present position. Nothing is written yet but room for the index.
    pub fn new(output: W, format: ClipFormat, metadata: &ClipMetadata) -> Result<Self, ClipError> {
        check(format)?;
        let encoder = H264Encoder::new(format)?;
        let muxer = Mp4Writer::new(output, format, metadata)?;
        let (filled, to_encode) = channel();
        let (to_fill, spare) = channel();
        for _ in 0..BUFFERS_COUNT {
            to_fill.send(Vec::new()).expect("the receiver lives in this function");
        }
        let worker = std::thread::Builder::new()
            .name("clip-encoder".to_owned())
            .spawn(move || encode_all(&to_encode, &to_fill, encoder, muxer, format))?;
        Ok(Self { format, taken_count: 0, filled: Some(filled), spare, worker: Some(worker) })
    }

    /// Takes the next frame, `[H, W, 3]` sRGB. Blocks while the encoder is behind.
    pub fn push(&mut self, rgb: &[u8]) -> Result<(), ClipError> {
        let want_bytes = self.format.frame_bytes();
        if rgb.len() != want_bytes {
            return Err(ClipError::FrameSize { got_bytes: rgb.len(), want_bytes });
        }
        if self.taken_count == self.format.frames_count {
            return Err(ClipError::TooManyFrames(self.taken_count));
        }
        let filled = self.filled.as_ref().ok_or(ClipError::AlreadyFailed)?;
        let sent = self.spare.recv().is_ok_and(|mut frame| {
            frame.clear();
            frame.extend_from_slice(rgb);
            filled.send(frame).is_ok()
        });
        if !sent {
            return Err(self.join().err().unwrap_or(ClipError::ThreadDied));
        }
        self.taken_count += 1;
        Ok(())
    }

    /// Waits for the encoder and completes the file. The output comes back flushed, not synced.
    pub fn finish(mut self) -> Result<(ClipInfo, W), ClipError> {
        let (output, size_bytes) = self.join()?;
        let format = self.format;
        let duration_ms = u64::from(format.frames_count) * 1000 / u64::from(format.fps);
        Ok((ClipInfo { format, duration_ms, size_bytes }, output))
    }
}

impl<W> ClipWriter<W> {
    /// Says that no more frames will come and waits for the encoder's thread.
    fn join(&mut self) -> Result<(W, u64), ClipError> {
        self.filled = None;
        let worker = self.worker.take().ok_or(ClipError::AlreadyFailed)?;
        worker.join().unwrap_or(Err(ClipError::ThreadDied))
    }
}

impl<W: Write + Seek + Send + 'static> FrameSink for ClipWriter<W> {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        self.push(rgb).map_err(|error| SinkError(Box::new(error)))
    }
}

impl<W> Drop for ClipWriter<W> {
    fn drop(&mut self) {
        // Whoever drops an unfinished clip does not want it, nor to hear why it would have failed.
        let _unwanted = self.join();
    }
}

/// The encoder's thread: ends when every frame came, when none will come any more, or at the first error.
fn encode_all<W: Write + Seek>(
    to_encode: &Receiver<Vec<u8>>,
    to_fill: &Sender<Vec<u8>>,
    mut encoder: H264Encoder,
    mut muxer: Mp4Writer<W>,
    format: ClipFormat,
) -> Result<(W, u64), ClipError> {
    let mut frame = YuvFrame::new(format.width_px as usize, format.height_px as usize);
    let mut done_count = 0;
    for rgb in to_encode {
        frame.convert(&rgb);
        // The caller may have left with its last frame.
        let _nobody_fills = to_fill.send(rgb);
        muxer.push(encoder.encode(&frame)?)?;
        done_count += 1;
    }
    if done_count != format.frames_count {
        return Err(ClipError::FramesMissing { got: done_count, want: format.frames_count });
    }
    muxer.finish()
}

fn check(format: ClipFormat) -> Result<(), ClipError> {
    let ClipFormat { width_px, height_px, fps, frames_count } = format;
    let (short_px, long_px) = (width_px.min(height_px), width_px.max(height_px));
    let fits = (SIDE_MIN_PX..=SHORT_SIDE_MAX_PX).contains(&short_px) && long_px <= LONG_SIDE_MAX_PX;
    let is_even = width_px % 2 == 0 && height_px % 2 == 0;
    let runs = (1..=FPS_MAX).contains(&fps) && (1..=FRAMES_MAX).contains(&frames_count);
    if fits && is_even && runs { Ok(()) } else { Err(ClipError::Format(format)) }
}
