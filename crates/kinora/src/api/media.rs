//! Stored files, for whoever holds their address. Ranges, validators and HEAD as in RFC 9110.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::types::ErrorBody;
use super::{ApiError, AppState};
use crate::artifacts::{ArtifactKey, THUMBNAIL, VIDEO};
use crate::capability::Claim;
use crate::clock;
use crate::intake;

/// How long the bucket's own address of a file works once a caller is sent there.
const PRESIGNED: Duration = Duration::from_secs(15 * 60);
/// Less than that, so that no cache sends anybody to an address that has expired.
const PRESIGNED_CACHE_CONTROL: &str = "private, max-age=600";

/// How files in a bucket reach callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MediaDelivery {
    /// Through this server.
    Stream,
    /// From the bucket itself: callers are sent to a signed address of it.
    Redirect,
}

/// Read a stored file; the address is the permission.
#[utoipa::path(get, path = "/media/{capability}/{name}", tag = "media", security(()),
    params(("capability" = String, Path), ("name" = String, Path),
        ("Range" = Option<String>, Header, description = "One byte range; several are answered as the whole file")),
    responses(
        (status = 200, description = "The whole file", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "The range", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304, description = "Unchanged"),
        (status = 307, description = "The bucket has it, at the address in `Location` (where the operator chose so)"),
        (status = 404, description = "No such file, or its address has expired", body = ErrorBody),
        (status = 416, description = "The range lies outside the file"),
        (status = 503, description = "The store is unavailable; Retry-After says when to come back", body = ErrorBody),
    ))]
pub async fn read(
    State(state): State<AppState>,
    Path((capability, name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let claim =
        state.intake.signer.verify(&capability, clock::wall_ms() / 1000).map_err(|_| ApiError::NoSuchFile)?;
    let stored = find(&state, claim, &name).await?.ok_or(ApiError::NoSuchFile)?;
    let artifacts = &state.intake.artifacts;
    if state.media_delivery == MediaDelivery::Redirect
        && method != Method::HEAD
        && let Some(url) = artifacts.presigned(stored.key, PRESIGNED).await?
    {
        let headers = [(LOCATION, url.as_str()), (CACHE_CONTROL, PRESIGNED_CACHE_CONTROL)];
        return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
    }
    let file = artifacts.find(stored.key).await?.ok_or(ApiError::NoSuchFile)?;
    let size_bytes = file.size_bytes;
    let mut response = Response::new(Body::empty());
    stored.describe(response.headers_mut());
    if matches_any(headers.get(IF_NONE_MATCH), &stored.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let range = headers.get(RANGE).filter(|_| match headers.get(IF_RANGE) {
        Some(validator) => validator.as_bytes() == stored.etag.as_bytes(),
        None => true,
    });
    let (first, length_bytes) = match requested(range, size_bytes) {
        Requested::Whole => (0, size_bytes),
        Requested::Part { first, last } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = format!("bytes {first}-{last}/{size_bytes}");
            response.headers_mut().insert(CONTENT_RANGE, ascii(&value));
            (first, last - first + 1)
        }
        Requested::Outside => {
            let value = ascii(&format!("bytes */{size_bytes}"));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, value)]).into_response());
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, length_bytes.into());
    if method != Method::HEAD {
        *response.body_mut() = Body::from_stream(file.stream(first..first + length_bytes).await?);
    }
    Ok(response)
}

/// A file that a capability opens.
struct Stored {
    key: ArtifactKey,
    content_type: &'static str,
    /// Files never change under their address, so their identity is a strong validator.
    etag: String,
}

impl Stored {
    fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(ETAG, ascii(&self.etag));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400, immutable"));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
}

async fn find(state: &AppState, claim: Claim, name: &str) -> Result<Option<Stored>, ApiError> {
    let output = |key, file: &str, content_type| {
        (name == file).then(|| Stored { key, content_type, etag: etag(&key) })
    };
    Ok(match claim {
        Claim::Video { job, attempt } => output(ArtifactKey::Video { job, attempt }, VIDEO, "video/mp4"),
        Claim::Thumbnail { job, attempt } => {
            output(ArtifactKey::Thumbnail { job, attempt }, THUMBNAIL, "image/jpeg")
        }
        Claim::Input { sha256 } if name == "input" => find_input(state, &sha256).await?,
        Claim::Upload { upload } if name.starts_with("upload.") => {
            match state.intake.store.upload(upload).await?.and_then(|row| row.input_sha256) {
                Some(sha256) => find_input(state, &sha256).await?,
                None => None,
            }
        }
        Claim::Input { .. } | Claim::Upload { .. } | Claim::Grant { .. } => None,
    })
}

async fn find_input(state: &AppState, sha256: &[u8; 32]) -> Result<Option<Stored>, ApiError> {
    let stored = state.intake.store.input(sha256).await?;
    Ok(stored.map(|row| {
        let key = ArtifactKey::of_input(*sha256, row.version);
        Stored { key, content_type: intake::content_type(&row.format), etag: etag(&key) }
    }))
}

/// A name's last part is not its own; the whole name is.
fn etag(key: &ArtifactKey) -> String {
    format!("\"{}\"", key.to_string().replace('/', "-"))
}

/// `If-None-Match` (RFC 9110 section 13.1.2): any of the listed validators, or `*`.
fn matches_any(header: Option<&HeaderValue>, etag: &str) -> bool {
    let Some(listed) = header.and_then(|value| value.to_str().ok()) else { return false };
    listed.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    Whole,
    /// Both ends included.
    Part {
        first: u64,
        last: u64,
    },
    Outside,
}

/// Reads one byte range (RFC 9110 section 14.1.2). What is malformed or multiple is ignored, as the RFC allows.
fn requested(range: Option<&HeaderValue>, size_bytes: u64) -> Requested {
    let spec = range.and_then(|value| value.to_str().ok()?.trim().strip_prefix("bytes="));
    let Some((from, to)) = spec.filter(|spec| !spec.contains(',')).and_then(|spec| spec.split_once('-'))
    else {
        return Requested::Whole;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(from) || !digits(to) || (from.is_empty() && to.is_empty()) {
        return Requested::Whole;
    }
    // A number too large for u64 lies beyond any file.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    let end = size_bytes.saturating_sub(1);
    let (first, last) = match (from, to) {
        ("", suffix) => match number(suffix) {
            0 => return Requested::Outside,
            length => (size_bytes.saturating_sub(length), end),
        },
        (from, "") => (number(from), end),
        (from, to) if number(from) > number(to) => return Requested::Whole,
        (from, to) => (number(from), number(to).min(end)),
    };
    if first >= size_bytes { Requested::Outside } else { Requested::Part { first, last } }
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("identifiers and numbers are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        use Requested::{Outside, Part, Whole};
        let cases = [
            ("bytes=0-0", Part { first: 0, last: 0 }),
            ("bytes=2-5", Part { first: 2, last: 5 }),
            ("bytes=2-", Part { first: 2, last: 9 }),
            ("bytes=-3", Part { first: 7, last: 9 }),
            ("bytes=-30", Part { first: 0, last: 9 }),
            ("bytes=5-99999999999999999999999", Part { first: 5, last: 9 }),
            ("bytes=9-9", Part { first: 9, last: 9 }),
            ("bytes=10-", Outside),
            ("bytes=99999999999999999999999-", Outside),
            ("bytes=-0", Outside),
            ("bytes=5-2", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("lines=0-1", Whole),
        ];
        for (text, expected) in cases {
            assert_eq!(requested(Some(&HeaderValue::from_str(text).unwrap()), 10), expected, "{text}");
        }
        assert_eq!(requested(None, 10), Whole);
        assert_eq!(requested(Some(&HeaderValue::from_static("bytes=0-")), 0), Outside);
    }
}
