//! Pictures laid out for fetching: four interleaved channels with a replicated rim.
//!
//! Always true: any tap around a clamped coordinate lies inside the allocation, so the fetch kernels need no
//! bounds checks of their own and nothing beyond the picture's rim can show.

/// Pixels replicated beyond each side. A cubic tap reaches 2 beyond a coordinate clamped to the rim.
pub(crate) const RIM_PX: usize = 4;
/// Elements after the last pixel, so that a whole-vector read of its taps stays inside.
const TAIL: usize = 32;

/// `[H + 2 RIM, W + 2 RIM, 4]`, row-major.
#[derive(Debug)]
pub(crate) struct Texture<T> {
    width_px: usize,
    height_px: usize,
    data: Vec<T>,
}

impl<T: Copy + Default> Texture<T> {
    /// Builds a texture from the pixel at each (x, y).
    pub(crate) fn from_fn(width_px: usize, height_px: usize, pixel: impl Fn(usize, usize) -> [T; 4]) -> Self {
        assert!(width_px > 0 && height_px > 0, "a texture has pixels");
        let (stride, rows) = (width_px + 2 * RIM_PX, height_px + 2 * RIM_PX);
        let mut data = Vec::with_capacity(stride * rows * 4 + TAIL);
        for row in 0..rows {
            let y = row.saturating_sub(RIM_PX).min(height_px - 1);
            for column in 0..stride {
                data.extend(pixel(column.saturating_sub(RIM_PX).min(width_px - 1), y));
            }
        }
        data.resize(stride * rows * 4 + TAIL, T::default());
        Self { width_px, height_px, data }
    }

    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        (self.width_px + 2 * RIM_PX) * 4
    }

    pub(crate) fn data(&self) -> &[T] {
        &self.data
    }

    /// The largest coordinates that [`Self::tap`] accepts; the smallest are -1.
    pub(crate) fn limits(&self) -> (f32, f32) {
        (self.width_px as f32, self.height_px as f32)
    }

    /// Index of the first of the 4x4 taps around the pixel at whole coordinates (x, y), each at least -1 and
    /// at most its limit.
    #[inline(always)]
    pub(crate) fn tap(&self, x: i32, y: i32) -> usize {
        let (column, row) = (x + RIM_PX as i32 - 1, y + RIM_PX as i32 - 1);
        row as usize * self.stride() + column as usize * 4
    }
}
