//! `/metrics` for Prometheus, on an address of its own: what it says is the operator's, not the callers'.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use super::ApiError;
use crate::jobs::{JobStore, Status};
use crate::models::MODEL;
use crate::telemetry;

#[derive(Clone)]
struct Measured {
    store: JobStore,
    handle: PrometheusHandle,
}

/// Answers `/metrics` and `/healthz`.
pub fn metrics_router(store: JobStore) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(super::health::live))
        .with_state(Measured { store, handle: telemetry::start() })
}

async fn scrape(State(measured): State<Measured>) -> Result<Response, ApiError> {
    let store = &measured.store;
    for status in [Status::Queued, Status::Processing] {
        telemetry::queue(MODEL, status.as_str(), store.count(status).await?);
    }
    let waiting_since_ms = store.oldest_queued_ms().await?;
    let age_ms = waiting_since_ms.map_or(0, |since_ms| (store.now_ms() - since_ms).max(0));
    telemetry::queue_oldest(Duration::from_millis(age_ms.unsigned_abs()));
    telemetry::workers(MODEL, store.workers_count(MODEL).await?);
    measured.handle.run_upkeep();
    let content_type = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, measured.handle.render()).into_response())
}
