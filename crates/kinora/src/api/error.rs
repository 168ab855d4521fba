//! Every error the API answers: status, stable code, sentence, field. One table, held by `docs/API.md`.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::types::ErrorBody;
use crate::artifacts::ArtifactError;
use crate::intake::IntakeError;
use crate::jobs::{Refused, Status, StoreError, SubmitError};
use crate::submission::FieldError;
use crate::telemetry;

/// What of a caller's own words is said back.
const ECHOED_CHARS_MAX: usize = 100;
/// How long a caller who met a full queue should wait.
const QUEUE_RETRY_S: u32 = 10;
const STORE_RETRY_S: u32 = 2;

/// What went wrong with an HTTP request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("an API key is required: send the header Authorization: Bearer KEY")]
    KeyMissing,
    #[error("the API key is unknown or revoked")]
    KeyUnknown,
    #[error("X-Organization-ID must be the organisation that the API key belongs to")]
    WrongOrganisation,
    #[error("there is no such path; see /docs for the operations")]
    NoSuchPath,
    #[error("this path does not take that method; the Allow header lists those it takes")]
    WrongMethod,
    #[error("there is no model `{0}`; GET models lists those served")]
    NoSuchModel(String),
    #[error("there is no request `{0}`")]
    NoSuchRequest(String),
    #[error("there is no such file, or its address has expired")]
    NoSuchFile,
    #[error("{0}")]
    Field(#[from] FieldError),
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    #[error("the body must be at most {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    #[error("the body could not be read to its end in time")]
    BodyBroken,
    #[error("the request has already ended as `{0}`, so it cannot be cancelled")]
    AlreadyEnded(Status),
    #[error("{0}; wait for some to finish, or cancel some")]
    QueueFull(SubmitError),
    #[error("more than {per_second} requests a second with this API key")]
    TooFast { per_second: u32, retry_after_s: u32 },
    #[error("the upload grant is void: {0}; ask for a new one with POST upload-url")]
    Grant(&'static str),
    #[error("the store is unavailable; nothing was accepted, try again")]
    Unavailable,
    #[error("the server made a mistake; its log says more")]
    Internal,
}

impl ApiError {
    pub fn no_such_model(name: &str) -> Self {
        Self::NoSuchModel(shortened(name))
    }

    pub fn no_such_request(id: &str) -> Self {
        Self::NoSuchRequest(shortened(id))
    }

    /// Status and stable code.
    pub fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::KeyMissing => (StatusCode::UNAUTHORIZED, "key_missing"),
            Self::KeyUnknown => (StatusCode::UNAUTHORIZED, "key_unknown"),
            Self::WrongOrganisation => (StatusCode::FORBIDDEN, "wrong_organisation"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
            Self::NoSuchModel(_) => (StatusCode::NOT_FOUND, "no_such_model"),
            Self::NoSuchRequest(_) => (StatusCode::NOT_FOUND, "no_such_request"),
            Self::NoSuchFile => (StatusCode::NOT_FOUND, "no_such_file"),
            Self::Field(_) => (StatusCode::BAD_REQUEST, "bad_field"),
            Self::Json(_) => (StatusCode::BAD_REQUEST, "bad_json"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyBroken => (StatusCode::REQUEST_TIMEOUT, "body_broken"),
            Self::AlreadyEnded(_) => (StatusCode::CONFLICT, "already_ended"),
            Self::QueueFull(_) => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            Self::TooFast { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_fast"),
            Self::Grant(_) => (StatusCode::FORBIDDEN, "grant_void"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::QueueFull(_) => Some(QUEUE_RETRY_S),
            Self::TooFast { retry_after_s, .. } => Some(*retry_after_s),
            Self::Unavailable => Some(STORE_RETRY_S),
            _ => None,
        }
    }

    fn field(&self) -> Option<&'static str> {
        match self {
            Self::Field(wrong) => Some(wrong.field),
            Self::NoSuchModel(_) => Some("model"),
            _ => None,
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ECHOED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let body = ErrorBody { error: self.to_string(), code, field: self.field() };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "api.store_failed");
        telemetry::store_failed();
        Self::Unavailable
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        tracing::error!(%error, "api.artifact_failed");
        telemetry::artifact_failed();
        Self::Unavailable
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        telemetry::refused();
        Self::QueueFull(error)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Ended(status) => Self::AlreadyEnded(status),
            Refused::StaleAttempt | Refused::NotQueued => {
                tracing::error!(%refused, "api.unexpected_refusal");
                Self::Internal
            }
        }
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Store(error) => error.into(),
            IntakeError::Artifact(error) => error.into(),
            IntakeError::Fetch(error) => {
                telemetry::fetch_failed();
                FieldError::new("image", error.to_string()).into()
            }
            IntakeError::Picture(_) | IntakeError::Capability(_) | IntakeError::Unusable(_) => {
                FieldError::new("image", error.to_string()).into()
            }
        }
    }
}
