//! Decoding in overlapping tiles: every tile is a clip of its own with its own past, and neighbours are blended where
//! they overlap, so the working memory is that of one tile.
//!
//! Attention in the narrowest part sees its tile only, so tiled frames differ from whole ones; the reference's tiled
//! decoder gives the same numbers.
//! Source: `AutoencoderKLWan.tiled_decode` of the diffusers library.

use candle_core::Tensor;

use super::config::VaeConfig;
use crate::WanError;

/// How a frame is cut up, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows and columns of a tile.
    pub tile: usize,
    /// From one tile's start to the next one's.
    pub stride: usize,
}

/// Of a tile's side, the part that the next tile begins after, in quarters: the reference's 192 of 256 pixels.
const STRIDE_QUARTERS: usize = 3;

impl Tiling {
    /// Tiles of `tile` pixels that overlap by a quarter; both sizes are whole latent pixels.
    pub fn of_size(tile: usize, config: &VaeConfig) -> Result<Self, WanError> {
        let scale = config.scale_factor_spatial;
        let least = 2 * scale;
        if tile < least || !tile.is_multiple_of(scale) {
            return Err(WanError::Request(format!(
                "the VAE's tile must be a multiple of {scale} pixels and at least {least}, not {tile}"
            )));
        }
        let stride = (tile / scale * STRIDE_QUARTERS / 4).max(1) * scale;
        Ok(Self { tile, stride })
    }

    /// Starts and sizes along a side of `length` latent pixels.
    pub(super) fn cuts(&self, length: usize, scale: usize) -> Vec<(usize, usize)> {
        let (tile, stride) = (self.tile / scale, self.stride / scale);
        (0..length).step_by(stride).map(|start| (start, tile.min(length - start))).collect()
    }
}

/// Blends rows of tiles into one frame chunk `[T, C, H, W]`: `stride` and `overlap` in pixels of the tiles.
pub(super) fn join(
    rows: Vec<Vec<Tensor>>,
    stride: usize,
    overlap: usize,
    [height, width]: [usize; 2],
) -> Result<Tensor, WanError> {
    let mut above: Option<Vec<Tensor>> = None;
    let mut strips = Vec::new();
    for row in rows {
        let mut blended: Vec<Tensor> = Vec::with_capacity(row.len());
        for (column, tile) in row.into_iter().enumerate() {
            let tile = match &above {
                Some(above) => blend(&above[column], &tile, 2, overlap)?,
                None => tile,
            };
            let tile = match blended.last() {
                Some(left) => blend(left, &tile, 3, overlap)?,
                None => tile,
            };
            blended.push(tile);
        }
        let cut: Vec<_> = blended.iter().map(|tile| crop(tile, [stride; 2])).collect::<Result<_, _>>()?;
        strips.push(Tensor::cat(&cut, 3)?);
        above = Some(blended);
    }
    crop(&Tensor::cat(&strips, 2)?, [height, width])
}

fn crop(x: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor, WanError> {
    let (_, _, rows, columns) = x.dims4()?;
    Ok(x.narrow(2, 0, height.min(rows))?.narrow(3, 0, width.min(columns))?)
}

/// `tile` whose first rows (side 2) or columns (side 3) fade over from the last ones of `before`.
fn blend(before: &Tensor, tile: &Tensor, side: usize, overlap: usize) -> Result<Tensor, WanError> {
    let overlap = overlap.min(before.dim(side)?).min(tile.dim(side)?);
    if overlap == 0 {
        return Ok(tile.clone());
    }
    let share: Vec<f32> = (0..overlap).map(|at| at as f32 / overlap as f32).collect();
    let mut shape = [1; 4];
    shape[side] = overlap;
    let share = Tensor::from_vec(share, &shape[..], tile.device())?.to_dtype(tile.dtype())?;
    let (old, new) =
        (before.narrow(side, before.dim(side)? - overlap, overlap)?, tile.narrow(side, 0, overlap)?);
    let faded = (old.broadcast_mul(&share.affine(-1.0, 1.0)?)? + new.broadcast_mul(&share)?)?;
    let rest = tile.narrow(side, overlap, tile.dim(side)? - overlap)?;
    Ok(Tensor::cat(&[&faded, &rest], side)?)
}
