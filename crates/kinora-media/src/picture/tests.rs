use std::borrow::Cow;
use std::time::{Duration, Instant};

use jpeg_encoder::{ColorType as JpegColour, Encoder as JpegEncoder, SamplingFactor};
use kinora_engine::Picture;
use moxcms::ColorProfile;
use png::{BitDepth, ColorType};
use proptest::prelude::*;

use super::{PictureError, PictureFormat, PictureLimits, decode, inspect};

/// Small test pictures are fine here; the service's own minimum has its own test.
const ANY_SIZE: PictureLimits =
    PictureLimits { bytes_max: 1 << 20, side_min_px: 1, ratio_max: 100.0, pixels_max: 1 << 20 };

const INTERLACED: &[u8] = include_bytes!("../../tests/data/interlaced.png");

/// A smooth picture: red grows to the right, green downwards.
fn ramp(width_px: u32, height_px: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| [(40 + x * 170 / width_px) as u8, (40 + y * 170 / height_px) as u8, 128];
    (0..height_px).flat_map(|y| (0..width_px).flat_map(move |x| pixel(x, y))).collect()
}

fn jpeg_with(
    (width_px, height_px): (u32, u32),
    (colour, samples): (JpegColour, &[u8]),
    set_up: impl FnOnce(&mut JpegEncoder<&mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new(&mut bytes, 95);
    set_up(&mut encoder);
    encoder.encode(samples, width_px as u16, height_px as u16, colour).unwrap();
    bytes
}

fn jpeg(width_px: u32, height_px: u32) -> Vec<u8> {
    jpeg_with((width_px, height_px), (JpegColour::Rgb, &ramp(width_px, height_px)), |_| {})
}

fn progressive_jpeg(width_px: u32, height_px: u32) -> Vec<u8> {
    jpeg_with((width_px, height_px), (JpegColour::Rgb, &ramp(width_px, height_px)), |encoder| {
        encoder.set_progressive(true);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
    })
}

/// A PNG of `info`, with `chunks` before and after its pixels.
fn png_with(info: png::Info<'_>, samples: &[u8], before: &[Chunk<'_>], after: &[Chunk<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::with_info(&mut bytes, info).unwrap().write_header().unwrap();
    for (name, data) in before {
        writer.write_chunk(png::chunk::ChunkType(*name), data).unwrap();
    }
    writer.write_image_data(samples).unwrap();
    for (name, data) in after {
        writer.write_chunk(png::chunk::ChunkType(*name), data).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

type Chunk<'a> = ([u8; 4], &'a [u8]);

fn png_info(width_px: u32, height_px: u32, colour: ColorType, depth: BitDepth) -> png::Info<'static> {
    let mut info = png::Info::with_size(width_px, height_px);
    info.color_type = colour;
    info.bit_depth = depth;
    info
}

fn rgb_png(width_px: u32, height_px: u32) -> Vec<u8> {
    let info = png_info(width_px, height_px, ColorType::Rgb, BitDepth::Eight);
    png_with(info, &ramp(width_px, height_px), &[], &[])
}

fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
    let at = ((y * picture.width_px() + x) * 3) as usize;
    picture.rgb()[at..at + 3].try_into().unwrap()
}

fn assert_near(got: [u8; 3], want: [u8; 3], within: u8, what: &str) {
    let is_near = got.iter().zip(want).all(|(got, want)| got.abs_diff(want) <= within);
    assert!(is_near, "{what}: {got:?} is not {want:?}");
}

/// The colour at (0, 0) of a picture of one colour.
fn flat_colour(bytes: &[u8]) -> [u8; 3] {
    pixel(&ANY_SIZE.decode(bytes).unwrap().picture, 0, 0)
}

/// A TIFF block that holds an orientation only.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
    exif
}

#[test]
fn every_kind_of_jpeg_decodes_to_its_colours() {
    let size = (48, 40);
    let rgb = ramp(48, 40);
    let luma: Vec<u8> = rgb.chunks(3).map(|pixel| pixel[0]).collect();
    // Inks are stored inverted; without black they are the light itself.
    let inks: Vec<u8> = rgb.chunks(3).flat_map(|p| [255 - p[0], 255 - p[1], 255 - p[2], 0]).collect();
    let files = [
        ("baseline", jpeg(48, 40)),
        ("progressive 4:2:0", progressive_jpeg(48, 40)),
        (
            "4:2:2 with restarts",
            jpeg_with(size, (JpegColour::Rgb, &rgb), |encoder| {
                encoder.set_sampling_factor(SamplingFactor::F_2_1);
                encoder.set_restart_interval(2);
            }),
        ),
        ("inks", jpeg_with(size, (JpegColour::Cmyk, &inks), |_| {})),
        ("inks as YCCK", jpeg_with(size, (JpegColour::CmykAsYcck, &inks), |_| {})),
    ];
    for (what, bytes) in files {
        let decoded = ANY_SIZE.decode(&bytes).unwrap();
        assert_eq!(decoded.format, PictureFormat::Jpeg);
        assert_eq!((decoded.picture.width_px(), decoded.picture.height_px()), size);
        for (x, y) in [(2, 2), (45, 3), (24, 20), (3, 37), (44, 36)] {
            let at = (y * 48 + x) as usize * 3;
            assert_near(pixel(&decoded.picture, x, y), rgb[at..at + 3].try_into().unwrap(), 6, what);
        }
    }
    let grey = ANY_SIZE.decode(&jpeg_with(size, (JpegColour::Luma, &luma), |_| {})).unwrap().picture;
    assert_near(pixel(&grey, 30, 9), [luma[30]; 3], 3, "grey");
}

#[test]
fn black_ink_darkens() {
    let inks = [0u8, 0, 0, 128].repeat(64);
    assert_near(
        flat_colour(&jpeg_with((8, 8), (JpegColour::Cmyk, &inks), |_| {})),
        [127; 3],
        2,
        "half black",
    );
    assert_near(
        flat_colour(&jpeg_with((8, 8), (JpegColour::CmykAsYcck, &inks), |_| {})),
        [127; 3],
        2,
        "YCCK",
    );
}

#[test]
fn every_kind_of_png_decodes_to_its_colours() {
    use BitDepth::{Eight, One, Sixteen, Two};
    use ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    // One pixel; what shows through is white.
    let table: [(ColorType, BitDepth, &[u8], [u8; 3]); 11] = [
        (Grayscale, One, &[0x80], [255; 3]),
        (Grayscale, Two, &[0x40], [85; 3]),
        (Grayscale, Eight, &[77], [77; 3]),
        (Grayscale, Sixteen, &[0x4d, 0xff], [78; 3]),
        (GrayscaleAlpha, Eight, &[100, 51], [224; 3]),
        (GrayscaleAlpha, Sixteen, &[100, 100, 51, 51], [224; 3]),
        (Rgb, Eight, &[1, 2, 3], [1, 2, 3]),
        (Rgb, Sixteen, &[1, 1, 0xff, 0xff, 0x7f, 0xff], [1, 255, 127]),
        (Rgba, Eight, &[200, 100, 0, 255], [200, 100, 0]),
        (Rgba, Eight, &[200, 100, 0, 0], [255; 3]),
        (Rgba, Sixteen, &[200, 200, 100, 100, 0, 0, 128, 128], [227, 177, 127]),
    ];
    for (colour, depth, samples, want) in table {
        let bytes = png_with(png_info(1, 1, colour, depth), samples, &[], &[]);
        assert_eq!(flat_colour(&bytes), want, "{colour:?} {depth:?} {samples:?}");
    }

    let mut palette = png_info(1, 1, Indexed, Eight);
    palette.palette = Some(Cow::Borrowed(&[1, 2, 3, 250, 150, 50]));
    assert_eq!(flat_colour(&png_with(palette.clone(), &[1], &[], &[])), [250, 150, 50]);
    palette.trns = Some(Cow::Borrowed(&[255, 0]));
    assert_eq!(flat_colour(&png_with(palette, &[1], &[], &[])), [255; 3]);
    let mut keyed = png_info(1, 1, Rgb, Eight);
    keyed.trns = Some(Cow::Borrowed(&[0, 9, 0, 8, 0, 7]));
    assert_eq!(flat_colour(&png_with(keyed.clone(), &[9, 8, 7], &[], &[])), [255; 3]);
    assert_eq!(flat_colour(&png_with(keyed, &[9, 8, 6], &[], &[])), [9, 8, 6]);
}

#[test]
fn an_interlaced_png_decodes_exactly() {
    let picture = ANY_SIZE.decode(INTERLACED).unwrap().picture;
    assert_eq!((picture.width_px(), picture.height_px()), (33, 35));
    for (x, y) in [(0, 0), (1, 0), (32, 34), (17, 5), (4, 29)] {
        assert_eq!(pixel(&picture, x, y), [x as u8 * 7, y as u8 * 7, 128]);
    }
}

#[test]
fn an_animated_png_gives_its_still_image() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 2);
    encoder.set_color(ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[10; 12]).unwrap();
    writer.write_image_data(&[99; 12]).unwrap();
    writer.finish().unwrap();
    assert_eq!(flat_colour(&bytes), [10; 3]);
}

#[test]
fn all_eight_orientations_come_out_upright() {
    // An upright picture of three columns and two rows of blocks, and what is stored of it.
    const BLOCK: usize = 16;
    let upright = [["red", "green", "blue"], ["white", "grey", "black"]];
    let stored: [(u8, Vec<Vec<&str>>); 8] = [
        (1, vec![vec!["red", "green", "blue"], vec!["white", "grey", "black"]]),
        (2, vec![vec!["blue", "green", "red"], vec!["black", "grey", "white"]]),
        (3, vec![vec!["black", "grey", "white"], vec!["blue", "green", "red"]]),
        (4, vec![vec!["white", "grey", "black"], vec!["red", "green", "blue"]]),
        (5, vec![vec!["red", "white"], vec!["green", "grey"], vec!["blue", "black"]]),
        (6, vec![vec!["blue", "black"], vec!["green", "grey"], vec!["red", "white"]]),
        (7, vec![vec!["black", "blue"], vec!["grey", "green"], vec!["white", "red"]]),
        (8, vec![vec!["white", "red"], vec!["grey", "green"], vec!["black", "blue"]]),
    ];
    let colour_of = |name: &str| match name {
        "red" => [220, 30, 30],
        "green" => [30, 200, 30],
        "blue" => [30, 30, 220],
        "white" => [250, 250, 250],
        "grey" => [128, 128, 128],
        _ => [5u8, 5, 5],
    };
    for (orientation, rows) in stored {
        let (width_px, height_px) = ((rows[0].len() * BLOCK) as u32, (rows.len() * BLOCK) as u32);
        let block_at = |x: u32, y: u32| colour_of(rows[y as usize / BLOCK][x as usize / BLOCK]);
        let rgb: Vec<u8> =
            (0..height_px).flat_map(|y| (0..width_px).flat_map(move |x| block_at(x, y))).collect();
        let info = || png_info(width_px, height_px, ColorType::Rgb, BitDepth::Eight);
        let chunk: Chunk<'_> = (*b"eXIf", &exif(orientation));
        let files = [
            jpeg_with((width_px, height_px), (JpegColour::Rgb, &rgb), |encoder| {
                encoder.add_exif_metadata(&exif(orientation)).unwrap();
            }),
            png_with(info(), &rgb, &[chunk], &[]),
            png_with(info(), &rgb, &[], &[chunk]),
        ];
        for bytes in files {
            let info = ANY_SIZE.inspect(&bytes).unwrap();
            assert_eq!((info.width_px, info.height_px), (48, 32), "orientation {orientation}");
            let picture = ANY_SIZE.decode(&bytes).unwrap().picture;
            assert_eq!((picture.width_px(), picture.height_px()), (48, 32), "orientation {orientation}");
            for (row, names) in upright.iter().enumerate() {
                for (column, name) in names.iter().enumerate() {
                    let (x, y) = ((column * BLOCK + BLOCK / 2) as u32, (row * BLOCK + BLOCK / 2) as u32);
                    let what = format!("orientation {orientation}, {name}");
                    assert_near(pixel(&picture, x, y), colour_of(name), 6, &what);
                }
            }
        }
    }
}

#[test]
fn broken_exif_is_ignored() {
    for broken in [&b""[..], b"MM", b"MM\0*\xff\xff\xff\xff", &exif(0), &exif(9), &exif(6)[..12]] {
        let info = png_info(4, 2, ColorType::Rgb, BitDepth::Eight);
        let bytes = png_with(info, &ramp(4, 2), &[(*b"eXIf", broken)], &[]);
        assert_eq!(ANY_SIZE.inspect(&bytes).unwrap().width_px, 4, "{broken:?}");
    }
}

fn flat_png(colour: ColorType, pixel: &[u8], icc: Vec<u8>) -> Vec<u8> {
    let mut info = png_info(4, 2, colour, BitDepth::Eight);
    info.icc_profile = Some(Cow::Owned(icc));
    png_with(info, &pixel.repeat(8), &[], &[])
}

#[test]
fn a_colour_profile_is_converted_to_srgb() {
    // Expected values from the standards' primaries and curves, computed apart.
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    for (given, want) in
        [([200, 120, 80], [213, 115, 70]), ([90, 160, 70], [61, 162, 55]), ([128; 3], [128; 3])]
    {
        assert_near(flat_colour(&flat_png(ColorType::Rgb, &given, p3.clone())), want, 1, "Display P3, PNG");
        let opaque = [given[0], given[1], given[2], 255];
        assert_near(
            flat_colour(&flat_png(ColorType::Rgba, &opaque, p3.clone())),
            want,
            1,
            "Display P3, RGBA",
        );
        let jpeg = jpeg_with((8, 8), (JpegColour::Rgb, &given.repeat(64)), |encoder| {
            encoder.add_icc_profile(&p3).unwrap();
        });
        assert_near(flat_colour(&jpeg), want, 3, "Display P3, JPEG");
    }
    assert_eq!(flat_colour(&flat_png(ColorType::Rgba, &[9, 9, 9, 0], p3.clone())), [255; 3]);
    let grey_in_p3 = flat_colour(&flat_png(ColorType::Grayscale, &[128], p3.clone()));
    assert_near(grey_in_p3, [128; 3], 1, "grey pixels under a colour profile");

    let linear = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let lit = flat_colour(&flat_png(ColorType::Grayscale, &[55], linear.clone()));
    assert_near(lit, [128; 3], 2, "linear grey");
    let veiled = flat_colour(&flat_png(ColorType::GrayscaleAlpha, &[55, 128], linear.clone()));
    assert_near(veiled, [191; 3], 2, "linear grey and alpha");
    let misplaced = flat_colour(&flat_png(ColorType::Rgb, &[55, 66, 77], linear));
    assert_eq!(misplaced, [55, 66, 77], "a grey profile says nothing of colours");
}

#[test]
fn a_broken_or_bloated_profile_is_ignored() {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let bomb = [p3.clone(), vec![0; 100_000_000]].concat();
    for broken in
        [Vec::new(), b"not a profile".to_vec(), p3[..p3.len() / 2].to_vec(), vec![0; 5_000_000], bomb]
    {
        let length = broken.len();
        let bytes = flat_png(ColorType::Rgb, &[200, 120, 80], broken);
        assert_eq!(flat_colour(&bytes), [200, 120, 80], "{length} bytes");
    }
}

#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    for (whole, format) in [
        (jpeg(64, 64), PictureFormat::Jpeg),
        (progressive_jpeg(64, 64), PictureFormat::Jpeg),
        (rgb_png(64, 64), PictureFormat::Png),
        (INTERLACED.to_vec(), PictureFormat::Png),
    ] {
        let picture = ANY_SIZE.decode(&whole).unwrap().picture;
        for length in 8..whole.len() {
            match ANY_SIZE.decode(&whole[..length]) {
                Err(PictureError::Truncated { .. } | PictureError::Undecodable { .. }) => {}
                Err(error) => panic!("{format} cut to {length}: {error}"),
                // A PNG ends with checksums and a chunk that no pixel needs.
                Ok(decoded) => {
                    assert!(
                        format == PictureFormat::Png && whole.len() - length <= 24,
                        "{format} cut to {length}"
                    );
                    assert_eq!(decoded.picture, picture);
                }
            }
        }
        let error = ANY_SIZE.decode(&whole[..whole.len() * 3 / 4]).unwrap_err();
        assert_eq!(error, PictureError::Truncated { format });
    }
}

#[test]
fn a_thumbnail_inside_does_not_hide_that_the_file_is_cut() {
    let inner = jpeg(16, 16);
    let outer = jpeg_with((64, 64), (JpegColour::Rgb, &ramp(64, 64)), |encoder| {
        encoder.add_app_segment(3, inner).unwrap();
    });
    ANY_SIZE.decode(&outer).unwrap();
    let error = ANY_SIZE.decode(&outer[..outer.len() - 200]).unwrap_err();
    assert_eq!(error, PictureError::Truncated { format: PictureFormat::Jpeg });
}

#[test]
fn bytes_behind_the_picture_do_no_harm() {
    for whole in [jpeg(32, 32), rgb_png(32, 32)] {
        let longer = [whole.as_slice(), b"\xff\xd8\xff and more"].concat();
        assert_eq!(ANY_SIZE.decode(&longer).unwrap().picture, ANY_SIZE.decode(&whole).unwrap().picture);
    }
}

#[test]
fn the_services_limits_hold_to_the_pixel() {
    for (width_px, height_px) in [(300, 300), (750, 300), (300, 750)] {
        for bytes in [rgb_png(width_px, height_px), jpeg(width_px, height_px)] {
            let info = inspect(&bytes).unwrap();
            assert_eq!((info.width_px, info.height_px), (width_px, height_px));
            decode(&bytes).unwrap();
        }
    }
    for (width_px, height_px, want) in [
        (299, 400, "image is 299x400 pixels; both sides must be at least 300 pixels"),
        (400, 299, "image is 400x299 pixels; both sides must be at least 300 pixels"),
        (751, 300, "image is 751x300 pixels, a ratio of 2.503:1; it must be between 1:2.5 and 2.5:1"),
        (300, 751, "image is 300x751 pixels, a ratio of 0.399:1; it must be between 1:2.5 and 2.5:1"),
    ] {
        let bytes = rgb_png(width_px, height_px);
        assert_eq!(inspect(&bytes).unwrap_err().to_string(), want);
        assert_eq!(decode(&bytes).unwrap_err().to_string(), want);
    }
}

#[test]
fn files_out_of_bounds_are_named() {
    let mut large = rgb_png(300, 300);
    large.resize(10 * 1024 * 1024, 0);
    decode(&large).unwrap();
    large.push(0);
    assert_eq!(
        decode(&large).unwrap_err().to_string(),
        "image has 10485761 bytes; at most 10485760 (10 MB) are taken"
    );
    assert_eq!(decode(b"").unwrap_err().to_string(), "image is empty; a JPEG or PNG file is needed");
    let cases: [(&[u8], &str); 14] = [
        (b"GIF89a....", "a GIF file"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP file"),
        (b"BM\0\0", "a BMP file"),
        (b"II*\0\x08", "a TIFF or camera raw file"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "a HEIC file"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF file"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "an MP4 or QuickTime video"),
        (b"%PDF-1.7", "a PDF file"),
        (b"<svg xmlns=''>", "an SVG file"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"{\"error\": 1}", "JSON text"),
        (b"\x89PNX\r\n", "of an unknown format"),
        (b"\xff", "of an unknown format"),
        (b"\0", "of an unknown format"),
    ];
    for (bytes, found) in cases {
        let want = format!("image is {found}; a JPEG or PNG file is needed");
        assert_eq!(decode(bytes).unwrap_err().to_string(), want);
    }
}

#[test]
fn bombs_are_refused_by_their_header() {
    let start = Instant::now();
    let mut png_bomb = Vec::new();
    drop(png::Encoder::new(&mut png_bomb, 20_000, 15_000).write_header().unwrap());
    let mut jpeg_bomb = jpeg(300, 300);
    let frame = jpeg_bomb.windows(4).position(|window| window == [0xff, 0xc0, 0, 17]).unwrap();
    jpeg_bomb[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0x80, 0]);
    for (bomb, size) in [(png_bomb, "20000x15000"), (jpeg_bomb, "32768x65535")] {
        let want = format!("image is {size} pixels; at most 50000000 pixels in all are taken");
        assert_eq!(decode(&bomb).unwrap_err().to_string(), want);
    }

    let scans = jpeg_with((300, 300), (JpegColour::Rgb, &ramp(300, 300)), |encoder| {
        encoder.set_progressive_scans(64);
    });
    let first_scan = scans.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let body = &scans[first_scan..scans.len() - 2];
    let many = [&scans[..first_scan], &body.repeat(4), &[0xff, 0xd9]].concat();
    assert!(decode(&many).unwrap_err().to_string().contains("more than 100 scans"));
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Whole files of every kind that the decoders take different ways for.
fn seeds() -> Vec<Vec<u8>> {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let inks = [10u8, 100, 200, 30].repeat(24 * 16);
    let rgba: Vec<u8> = ramp(24, 16).chunks(3).flat_map(|p| [p[0], p[1], p[2], p[0]]).collect();
    let wide: Vec<u8> = ramp(24, 16).into_iter().flat_map(|sample| [sample, 7]).collect();
    let mut palette = png_info(24, 16, ColorType::Indexed, BitDepth::Four);
    palette.palette = Some(Cow::Owned(ramp(16, 1)));
    vec![
        jpeg(24, 16),
        progressive_jpeg(24, 16),
        jpeg_with((24, 16), (JpegColour::CmykAsYcck, &inks), |encoder| {
            encoder.add_icc_profile(&p3).unwrap();
        }),
        jpeg_with((24, 16), (JpegColour::Rgb, &ramp(24, 16)), |encoder| {
            encoder.add_exif_metadata(&exif(6)).unwrap();
            encoder.add_icc_profile(&p3).unwrap();
            encoder.set_restart_interval(1);
        }),
        rgb_png(24, 16),
        png_with(png_info(24, 16, ColorType::Rgba, BitDepth::Eight), &rgba, &[(*b"eXIf", &exif(5))], &[]),
        png_with(png_info(24, 16, ColorType::Rgb, BitDepth::Sixteen), &wide, &[], &[]),
        png_with(palette, &[0x37; 12 * 16], &[], &[]),
        flat_png(ColorType::Rgb, &[200, 120, 80], p3),
        INTERLACED.to_vec(),
    ]
}

#[derive(Debug, Clone)]
enum Damage {
    Set(usize, u8),
    Flip(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (any::<usize>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<usize>(), 1usize..200).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (any::<usize>(), 1usize..200).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        match self {
            Self::Set(at, byte) => bytes[at % length] = *byte,
            Self::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
            Self::Insert(at, inserted) => {
                bytes.splice(at % length..at % length, inserted.iter().copied());
            }
            Self::Remove(at, count) if bytes.len() > count + 32 => {
                let at = 8 + at % (bytes.len() - count - 8);
                bytes.drain(at..at + count);
            }
            Self::Remove(..) => {}
            Self::Repeat(at, count) => {
                let at = at % length;
                let copy = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

proptest! {
    // PROPTEST_CASES scales this.
    #![proptest_config(ProptestConfig::with_cases(8 * ProptestConfig::default().cases))]

    #[test]
    fn damaged_files_neither_panic_nor_hang(
        seed in proptest::sample::select(seeds()),
        damages in proptest::collection::vec(damage(), 1..6),
    ) {
        let mut bytes = seed;
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        let start = Instant::now();
        let inspected = ANY_SIZE.inspect(&bytes);
        match ANY_SIZE.decode(&bytes) {
            Ok(decoded) => {
                let info = inspected.unwrap();
                prop_assert_eq!((info.width_px, info.height_px), (decoded.picture.width_px(), decoded.picture.height_px()));
            }
            Err(error) => prop_assert!(error.to_string().starts_with("image ")),
        }
        prop_assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000), signature in 0usize..3) {
        let signature: &[u8] = [&b""[..], b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"][signature];
        let bytes = [signature, &bytes].concat();
        prop_assert!(decode(&bytes).unwrap_err().to_string().starts_with("image "));
    }
}
