use super::*;

struct Quiet;

impl Monitor for Quiet {
    fn progress(&self, _: Progress) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}

struct CancelledAlready;

impl Monitor for CancelledAlready {
    fn progress(&self, _: Progress) {}
    fn is_cancelled(&self) -> bool {
        true
    }
}

fn uniform(width_px: u32, height_px: u32, rgb: [u8; 3]) -> Picture {
    Picture::new(width_px, height_px, rgb.repeat((width_px * height_px) as usize)).unwrap()
}

#[test]
fn the_output_size_keeps_ratio_and_area() {
    assert_eq!(output_size(1920, 1080), (1280, 720));
    assert_eq!(output_size(1080, 1920), (720, 1280));
    assert_eq!(output_size(1, 1), (960, 960));
    for (w, h) in [(4000, 3000), (1, 1000), (1000, 1), (333, 777), (65535, 3)] {
        let (ow, oh) = output_size(w, h);
        assert_eq!((ow % 16, oh % 16), (0, 0));
        let area = f64::from(ow) * f64::from(oh) / FRAME_AREA;
        assert!((0.95..1.05).contains(&area), "{w}x{h} gives {ow}x{oh}");
    }
}

const FRAME_AREA: f64 = 921_600.0;

#[test]
fn a_picture_of_the_right_size_is_not_touched() {
    let mut rgb = vec![0u8; 1280 * 720 * 3];
    for (i, v) in rgb.iter_mut().enumerate() {
        *v = (i * 7 % 251) as u8;
    }
    let picture = Picture::new(1280, 720, rgb).unwrap();
    assert_eq!(fit(&picture), picture);
}

#[test]
fn a_uniform_picture_stays_uniform_and_finite() {
    let fitted = fit(&uniform(40, 30, [10, 200, 90]));
    assert!(fitted.rgb().chunks_exact(3).all(|p| p == [10, 200, 90]));
    let scene = analyze(&fitted, &Quiet).unwrap();
    assert!(scene.foreground.is_none());
    assert!(scene.background.disparity.data.iter().all(|v| (0.0..=1.0).contains(v)));
    assert!(scene.background.rgb.chunks_exact(3).all(|p| p == [10, 200, 90]));
}

#[test]
fn cancelling_ends_the_analysis() {
    let fitted = fit(&uniform(40, 30, [10, 200, 90]));
    assert!(matches!(analyze(&fitted, &CancelledAlready), Err(EngineError::Cancelled)));
}
