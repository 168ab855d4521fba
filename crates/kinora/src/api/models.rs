//! What can be asked for.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::json;

use super::types::{ErrorBody, ModelBody, ModelList, PriceInfo};
use super::{ApiError, AppState, Caller};
use crate::models::{self, Behind};

/// List the available models.
#[utoipa::path(get, path = "/models", tag = "models",
    responses((status = 200, description = "The models served", body = ModelList)))]
pub async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<ModelList>, ApiError> {
    let mut models = Vec::new();
    for name in state.names.iter() {
        models.push(model_body(&state, &caller, name).await?);
    }
    Ok(Json(ModelList { model_ids: state.names.iter().map(str::to_owned).collect(), models }))
}

/// Get a model's information.
#[utoipa::path(get, path = "/models/{model_id}", tag = "models", params(("model_id" = String, Path)),
    responses(
        (status = 200, description = "The model", body = ModelBody),
        (status = 404, description = "No such model", body = ErrorBody),
    ))]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(model_id): Path<String>,
) -> Result<Json<ModelBody>, ApiError> {
    match state.names.canonical(&model_id) {
        Some(name) => Ok(Json(model_body(&state, &caller, name).await?)),
        None => Err(ApiError::no_such_model(&model_id)),
    }
}

async fn model_body(state: &AppState, caller: &Caller, name: &str) -> Result<ModelBody, ApiError> {
    let mut engines = state.intake.store.engines(name).await?;
    let workers_count = engines.len();
    let own = state.engine.as_deref();
    // This process's own workers say that they are there a moment after it began.
    engines.extend(own.filter(|_| workers_count == 0).map(|own| own.name().to_owned()));
    engines.dedup();
    let behind = Behind { engines: &engines, own };
    Ok(ModelBody {
        model: name.to_owned(),
        org_id: caller.org_id.clone(),
        brief_description: models::brief_description(name, &behind),
        detailed_description: models::detailed_description(name, &behind),
        model_type: "video".to_owned(),
        host_type: "internal".to_owned(),
        modalities: json!({"input": ["image", "text"], "output": ["video"]}),
        parameters: models::parameters(),
        price_info: PriceInfo { price: 0, pricing_type: "free".to_owned(), unit: "request".to_owned() },
        tags: ["image-to-video", "self-hosted"].map(str::to_owned).into_iter().chain(engines).collect(),
        qworkers: workers_count,
        icon_link: String::new(),
        background_image_url: String::new(),
        created_at: state.started_at_s,
        updated_at: state.started_at_s,
    })
}
