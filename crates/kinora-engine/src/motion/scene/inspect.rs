//! Pictures of what the analysis found, for people who tune it or wonder at a clip.
//!
//! Not here: anything the engine itself needs.

use super::{Foreground, Map, Scene};
use crate::{EngineError, Monitor, Picture};

/// One thing to look at.
#[derive(Debug, Clone)]
pub struct SceneView {
    pub name: &'static str,
    pub picture: Picture,
}

/// The fitted picture's scene as pictures: layers, disparities and regions, with what was found as JSON.
///
/// Costs as much as the analysis itself. Fails as it does: only when cancelled.
pub fn scene_views(
    picture: &Picture,
    monitor: &dyn Monitor,
) -> Result<(Vec<SceneView>, serde_json::Value), EngineError> {
    let fitted = super::fit(picture);
    let scene = super::analyze(&fitted, monitor)?;
    let sight = super::Sight::of(&fitted);
    let mut views = vec![SceneView { name: "picture", picture: fitted }];
    if let Some(cutout) = &sight.cutout {
        views.push(SceneView { name: "cutout", picture: grey(&cutout.mask) });
    }
    views.push(SceneView { name: "sky mask", picture: grey(&sight.sky.mask) });
    let size = (scene.canvas.width_px, scene.canvas.height_px);
    views.push(SceneView { name: "background", picture: rgb_picture(size, scene.background.rgb.clone()) });
    views.push(SceneView { name: "background disparity", picture: grey(&scene.background.disparity) });
    if let Some(foreground) = &scene.foreground {
        views.push(SceneView { name: "foreground", picture: over_grey(size, foreground) });
        views.push(SceneView { name: "foreground disparity", picture: grey(&foreground.disparity) });
    }
    views.extend(regions(&scene));
    let mut found = serde_json::to_value(&scene.found)
        .map_err(|e| EngineError::Permanent(format!("describing the scene: {e}")))?;
    found["region_horizon"] = scene.regions.horizon.into();
    found["output_px"] = serde_json::json!(super::output_size(picture.width_px(), picture.height_px()));
    Ok((views, found))
}

fn regions(scene: &Scene) -> Vec<SceneView> {
    let regions = &scene.regions;
    [
        ("sky", &regions.sky),
        ("water", &regions.water),
        ("stream", &regions.stream),
        ("vegetation", &regions.vegetation),
        ("lights", &regions.lights),
        ("hair", &regions.hair),
        ("cloth", &regions.cloth),
        ("fire", &regions.fire),
    ]
    .into_iter()
    .filter_map(|(name, map)| Some(SceneView { name, picture: grey(map.as_ref()?) }))
    .collect()
}

fn grey(map: &Map) -> Picture {
    let rgb = map.data.iter().flat_map(|v| [(v.clamp(0.0, 1.0) * 255.0).round() as u8; 3]).collect();
    rgb_picture((map.width, map.height), rgb)
}

/// The foreground over middle grey, its bounds drawn in red.
fn over_grey((width, height): (usize, usize), foreground: &Foreground) -> Picture {
    let one = f32::from(Foreground::ONE);
    let mut rgb: Vec<u8> = foreground
        .rgba
        .chunks_exact(4)
        .flat_map(|p| {
            let rest = 128.0 * (1.0 - f32::from(p[3]) / one);
            [0, 1, 2].map(|c| (f32::from(p[c]) / one * 255.0 + rest).round().clamp(0.0, 255.0) as u8)
        })
        .collect();
    for y in foreground.y0_px..foreground.y1_px {
        for x in [foreground.x0_px, foreground.x1_px - 1] {
            rgb[(y * width + x) * 3..][..3].copy_from_slice(&[255, 0, 0]);
        }
    }
    for x in foreground.x0_px..foreground.x1_px {
        for y in [foreground.y0_px, foreground.y1_px - 1] {
            rgb[(y * width + x) * 3..][..3].copy_from_slice(&[255, 0, 0]);
        }
    }
    rgb_picture((width, height), rgb)
}

fn rgb_picture((width, height): (usize, usize), rgb: Vec<u8>) -> Picture {
    Picture::new(width as u32, height as u32, rgb).expect("a view holds exactly its pixels")
}
