//! A push into a picture that has more pixels than the frame ends in real detail.

use super::super::render::Renderer;
use super::super::scene::{Background, Canvas, Found, Map, Regions, Scene, finer, fit};
use super::{Checks, prompt, take};
use crate::Picture;

const WIDTH_PX: usize = 320;
const HEIGHT_PX: usize = 192;
/// Input pixels per frame pixel.
const TIMES: usize = 4;

/// Detail of every size down to single pixels, in patches so that it is no plain pattern.
fn rich() -> Picture {
    let (width, height) = (WIDTH_PX * TIMES, HEIGHT_PX * TIMES);
    let wave = |x: f32, y: f32, period: f32, turn: f32| {
        ((x * turn.cos() + y * turn.sin()) * std::f32::consts::TAU / period).sin()
    };
    let rgb = (0..width * height).flat_map(|at| {
        let (x, y) = ((at % width) as f32, (at / width) as f32);
        let patch = ((x / 97.0).floor() * 1.7 + (y / 83.0).floor() * 2.3).sin();
        let sum: f32 = [3.3, 4.7, 6.1, 9.0, 14.0, 40.0, 150.0]
            .iter()
            .enumerate()
            .map(|(k, &period)| wave(x, y, period, patch * 3.0 + k as f32))
            .sum();
        let edge = if (x / 23.0).floor() as i32 % 3 == (y / 31.0).floor() as i32 % 2 { 40.0 } else { 0.0 };
        [100.0, 112.0, 90.0].map(|base| (base + 11.0 * sum + edge).clamp(0.0, 255.0) as u8)
    });
    Picture::new(width as u32, height as u32, rgb.collect()).expect("three bytes a pixel")
}

/// Means of squares of `TIMES` pixels, as an input of the frame's own size would be.
fn small(rich: &Picture) -> Picture {
    let width = WIDTH_PX * TIMES;
    let rgb = (0..WIDTH_PX * HEIGHT_PX * 3).map(|at| {
        let (x, y, c) = (at / 3 % WIDTH_PX * TIMES, at / 3 / WIDTH_PX * TIMES, at % 3);
        let tap = |k: usize| u32::from(rich.rgb()[((y + k / TIMES) * width + x + k % TIMES) * 3 + c]);
        let count = (TIMES * TIMES) as u32;
        (((0..TIMES * TIMES).map(tap).sum::<u32>() + count / 2) / count) as u8
    });
    Picture::new(WIDTH_PX as u32, HEIGHT_PX as u32, rgb.collect()).expect("three bytes a pixel")
}

/// A wall, seen straight on: every view of it is a part of the picture, enlarged.
fn wall(picture: &Picture) -> Scene {
    let canvas =
        Canvas { width_px: WIDTH_PX + 64, height_px: HEIGHT_PX + 64, margin_x_px: 32, margin_y_px: 32 };
    Scene {
        canvas,
        background: Background {
            rgb: canvas.mirrored(picture),
            disparity: Map::filled(canvas.width_px / 4, canvas.height_px / 4, 0.5),
        },
        foreground: None,
        regions: Regions::default(),
        found: Found::default(),
    }
}

/// The grey of frame `index` as a camera would see it: the mean of what each pixel covers of the picture itself.
fn ideal(renderer: &Renderer, index: usize, rich: &Picture) -> Vec<f32> {
    const SAMPLES: usize = 8;
    let rows: Vec<_> = (0..HEIGHT_PX).map(|y| renderer.sources(index, y)).collect();
    let times = TIMES as f32;
    let (middle, size) = (&rows[HEIGHT_PX / 2].0, WIDTH_PX / 2);
    let covers = (middle[size + 50] - middle[size - 50]) / 100.0;
    let mut out = Vec::with_capacity(WIDTH_PX * HEIGHT_PX);
    for (xs, ys) in &rows {
        for (x, y) in xs.iter().zip(ys) {
            let at = |v: f32, k: usize, limit: usize| {
                let v = v + 0.5 + covers * ((k as f32 + 0.5) / SAMPLES as f32 - 0.5);
                ((v * times).max(0.0) as usize).min(limit - 1)
            };
            let sum: f32 = (0..SAMPLES * SAMPLES)
                .map(|k| {
                    let (u, v) =
                        (at(*x, k % SAMPLES, WIDTH_PX * TIMES), at(*y, k / SAMPLES, HEIGHT_PX * TIMES));
                    f32::from(rich.rgb()[(v * WIDTH_PX * TIMES + u) * 3 + 1])
                })
                .sum();
            out.push(sum / (SAMPLES * SAMPLES) as f32);
        }
    }
    out
}

/// Peak signal-to-noise ratio in dB of a frame's greens, away from its border.
fn psnr(rgb: &[u8], ideal: &[f32]) -> f32 {
    let inside = (8..HEIGHT_PX - 8).flat_map(|y| (8..WIDTH_PX - 8).map(move |x| y * WIDTH_PX + x));
    let (mut sum, mut count) = (0.0f64, 0.0);
    for at in inside {
        sum += f64::from(f32::from(rgb[at * 3 + 1]) - ideal[at]).powi(2);
        count += 1.0;
    }
    (10.0 * (255.0 * 255.0 * count / sum.max(1e-9)).log10()) as f32
}

#[test]
fn a_push_into_a_large_picture_ends_in_its_detail() {
    let mut checks = Checks::new();
    let rich = rich();
    let fitted = small(&rich);
    let plan = prompt::plan(&take("strong zoom in").spec);
    let renderer = |source: &Picture| Renderer::new(wall(&fitted), &plan, 120).with_detail(source, &fitted);
    let (fine, coarse) = (renderer(&rich), renderer(&fitted));
    let frame = |renderer: &Renderer, index: usize| {
        let mut rgb = vec![0; WIDTH_PX * HEIGHT_PX * 3];
        renderer.frame(index, &mut rgb);
        rgb
    };
    assert!(frame(&fine, 0) == fitted.rgb(), "the first frame is not the fitted picture");
    for (name, index) in [("early", 20), ("in the middle of", 60), ("at the end of", 119)] {
        let ideal = ideal(&fine, index, &rich);
        let [fine, coarse] = [&fine, &coarse].map(|renderer| psnr(&frame(renderer, index), &ideal));
        checks.hold(&format!("detail {name} a push: gain in dB"), fine - coarse, &[0.0]);
        println!("{name}: {fine} dB with the input's detail, {coarse} without");
    }
    checks.done();
}

#[test]
fn an_input_without_more_pixels_changes_nothing() {
    let fitted = small(&rich());
    let plan = prompt::plan(&take("strong zoom in").spec);
    let frame = |renderer: &Renderer| {
        let mut rgb = vec![0; WIDTH_PX * HEIGHT_PX * 3];
        renderer.frame(119, &mut rgb);
        rgb
    };
    let plain = Renderer::new(wall(&fitted), &plan, 120);
    assert!(frame(&plain) == frame(&Renderer::new(wall(&fitted), &plan, 120).with_detail(&fitted, &fitted)));
}

/// The finer picture lies exactly over the fitted one, whatever the input's ratio.
#[test]
fn the_finer_picture_lies_over_the_fitted_one() {
    let (width, height) = (3000u32, 1000u32);
    let rgb = (0..width * height).flat_map(|at| {
        let (x, y) = ((at % width) as f32, (at / width) as f32);
        let level = 128.0 + 60.0 * (x / 90.0).sin() + 60.0 * (y / 70.0).cos();
        [level as u8; 3]
    });
    let source = Picture::new(width, height, rgb.collect()).expect("three bytes a pixel");
    let fitted = fit(&source);
    let again = finer(&source, &fitted, (fitted.width_px(), fitted.height_px()));
    assert!(again == fitted, "the finer picture shows another part of the input");
}
