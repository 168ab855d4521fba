use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use image::RgbImage;
use kinora_engine::{ClipFormat, FrameSink};
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use shiguredo_mp4::TrackKind;
use shiguredo_mp4::boxes::SampleEntry;
use shiguredo_mp4::demux::{Input, Mp4FileDemuxer};

use super::yuv::YuvFrame;
use super::{ClipError, ClipInfo, ClipMetadata, ClipWriter};

/// NASA's portrait of Eileen Collins, public domain.
const STILL: &[u8] = include_bytes!("../../../../examples/still.jpg");

/// A slow push in on a still, as an engine would make it.
fn moving_still(still: &RgbImage, format: ClipFormat) -> Vec<Vec<u8>> {
    let (width_px, height_px) = (format.width_px as f32, format.height_px as f32);
    let cover = (still.width() as f32 / width_px).min(still.height() as f32 / height_px);
    let frame_at = |index: u32| {
        let scale = cover * (1.0 - 0.2 * index as f32 / format.frames_count as f32);
        let (left, top) = (
            (still.width() as f32 - width_px * scale) / 2.0,
            (still.height() as f32 - height_px * scale) / 2.0,
        );
        let sample = |x: u32, y: u32| {
            let (x, y) = (left + (x as f32 + 0.5) * scale - 0.5, top + (y as f32 + 0.5) * scale - 0.5);
            let (x, y) =
                (x.clamp(0.0, still.width() as f32 - 1.0), y.clamp(0.0, still.height() as f32 - 1.0));
            image::imageops::interpolate_bilinear(still, x, y).expect("inside of the still").0
        };
        (0..format.height_px).flat_map(|y| (0..format.width_px).flat_map(move |x| sample(x, y))).collect()
    };
    (0..format.frames_count).map(frame_at).collect()
}

fn encode(frames: &[Vec<u8>], format: ClipFormat) -> (ClipInfo, Vec<u8>) {
    let metadata = ClipMetadata::generated("pattern", 7);
    let mut writer = ClipWriter::new(Cursor::new(Vec::new()), format, &metadata).unwrap();
    for rgb in frames {
        writer.frame(rgb).unwrap();
    }
    let (info, output) = writer.finish().unwrap();
    (info, output.into_inner())
}

/// What a player would find in the file.
struct Played {
    avc1: shiguredo_mp4::boxes::Avc1Box,
    timescale: u32,
    durations: Vec<u32>,
    keyframes: Vec<usize>,
    /// Annex B access units.
    units: Vec<Vec<u8>>,
}

fn demux(file: &[u8]) -> Played {
    let mut demuxer = Mp4FileDemuxer::new();
    while let Some(required) = demuxer.required_input() {
        let from = required.position as usize;
        let to = required.size.map_or(file.len(), |size| (from + size).min(file.len()));
        demuxer.handle_input(Input { position: required.position, data: &file[from..to] });
    }
    let tracks = demuxer.tracks().unwrap();
    assert_eq!(tracks.len(), 1);
    assert_eq!(tracks[0].kind, TrackKind::Video);
    let timescale = tracks[0].timescale.get();
    let mut avc1 = None;
    let mut played = (Vec::new(), Vec::new(), Vec::new());
    while let Some(sample) = demuxer.next_sample().unwrap() {
        if let Some(SampleEntry::Avc1(entry)) = sample.sample_entry {
            avc1 = Some(entry.clone());
        }
        if sample.keyframe {
            played.1.push(played.0.len());
        }
        played.0.push(sample.duration);
        let data = &file[sample.data_offset as usize..][..sample.data_size];
        let four = shiguredo_mp4::bitstream::h264::LengthSize::FourBytes;
        played.2.push(shiguredo_mp4::bitstream::h264::length_prefixed_to_annexb(data, four).unwrap());
    }
    let avc1 = avc1.unwrap();
    Played { avc1, timescale, durations: played.0, keyframes: played.1, units: played.2 }
}

fn decode(played: &Played, width_px: usize, height_px: usize) -> Vec<[Vec<u8>; 3]> {
    let mut decoder = Decoder::new().unwrap();
    let mut parameter_sets = Vec::new();
    for set in played.avc1.avcc_box.sps_list.iter().chain(&played.avc1.avcc_box.pps_list) {
        parameter_sets.extend_from_slice(&[0, 0, 0, 1]);
        parameter_sets.extend_from_slice(set);
    }
    decoder.decode(&parameter_sets).unwrap();
    let mut frames = Vec::new();
    for unit in &played.units {
        let Some(yuv) = decoder.decode(unit).unwrap() else { continue };
        assert_eq!(yuv.dimensions(), (width_px, height_px));
        let (y_stride, u_stride, v_stride) = yuv.strides();
        let crop = |plane: &[u8], stride: usize, width_px: usize, height_px: usize| -> Vec<u8> {
            plane.chunks(stride).take(height_px).flat_map(|row| row[..width_px].to_vec()).collect()
        };
        frames.push([
            crop(yuv.y(), y_stride, width_px, height_px),
            crop(yuv.u(), u_stride, width_px / 2, height_px / 2),
            crop(yuv.v(), v_stride, width_px / 2, height_px / 2),
        ]);
    }
    frames
}

fn psnr_db(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * a.len() as f64 / squares.max(1e-9)).log10()
}

fn format(width_px: u32, height_px: u32, frames_count: u32) -> ClipFormat {
    ClipFormat { width_px, height_px, fps: 24, frames_count }
}

fn still() -> RgbImage {
    image::load_from_memory(STILL).unwrap().to_rgb8()
}

/// Names of a file's boxes at the top, in order.
fn top_boxes(file: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        names.push(String::from_utf8(file[at + 4..at + 8].to_vec()).unwrap());
        at += match size {
            1 => u64::from_be_bytes(file[at + 8..at + 16].try_into().unwrap()) as usize,
            size => size,
        };
    }
    assert_eq!(at, file.len(), "the boxes fill the file");
    names
}

#[test]
fn a_moving_still_stays_clean_from_the_first_frame() {
    let format = format(384, 288, 60);
    let frames = moving_still(&still(), format);
    let (info, file) = encode(&frames, format);
    assert_eq!(info, ClipInfo { format, duration_ms: 2500, size_bytes: file.len() as u64 });

    let played = demux(&file);
    let decoded = decode(&played, 384, 288);
    assert_eq!(decoded.len(), frames.len());
    let mut given = YuvFrame::new(384, 288);
    for (index, (rgb, decoded)) in frames.iter().zip(&decoded).enumerate() {
        given.convert(rgb);
        for (given, decoded) in [&given.luma, &given.cb, &given.cr].into_iter().zip(decoded) {
            let psnr_db = psnr_db(&given.samples, decoded);
            assert!(psnr_db >= 40.0, "frame {index}: {psnr_db:.1} dB");
        }
    }
}

#[test]
fn the_file_starts_to_play_before_it_is_whole_and_says_what_it_is() {
    let format = format(320, 240, 50);
    let (_, file) = encode(&moving_still(&still(), format), format);
    assert_eq!(top_boxes(&file), ["ftyp", "moov", "free", "mdat"]);

    let played = demux(&file);
    assert_eq!(played.units.len(), 50);
    assert_eq!(played.keyframes, [0, 48]);
    let ticks: u32 = played.durations.iter().sum();
    assert_eq!(u64::from(ticks) * 24, 50 * u64::from(played.timescale), "50 frames of 1/24 s");
    assert_eq!((played.avc1.visual.width, played.avc1.visual.height), (320, 240));
    let colr = played.avc1.unknown_boxes.iter().find(|found| found.box_type.as_bytes() == b"colr").unwrap();
    assert_eq!(colr.payload, b"nclx\0\x01\0\x01\0\x01\0");

    let text = String::from_utf8_lossy(&file[..4096]).into_owned();
    assert!(text.contains("AI-generated video"), "no notice");
    assert!(text.contains("engine pattern, seed 7"), "no origin");
    assert!(text.contains(concat!("Kinora ", env!("CARGO_PKG_VERSION"))), "no version");
}

#[test]
fn the_stream_itself_is_tagged_bt709_limited() {
    let format = format(64, 48, 1);
    let (_, file) = encode(&[vec![90; format.frame_bytes()]], format);
    let sps = demux(&file).avc1.avcc_box.sps_list[0].clone();
    // In the parameter set, unaligned: video_signal_type_present 1, format 5 (unspecified), full range 0,
    // colour description present 1, then the codes 1, 1, 1 (ITU-T H.264, E.1.1).
    let bits: String = sps.iter().map(|byte| format!("{byte:08b}")).collect();
    assert!(bits.contains(&format!("1101{}{}", "01", "000000010000000100000001")), "{bits}");
}

#[test]
fn the_same_frames_give_the_same_bytes() {
    let format = format(160, 96, 30);
    let frames = moving_still(&still(), format);
    assert_eq!(encode(&frames, format).1, encode(&frames, format).1);
}

#[test]
fn sizes_that_are_no_whole_blocks_are_clean_to_their_edges() {
    for (width_px, height_px) in [(16, 16), (18, 94), (1534, 614), (458, 1146)] {
        let format = format(width_px, height_px, 2);
        let rgb = [220, 180, 160].repeat((width_px * height_px) as usize);
        let mut given = YuvFrame::new(width_px as usize, height_px as usize);
        given.convert(&rgb);
        let (_, file) = encode(&[rgb.clone(), rgb], format);
        let played = demux(&file);
        assert_eq!(
            (u32::from(played.avc1.visual.width), u32::from(played.avc1.visual.height)),
            (width_px, height_px)
        );
        let decoded = decode(&played, width_px as usize, height_px as usize);
        for (given, decoded) in [&given.luma, &given.cb, &given.cr].into_iter().zip(&decoded[1]) {
            // Up to the very edges, where blocks are filled up.
            let given = given.samples[0];
            assert!(decoded.iter().all(|sample| sample.abs_diff(given) <= 1), "{width_px}x{height_px}");
        }
    }
}

#[test]
fn a_clip_may_start_in_the_middle_of_its_output() {
    let format = format(64, 48, 3);
    let frame = vec![90; format.frame_bytes()];
    let metadata = ClipMetadata::generated("pattern", 7);
    let mut output = Cursor::new(b"header".to_vec());
    output.set_position(6);
    let mut writer = ClipWriter::new(output, format, &metadata).unwrap();
    for _ in 0..3 {
        writer.push(&frame).unwrap();
    }
    let output = writer.finish().unwrap().1.into_inner();
    assert_eq!(&output[..6], b"header");
    assert_eq!(output[6..], encode(&vec![frame; 3], format).1);
}

#[test]
fn formats_out_of_bounds_are_refused() {
    let bad = [
        format(0, 96, 1),
        format(161, 96, 1),
        format(160, 14, 1),
        format(3842, 96, 1),
        format(2400, 2400, 1),
        format(160, 96, 0),
        ClipFormat { fps: 0, ..format(160, 96, 1) },
        ClipFormat { fps: 121, ..format(160, 96, 1) },
        format(160, 96, u32::MAX),
    ];
    for bad in bad {
        let error = ClipWriter::new(Cursor::new(Vec::new()), bad, &ClipMetadata::generated("pattern", 7));
        assert!(matches!(error, Err(ClipError::Format(_))), "{bad:?}");
    }
}

#[test]
fn frames_of_the_wrong_size_or_number_are_refused() {
    let format = format(64, 48, 2);
    let metadata = ClipMetadata::generated("pattern", 7);
    let frame = vec![90; format.frame_bytes()];
    let mut writer = ClipWriter::new(Cursor::new(Vec::new()), format, &metadata).unwrap();
    assert!(matches!(writer.push(&frame[1..]), Err(ClipError::FrameSize { .. })));
    writer.push(&frame).unwrap();
    writer.push(&frame).unwrap();
    assert!(matches!(writer.push(&frame), Err(ClipError::TooManyFrames(2))));
    writer.finish().unwrap();

    let mut writer = ClipWriter::new(Cursor::new(Vec::new()), format, &metadata).unwrap();
    writer.push(&frame).unwrap();
    assert!(matches!(writer.finish(), Err(ClipError::FramesMissing { got: 1, want: 2 })));
}

/// Fails like a full disk after `room_bytes`, and tells when it is dropped.
struct SmallDisk {
    file: Cursor<Vec<u8>>,
    room_bytes: usize,
    is_gone: Arc<AtomicBool>,
}

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.get_ref().len() + bytes.len() > self.room_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SmallDisk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }
}

fn on_small_disk(room_bytes: usize) -> (Result<ClipWriter<SmallDisk>, ClipError>, Arc<AtomicBool>) {
    let is_gone = Arc::new(AtomicBool::new(false));
    let disk = SmallDisk { file: Cursor::new(Vec::new()), room_bytes, is_gone: is_gone.clone() };
    (ClipWriter::new(disk, format(64, 48, 1000), &ClipMetadata::generated("pattern", 7)), is_gone)
}

#[test]
fn a_full_disk_is_said_once_and_ends_the_thread() {
    assert!(matches!(on_small_disk(100).0, Err(ClipError::Output(_))));

    let (writer, is_gone) = on_small_disk(20_000);
    let mut writer = writer.unwrap();
    let noise =
        |seed: usize| (0..64 * 48 * 3).map(|at| (at * 7919 * (seed + 1) / 13) as u8).collect::<Vec<_>>();
    let error = (0..1000).find_map(|index| writer.push(&noise(index)).err()).unwrap();
    let ClipError::Output(cause) = error else { panic!("{error}") };
    assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
    assert!(is_gone.load(Ordering::SeqCst), "the thread has ended");
    assert!(matches!(writer.push(&noise(0)), Err(ClipError::AlreadyFailed)));
    assert!(matches!(writer.finish(), Err(ClipError::AlreadyFailed)));
}

#[test]
fn dropping_a_writer_half_way_ends_its_thread() {
    let (writer, is_gone) = on_small_disk(1 << 20);
    let mut writer = writer.unwrap();
    writer.push(&vec![90; 64 * 48 * 3]).unwrap();
    drop(writer);
    assert!(is_gone.load(Ordering::SeqCst), "the thread has ended and given its output back");
}
