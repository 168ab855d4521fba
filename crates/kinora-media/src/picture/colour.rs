//! Rows of samples to sRGB: ICC profiles, inks, and what shows through transparent pixels.

use std::sync::Arc;

use moxcms::{ColorProfile, DataColorSpace, Layout, ParsingOptions, Transform8BitExecutor, TransformOptions};

/// The largest profile that is read; those of printers have some 3 MB.
const PROFILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the 8-bit samples of a pixel are, interleaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Samples {
    Luma,
    LumaAlpha,
    Rgb,
    Rgba,
    /// Inks, 0 for none.
    Cmyk,
}

impl Samples {
    pub(super) fn per_pixel(self) -> usize {
        match self {
            Self::Luma => 1,
            Self::LumaAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }

    fn has_alpha(self) -> bool {
        matches!(self, Self::LumaAlpha | Self::Rgba)
    }

    /// The same pixel with its luma three times.
    fn in_colour(self) -> Self {
        match self {
            Self::Luma => Self::Rgb,
            Self::LumaAlpha => Self::Rgba,
            other => other,
        }
    }
}

/// Converts rows of one picture to sRGB.
pub(super) struct ToSrgb {
    samples: Samples,
    profile: Option<Profile>,
    /// A row with its luma in colour.
    coloured: Vec<u8>,
    /// A row out of the profile.
    converted: Vec<u8>,
}

struct Profile {
    /// What it reads: the picture's samples, or these in colour.
    reads: Samples,
    transform: Arc<Transform8BitExecutor>,
}

impl ToSrgb {
    /// Without a usable `icc` profile that fits the samples, they count as sRGB.
    pub(super) fn new(samples: Samples, icc: Option<&[u8]>) -> Self {
        let profile = icc.and_then(|icc| Profile::new(samples, icc));
        Self { samples, profile, coloured: Vec::new(), converted: Vec::new() }
    }

    /// Whether rows of RGB come out as they are.
    pub(super) fn is_identity(&self) -> bool {
        self.samples == Samples::Rgb && self.profile.is_none()
    }

    /// `row` is `[W, samples]`, `rgb` becomes `[W, 3]`.
    pub(super) fn row(&mut self, row: &[u8], rgb: &mut [u8]) {
        let pixels_count = rgb.len() / 3;
        let wants_colour = self.profile.as_ref().is_none_or(|profile| profile.reads != self.samples);
        let coloured = if wants_colour && self.samples.in_colour() != self.samples {
            in_colour(self.samples, row, &mut self.coloured);
            self.coloured.as_slice()
        } else {
            row
        };
        let out_samples = if self.samples.has_alpha() { Samples::Rgba } else { Samples::Rgb };
        let srgb = match &self.profile {
            Some(profile) => {
                self.converted.resize(pixels_count * out_samples.per_pixel(), 0);
                let converted = profile.transform.transform(coloured, &mut self.converted);
                converted.expect("rows in and out have the same number of pixels");
                self.converted.as_slice()
            }
            None => coloured,
        };
        match (self.samples, &self.profile) {
            (Samples::Cmyk, None) => inks_on_paper(srgb, rgb),
            (Samples::LumaAlpha | Samples::Rgba, _) => over_white(srgb, rgb),
            (Samples::Luma | Samples::Rgb | Samples::Cmyk, _) => rgb.copy_from_slice(srgb),
        }
    }
}

impl Profile {
    fn new(samples: Samples, icc: &[u8]) -> Option<Self> {
        let options = ParsingOptions { max_profile_size: PROFILE_BYTES_MAX, ..ParsingOptions::default() };
        let source = ColorProfile::new_from_slice_with_options(icc, options).ok()?;
        let (reads, layout) = match (source.color_space, samples) {
            (DataColorSpace::Gray, Samples::Luma) => (samples, Layout::Gray),
            (DataColorSpace::Gray, Samples::LumaAlpha) => (samples, Layout::GrayAlpha),
            (DataColorSpace::Rgb, Samples::Luma | Samples::Rgb) => (Samples::Rgb, Layout::Rgb),
            (DataColorSpace::Rgb, Samples::LumaAlpha | Samples::Rgba) => (Samples::Rgba, Layout::Rgba),
            // Four samples go by the name of the last, whatever it is.
            (DataColorSpace::Cmyk, Samples::Cmyk) => (samples, Layout::Rgba),
            _ => return None,
        };
        let out_layout = if samples.has_alpha() { Layout::Rgba } else { Layout::Rgb };
        let srgb = ColorProfile::new_srgb();
        let transform = source.create_transform_8bit(layout, &srgb, out_layout, TransformOptions::default());
        Some(Self { reads, transform: transform.ok()? })
    }
}

/// Luma to RGB, luma and alpha to RGBA.
fn in_colour(samples: Samples, row: &[u8], out: &mut Vec<u8>) {
    out.clear();
    if samples == Samples::Luma {
        out.extend(row.iter().flat_map(|luma| [*luma; 3]));
    } else {
        out.extend(row.as_chunks::<2>().0.iter().flat_map(|[luma, alpha]| [*luma, *luma, *luma, *alpha]));
    }
}

/// Inks without a profile: each takes its share of the light.
fn inks_on_paper(cmyk: &[u8], rgb: &mut [u8]) {
    for (cmyk, rgb) in cmyk.as_chunks::<4>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
        let unprinted = cmyk.map(|ink| u32::from(255 - ink));
        for (light, unprinted_colour) in rgb.iter_mut().zip(unprinted) {
            *light = ((unprinted_colour * unprinted[3] + 127) / 255) as u8;
        }
    }
}

/// RGBA over white paper.
fn over_white(rgba: &[u8], rgb: &mut [u8]) {
    for (rgba, rgb) in rgba.as_chunks::<4>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
        let alpha = u32::from(rgba[3]);
        for (out, colour) in rgb.iter_mut().zip(rgba) {
            *out = ((u32::from(*colour) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
}
