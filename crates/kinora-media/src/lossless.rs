//! A frame as a PNG, every pixel as it is.

use kinora_engine::Picture;

/// `picture` as an 8-bit sRGB PNG.
pub fn lossless_png(picture: &Picture) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width_px(), picture.height_px());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.rgb())?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use kinora_engine::Picture;

    #[test]
    fn every_pixel_comes_back() {
        let picture = Picture::new(5, 3, (0..45).map(|at| at * 5).collect()).unwrap();
        let png = super::lossless_png(&picture).unwrap();
        let back = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!((back.dimensions(), back.as_raw().as_slice()), ((5, 3), picture.rgb()));
    }
}
