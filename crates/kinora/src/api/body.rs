//! Request bodies: read within a size and a time, then parsed as JSON whatever their label says.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::{ApiError, AppState};
use crate::submission::FieldError;

/// Base64 of the largest picture with line breaks, beside two prompts.
const JSON_BYTES_MAX: usize = 16 << 20;
/// A caller slower than this is not served.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit_bytes`.
pub async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let reading = Limited::new(body, limit_bytes).collect();
    match tokio::time::timeout(READ_TIME_MAX, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge { limit_bytes }),
        Ok(Err(_)) | Err(_) => Err(ApiError::BodyBroken),
    }
}

/// Refuses a body whose announced length is over the limit before reading any of it.
pub fn check_announced(request: &Request, limit_bytes: usize) -> Result<(), ApiError> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit_bytes as u64) {
        return Err(ApiError::BodyTooLarge { limit_bytes });
    }
    Ok(())
}

/// A JSON object.
#[derive(Debug)]
pub struct JsonObject(pub Map<String, Value>);

impl FromRequest<AppState> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, ApiError> {
        check_announced(&request, JSON_BYTES_MAX)?;
        let bytes = read(request.into_body(), JSON_BYTES_MAX).await?;
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
