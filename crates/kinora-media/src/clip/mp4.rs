//! Access units to an MP4 that plays while it loads: index first, pictures behind it.
//!
//! Room for the index (`moov`) is left at the start, samples are written as they come, and the index goes
//! into its place at the end, so memory holds a few bytes per frame. The file carries no times of day: the
//! same frames give the same bytes.
//!
//! Sources: ISO/IEC 14496-12 (boxes), 14496-15 (`avcC`), ISO/IEC 23091-2 (colour codes), Apple's QuickTime
//! metadata atoms (`udta/meta/ilst`).

use std::io::{Seek, SeekFrom, Write};
use std::num::NonZeroU32;

use kinora_engine::ClipFormat;
use shiguredo_mp4::bitstream::h264::{H264SampleEntryConfig, LengthSize, build_avc1_box_from_annexb};
use shiguredo_mp4::boxes::{FreeBox, FtypBox, MoovBox, SampleEntry, UnknownBox};
use shiguredo_mp4::mux::{Mp4FileMuxer, Mp4FileMuxerOptions, Sample, TrackMetadata};
use shiguredo_mp4::{BoxSize, BoxType, Decode, Encode, LanguageCode, Mp4FileTime, TrackKind, Utf8String};

use super::h264::AccessUnit;
use super::{ClipError, ClipMetadata};

/// Ticks per frame: a finer clock than one tick per frame, for tools that cut and join.
const TICKS_PER_FRAME: u32 = 1000;
/// Upper bound of the index without what grows with the frames or the metadata.
const MOOV_FIXED_BYTES: usize = 2048;
/// Sizes and keyframe numbers, at worst.
const MOOV_BYTES_PER_FRAME: usize = 8;

/// Writes one clip to `output`.
pub(super) struct Mp4Writer<W> {
    output: W,
    /// Where the file starts in `output`.
    start_offset: u64,
    muxer: Mp4FileMuxer,
    timescale: NonZeroU32,
    metadata: Vec<u8>,
    position: u64,
    has_sample_entry: bool,
}

impl<W: Write + Seek> Mp4Writer<W> {
    /// Leaves room for the index of `format.frames_count` frames.
    pub(super) fn new(mut output: W, format: ClipFormat, metadata: &ClipMetadata) -> Result<Self, ClipError> {
        let metadata = udta_payload(metadata);
        let moov_bytes_max =
            MOOV_FIXED_BYTES + metadata.len() + MOOV_BYTES_PER_FRAME * format.frames_count as usize;
        let name = Utf8String::new("Kinora video").expect("a literal without a NUL");
        let muxer = Mp4FileMuxer::with_options(Mp4FileMuxerOptions {
            reserved_moov_box_size: moov_bytes_max,
            video_track: TrackMetadata { language: LanguageCode::UNDEFINED, name },
            ..Mp4FileMuxerOptions::default()
        })?;
        let timescale = NonZeroU32::new(format.fps * TICKS_PER_FRAME).expect("the frame rate is not zero");
        let start_offset = output.stream_position()?;
        output.write_all(muxer.initial_boxes_bytes())?;
        let position = muxer.initial_boxes_bytes().len() as u64;
        Ok(Self { output, start_offset, muxer, timescale, metadata, position, has_sample_entry: false })
    }

    /// Appends the next frame.
    pub(super) fn push(&mut self, unit: &AccessUnit) -> Result<(), ClipError> {
        let sample_entry = if self.has_sample_entry { None } else { Some(sample_entry(unit)?) };
        self.has_sample_entry = true;
        self.output.write_all(&unit.sample)?;
        self.muxer.append_sample(&Sample {
            track_kind: TrackKind::Video,
            sample_entry,
            keyframe: unit.is_keyframe,
            timescale: self.timescale,
            duration: TICKS_PER_FRAME,
            composition_time_offset: None,
            data_offset: self.position,
            data_size: unit.sample.len(),
        })?;
        self.position += unit.sample.len() as u64;
        Ok(())
    }

    /// Puts the index in its place and gives back the output, flushed, and the size of the file in bytes.
    pub(super) fn finish(mut self) -> Result<(W, u64), ClipError> {
        let boxes = self.muxer.finalize()?;
        let moov = finished_moov(boxes.moov_box().clone(), self.metadata);
        let mut pairs = boxes.offset_and_bytes_pairs();
        let (_, head) = pairs.next().expect("the head of the file always comes first");
        let head = head_with(head, &moov)?;
        let (mdat_offset, mdat_header) = pairs.last().expect("the header of the samples always comes last");
        for (offset, bytes) in [(0, head.as_slice()), (mdat_offset, mdat_header)] {
            self.output.seek(SeekFrom::Start(self.start_offset + offset))?;
            self.output.write_all(bytes)?;
        }
        self.output.seek(SeekFrom::Start(self.start_offset + self.position))?;
        self.output.flush()?;
        Ok((self.output, self.position))
    }
}

/// The muxer's head of the file (type, index, free space) with `moov` for its index, in as many bytes.
fn head_with(head: &[u8], moov: &MoovBox) -> Result<Vec<u8>, ClipError> {
    let (_, ftyp_bytes) = FtypBox::decode(head)?;
    let mut bytes = head[..ftyp_bytes].to_vec();
    bytes.extend_from_slice(&moov.encode_to_vec()?);
    let header_bytes = 8;
    let free_bytes = head.len().checked_sub(bytes.len() + header_bytes).ok_or(ClipError::IndexTooLarge)?;
    bytes.extend_from_slice(&FreeBox { payload: vec![0; free_bytes] }.encode_to_vec()?);
    Ok(bytes)
}

/// Adds the metadata and takes away the times of day.
fn finished_moov(mut moov: MoovBox, udta_payload: Vec<u8>) -> MoovBox {
    let unset = Mp4FileTime::from_secs(0);
    (moov.mvhd_box.creation_time, moov.mvhd_box.modification_time) = (unset, unset);
    for trak in &mut moov.trak_boxes {
        (trak.tkhd_box.creation_time, trak.tkhd_box.modification_time) = (unset, unset);
        let mdhd = &mut trak.mdia_box.mdhd_box;
        (mdhd.creation_time, mdhd.modification_time) = (unset, unset);
    }
    moov.unknown_boxes.push(raw_box(*b"udta", udta_payload));
    moov
}

/// What a decoder must know before the first frame, with the colours spelt out for players that look no deeper.
fn sample_entry(unit: &AccessUnit) -> Result<SampleEntry, ClipError> {
    let config = H264SampleEntryConfig { length_size: LengthSize::FourBytes };
    let mut avc1 = build_avc1_box_from_annexb(&unit.parameter_sets, &config)?;
    let [high, bt709] = 1u16.to_be_bytes();
    let limited_range = 0;
    let primaries_transfer_matrix_range = [high, bt709, high, bt709, high, bt709, limited_range];
    let colr = [b"nclx".as_slice(), &primaries_transfer_matrix_range].concat();
    avc1.unknown_boxes.push(raw_box(*b"colr", colr));
    Ok(SampleEntry::Avc1(avc1))
}

/// Titles and comments as players and file managers read them.
fn udta_payload(metadata: &ClipMetadata) -> Vec<u8> {
    let items = [
        (*b"\xa9too", Some(metadata.encoder.as_str())),
        (*b"\xa9nam", metadata.title.as_deref()),
        (*b"\xa9cmt", Some(metadata.comment.as_str())),
    ];
    let mut ilst = Vec::new();
    for (name, text) in items {
        if let Some(text) = text {
            push_box(&mut ilst, name, |item| {
                push_box(item, *b"data", |data| {
                    const UTF8: u32 = 1;
                    const ANY_LOCALE: u32 = 0;
                    data.extend_from_slice(&UTF8.to_be_bytes());
                    data.extend_from_slice(&ANY_LOCALE.to_be_bytes());
                    data.extend_from_slice(text.as_bytes());
                });
            });
        }
    }
    let mut udta = Vec::new();
    push_box(&mut udta, *b"meta", |meta| {
        let version_and_flags = [0; 4];
        meta.extend_from_slice(&version_and_flags);
        push_box(meta, *b"hdlr", |hdlr| {
            hdlr.extend_from_slice(&[0; 8]);
            hdlr.extend_from_slice(b"mdirappl");
            hdlr.extend_from_slice(&[0; 9]);
        });
        push_box(meta, *b"ilst", |out| out.extend_from_slice(&ilst));
    });
    udta
}

/// Appends a box whose payload `fill` writes.
fn push_box(out: &mut Vec<u8>, name: [u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&name);
    fill(out);
    let size = u32::try_from(out.len() - start).expect("metadata is far below 4 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

fn raw_box(name: [u8; 4], payload: Vec<u8>) -> UnknownBox {
    let box_type = BoxType::Normal(name);
    UnknownBox { box_type, box_size: BoxSize::with_payload_size(box_type, payload.len() as u64), payload }
}
