//! Shortcuts of the second kind of VAE: averages on the way down, copies on the way up. They have no weights.

use candle_core::Tensor;

use crate::WanError;
use crate::ops::Ops;

/// Means over groups of a block's pixels and channels, `x` `[T, C, H, W]` to `[T/t, O, H/s, W/s]`.
///
/// Where T does not divide by `t`, zero frames are put before it, as the reference does with a clip's first frame.
pub(super) fn average_down(
    x: &Tensor,
    outputs: usize,
    [time, space]: [usize; 2],
) -> Result<Tensor, WanError> {
    let missing = x.dim(0)?.next_multiple_of(time) - x.dim(0)?;
    let x = if missing == 0 { x.clone() } else { x.pad_with_zeros(0, missing, 0)? };
    let (count, channels, height, width) = x.dims4()?;
    let (t, h, w) = (count / time, height / space, width / space);
    // [t, time, C, h, space, w, space] → [t, C, time, space, space, h, w]: the order in which channels are grouped.
    let split = x.reshape(&[t, time, channels, h, space, w, space][..])?.permute([0, 2, 1, 4, 6, 3, 5])?;
    let group = channels * time * space * space / outputs;
    Ok(split.reshape((t, outputs, group, h, w))?.mean(2)?)
}

/// Copies of one frame's channels spread over time and space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copies<'a> {
    /// `[1, C, H, W]`.
    pub input: &'a Tensor,
    pub outputs: usize,
    /// Frames that one becomes, and pixels along a side.
    pub factors: [usize; 2],
    pub ops: Ops,
}

impl Copies<'_> {
    /// Frame `index` of the last `count` ones, `[1, O, H·s, W·s]`: a clip's first chunk has only the last of them.
    pub(super) fn frame(&self, index: usize, count: usize) -> Result<Tensor, WanError> {
        let (_, channels, _, _) = self.input.dims4()?;
        let [time, space] = self.factors;
        let repeats = self.outputs * time * space * space / channels;
        let step = time - count + index;
        let source =
            |output: usize, y: usize, x: usize| (((output * time + step) * space + y) * space + x) / repeats;
        self.ops.spread_channels(self.input, self.outputs, space, &source)
    }
}

/// Squares of `side` pixels to channels: `[T, C, H, W]` to `[T, C·side², H/side, W/side]`, columns before rows.
pub(super) fn patchify(x: &Tensor, side: usize) -> Result<Tensor, WanError> {
    let (count, channels, height, width) = x.dims4()?;
    let (h, w) = (height / side, width / side);
    let split = x.reshape((count, channels, h, side, w, side))?.permute([0, 1, 5, 3, 2, 4])?;
    Ok(split.reshape((count, channels * side * side, h, w))?)
}

/// The opposite of [`patchify`].
pub(super) fn unpatchify(x: &Tensor, side: usize) -> Result<Tensor, WanError> {
    let (count, channels, height, width) = x.dims4()?;
    let colours = channels / (side * side);
    let split = x.reshape((count, colours, side, side, height, width))?.permute([0, 1, 4, 3, 5, 2])?;
    Ok(split.reshape((count, colours, height * side, width * side))?)
}
