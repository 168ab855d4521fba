//! Ten seconds are two clips with one frame of overlap: what is shown of it, and how far its second look is from the first.
//!
//! On random weights the distance says nothing of how a seam looks; the tests hold it to be that of the right two frames.

use candle_core::Tensor;
use kinora_engine::{ClipDuration, FrameSink, GenerateSpec, Picture, SinkError, Unwatched};
use kinora_wan::Settings;
use kinora_wan::condition::Condition;
use kinora_wan::device::Target;
use kinora_wan::model::Model;
use kinora_wan::picture::{Size, to_rgb, to_tensor};
use kinora_wan::pipeline::Pipeline;

use crate::golden::{error, model, picture, pixel_error};

const SIZE: Size = Size { width_px: 64, height_px: 32 };
/// Of each of the two clips.
const FRAMES: usize = 5;
const STEPS: usize = 2;

#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl FrameSink for Frames {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        self.0.push(rgb.to_vec());
        Ok(())
    }
}

/// A clip as it was shown, and what was told of it.
struct Shown {
    frames: Vec<Vec<u8>>,
    /// After each step and at the end of each part.
    latents: Vec<Tensor>,
    seam_psnr_db: Option<f64>,
}

fn pipeline(name: &str) -> Pipeline {
    let settings =
        Settings { steps: Some(STEPS), size: Some(SIZE), frames: Some(FRAMES), ..Settings::default() };
    Pipeline::new(Model::open(&model(name), Target::cpu_f32()).unwrap(), settings).unwrap()
}

fn show(pipeline: &Pipeline, name: &str, duration: ClipDuration) -> Shown {
    let (width_px, height_px, rgb) = picture(&format!("{name}/picture_a.png"));
    let picture = Picture::new(width_px, height_px, rgb).unwrap();
    let spec = GenerateSpec { duration, seed: 3, ..GenerateSpec::default() };
    let (mut frames, mut latents) = (Frames::default(), Vec::new());
    let mut keep = |step: &Tensor| latents.push(step.clone());
    let made = pipeline.run(&spec, &picture, &mut frames, &Unwatched, &mut keep).unwrap();
    Shown { frames: frames.0, latents, seam_psnr_db: made.seam_psnr_db }
}

/// The frames that the second part's latents stand for, the shared one first.
fn second_part(pipeline: &Pipeline, latents: &Tensor) -> Vec<Vec<u8>> {
    let mut decoder = pipeline.model().vae.decoder(None).unwrap();
    let decoded = (0..latents.dim(2).unwrap()).flat_map(|at| {
        to_rgb(&decoder.push(&latents.narrow(2, at, 1).unwrap(), &|| false).unwrap()).unwrap()
    });
    let rgb: Vec<u8> = decoded.collect();
    rgb.chunks_exact(SIZE.width_px * SIZE.height_px * 3).map(<[u8]>::to_vec).collect()
}

#[test]
fn the_shared_frame_is_shown_once_and_its_distance_is_told() {
    for name in ["ti2v", "i2v"] {
        let pipeline = pipeline(name);
        let (short, long) = (
            show(&pipeline, name, ClipDuration::FiveSeconds),
            show(&pipeline, name, ClipDuration::TenSeconds),
        );
        assert_eq!((short.frames.len(), long.frames.len()), (FRAMES, 2 * FRAMES - 1));
        assert_eq!(short.seam_psnr_db, None, "one clip has no seam");
        assert_eq!(long.frames[..FRAMES], short.frames, "the first clip is that of five seconds");

        let again = second_part(&pipeline, long.latents.last().unwrap());
        assert_eq!(again.len(), FRAMES);
        assert_eq!(long.frames[FRAMES..], again[1..], "the second clip follows without its first frame");
        let shared = &long.frames[FRAMES - 1];
        assert!(again[1..].iter().all(|frame| frame != shared), "no frame is shown twice");

        let wanted_db = pixel_error(&again[0], shared).0;
        let told_db = long.seam_psnr_db.unwrap();
        println!("{name}: {told_db:.2} dB at the seam");
        assert!((told_db - wanted_db).abs() < 1e-9, "{told_db} dB is not {wanted_db}");
        let elsewhere_db = pixel_error(&again[0], &long.frames[0]).0;
        assert!((told_db - elsewhere_db).abs() > 1e-3, "another frame would show");
    }
}

#[test]
fn the_second_clip_begins_with_the_last_frame_of_the_first() {
    let pipeline = pipeline("ti2v");
    let long = show(&pipeline, "ti2v", ClipDuration::TenSeconds);
    let begun = long.latents.last().unwrap().narrow(2, 0, 1).unwrap();
    // In models of this kind the first latent frame stays what the picture was encoded to.
    let encoded = |frame: &[u8]| {
        let (model, picture) = (pipeline.model(), to_tensor(frame, SIZE).unwrap());
        let condition = Condition::new(model.family, &model.vae, &picture, FRAMES, &|| false).unwrap();
        condition.latents().narrow(2, 0, 1).unwrap()
    };
    assert!(error(&begun, &encoded(&long.frames[FRAMES - 1])) < 1e-6);
    assert!(error(&begun, &encoded(&long.frames[FRAMES - 2])) > 1e-3, "the frame before would show");
}
