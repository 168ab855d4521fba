//! Submit, status, list, cancel.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::body::JsonObject;
use super::origin::Origin;
use super::traced::Accepts;
use super::types::{Accepted, ErrorBody, ListQuery, MediaUrl, OutcomeBody, Record, RequestList, SubmitBody};
use super::{ApiError, AppState, Caller};
use crate::artifacts::{THUMBNAIL, VIDEO};
use crate::capability::Claim;
use crate::jobs::{Job, JobFilter, NewJob, Outcome, Status};
use crate::keys::random_bytes;
use crate::submission::{FieldError, ImageSource, Submission};
use crate::telemetry;
use kinora_engine::GenerateSpec;

const LIST_LIMIT_DEFAULT: i64 = 20;
const LIST_LIMIT_MAX: i64 = 100;
const PRIORITY_MAX: i64 = 9;

/// Submit a request.
///
/// When this answers 200, the request is on disk and will be worked on.
#[utoipa::path(post, path = "/requests", tag = "requests", request_body = SubmitBody,
    responses(
        (status = 200, description = "Accepted", body = Accepted),
        (status = 400, description = "Malformed JSON, a missing or wrong field, or a bad picture", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    ))]
pub async fn submit(
    State(state): State<AppState>,
    caller: Caller,
    origin: Origin,
    body: JsonObject,
) -> Result<(Extension<Accepts>, Json<Accepted>), ApiError> {
    let name = body.string("model")?;
    let model = state.names.canonical(name).ok_or_else(|| ApiError::no_such_model(name))?;
    let submission = parse_payload(body.0.get("payload"))?;
    let payload = Value::Object(submission.to_payload()).to_string();
    let input_inline = matches!(submission.image, ImageSource::Inline(_));
    let priority = parse_priority(body.0.get("priority"))?;
    let seed = submission.seed.unwrap_or_else(random_seed);
    let input = state.intake.take(submission.image, origin.authority()).await?;
    let job = NewJob {
        id: Uuid::now_v7(),
        org_id: caller.org_id,
        user_id: caller.user_id,
        model: model.to_owned(),
        payload,
        input_sha256: input.sha256,
        input_inline,
        seed: seed.cast_signed(),
        priority,
        now_ms: state.intake.store.now_ms(),
    };
    let submitted = state.intake.store.submit(job).await;
    if submitted.is_err() {
        // It may be the picture that is gone, against all expectation: then the next try must not trust memory.
        state.intake.forget(&input.sha256);
    }
    let job = submitted??;
    tracing::info!(job.id = %job.id, org.id = job.org_id, "job.queued");
    telemetry::submitted();
    let accepted = Accepted {
        request_id: job.id,
        model: job.model,
        status: job.status,
        created_at: seconds(job.created_at_ms),
        updated_at: seconds(job.updated_at_ms),
        queued_at: seconds(job.queued_at_ms),
    };
    Ok((Extension(Accepts(job.id)), Json(accepted)))
}

/// Check a request's status.
#[utoipa::path(get, path = "/requests/{request_id}", tag = "requests",
    params(("request_id" = Uuid, Path)),
    responses(
        (status = 200, description = "The whole record", body = Record),
        (status = 404, description = "This organisation has no such request", body = ErrorBody),
    ))]
pub async fn status(
    State(state): State<AppState>,
    caller: Caller,
    origin: Origin,
    Path(request_id): Path<String>,
) -> Result<Json<Record>, ApiError> {
    let job = match parse_id(&request_id) {
        Some(id) => state.intake.store.get(id).await?.filter(|job| job.org_id == caller.org_id),
        None => None,
    };
    let job = job.ok_or_else(|| ApiError::no_such_request(&request_id))?;
    let queue = state.intake.store.outlook(&job).await?;
    Ok(Json(Record { queue, ..record(&state, &origin, &job) }))
}

/// List your requests.
#[utoipa::path(get, path = "/requests", tag = "requests", params(ListQuery),
    responses(
        (status = 200, description = "The organisation's requests, newest first", body = RequestList),
        (status = 400, description = "A query parameter is wrong", body = ErrorBody),
    ))]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    origin: Origin,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<RequestList>, ApiError> {
    let Query(query) = query.map_err(|e| FieldError::new("query", e.body_text()))?;
    let named = |text: Option<String>| text.filter(|text| !text.is_empty());
    let model = named(query.model_id).or(named(query.model));
    let filter = JobFilter {
        org_id: caller.org_id,
        // A model that is not served has no requests.
        model: model.map(|name| state.names.canonical(&name).map_or_else(|| name.clone(), str::to_owned)),
        status: query.status.map(|text| parse_status(&text)).transpose()?,
        limit: query.limit.map_or(Ok(LIST_LIMIT_DEFAULT), |text| parse_limit(&text))?,
        offset: query.offset.map_or(Ok(0), |text| parse_offset(&text))?,
    };
    let page = state.intake.store.list(&filter).await?;
    let requests = page.jobs.iter().map(|job| record(&state, &origin, job)).collect();
    Ok(Json(RequestList { requests, total: page.total }))
}

/// Cancel a request.
///
/// A queued request is cancelled at once; one in progress stops within a second.
#[utoipa::path(delete, path = "/requests/{request_id}", tag = "requests",
    params(("request_id" = Uuid, Path)),
    responses(
        (status = 200, description = "Cancelled", body = Record),
        (status = 404, description = "This organisation has no such request", body = ErrorBody),
        (status = 409, description = "It has already ended", body = ErrorBody),
    ))]
pub async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    origin: Origin,
    Path(request_id): Path<String>,
) -> Result<Json<Record>, ApiError> {
    let cancelled = match parse_id(&request_id) {
        Some(id) => state.intake.store.cancel(&caller.org_id, id, state.intake.store.now_ms()).await?,
        None => None,
    };
    let job = cancelled.ok_or_else(|| ApiError::no_such_request(&request_id))??;
    tracing::info!(job.id = %job.id, "job.cancelled");
    Ok(Json(record(&state, &origin, &job)))
}

/// Cancel a request (the same as DELETE).
#[utoipa::path(post, path = "/requests/{request_id}/cancel", tag = "requests",
    params(("request_id" = Uuid, Path)),
    responses(
        (status = 200, description = "Cancelled", body = Record),
        (status = 404, description = "This organisation has no such request", body = ErrorBody),
        (status = 409, description = "It has already ended", body = ErrorBody),
    ))]
pub async fn cancel_by_post(
    state: State<AppState>,
    caller: Caller,
    origin: Origin,
    request_id: Path<String>,
) -> Result<Json<Record>, ApiError> {
    cancel(state, caller, origin, request_id).await
}

fn parse_payload(payload: Option<&Value>) -> Result<Submission, FieldError> {
    match payload {
        None | Some(Value::Null) => Err(FieldError::new("payload", "payload is required")),
        Some(Value::Object(fields)) if fields.is_empty() => {
            Err(FieldError::new("payload", "payload is empty; it needs at least an image"))
        }
        Some(Value::Object(fields)) => Submission::parse(fields),
        Some(_) => Err(FieldError::new("payload", "payload must be an object")),
    }
}

fn parse_priority(priority: Option<&Value>) -> Result<i64, FieldError> {
    let wrong =
        || FieldError::new("priority", format!("priority must be an integer from 0 to {PRIORITY_MAX}"));
    match priority {
        None | Some(Value::Null) => Ok(0),
        Some(value) => {
            value.as_i64().filter(|priority| (0..=PRIORITY_MAX).contains(priority)).ok_or_else(wrong)
        }
    }
}

fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

fn parse_status(text: &str) -> Result<Status, FieldError> {
    text.parse().map_err(|()| {
        let known = Status::ALL.map(Status::as_str).join(", ");
        FieldError::new("status", format!("status must be one of {known}"))
    })
}

fn parse_limit(text: &str) -> Result<i64, FieldError> {
    let limit = text.parse().ok().filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        FieldError::new("limit", format!("limit must be an integer from 1 to {LIST_LIMIT_MAX}"))
    })
}

fn parse_offset(text: &str) -> Result<i64, FieldError> {
    let offset = text.parse().ok().filter(|offset| *offset >= 0);
    offset.ok_or_else(|| FieldError::new("offset", "offset must be an integer of at least 0"))
}

fn random_seed() -> u64 {
    u64::from_be_bytes(random_bytes()) & GenerateSpec::SEED_MAX
}

fn seconds(time_ms: i64) -> i64 {
    time_ms.div_euclid(1000)
}

fn record(state: &AppState, origin: &Origin, job: &Job) -> Record {
    Record {
        request_id: job.id,
        org_id: job.org_id.clone(),
        user_id: job.user_id.clone(),
        model: job.model.clone(),
        status: job.status,
        is_public: false,
        payload: payload(state, origin, job),
        outcome: job.outcome.as_ref().map(|outcome| outcome_body(state, origin, job, outcome)),
        error: job.error.clone(),
        reason: job.error.clone(),
        progress: job.progress.clone(),
        queue: None,
        priority: job.priority,
        qworker_id: job.worker_id.clone(),
        created_at: seconds(job.created_at_ms),
        updated_at: seconds(job.updated_at_ms),
        queued_at: seconds(job.queued_at_ms),
    }
}

fn payload(state: &AppState, origin: &Origin, job: &Job) -> Map<String, Value> {
    let mut payload: Map<String, Value> =
        serde_json::from_str(&job.payload).expect("a stored payload is the object that was accepted");
    if job.input_inline {
        let url = state.media_url(origin, &Claim::Input { sha256: job.input_sha256 }, "input");
        payload.insert("image".to_owned(), url.into());
    }
    payload
}

fn outcome_body(state: &AppState, origin: &Origin, job: &Job, outcome: &Outcome) -> OutcomeBody {
    let (job, attempt) = (job.id, outcome.attempt);
    let video_url = state.media_url(origin, &Claim::Video { job, attempt }, VIDEO);
    OutcomeBody {
        media_urls: vec![MediaUrl { id: "0".to_owned(), url: video_url.clone() }],
        video_url,
        thumbnail_image_url: state.media_url(origin, &Claim::Thumbnail { job, attempt }, THUMBNAIL),
        duration: outcome.duration_s.to_string(),
        seed: outcome.seed,
        engine: outcome.engine.clone(),
        width: outcome.width_px,
        height: outcome.height_px,
        fps: outcome.fps,
        frames: outcome.frames_count,
        size_bytes: outcome.size_bytes,
        plan: outcome.plan.clone(),
    }
}
