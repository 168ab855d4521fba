//! Grants to upload a picture, and the uploads themselves.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use uuid::Uuid;

use super::body::{self, JsonObject};
use super::origin::Origin;
use super::types::{ErrorBody, UploadBody, UploadGrant};
use super::{ApiError, AppState, Caller};
use crate::capability::{Claim, Void};
use crate::clock;
use crate::intake::MEDIA_PATH;
use crate::jobs::UploadRow;
use crate::submission::FieldError;
use kinora_media::PictureLimits;

const GRANT_MS: i64 = 15 * 60 * 1000;
pub const UPLOAD_PATH: &str = "/uploads/";

/// Ask for an address to upload a picture to.
#[utoipa::path(post, path = "/upload-url", tag = "uploads", request_body = UploadBody,
    responses(
        (status = 200, description = "Where to PUT the picture, and where it is read then", body = UploadGrant),
        (status = 400, description = "An unknown file type", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    ))]
pub async fn grant(
    State(state): State<AppState>,
    caller: Caller,
    origin: Origin,
    body: JsonObject,
) -> Result<Json<UploadGrant>, ApiError> {
    let file_type = body.string("file_type")?.to_ascii_lowercase();
    let format = match file_type.as_str() {
        "png" => "png",
        "jpg" | "jpeg" => "jpeg",
        _ => return Err(FieldError::new("file_type", "file_type must be png, jpg or jpeg").into()),
    };
    let id = Uuid::now_v7();
    let upload = UploadRow {
        id,
        org_id: caller.org_id,
        format: format.to_owned(),
        expires_at_ms: clock::wall_ms() + GRANT_MS,
        input_sha256: None,
    };
    let expires_at_s = upload.expires_at_ms / 1000;
    state.intake.store.grant_upload(upload, state.intake.store.now_ms()).await?;
    let token = state.intake.signer.sign(&Claim::Grant { upload: id }, expires_at_s);
    let read = state.intake.signer.sign(&Claim::Upload { upload: id }, state.media_expiry_s());
    Ok(Json(UploadGrant {
        upload_url: origin.join(&format!("{UPLOAD_PATH}{token}")),
        public_url: origin.join(&format!("{MEDIA_PATH}{read}/upload.{file_type}")),
    }))
}

/// Upload a picture under a grant; the address is the permission.
#[utoipa::path(put, path = "/uploads/{grant}", tag = "uploads", params(("grant" = String, Path)),
    request_body(content = Vec<u8>, content_type = "image/*"), security(()),
    responses(
        (status = 200, description = "Stored"),
        (status = 400, description = "Not a usable picture, or not of the type that was announced", body = ErrorBody),
        (status = 403, description = "The grant is void", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The picture is too large", body = ErrorBody),
    ))]
pub async fn put(
    State(state): State<AppState>,
    Path(grant): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let id = match state.intake.signer.verify(&grant, clock::wall_ms() / 1000) {
        Ok(Claim::Grant { upload }) => upload,
        Ok(_) | Err(Void::Forged) => return Err(ApiError::Grant("this server did not sign it")),
        Err(Void::Expired) => return Err(ApiError::Grant("it has expired")),
    };
    let upload = state.intake.store.upload(id).await?.ok_or(ApiError::Grant("it is no longer known"))?;
    check_content_type(&request, &upload.format)?;
    let limit_bytes = PictureLimits::default().bytes_max;
    let bytes = body::read(request, limit_bytes).await?;
    let input = state.intake.keep(bytes.to_vec()).await?;
    if input.format != upload.format {
        let message = format!("the body is a {}, but the grant is for a {}", input.format, upload.format);
        return Err(FieldError::new("body", message).into());
    }
    state.intake.store.fill_upload(id, input.sha256).await?;
    Ok(StatusCode::OK)
}

/// The label must be a picture's; clients label JPEG as `image/jpg` too.
fn check_content_type(request: &Request, format: &str) -> Result<(), FieldError> {
    let label = request.headers().get(CONTENT_TYPE).and_then(|label| label.to_str().ok()).unwrap_or_default();
    let label = label.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = match format {
        "png" => label == "image/png",
        _ => label == "image/jpeg" || label == "image/jpg",
    };
    if fits {
        return Ok(());
    }
    Err(FieldError::new(
        "Content-Type",
        format!("Content-Type must be image/{format}, as announced to upload-url"),
    ))
}
