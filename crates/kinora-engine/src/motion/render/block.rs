//! Where a block of pixels takes its taps from and how they are weighed, worked out together for the vector fetches.

use super::fetch::clamped;
use super::texture::Texture;

/// Pixels whose places are worked out together.
pub(super) const BLOCK: usize = 16;

/// The first taps and the tap weights of a block's pixels: pixel by pixel within each weight.
#[derive(Default)]
pub(super) struct Block {
    pub(super) first: [usize; BLOCK],
    pub(super) across: [[f32; BLOCK]; 4],
    pub(super) down: [[f32; BLOCK]; 4],
}

impl Block {
    /// The same arithmetic as the plain fetch, over all pixels at once; `x` and `y` are at most a block long.
    #[inline(always)]
    pub(super) fn place<T: Copy + Default>(
        &mut self,
        texture: &Texture<T>,
        coefficients: &[[f32; 4]; 4],
        x: &[f32],
        y: &[f32],
    ) {
        let (limit_x, limit_y) = texture.limits();
        let (mut at_x, mut at_y) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        at_x[..x.len()].copy_from_slice(x);
        at_y[..y.len()].copy_from_slice(y);
        let (mut fraction_x, mut fraction_y) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        for k in 0..BLOCK {
            let (x, y) = (clamped(at_x[k], limit_x), clamped(at_y[k], limit_y));
            let (x0, y0) = (x.floor(), y.floor());
            (fraction_x[k], fraction_y[k]) = (x - x0, y - y0);
            self.first[k] = texture.tap(x0 as i32, y0 as i32);
        }
        let cubic = |tap: usize, f: f32| {
            let [c0, c1, c2, c3] = [0, 1, 2, 3].map(|power: usize| coefficients[power][tap]);
            ((c3 * f + c2) * f + c1) * f + c0
        };
        for tap in 0..4 {
            for k in 0..BLOCK {
                self.across[tap][k] = cubic(tap, fraction_x[k]);
                self.down[tap][k] = cubic(tap, fraction_y[k]);
            }
        }
    }
}
