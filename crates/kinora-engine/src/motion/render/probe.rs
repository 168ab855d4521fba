//! For the tests: where pixels come from, and whether everything that a frame is made of is a number.

use super::{Grid, Instant, Renderer, Scratch};

impl Renderer {
    /// Where row `y` of frame `index` comes from, in pixels of the fitted picture.
    pub(crate) fn sources(&self, index: usize, y: usize) -> (Vec<f32>, Vec<f32>) {
        let instants = self.instants(index);
        let mut scratch = Scratch::new(self.frame.width_px);
        let mut plane = |plane: usize, first: usize, step: usize| {
            let mut out = vec![0.0; self.frame.width_px];
            instants[0].back.row(plane, y, &mut scratch.cells, &mut out);
            out.iter_mut().enumerate().for_each(|(x, at)| *at += (first + step * x) as f32);
            out
        };
        (plane(Grid::DX, 0, 1), plane(Grid::DY, y, 0))
    }

    /// What of frame `index` is infinite or no number, if anything is: the pose, a grid of places, or a row of colours.
    pub(crate) fn not_finite(&self, index: usize) -> Option<&'static str> {
        let pose = self.path.at(index as f32);
        let numbers = [pose.tx, pose.ty, pose.tz, pose.px, pose.py, pose.roll, pose.zoom, pose.cover];
        if !numbers.iter().all(|v| v.is_finite()) {
            return Some("the camera's pose");
        }
        self.instants(index).iter().find_map(|instant| self.instant_not_finite(instant))
    }

    fn instant_not_finite(&self, instant: &Instant<'_>) -> Option<&'static str> {
        let is_finite = |grid: &Grid| grid.cells.iter().all(|v| v.is_finite());
        if !is_finite(&instant.back) {
            return Some("where the background comes from");
        }
        if !instant.front.as_ref().is_none_or(is_finite) {
            return Some("where the foreground comes from");
        }
        let mut scratch = Scratch::new(self.frame.width_px);
        let spoilt = (0..self.frame.height_px).any(|y| {
            self.compose(y, instant, &mut scratch);
            !scratch.pixels.as_flattened().iter().all(|v| v.is_finite())
        });
        spoilt.then_some("the colours of a row")
    }
}
