//! What can be asked for.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::json;

use super::types::{ErrorBody, ModelBody, ModelList, PriceInfo};
use super::{ApiError, AppState, Caller};
use crate::models::{self, MODEL};

/// List the available models.
#[utoipa::path(get, path = "/models", tag = "models",
    responses((status = 200, description = "The models served", body = ModelList)))]
pub async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<ModelList>, ApiError> {
    let models = vec![model_body(&state, &caller).await?];
    Ok(Json(ModelList { model_ids: vec![MODEL.to_owned()], models }))
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
    match models::canonical(&model_id) {
        Some(_) => Ok(Json(model_body(&state, &caller).await?)),
        None => Err(ApiError::no_such_model(&model_id)),
    }
}

async fn model_body(state: &AppState, caller: &Caller) -> Result<ModelBody, ApiError> {
    let engine = state.engine.as_ref();
    Ok(ModelBody {
        model: MODEL.to_owned(),
        org_id: caller.org_id.clone(),
        brief_description: format!(
            "Makes a video from a reference image, served by Kinora's engine `{}`, not by the hosted model.",
            engine.name()
        ),
        detailed_description: models::detailed_description(engine),
        model_type: "video".to_owned(),
        host_type: "internal".to_owned(),
        modalities: json!({"input": ["image", "text"], "output": ["video"]}),
        parameters: models::parameters(),
        price_info: PriceInfo { price: 0, pricing_type: "free".to_owned(), unit: "request".to_owned() },
        tags: ["image-to-video", "self-hosted", engine.name()].map(str::to_owned).to_vec(),
        qworkers: state.intake.store.workers_count(MODEL).await?,
        icon_link: String::new(),
        background_image_url: String::new(),
        created_at: state.started_at_s,
        updated_at: state.started_at_s,
    })
}
