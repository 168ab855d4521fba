//! Frames to H.264 access units, by openh264.
//!
//! The stream is constrained baseline without B-frames, so decode order is display order, and tagged BT.709
//! limited range. Every frame given yields one access unit: the encoder is never allowed to drop one.
//!
//! openh264 always behaves as for a live call; its mode for files fails to start. Left to itself it also spends
//! too little on the first frame and catches up within half a second, which shows on a still picture that starts
//! to move: hence the bound on quantisation from above.

use std::ffi::c_int;

use kinora_engine::ClipFormat;
use openh264::encoder::{
    BitRate, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, QpRange, RateControlMode,
    UsageType, VuiConfig,
};
use openh264::formats::YUVSource;
use openh264::{OpenH264API, Timestamp};
use openh264_sys2::{ENCODER_OPTION_TRACE_LEVEL, WELS_LOG_QUIET};

use super::yuv::{BLOCK_PX, YuvFrame};
use super::{ClipError, sps};

/// Bits for a pixel of a frame: 9 Mbit/s at 1280x720 and 24 frames per second.
const BITS_PER_PIXEL: f64 = 0.41;
/// Tiny clips have more detail per pixel.
const BITRATE_MIN_BPS: f64 = 400_000.0;
/// A player can start to decode at least this often.
const KEYFRAME_INTERVAL_S: u32 = 2;

/// Quantisation never gets finer (bits that nobody sees) or coarser (blocks and a weak first frame) than this.
const QP_MIN: u8 = 12;
const QP_MAX: u8 = 22;

/// One frame's slices, and the parameter sets where they stand before a keyframe.
#[derive(Debug, Default)]
pub(super) struct AccessUnit {
    /// Sequence and picture parameter sets, with start codes; empty where the stream repeats none.
    pub(super) parameter_sets: Vec<u8>,
    /// Slices, each behind its length as 32 bits, as MP4 wants them.
    pub(super) sample: Vec<u8>,
    pub(super) is_keyframe: bool,
}

/// An openh264 encoder for clips of one format.
pub(super) struct H264Encoder {
    encoder: Encoder,
    fps: u32,
    /// Columns on the right and rows at the bottom that only fill up blocks.
    hidden_px: (u32, u32),
    next_index: u64,
    unit: AccessUnit,
}

impl H264Encoder {
    pub(super) fn new(format: ClipFormat) -> Result<Self, ClipError> {
        let config = EncoderConfig::new()
            .usage_type(UsageType::CameraVideoRealTime)
            .rate_control_mode(RateControlMode::Bitrate)
            .bitrate(BitRate::from_bps(bitrate_bps(format)))
            .max_frame_rate(FrameRate::from_hz(format.fps as f32))
            .skip_frames(false)
            .intra_frame_period(IntraFramePeriod::from_num_frames(format.fps * KEYFRAME_INTERVAL_S))
            .qp(QpRange::new(QP_MIN, QP_MAX))
            .num_threads(1)
            .vui(VuiConfig::bt709());
        let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), config)?;
        silence(&mut encoder);
        let fills_px = |side_px: u32| side_px.next_multiple_of(BLOCK_PX as u32) - side_px;
        let hidden_px = (fills_px(format.width_px), fills_px(format.height_px));
        Ok(Self { encoder, fps: format.fps, hidden_px, next_index: 0, unit: AccessUnit::default() })
    }

    /// Encodes the next frame. The unit stays valid until the next call.
    pub(super) fn encode(&mut self, frame: &YuvFrame) -> Result<&AccessUnit, ClipError> {
        let at_ms = self.next_index * 1000 / u64::from(self.fps);
        let stream = self.encoder.encode_at(frame, Timestamp::from_millis(at_ms))?;
        self.unit.parameter_sets.clear();
        self.unit.sample.clear();
        self.unit.is_keyframe = stream.frame_type() == FrameType::IDR;
        for layer in (0..stream.num_layers()).filter_map(|at| stream.layer(at)) {
            for nal in (0..layer.nal_count()).filter_map(|at| layer.nal_unit(at)) {
                if layer.is_video() {
                    push_length_prefixed(&mut self.unit.sample, nal);
                } else {
                    push_parameter_set(&mut self.unit.parameter_sets, nal, self.hidden_px)?;
                }
            }
        }
        if self.unit.sample.is_empty() {
            return Err(ClipError::FrameDropped { index: self.next_index });
        }
        self.next_index += 1;
        Ok(&self.unit)
    }
}

/// Stops openh264 from writing to stderr while it starts; the wrapper would only do so afterwards.
#[allow(unsafe_code)]
fn silence(encoder: &mut Encoder) {
    let mut level: c_int = WELS_LOG_QUIET as c_int;
    // SAFETY: this option may be set at any time after the encoder's creation (before its start, too), reads one
    // int through the pointer during the call, and touches nothing that the wrapper relies on.
    unsafe {
        encoder.raw_api().set_option(ENCODER_OPTION_TRACE_LEVEL, (&raw mut level).cast());
    }
}

/// The bit rate that looks clean at this size and rate.
fn bitrate_bps(format: ClipFormat) -> u32 {
    let pixels_per_s = f64::from(format.width_px) * f64::from(format.height_px) * f64::from(format.fps);
    (pixels_per_s * BITS_PER_PIXEL).max(BITRATE_MIN_BPS) as u32
}

/// What follows the start code of `nal`.
fn after_start_code(nal: &[u8]) -> &[u8] {
    let zeros_count = nal.iter().take_while(|byte| **byte == 0).count();
    &nal[zeros_count + 1..]
}

/// Swaps the start code of `nal` for its length.
fn push_length_prefixed(sample: &mut Vec<u8>, nal: &[u8]) {
    let body = after_start_code(nal);
    let length = u32::try_from(body.len()).expect("a slice is far below 4 GiB");
    sample.extend_from_slice(&length.to_be_bytes());
    sample.extend_from_slice(body);
}

/// Appends a parameter set; the one that says the picture's size then says what is hidden.
fn push_parameter_set(sets: &mut Vec<u8>, nal: &[u8], hidden_px: (u32, u32)) -> Result<(), ClipError> {
    const SEQUENCE: u8 = 7;
    let body = after_start_code(nal);
    if hidden_px == (0, 0) || body[0] & 0x1f != SEQUENCE {
        sets.extend_from_slice(nal);
        return Ok(());
    }
    sets.extend_from_slice(&[0, 0, 0, 1]);
    sets.extend_from_slice(&sps::cropped(body, hidden_px.0, hidden_px.1).ok_or(ClipError::ParameterSet)?);
    Ok(())
}

impl YUVSource for YuvFrame {
    fn dimensions(&self) -> (usize, usize) {
        self.filled_size_px()
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.luma.stride_px, self.cb.stride_px, self.cr.stride_px)
    }

    fn y(&self) -> &[u8] {
        &self.luma.samples
    }

    fn u(&self) -> &[u8] {
        &self.cb.samples
    }

    fn v(&self) -> &[u8] {
        &self.cr.samples
    }
}
