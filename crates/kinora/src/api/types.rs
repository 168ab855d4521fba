//! The wire's shapes. Nothing stored and nothing of the engine is answered but through these.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::jobs::{JobProgress, Outlook, Status};

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong and what would be right.
    pub error: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// The field that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
}

/// A request to make a video.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "Kling-Image2Video-V2.1-Standard", "payload": {"image": "https://example.com/photo.jpg", "prompt": "slow push in"}}))]
#[expect(dead_code, reason = "describes the wire to OpenAPI; the handlers read the body field by field")]
pub struct SubmitBody {
    /// The model's name, without regard to case.
    pub model: String,
    pub payload: Payload,
    /// Among the organisation's own requests, those of higher priority go first. An extension.
    #[schema(minimum = 0, maximum = 9, default = 0, nullable)]
    pub priority: Option<i64>,
}

/// What to make. Unknown fields are ignored; an optional `null` counts as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the wire to OpenAPI; the handlers read the body field by field")]
pub struct Payload {
    /// Reference picture: raw Base64, a `data:image/…;base64,` URI, or an http(s) URL (also a `public_url` or media URL
    /// of this server). JPEG or PNG, at most 10 MB, at least 300 px in width and height, aspect ratio 1:2.5 to 2.5:1.
    #[schema(min_length = 1)]
    pub image: String,
    /// What should happen in the video.
    #[schema(max_length = 2500, default = "", nullable)]
    pub prompt: Option<String>,
    /// What to avoid.
    #[schema(max_length = 2500, default = "", nullable)]
    pub negative_prompt: Option<String>,
    #[schema(schema_with = duration_schema)]
    pub duration: Option<Value>,
    #[schema(schema_with = cfg_scale_schema)]
    pub cfg_scale: Option<Value>,
    /// Repeats a result. An extension; drawn at random when absent.
    #[schema(minimum = 0, maximum = 9007199254740991_u64, nullable)]
    pub seed: Option<u64>,
}

/// An accepted request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    pub request_id: Uuid,
    pub model: String,
    pub status: Status,
    /// Unix seconds, as all times here.
    pub created_at: i64,
    pub updated_at: i64,
    pub queued_at: i64,
}

/// A request's whole record.
#[derive(Debug, Serialize, ToSchema)]
pub struct Record {
    pub request_id: Uuid,
    pub org_id: String,
    pub user_id: String,
    pub model: String,
    pub status: Status,
    pub is_public: bool,
    /// What was submitted; an inline picture is answered as a URL of the stored input.
    #[schema(value_type = Object)]
    pub payload: Map<String, Value>,
    /// Present once the request is `success`.
    #[schema(nullable, required)]
    pub outcome: Option<OutcomeBody>,
    /// Present on `failed`: what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same text as `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Present while `processing`: how far the engine is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<JobProgress>,
    /// Present while `queued`, in answer to a status request: where it stands in the queue. An extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Outlook>,
    /// As submitted. An extension.
    pub priority: i64,
    /// The worker that has it or had it last; empty before.
    pub qworker_id: String,
    pub created_at: i64,
    pub updated_at: i64,
    pub queued_at: i64,
}

/// A finished video. Its URLs need no key, support `Range`, and expire.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutcomeBody {
    pub media_urls: Vec<MediaUrl>,
    pub video_url: String,
    pub thumbnail_image_url: String,
    /// Seconds.
    pub duration: String,
    pub seed: u64,
    /// What computed the frames.
    pub engine: String,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    pub frames: u32,
    pub size_bytes: u64,
    /// What the engine made of words and picture, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub plan: Option<Value>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MediaUrl {
    pub id: String,
    pub url: String,
}

/// Some of the organisation's requests, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequestList {
    pub requests: Vec<Record>,
    /// How many match in all.
    pub total: i64,
}

/// Which requests to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only this model's requests.
    pub model_id: Option<String>,
    /// The same as `model_id`.
    pub model: Option<String>,
    /// Only requests in this state.
    #[param(value_type = Option<Status>)]
    pub status: Option<String>,
    /// How many to answer: 1 to 100, 20 when absent.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    pub limit: Option<String>,
    /// How many to skip.
    #[param(value_type = Option<i64>, minimum = 0, default = 0)]
    pub offset: Option<String>,
}

/// The models served.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    pub model_ids: Vec<String>,
    pub models: Vec<ModelBody>,
}

/// A model's page.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelBody {
    pub model: String,
    pub org_id: String,
    pub brief_description: String,
    /// Markdown: how to use it, and which engine answers.
    pub detailed_description: String,
    pub model_type: String,
    #[schema(example = "internal")]
    pub host_type: String,
    #[schema(value_type = Object)]
    pub modalities: Value,
    #[schema(value_type = Vec<Object>)]
    pub parameters: Value,
    pub price_info: PriceInfo,
    pub tags: Vec<String>,
    /// Workers that serve it.
    pub qworkers: usize,
    pub icon_link: String,
    pub background_image_url: String,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PriceInfo {
    pub price: i64,
    pub pricing_type: String,
    pub unit: String,
}

/// What will be uploaded.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the wire to OpenAPI; the handlers read the body field by field")]
pub struct UploadBody {
    /// `png`, `jpg` or `jpeg`.
    #[schema(pattern = "^(png|jpg|jpeg)$", example = "png")]
    pub file_type: String,
}

/// A grant to upload one picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadGrant {
    /// PUT the picture here within 15 minutes, with `Content-Type: image/…`, at most 10 MB.
    pub upload_url: String,
    /// Where it can be read then; may be given as `image`.
    pub public_url: String,
}

/// Seconds, as text or number.
fn duration_schema() -> Schema {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["5", "10"]))
        .default(Some("5".into()));
    let number = ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([5, 10]));
    OneOfBuilder::new()
        .description(Some("Length in seconds: \"5\" or \"10\"; the numbers are accepted too"))
        .item(text)
        .item(number)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .into()
}

/// From 0 to 1, as number or text.
fn cfg_scale_schema() -> Schema {
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(0))
        .maximum(Some(1))
        .default(Some(0.5.into()));
    let text =
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"));
    OneOfBuilder::new()
        .description(Some("How strictly to follow the prompt; a numeric string is accepted too"))
        .item(number)
        .item(text)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .into()
}
