//! The payload of a request: what callers may write, what it means, and what is wrong with it. Serves API and CLI.
//!
//! Lenient where clients in use need it: an optional `null` counts as absent, `duration` may be a number, `cfg_scale` a
//! numeric string, Base64 may be wrapped in a data URI and broken into lines.

use base64_simd::forgiving_decode_to_vec as forgiving_decode;
use kinora_engine::{ClipDuration, GenerateSpec};
use kinora_media::PictureLimits;
use serde_json::{Map, Value};
use url::Url;

/// The longest address of a picture, in characters.
pub const IMAGE_URL_CHARS_MAX: usize = 8192;

/// The longest scheme that is told from Base64, in bytes.
const SCHEME_BYTES_MAX: usize = 32;

/// A field that is missing or wrong, in a sentence for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FieldError {
    pub field: &'static str,
    pub message: String,
}

impl FieldError {
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

/// Where the picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// It came inside the request.
    Inline(Vec<u8>),
    /// It is to be fetched, or lies in the server's own store.
    Url(Url),
}

/// A payload that passed every check but the picture's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    pub image: ImageSource,
    pub prompt: Option<String>,
    pub negative_prompt: Option<String>,
    pub duration: Option<ClipDuration>,
    pub cfg_scale: Option<f32>,
    pub seed: Option<u64>,
}

impl Submission {
    /// Reads a payload. The first wrong field is reported; unknown fields are ignored.
    pub fn parse(payload: &Map<String, Value>) -> Result<Self, FieldError> {
        let given = |name| payload.get(name).filter(|value| !value.is_null());
        let text = |name| given(name).map(|value| parse_prompt(name, value)).transpose();
        Ok(Self {
            prompt: text("prompt")?,
            negative_prompt: text("negative_prompt")?,
            duration: given("duration").map(parse_duration).transpose()?,
            cfg_scale: given("cfg_scale").map(parse_cfg_scale).transpose()?,
            seed: given("seed").map(parse_seed).transpose()?,
            image: parse_image(given("image"))?,
        })
    }

    /// The payload as it is answered: the fields that were given, in canonical form, without an inline picture.
    pub fn to_payload(&self) -> Map<String, Value> {
        let mut payload = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                payload.insert(name.to_owned(), value);
            }
        };
        put("prompt", self.prompt.clone().map(Value::from));
        if let ImageSource::Url(url) = &self.image {
            put("image", Some(url.as_str().into()));
        }
        put("duration", self.duration.map(|duration| duration.seconds().to_string().into()));
        put("negative_prompt", self.negative_prompt.clone().map(Value::from));
        put("cfg_scale", self.cfg_scale.map(|scale| shortest(scale).into()));
        put("seed", self.seed.map(Value::from));
        payload
    }

    /// The engine's view of an accepted payload.
    pub fn spec(payload: &Map<String, Value>, seed: u64) -> Result<GenerateSpec, FieldError> {
        let given = |name| payload.get(name).filter(|value| !value.is_null());
        let text = |name| given(name).map_or(Ok(String::new()), |value| parse_prompt(name, value));
        let defaults = GenerateSpec::default();
        Ok(GenerateSpec {
            prompt: text("prompt")?,
            negative_prompt: text("negative_prompt")?,
            cfg_scale: given("cfg_scale").map_or(Ok(defaults.cfg_scale), parse_cfg_scale)?,
            duration: given("duration").map_or(Ok(defaults.duration), parse_duration)?,
            seed,
        })
    }
}

/// `0.3f32` as `0.3`, not as `0.30000001192092896`.
fn shortest(scale: f32) -> f64 {
    scale.to_string().parse().expect("a printed number parses")
}

/// Checks the length of a prompt or negative prompt.
pub fn check_prompt(field: &'static str, text: &str) -> Result<(), FieldError> {
    let limit = GenerateSpec::PROMPT_CHARS_MAX;
    // Counting stops early: a text of many megabytes costs no more than one just over the limit.
    if text.chars().take(limit + 1).count() > limit {
        return Err(FieldError::new(field, format!("{field} must be at most {limit} characters long")));
    }
    Ok(())
}

/// Checks the range of `cfg_scale`.
pub fn check_cfg_scale(scale: f64) -> Result<f32, FieldError> {
    if (0.0..=1.0).contains(&scale) {
        Ok(scale as f32)
    } else {
        Err(FieldError::new("cfg_scale", "cfg_scale must be a number from 0 to 1"))
    }
}

fn parse_prompt(field: &'static str, value: &Value) -> Result<String, FieldError> {
    let text = value.as_str().ok_or_else(|| FieldError::new(field, format!("{field} must be a string")))?;
    check_prompt(field, text)?;
    Ok(text.to_owned())
}

fn parse_duration(value: &Value) -> Result<ClipDuration, FieldError> {
    let seconds = match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_f64().filter(|s| s.fract() == 0.0).map(|s| s as u32),
        _ => None,
    };
    seconds
        .and_then(ClipDuration::from_seconds)
        .ok_or_else(|| FieldError::new("duration", "duration must be \"5\" or \"10\" (seconds)"))
}

fn parse_cfg_scale(value: &Value) -> Result<f32, FieldError> {
    let scale = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    check_cfg_scale(scale.unwrap_or(f64::NAN))
}

fn parse_seed(value: &Value) -> Result<u64, FieldError> {
    value.as_u64().filter(|seed| *seed <= GenerateSpec::SEED_MAX).ok_or_else(|| {
        FieldError::new("seed", format!("seed must be an integer from 0 to {}", GenerateSpec::SEED_MAX))
    })
}

fn parse_image(value: Option<&Value>) -> Result<ImageSource, FieldError> {
    let wrong = |message: &str| Err(FieldError::new("image", message));
    let Some(value) = value else {
        return wrong("image is required: a JPEG or PNG picture as Base64, data URI or http(s) URL");
    };
    let Some(text) = value.as_str().map(str::trim) else {
        return wrong("image must be a string: Base64, a data URI or an http(s) URL");
    };
    if text.is_empty() {
        return wrong("image is empty; give a JPEG or PNG picture as Base64, data URI or http(s) URL");
    }
    let scheme = scheme_of(text);
    match scheme.as_deref() {
        None => decode_base64(text).map(ImageSource::Inline),
        Some("data") => decode_base64(data_uri_body(text)?).map(ImageSource::Inline),
        Some("http" | "https") => parse_image_url(text).map(ImageSource::Url),
        Some(_) => wrong("image must be Base64, a data URI, or a URL that begins with http:// or https://"),
    }
}

/// What stands before the first colon. Base64 has none, so a picture is not searched to its end.
fn scheme_of(text: &str) -> Option<String> {
    let head = &text.as_bytes()[..text.len().min(SCHEME_BYTES_MAX)];
    let colon = head.iter().position(|byte| *byte == b':')?;
    Some(text[..colon].to_ascii_lowercase())
}

fn parse_image_url(text: &str) -> Result<Url, FieldError> {
    if text.len() > IMAGE_URL_CHARS_MAX {
        let message = format!("image URL must be at most {IMAGE_URL_CHARS_MAX} characters long");
        return Err(FieldError::new("image", message));
    }
    Url::parse(text).map_err(|e| FieldError::new("image", format!("image URL cannot be read: {e}")))
}

/// The Base64 part of `data:image/…;base64,…` (RFC 2397).
fn data_uri_body(text: &str) -> Result<&str, FieldError> {
    let wrong = || {
        FieldError::new(
            "image",
            "image data URI must begin with data:image/jpeg;base64, or data:image/png;base64,",
        )
    };
    let (head, body) = text.split_once(',').ok_or_else(wrong)?;
    let head = head.to_ascii_lowercase();
    let media_type =
        head.strip_prefix("data:").and_then(|rest| rest.strip_suffix(";base64")).ok_or_else(wrong)?;
    let media_type = media_type.split(';').next().unwrap_or_default();
    // The bytes decide what it is; the label only has to be that of a picture.
    if media_type.starts_with("image/") { Ok(body) } else { Err(wrong()) }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, FieldError> {
    let bytes_max = PictureLimits::default().bytes_max;
    let too_large = || FieldError::new("image", format!("image must be at most {bytes_max} bytes (10 MB)"));
    // Twice the encoded length leaves room for line breaks.
    if text.len() / 4 * 3 > bytes_max * 2 {
        return Err(too_large());
    }
    let bytes = forgiving_decode(text.as_bytes()).or_else(|_| decode_url_safe(text)).map_err(|_| {
        FieldError::new("image", "image is neither an http(s) URL nor valid Base64 of a JPEG or PNG picture")
    })?;
    if bytes.len() > bytes_max { Err(too_large()) } else { Ok(bytes) }
}

/// The alphabet of URLs and file names (RFC 4648 section 5).
fn decode_url_safe(text: &str) -> Result<Vec<u8>, base64_simd::Error> {
    forgiving_decode(text.replace('-', "+").replace('_', "/").as_bytes())
}

#[cfg(test)]
mod tests;
