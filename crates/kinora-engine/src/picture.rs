//! A still picture as the engines see it.

/// An 8-bit sRGB picture, rows top to bottom, `[H, W, 3]` interleaved.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width_px: u32,
    height_px: u32,
    rgb: Vec<u8>,
}

/// The pixels given do not make up the size given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a {width_px}x{height_px} picture needs {} bytes of RGB, not {got_bytes}", u64::from(*width_px) * u64::from(*height_px) * 3)]
pub struct PictureError {
    width_px: u32,
    height_px: u32,
    got_bytes: usize,
}

impl Picture {
    /// Wraps `rgb`, which must hold exactly `width_px * height_px * 3` bytes and not be empty.
    pub fn new(width_px: u32, height_px: u32, rgb: Vec<u8>) -> Result<Self, PictureError> {
        let want_bytes = u64::from(width_px) * u64::from(height_px) * 3;
        if want_bytes == 0 || rgb.len() as u64 != want_bytes {
            return Err(PictureError { width_px, height_px, got_bytes: rgb.len() });
        }
        Ok(Self { width_px, height_px, rgb })
    }

    pub fn width_px(&self) -> u32 {
        self.width_px
    }

    pub fn height_px(&self) -> u32 {
        self.height_px
    }

    /// `[H, W, 3]`, sRGB.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width_px, self.height_px)
    }
}
