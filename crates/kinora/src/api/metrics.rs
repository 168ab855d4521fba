//! `/metrics` for Prometheus, on an address of its own: what it says is the operator's, not the callers'.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use super::ApiError;
use crate::jobs::{JobStore, Status, Unended};
use crate::models::ModelNames;
use crate::telemetry;

/// What this process serves, and its own workers' engine, where it has workers.
#[derive(Debug, Clone)]
pub struct Here {
    pub names: ModelNames,
    pub engine: Option<&'static str>,
    pub workers_count: u32,
}

#[derive(Clone)]
struct Measured {
    store: JobStore,
    here: Here,
    handle: PrometheusHandle,
}

/// Answers `/metrics` and `/healthz`.
pub fn metrics_router(store: JobStore, here: Here) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(super::health::live))
        .with_state(Measured { store, here, handle: telemetry::start() })
}

async fn scrape(State(measured): State<Measured>) -> Result<Response, ApiError> {
    let Measured { store, here, .. } = &measured;
    measure_queue(store, &here.names).await?;
    let waiting_since_ms = store.oldest_queued_ms().await?;
    let age_ms = waiting_since_ms.map_or(0, |since_ms| (store.now_ms() - since_ms).max(0));
    telemetry::queue_oldest(Duration::from_millis(age_ms.unsigned_abs()));
    for name in here.names.iter() {
        telemetry::workers(name, store.engines(name).await?.len());
        if let Some(engine) = here.engine {
            telemetry::own_workers(name, engine, here.workers_count);
        }
    }
    measured.handle.run_upkeep();
    let content_type = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, measured.handle.render()).into_response())
}

/// Every model that anything was ever asked of, and this process's own even before.
async fn measure_queue(store: &JobStore, names: &ModelNames) -> Result<(), ApiError> {
    let unended = store.unended().await?;
    for name in names.iter() {
        for status in [Status::Queued, Status::Processing].map(Status::as_str) {
            if !unended.iter().any(|known| known.model == name && known.status == status) {
                telemetry::queue(name, status, 0);
            }
        }
    }
    for Unended { model, status, jobs_count } in unended {
        telemetry::queue(&model, &status, jobs_count);
    }
    Ok(())
}
