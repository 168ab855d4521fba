//! Shortcuts of the second kind of VAE: averages on the way down, copies on the way up. They have no weights.

use candle_core::Tensor;

use crate::WanError;

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

/// Copies of one frame's channels spread over time and space, `x` `[1, C, H, W]` to frames of `[1, O, H·s, W·s]`.
///
/// A clip's first chunk has only the last of them.
pub(super) fn copy_up(
    x: &Tensor,
    outputs: usize,
    [time, space]: [usize; 2],
    first: bool,
) -> Result<Vec<Tensor>, WanError> {
    let (_, channels, height, width) = x.dims4()?;
    let repeats = outputs * time * space * space / channels;
    let copies = x.reshape((channels, 1, height, width))?.repeat((1, repeats, 1, 1))?; // every channel in a row
    let split = copies.reshape(&[outputs, time, space, space, height, width][..])?;
    let skipped = if first { time - 1 } else { 0 };
    (skipped..time)
        .map(|step| {
            let frame = split.narrow(1, step, 1)?.squeeze(1)?; // [O, s, s, H, W]
            let spread = frame.permute([0, 3, 1, 4, 2])?;
            Ok(spread.reshape((1, outputs, height * space, width * space))?)
        })
        .collect()
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
