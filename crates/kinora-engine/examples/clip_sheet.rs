//! Animates a picture and lays twelve of its frames out on one sheet, to look at.
//!
//! `cargo run --release -p kinora-engine --example clip_sheet -- PICTURE OUT.png [PROMPT] [NEGATIVE] [CFG] [SEED]
//! [SECONDS]` writes `OUT.png`, the same scanline column of every frame beside each other as `OUT.slit.png`, and
//! prints the plan and the stage times. With `FRAMES_DIR` set it writes all frames there as PNG too.

#![allow(clippy::print_stdout, reason = "a program whose output is for people")]

use std::error::Error;
use std::path::PathBuf;

use image::{RgbImage, imageops};
use kinora_engine::{
    ClipDuration, ClipFormat, Engine, FrameSink, GenerateSpec, MotionEngine, Picture, SinkError, Unwatched,
};

const COLUMNS: u32 = 3;
const ROWS: u32 = 4;
const TILE_PX: u32 = 520;

struct Sheet {
    format: ClipFormat,
    index: u32,
    tiles: RgbImage,
    slit: RgbImage,
    frames_dir: Option<PathBuf>,
}

impl FrameSink for Sheet {
    fn frame(&mut self, rgb: &[u8]) -> Result<(), SinkError> {
        let (width, height, count) = (self.format.width_px, self.format.height_px, self.format.frames_count);
        let middle = (height / 2 * width * 3) as usize;
        for (x, pixel) in rgb[middle..].as_chunks::<3>().0.iter().take(width as usize).enumerate() {
            self.slit.put_pixel(x as u32, self.index, image::Rgb(*pixel));
        }
        let tiles = COLUMNS * ROWS;
        let whole = || {
            RgbImage::from_raw(width, height, rgb.to_vec()).ok_or_else(|| SinkError("a short frame".into()))
        };
        for tile in (0..tiles).filter(|tile| tile * (count - 1) / (tiles - 1) == self.index) {
            let small = imageops::thumbnail(&whole()?, TILE_PX, TILE_PX * height / width);
            let (x, y) = (tile % COLUMNS * small.width(), tile / COLUMNS * small.height());
            imageops::replace(&mut self.tiles, &small, x.into(), y.into());
        }
        if let Some(dir) = &self.frames_dir {
            let path = dir.join(format!("{:04}.png", self.index));
            whole()?.save(path).map_err(|error| SinkError(error.into()))?;
        }
        self.index += 1;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [picture, out, rest @ ..] = args.as_slice() else {
        return Err("usage: clip_sheet PICTURE OUT.png [PROMPT] [NEGATIVE] [CFG] [SEED] [SECONDS]".into());
    };
    let word = |k: usize| rest.get(k).cloned().unwrap_or_default();
    let number = |k: usize, default: &str| rest.get(k).cloned().unwrap_or_else(|| default.to_owned());
    let spec = GenerateSpec {
        prompt: word(0),
        negative_prompt: word(1),
        cfg_scale: number(2, "0.5").parse()?,
        seed: number(3, "1").parse()?,
        duration: ClipDuration::from_seconds(number(4, "5").parse()?).ok_or("SECONDS is 5 or 10")?,
    };
    let pixels = image::open(picture)?.to_rgb8();
    let picture = Picture::new(pixels.width(), pixels.height(), pixels.into_raw())?;
    let format = MotionEngine.clip_format(picture.width_px(), picture.height_px(), &spec);
    let mut sheet = Sheet {
        format,
        index: 0,
        tiles: RgbImage::new(COLUMNS * TILE_PX, ROWS * (TILE_PX * format.height_px / format.width_px)),
        slit: RgbImage::new(format.width_px, format.frames_count),
        frames_dir: std::env::var_os("FRAMES_DIR").map(PathBuf::from),
    };
    let generated = MotionEngine.generate(&spec, &picture, &mut sheet, &Unwatched)?;
    sheet.tiles.save(out)?;
    sheet.slit.save(PathBuf::from(out).with_extension("slit.png"))?;
    for stage in &generated.stages {
        println!("{:>8} {:8.1} ms", stage.stage, stage.duration.as_secs_f64() * 1e3);
    }
    println!("{}", serde_json::to_string_pretty(&generated.plan)?);
    Ok(())
}
