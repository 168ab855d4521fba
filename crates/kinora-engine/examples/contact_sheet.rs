//! Lays clips of one picture under each other: a row for each prompt, six frames from first to last.
//!
//! `cargo run --release -p kinora-engine --example contact_sheet -- PICTURE OUT.png PROMPT...` renders only the
//! frames it shows. `CFG`, `SEED` and `TILE` (a width in pixels) may be set in the environment.

#![allow(clippy::print_stdout, reason = "a program whose output is for people")]

use std::error::Error;

use image::{RgbImage, imageops};
use kinora_engine::{Engine, GenerateSpec, MotionEngine, Picture, Unwatched};

const SHOWN: u32 = 6;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [picture, out, prompts @ ..] = args.as_slice() else {
        return Err("usage: contact_sheet PICTURE OUT.png PROMPT...".into());
    };
    let pixels = image::open(picture)?.to_rgb8();
    let picture = Picture::new(pixels.width(), pixels.height(), pixels.into_raw())?;
    let spec = |prompt: &String| GenerateSpec {
        prompt: prompt.clone(),
        cfg_scale: setting("CFG", 0.5),
        seed: setting("SEED", 7),
        ..GenerateSpec::default()
    };
    let format = MotionEngine.clip_format(picture.width_px(), picture.height_px(), &GenerateSpec::default());
    let indices: Vec<u32> = (0..SHOWN).map(|k| k * (format.frames_count - 1) / (SHOWN - 1)).collect();
    let tile_width = setting("TILE", 320);
    let tile_height = tile_width * format.height_px / format.width_px;
    let mut sheet = RgbImage::new(SHOWN * (tile_width + 2), prompts.len() as u32 * (tile_height + 4));
    for (row, prompt) in prompts.iter().enumerate() {
        let frames = MotionEngine.stills(&spec(prompt), &picture, &indices, &Unwatched)?;
        for (column, rgb) in frames.into_iter().enumerate() {
            let frame = RgbImage::from_raw(format.width_px, format.height_px, rgb).ok_or("a short frame")?;
            let small = imageops::thumbnail(&frame, tile_width, tile_height);
            let (x, y) = (column as u32 * (tile_width + 2), row as u32 * (tile_height + 4));
            imageops::replace(&mut sheet, &small, x.into(), y.into());
        }
        println!("row {}: {prompt:?}", row + 1);
    }
    sheet.save(out)?;
    Ok(())
}
