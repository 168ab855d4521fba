//! Whether the process lives, and whether it can accept work. Neither asks the engine.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::types::ErrorBody;
use super::{ApiError, AppState};
use crate::jobs::Status;

#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    pub status: &'static str,
    pub version: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    pub status: &'static str,
    /// Requests waiting, of all organisations.
    pub queued: i64,
    /// Requests being worked on.
    pub processing: i64,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It lives", body = Health)))]
pub async fn live() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// The store answers, and the server is not shutting down.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "It accepts requests", body = Readiness),
        (status = 503, description = "It does not", body = ErrorBody),
    ))]
pub async fn ready(State(state): State<AppState>) -> Result<Json<Readiness>, ApiError> {
    if state.stop.is_cancelled() {
        return Err(ApiError::Unavailable);
    }
    let store = &state.intake.store;
    let (queued, processing) = (store.count(Status::Queued).await?, store.count(Status::Processing).await?);
    Ok(Json(Readiness { status: "ok", queued, processing }))
}
