//! What is done to the stage or to the plan on purpose, so that each check is seen to notice.
//!
//! Always true: nothing here is reached from outside the tests, and the engine has no switch for it; scene and
//! plan are plain data, so a stage that fails is one whose result is replaced.

use super::super::prompt::{CameraMove, Move, Plan};
use super::super::scene::{Foreground, Map, Scene};

fn each_disparity(scene: &mut Scene, change: impl Fn(usize, f32) -> f32) {
    let maps = std::iter::once(&mut scene.background.disparity)
        .chain(scene.foreground.as_mut().map(|foreground| &mut foreground.disparity));
    for map in maps {
        map.data.iter_mut().enumerate().for_each(|(cell, d)| *d = change(cell, *d));
    }
}

/// Depth that tells nothing apart.
pub(super) fn flat(scene: &mut Scene) {
    each_disparity(scene, |_, _| 0.5);
}

/// Near is far.
pub(super) fn inside_out(scene: &mut Scene) {
    each_disparity(scene, |_, d| 1.0 - d);
}

/// The subject as near as anything can be, and all behind it infinitely far.
pub(super) fn torn_apart(scene: &mut Scene) {
    scene.background.disparity.data.fill(0.0);
    if let Some(foreground) = &mut scene.foreground {
        foreground.disparity.data.fill(1.0);
    }
}

/// Depth guessed anew for each frame.
pub(super) fn boiling(scene: &mut Scene, index: usize) {
    each_disparity(scene, |cell, d| d + if (cell * 31 + index * 17).is_multiple_of(5) { 0.3 } else { 0.0 });
}

/// Exposure guessed anew for each frame.
pub(super) fn pulsing(scene: &mut Scene, index: usize) {
    if index.is_multiple_of(2) {
        scene.background.rgb.iter_mut().for_each(|v| *v = v.saturating_sub(2));
    }
}

/// No texture continued into the margin.
pub(super) fn black_margin(scene: &mut Scene) {
    let canvas = scene.canvas;
    for (at, pixel) in scene.background.rgb.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (x, y) = (at % canvas.width_px, at / canvas.width_px);
        let inside = (canvas.margin_x_px..canvas.width_px - canvas.margin_x_px).contains(&x)
            && (canvas.margin_y_px..canvas.height_px - canvas.margin_y_px).contains(&y);
        if !inside {
            *pixel = [0; 3];
        }
    }
}

/// The fitted picture one pixel to the right of its place.
pub(super) fn shifted(scene: &mut Scene) {
    scene.background.rgb.rotate_right(3);
}

/// One level off in one pixel.
pub(super) fn one_level_off(scene: &mut Scene) {
    let canvas = scene.canvas;
    let at = (canvas.height_px / 4 * canvas.width_px + canvas.width_px / 4) * 3;
    scene.background.rgb[at] ^= 1;
}

/// No outline: the subject takes the box around itself with it.
pub(super) fn no_matte(scene: &mut Scene) {
    let width = scene.canvas.width_px;
    let Some(foreground) = &mut scene.foreground else { return };
    let (rows, columns) = (foreground.y0_px..foreground.y1_px, foreground.x0_px..foreground.x1_px);
    for at in rows.flat_map(|y| columns.clone().map(move |x| y * width + x)) {
        let over = &mut foreground.rgba[at * 4..][..4];
        let through = f32::from(Foreground::ONE - over[3]) / 255.0;
        for (over, &level) in over.iter_mut().zip(&scene.background.rgb[at * 3..at * 3 + 3]) {
            *over += (through * f32::from(level)) as i16;
        }
        over[3] = Foreground::ONE;
    }
}

/// Nothing filled in behind the subject: it stays painted on the background.
pub(super) fn unfilled(scene: &mut Scene) {
    let Some(foreground) = &scene.foreground else { return };
    let pixels =
        scene.background.rgb.as_chunks_mut::<3>().0.iter_mut().zip(foreground.rgba.as_chunks::<4>().0);
    for (pixel, over) in pixels {
        let through = f32::from(Foreground::ONE - over[3]) / f32::from(Foreground::ONE);
        for c in 0..3 {
            pixel[c] = (f32::from(over[c]) / 64.0 + through * f32::from(pixel[c])) as u8;
        }
    }
}

/// The subject white on black: a picture of where it is.
pub(super) fn silhouette(scene: &mut Scene) {
    scene.background.rgb.fill(0);
    if let Some(foreground) = &mut scene.foreground {
        for over in foreground.rgba.as_chunks_mut::<4>().0 {
            *over = [over[3]; 4];
        }
    }
}

/// Regions that end nowhere.
pub(super) fn leaking(scene: &mut Scene) {
    let regions = &mut scene.regions;
    let masks = [&mut regions.sky, &mut regions.water, &mut regions.stream, &mut regions.vegetation];
    masks.into_iter().flatten().for_each(|mask: &mut Map| mask.data.fill(1.0));
}

/// A map's value that is no number.
pub(super) fn no_number(map: &mut Map) {
    let middle = map.data.len() / 2 + map.width / 3;
    map.data[middle] = f32::NAN;
}

/// Every move the other way.
pub(super) fn turned_round(plan: &mut Plan) {
    plan.camera.iter_mut().for_each(|planned| planned.amount = -planned.amount);
}

/// Words that say how fast and how far are not heard.
pub(super) fn deaf_to_haste(plan: &mut Plan) {
    plan.camera.iter_mut().for_each(|planned| planned.amount = planned.amount.signum());
}

/// What was denied comes all the same.
pub(super) fn pushing_anyway(plan: &mut Plan) {
    plan.camera = vec![CameraMove { kind: Move::Push, amount: 0.6, start: 0.0, end: 1.0, prompted: false }];
}

/// Chance where the words leave none.
pub(super) fn drifting_anyway(plan: &mut Plan) {
    (plan.drift, plan.cfg_scale) = (true, 0.0);
}

/// The move is over after half of the clip.
pub(super) fn ending_early(plan: &mut Plan) {
    plan.camera.iter_mut().for_each(|planned| planned.end = 0.5);
}
