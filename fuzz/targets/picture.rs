//! A picture's bytes: refused, or decoded to exactly what was announced, within the memory that `scripts/fuzz` allows.
#![no_main]

use kinora_media::PictureLimits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Small pictures say as much as large ones, and sooner; how many pixels are too many is asked as in the product.
    let limits = PictureLimits { side_min_px: 1, ratio_max: 100.0, ..PictureLimits::default() };
    let Ok(info) = limits.inspect(bytes) else { return };
    if let Ok(decoded) = limits.decode(bytes) {
        let size = (decoded.picture.width_px(), decoded.picture.height_px());
        assert_eq!(size, (info.width_px, info.height_px), "as it was announced");
    }
});
