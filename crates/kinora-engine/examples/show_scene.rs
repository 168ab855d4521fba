//! Writes what the engine finds in pictures as one contact sheet: a row for each picture.
//!
//! `cargo run --release -p kinora-engine --example show_scene -- SHEET.png PICTURE...`
//!
//! Prints for each picture when the stages began, what was found, and the names of the views from left to right.
//! `ROW_HEIGHT_PX` in the environment sets how tall a row is.

use std::sync::Mutex;
use std::time::Instant;

use image::{RgbImage, imageops};
use kinora_engine::motion::scene_views;
use kinora_engine::{Monitor, Picture, Progress};

const ROW_HEIGHT_PX: u32 = 180;

/// Notes when each stage begins.
struct Clock {
    start: Instant,
    marks_ms: Mutex<Vec<u128>>,
}

impl Monitor for Clock {
    fn progress(&self, _: Progress) {
        self.marks_ms.lock().expect("nobody panics with it").push(self.start.elapsed().as_millis());
    }
    fn is_cancelled(&self) -> bool {
        false
    }
}

#[expect(clippy::print_stdout, reason = "a program for the terminal")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let sheet_path = arguments.next().ok_or("usage: show_scene SHEET.png PICTURE...")?;
    let height_px = std::env::var("ROW_HEIGHT_PX").ok().and_then(|v| v.parse().ok()).unwrap_or(ROW_HEIGHT_PX);
    let mut rows = Vec::new();
    for path in arguments {
        let source = image::open(&path)?.to_rgb8();
        let picture = Picture::new(source.width(), source.height(), source.into_raw())?;
        let clock = Clock { start: Instant::now(), marks_ms: Mutex::default() };
        let (views, found) = scene_views(&picture, &clock)?;
        println!(
            "{path} stages begin at {:?} ms {found}",
            clock.marks_ms.lock().expect("nobody panics with it")
        );
        println!("  {}", views.iter().map(|v| v.name).collect::<Vec<_>>().join(" | "));
        let thumbnails = views.into_iter().map(|v| thumbnail(v.picture, height_px)).collect::<Vec<_>>();
        rows.push(thumbnails);
    }
    let width = rows.iter().map(|row| row.iter().map(|v| v.width() + 4).sum::<u32>()).max().unwrap_or(1);
    let mut sheet = RgbImage::new(width, (height_px + 4) * rows.len().max(1) as u32);
    for (r, row) in rows.iter().enumerate() {
        let mut x = 0;
        for view in row {
            imageops::replace(&mut sheet, view, i64::from(x), r as i64 * i64::from(height_px + 4));
            x += view.width() + 4;
        }
    }
    sheet.save(sheet_path)?;
    Ok(())
}

fn thumbnail(picture: Picture, height_px: u32) -> RgbImage {
    let (width, height) = (picture.width_px(), picture.height_px());
    let image = RgbImage::from_raw(width, height, picture.into_rgb()).expect("a picture holds its pixels");
    imageops::resize(&image, (width * height_px / height).max(1), height_px, imageops::FilterType::Triangle)
}
