//! What a file is, by its first bytes.

/// The formats that pictures come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PictureFormat {
    Jpeg,
    Png,
}

impl PictureFormat {
    /// The media type, such as `image/png`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }

    /// The usual ending of a file's name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
        }
    }
}

impl std::fmt::Display for PictureFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
        })
    }
}

pub(super) const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_SIGNATURE: &[u8] = b"\xff\xd8\xff";

/// Signatures at the start of files that people take for pictures.
const OTHERS: [(&[u8], &str); 20] = [
    (b"GIF87a", "a GIF file"),
    (b"GIF89a", "a GIF file"),
    (b"BM", "a BMP file"),
    (b"II*\0", "a TIFF or camera raw file"),
    (b"MM\0*", "a TIFF or camera raw file"),
    (b"II+\0", "a TIFF file"),
    (b"MM\0+", "a TIFF file"),
    (b"\0\0\x01\0", "an icon file"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"qoif", "a QOI file"),
    (b"DDS ", "a DDS file"),
    (b"%PDF-", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
];

/// Brands of the ISO base media format, behind `ftyp`.
const BRANDS: [(&[u8], &str); 8] = [
    (b"avif", "an AVIF file"),
    (b"avis", "an AVIF file"),
    (b"heic", "a HEIC file"),
    (b"heix", "a HEIC file"),
    (b"hevc", "a HEIC file"),
    (b"mif1", "a HEIF file"),
    (b"msf1", "a HEIF file"),
    (b"crx ", "a camera raw file"),
];

/// The format of `bytes`, or what else they are.
pub(super) fn format(bytes: &[u8]) -> Result<PictureFormat, &'static str> {
    if bytes.starts_with(JPEG_SIGNATURE) {
        return Ok(PictureFormat::Jpeg);
    }
    if bytes.starts_with(PNG_SIGNATURE) {
        return Ok(PictureFormat::Png);
    }
    Err(other(bytes))
}

fn other(bytes: &[u8]) -> &'static str {
    if let Some((_, found)) = OTHERS.iter().find(|(signature, _)| bytes.starts_with(signature)) {
        return found;
    }
    if bytes.starts_with(b"RIFF") {
        return if bytes.get(8..12) == Some(b"WEBP") { "a WebP file" } else { "a RIFF file" };
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        let brand = BRANDS.iter().find(|(brand, _)| bytes.get(8..12) == Some(brand));
        return brand.map_or("an MP4 or QuickTime video", |(_, found)| found);
    }
    text(bytes).unwrap_or("of an unknown format")
}

/// Pages and drawings that a wrong URL tends to give.
fn text(bytes: &[u8]) -> Option<&'static str> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).to_ascii_lowercase();
    let head = head.trim_start_matches('\u{feff}').trim_start();
    if head.starts_with("<svg") || (head.starts_with("<?xml") && head.contains("<svg")) {
        return Some("an SVG file");
    }
    if head.starts_with("<!doctype html") || head.starts_with("<html") {
        return Some("a web page");
    }
    if head.starts_with('{') || head.starts_with('[') {
        return Some("JSON text");
    }
    None
}
