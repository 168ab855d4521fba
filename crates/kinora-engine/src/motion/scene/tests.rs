//! Scenes drawn here, with known masks and depth, go through the whole analysis.

use super::*;
use crate::Unwatched;

mod parts;

/// Cancels at the given progress report.
struct CancelsAt(std::sync::atomic::AtomicI32);

impl Monitor for CancelsAt {
    fn progress(&self, _: Progress) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn is_cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) < 0
    }
}

const FRAME_AREA_PX: f64 = 921_600.0;
const HORIZON: f32 = 0.6;

fn uniform(width_px: u32, height_px: u32, rgb: [u8; 3]) -> Picture {
    Picture::new(width_px, height_px, rgb.repeat((width_px * height_px) as usize)).unwrap()
}

/// -1..1, the same for the same arguments.
fn noise(x: u32, y: u32, seed: u32) -> f32 {
    let mut h = x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77) ^ seed.wrapping_mul(0xC2B2_AE3D);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 13)).wrapping_mul(0x297A_2D39);
    ((h >> 8) & 0xFFFF) as f32 / 32767.5 - 1.0
}

/// Noise in blocks of a few sizes.
fn texture(x: u32, y: u32, seed: u32) -> f32 {
    0.5 * noise(x / 16, y / 16, seed)
        + 0.3 * noise(x / 5, y / 5, seed + 1)
        + 0.2 * noise(x / 2, y / 2, seed + 2)
}

fn drawn(color: impl Fn(u32, u32) -> [f32; 3]) -> Picture {
    let mut rgb = Vec::new();
    for y in 0..720 {
        for x in 0..1280 {
            rgb.extend(color(x, y).map(|v| v.round().clamp(0.0, 255.0) as u8));
        }
    }
    Picture::new(1280, 720, rgb).unwrap()
}

fn in_subject(x: u32, y: u32) -> bool {
    let (u, v) = ((x as f32 - 560.0) / 150.0, (y as f32 - 400.0) / 230.0);
    u * u + v * v < 1.0
}

/// A red standing thing on a green plain under a blue sky.
fn landscape(with_subject: bool) -> Picture {
    drawn(|x, y| {
        let v = y as f32 / 720.0;
        if with_subject && in_subject(x, y) {
            let t = 22.0 * texture(x, y, 5);
            [190.0 + t, 60.0 + t, 45.0 + t]
        } else if v < HORIZON {
            let fine = noise(x, y, 9);
            [110.0 + 70.0 * v + fine, 160.0 + 60.0 * v + fine, 235.0 + 10.0 * v + fine]
        } else {
            let t = 52.0 * texture(x, y, 3);
            [70.0 + t, 105.0 + t, 45.0 + 0.6 * t]
        }
    })
}

fn analyzed(picture: &Picture) -> Scene {
    analyze(&fit(picture), &Unwatched).unwrap()
}

/// Intersection over union of what two functions pick from the frame's pixels.
fn overlap(a: impl Fn(u32, u32) -> bool, b: impl Fn(u32, u32) -> bool) -> f32 {
    let (mut both, mut either) = (0.0f32, 0.0f32);
    for y in (0..720).step_by(2) {
        for x in (0..1280).step_by(2) {
            let (a, b) = (a(x, y), b(x, y));
            both += f32::from(u8::from(a && b));
            either += f32::from(u8::from(a || b));
        }
    }
    both / either.max(1.0)
}

impl Scene {
    /// A half-size mask at a pixel of the frame.
    fn half_at(&self, map: &Map, x: u32, y: u32) -> f32 {
        map.at((x as usize + self.canvas.margin_x_px) / 2, (y as usize + self.canvas.margin_y_px) / 2)
    }

    fn quarter_at(&self, map: &Map, x: u32, y: u32) -> f32 {
        map.at((x as usize + self.canvas.margin_x_px) / 4, (y as usize + self.canvas.margin_y_px) / 4)
    }

    fn assert_sound(&self) {
        let cells = self.canvas.width_px * self.canvas.height_px;
        assert_eq!(self.background.rgb.len(), cells * 3);
        let r = &self.regions;
        let masks = [&r.sky, &r.water, &r.stream, &r.vegetation, &r.lights, &r.hair, &r.cloth, &r.fire];
        let half = (self.canvas.width_px / 2, self.canvas.height_px / 2);
        for mask in masks.into_iter().flatten() {
            assert_eq!((mask.width, mask.height), half);
            assert!(mask.data.iter().all(|v| (0.0..=1.0).contains(v)));
        }
        let quarter = (self.canvas.width_px / 4, self.canvas.height_px / 4);
        let depths = [Some(&self.background.disparity), self.foreground.as_ref().map(|f| &f.disparity)];
        for map in depths.into_iter().flatten() {
            assert_eq!((map.width, map.height), quarter);
            assert!(map.data.iter().all(|v| (0.0..=1.0).contains(v)));
        }
        if let Some(f) = &self.foreground {
            assert_eq!(f.rgba.len(), cells * 4);
            assert!(f.x0_px < f.x1_px && f.x1_px <= self.canvas.width_px);
            assert!(f.y0_px < f.y1_px && f.y1_px <= self.canvas.height_px);
            for (i, p) in f.rgba.chunks_exact(4).enumerate() {
                let (x, y) = (i % self.canvas.width_px, i / self.canvas.width_px);
                let within = (f.x0_px..f.x1_px).contains(&x) && (f.y0_px..f.y1_px).contains(&y);
                assert!(within || p.iter().all(|&v| v == 0));
                assert!((0..=Foreground::ONE).contains(&p[3]));
                assert!(p[..3].iter().all(|v| v.abs() <= Foreground::ONE));
            }
        }
        serde_json::to_string(&self.found).unwrap();
    }

    /// Foreground over background at rest, not yet rounded.
    fn composed(&self, i: usize) -> [f32; 3] {
        let behind = [0, 1, 2].map(|c| f32::from(self.background.rgb[i * 3 + c]));
        let Some(f) = &self.foreground else { return behind };
        let (p, one) = (&f.rgba[i * 4..i * 4 + 4], f32::from(Foreground::ONE));
        [0, 1, 2].map(|c| f32::from(p[c]) / one * 255.0 + (1.0 - f32::from(p[3]) / one) * behind[c])
    }

    fn assert_identity(&self, fitted: &Picture) {
        let (width, mx, my) = (self.canvas.width_px, self.canvas.margin_x_px, self.canvas.margin_y_px);
        for (j, pixel) in fitted.rgb().chunks_exact(3).enumerate() {
            let (x, y) = (j % fitted.width_px() as usize, j / fitted.width_px() as usize);
            let composed = self.composed((y + my) * width + x + mx).map(|v| v.round() as u8);
            assert_eq!(composed, pixel, "at {x}, {y}");
        }
    }
}

#[test]
fn the_output_size_keeps_ratio_and_area() {
    assert_eq!(output_size(1920, 1080), (1280, 720));
    assert_eq!(output_size(1080, 1920), (720, 1280));
    assert_eq!(output_size(1, 1), (960, 960));
    for (w, h) in [(4000, 3000), (1, 1000), (1000, 1), (333, 777), (65535, 3)] {
        let (ow, oh) = output_size(w, h);
        assert_eq!((ow % 16, oh % 16), (0, 0));
        let area = f64::from(ow) * f64::from(oh) / FRAME_AREA_PX;
        assert!((0.95..1.05).contains(&area), "{w}x{h} gives {ow}x{oh}");
    }
}

#[test]
fn a_picture_of_the_right_size_is_not_touched() {
    let picture = landscape(false);
    assert_eq!(fit(&picture), picture);
}

#[test]
fn a_subject_is_cut_out_where_it_is_and_stands_before_the_rest() {
    let scene = analyzed(&landscape(true));
    let found = scene.found.subject.clone().unwrap();
    assert!(found.cut_out && found.confidence > 0.7, "{found:?}");
    let foreground = scene.foreground.as_ref().unwrap();
    let alpha = |x: u32, y: u32| {
        let i = (y as usize + scene.canvas.margin_y_px) * scene.canvas.width_px
            + x as usize
            + scene.canvas.margin_x_px;
        foreground.rgba[i * 4 + 3]
    };
    let iou = overlap(in_subject, |x, y| alpha(x, y) > Foreground::ONE / 2);
    assert!(iou > 0.97, "subject overlap {iou}");
    let lead = scene.quarter_at(&foreground.disparity, 560, 400)
        - scene.quarter_at(&scene.background.disparity, 560, 200);
    assert!(lead > 0.15, "lead {lead}");
    // Nothing of the subject stays behind it: the fill is as blue or green as the surroundings.
    let i = (300 + scene.canvas.margin_y_px) * scene.canvas.width_px + 560 + scene.canvas.margin_x_px;
    let [r, g, b] = [0, 1, 2].map(|c| scene.background.rgb[i * 3 + c]);
    assert!(r < g && r < b, "the fill behind is {r} {g} {b}");
}

#[test]
fn the_sky_and_the_horizon_are_found() {
    let scene = analyzed(&landscape(false));
    let sky = scene.regions.sky.as_ref().unwrap();
    let iou = overlap(|_, y| (y as f32) < HORIZON * 720.0, |x, y| scene.half_at(sky, x, y) > 0.5);
    assert!(iou > 0.97, "sky overlap {iou}");
    let horizon = scene.regions.horizon.unwrap();
    assert!((horizon - HORIZON).abs() < 0.03, "horizon {horizon}");
    let depth = |x, y| scene.quarter_at(&scene.background.disparity, x, y);
    assert!(depth(640, 100) < 0.1, "sky at {}", depth(640, 100));
    assert!(depth(640, 470) < depth(640, 560) && depth(640, 560) < depth(640, 700));
    let grass = scene.regions.vegetation.as_ref().unwrap();
    let mean = |rows: std::ops::Range<u32>| {
        let cells = rows.clone().flat_map(|y| (0..1280).map(move |x| (x, y)));
        cells.map(|(x, y)| scene.half_at(grass, x, y)).sum::<f32>() / (rows.len() * 1280) as f32
    };
    assert!(mean(480..720) > 0.7 && mean(0..400) < 0.05, "{} {}", mean(480..720), mean(0..400));
}

#[test]
fn a_lake_is_found_below_its_waterline() {
    let lake = |x: u32, y: u32| y > 470 && !(x > 900 && y > 600);
    let scene = analyzed(&drawn(|x, y| {
        let v = y as f32 / 720.0;
        if y < 400 {
            [150.0 + 40.0 * v, 185.0 + 40.0 * v, 240.0]
        } else if !lake(x, y) {
            let t = 30.0 * texture(x, y, 3);
            [60.0 + t, 85.0 + t, 40.0 + t]
        } else {
            // Long low ripples.
            let t = 6.0 * noise(x / 40, y / 4, 8);
            [95.0 + t, 135.0 + t, 175.0 + t]
        }
    }));
    let water = scene.regions.water.as_ref().unwrap();
    let iou = overlap(lake, |x, y| scene.half_at(water, x, y) > 0.5);
    assert!(iou > 0.85, "water overlap {iou}");
}

#[test]
fn pictures_without_a_subject_are_not_cut() {
    let white_noise = drawn(|x, y| [0, 1, 2].map(|c| 128.0 + 120.0 * noise(x, y, c)));
    let blotches = drawn(|x, y| [0, 1, 2].map(|c| 128.0 + 120.0 * texture(x / 3, y / 3, 10 * c)));
    let shade = drawn(|x, y| [x as f32 / 6.0, y as f32 / 4.0, 90.0]);
    let glow = drawn(|x, y| {
        let d = ((x as f32 - 640.0) / 250.0).hypot((y as f32 - 360.0) / 250.0);
        [60.0 + 150.0 * (-d * d).exp(), 50.0 + 90.0 * (-d * d).exp(), 60.0]
    });
    for (name, picture) in [("noise", white_noise), ("blotches", blotches), ("shade", shade), ("glow", glow)]
    {
        let scene = analyzed(&picture);
        assert!(scene.foreground.is_none(), "{name}: {:?}", scene.found.subject);
    }
}

#[test]
fn the_layers_at_rest_are_the_picture() {
    for with_subject in [true, false] {
        let fitted = fit(&landscape(with_subject));
        let scene = analyze(&fitted, &Unwatched).unwrap();
        assert_eq!(scene.foreground.is_some(), with_subject);
        scene.assert_sound();
        scene.assert_identity(&fitted);
    }
}

#[test]
fn the_margin_continues_the_picture() {
    let scene = analyzed(&landscape(false));
    let (width, mx, my) = (scene.canvas.width_px, scene.canvas.margin_x_px, scene.canvas.margin_y_px);
    let at = |x: usize, y: usize| &scene.background.rgb[(y * width + x) * 3..][..3];
    // Sky goes on as sky and grass as grass, up to the canvas's corners.
    for x in [2, width - 3] {
        assert!(at(x, 2)[2] > 200 && at(x, my + 200)[2] > 200, "{:?}", at(x, 2));
        let grass = at(x, scene.canvas.height_px - 3);
        assert!(grass[1] > grass[2], "{grass:?}");
    }
    // Across the seam the picture changes as little as it does inside.
    let step = |x: usize| -> f32 {
        let difference =
            |y: usize| (0..3).map(|c| f32::from(at(x, y)[c].abs_diff(at(x + 1, y)[c]))).sum::<f32>();
        (my..my + 700).map(difference).sum()
    };
    let inside = (step(mx + 20) + step(mx + 31) + step(mx + 52)) / 3.0;
    let seam = step(mx - 1);
    assert!(seam < 2.0 * inside, "{seam} at the seam, {inside} inside");
}

#[test]
fn a_calm_margin_goes_on_with_the_slope_it_had() {
    const SLOPE: f32 = 0.12;
    let fitted = fit(&drawn(|x, y| [30.0 + SLOPE * x as f32, 40.0 + 0.1 * y as f32, 90.0]));
    let canvas = Canvas::around(&fitted);
    let (width, mx, my) = (canvas.width_px, canvas.margin_x_px, canvas.margin_y_px);
    // Red from the rim to 40 pixels beyond it: a mirror image would turn back.
    let rise = |rgb: &[u8], rim: usize, beyond: usize| {
        let red = |x: usize| -> f32 { (my..my + 600).map(|y| f32::from(rgb[(y * width + x) * 3])).sum() };
        (red(beyond) - red(rim)) / 600.0
    };
    let sides = |rgb: &[u8]| [rise(rgb, width - mx - 1, width - mx + 39), rise(rgb, mx - 40, mx)];
    let wanted = SLOPE * 40.0;
    let [right, left] = sides(&canvas.outpainted(&fitted));
    for rise in [right, left] {
        assert!((0.6 * wanted..1.3 * wanted).contains(&rise), "{rise} levels instead of {wanted}");
    }
    let [right, left] = sides(&canvas.mirrored(&fitted));
    assert!(right < 0.0 && left < 0.0, "a mirror's crease went unnoticed: {right}, {left}");
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let fitted = fit(&landscape(true));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| analyze(&fitted, &Unwatched).unwrap())
    };
    let (one, three) = (on(1), on(3));
    assert_eq!(one.background.rgb, three.background.rgb);
    assert_eq!(one.background.disparity, three.background.disparity);
    let (f, g) = (one.foreground.unwrap(), three.foreground.unwrap());
    assert_eq!((f.rgba, f.disparity), (g.rgba, g.disparity));
    assert_eq!(one.regions.sky, three.regions.sky);
    assert_eq!(one.found, three.found);
}

#[test]
fn any_size_and_any_plain_colour_will_do() {
    for (width, height) in [(1, 1), (2, 700), (700, 2), (17, 5), (640, 1480)] {
        for color in [[0, 0, 0], [255, 255, 255], [10, 200, 90]] {
            let fitted = fit(&uniform(width, height, color));
            assert!(fitted.rgb().chunks_exact(3).all(|p| p == color), "{width}x{height}");
            let scene = analyze(&fitted, &Unwatched).unwrap();
            scene.assert_sound();
            assert!(scene.foreground.is_none());
            assert!(scene.background.rgb.chunks_exact(3).all(|p| p == color), "{width}x{height}");
        }
    }
}

#[test]
fn cancelling_ends_the_analysis_between_stages() {
    let fitted = fit(&landscape(true));
    for stages in 0..5 {
        let monitor = CancelsAt(stages.into());
        assert!(matches!(analyze(&fitted, &monitor), Err(EngineError::Cancelled)), "after {stages}");
    }
}

/// [`landscape`] with a dark mast on the subject's head.
fn with_mast() -> Picture {
    let plain = landscape(true);
    drawn(|x, y| {
        let pixel = &plain.rgb()[((y * 1280 + x) * 3) as usize..][..3];
        let is_mast = (555..567).contains(&x) && (110..176).contains(&y);
        if is_mast { [35.0, 30.0, 40.0] } else { [0, 1, 2].map(|c| f32::from(pixel[c])) }
    })
}

#[test]
fn a_mast_belongs_to_what_it_stands_on_and_not_to_the_sky() {
    let sight = Sight::of(&fit(&with_mast()));
    let (width, height) = (sight.study.width as f32, sight.study.height as f32);
    let at = |map: &Map, x: f32, y: f32| map.at((x / 1280.0 * width) as usize, (y / 720.0 * height) as usize);
    let subject = sight.subject.expect("a red thing before a blue sky is cut out");
    for y in [120.0, 140.0, 160.0] {
        assert!(at(&sight.sky.mask, 561.0, y) < 0.5, "the sky holds the mast at {y}");
        assert!(at(&subject.mask, 561.0, y) > 0.5, "the subject lost its mast at {y}");
        assert!(at(&sight.sky.mask, 700.0, y) > 0.5, "beside the mast is sky");
    }
}

#[test]
fn without_a_subject_depth_has_no_steps() {
    let sight = Sight::of(&fit(&landscape(false)));
    assert!(sight.subject.is_none());
    let depth = &sight.background;
    let steepest = (1..depth.height)
        .flat_map(|y| (1..depth.width).map(move |x| (x, y)))
        .map(|(x, y)| {
            (depth.at(x, y) - depth.at(x - 1, y)).abs().max((depth.at(x, y) - depth.at(x, y - 1)).abs())
        })
        .fold(0.0, f32::max);
    assert!(steepest < 0.02, "{steepest}");
    assert!(depth.at(10, depth.height - 5) > depth.at(10, 5) + 0.2, "and yet the ground comes nearer");
}
