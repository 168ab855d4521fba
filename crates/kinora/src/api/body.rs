//! Request bodies: read within a size and a time, then parsed as JSON whatever their label says.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};

use super::{ApiError, AppState};
use crate::submission::FieldError;

/// Base64 of the largest picture with line breaks, beside two prompts.
const JSON_BYTES_MAX: usize = 16 << 20;
/// A body over its limit is read on to here, and thrown away: a client that is still sending would not see the answer.
const DRAINED_BYTES_MAX: usize = 64 << 20;
/// A caller slower than this is not served.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit_bytes`.
pub async fn read(request: Request, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > DRAINED_BYTES_MAX) {
        return Err(ApiError::BodyTooLarge { limit_bytes });
    }
    let expected_bytes = announced.unwrap_or(0).min(limit_bytes);
    let reading = read_on(request.into_body(), limit_bytes, expected_bytes);
    tokio::time::timeout(READ_TIME_MAX, reading).await.unwrap_or(Err(ApiError::BodyBroken))
}

async fn read_on(mut body: Body, limit_bytes: usize, expected_bytes: usize) -> Result<Bytes, ApiError> {
    let mut kept = BytesMut::with_capacity(expected_bytes);
    let mut seen_bytes = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|_| ApiError::BodyBroken)?.into_data().unwrap_or_default();
        seen_bytes += data.len();
        if seen_bytes <= limit_bytes {
            kept.extend_from_slice(&data);
        } else {
            kept = BytesMut::new();
        }
        if seen_bytes > DRAINED_BYTES_MAX {
            break;
        }
    }
    if seen_bytes > limit_bytes { Err(ApiError::BodyTooLarge { limit_bytes }) } else { Ok(kept.freeze()) }
}

/// A JSON object.
#[derive(Debug)]
pub struct JsonObject(pub Map<String, Value>);

impl FromRequest<AppState> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, ApiError> {
        let bytes = read(request, JSON_BYTES_MAX).await?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(ApiError::Json("it must be an object".to_owned())),
            Err(error) => Err(ApiError::Json(error.to_string())),
        }
    }
}

impl JsonObject {
    /// A required, non-empty string.
    pub fn string(&self, field: &'static str) -> Result<&str, FieldError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Err(FieldError::new(field, format!("{field} is required"))),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim()),
            Some(Value::String(_)) => Err(FieldError::new(field, format!("{field} is empty"))),
            Some(_) => Err(FieldError::new(field, format!("{field} must be a string"))),
        }
    }
}
