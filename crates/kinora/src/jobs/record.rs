//! The rows, as Rust sees them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::Status;

/// One request from acceptance to its end. The row is the only truth; memory is a cache of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The order of acceptance.
    pub seq: i64,
    pub id: Uuid,
    /// Grows with every change.
    pub revision: i64,
    pub org_id: String,
    pub user_id: String,
    /// The model's canonical name.
    pub model: String,
    pub status: Status,
    /// The accepted payload as JSON; an inline picture is left out.
    pub payload: String,
    pub input_sha256: [u8; 32],
    /// The picture came inside the request, so it is answered as a URL of the stored input.
    pub input_inline: bool,
    pub seed: i64,
    /// Among the organisation's own: the higher goes first.
    pub priority: i64,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    pub queued_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
    /// Counts claims; names the lease that may write.
    pub attempt: i64,
    /// Counts claims that ended with neither a result nor a give-back.
    pub attempts_lost: i64,
    /// On the store's own clock, which only the store reads.
    pub lease_until_ms: Option<i64>,
    pub worker_id: String,
    pub progress: Option<JobProgress>,
    pub outcome: Option<Outcome>,
    pub error: Option<String>,
}

/// How many jobs of a model are in a state that is not an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unended {
    pub model: String,
    pub status: String,
    pub jobs_count: i64,
}

/// How many rows are kept no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    pub jobs_count: u64,
    pub uploads_count: u64,
    pub inputs_count: u64,
}

/// How far the engine is with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobProgress {
    /// The engine's stage, such as `render`.
    pub stage: String,
    /// Units of the stage that are done.
    pub done: u32,
    /// Units that the stage has.
    pub total: u32,
    /// Seconds that the stage still takes at its pace so far; absent before there is a pace. An extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_remaining_s: Option<i64>,
}

/// What a finished job left behind; the URLs are made when it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The attempt whose files count.
    pub attempt: i64,
    pub engine: String,
    pub seed: u64,
    pub duration_s: u32,
    pub width_px: u32,
    pub height_px: u32,
    pub fps: u32,
    pub frames_count: u32,
    pub size_bytes: u64,
    /// What the engine made of words and picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<serde_json::Value>,
}

/// A picture that passed every check and lies in the data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRow {
    pub sha256: [u8; 32],
    /// Which storing of the picture this is; part of its file's name.
    pub version: i64,
    /// `jpeg` or `png`.
    pub format: String,
    pub width_px: u32,
    pub height_px: u32,
    pub size_bytes: u64,
    /// When it was last handed out to be named by a job or an upload, to within an hour.
    pub used_at_ms: i64,
}

/// A grant to upload one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    pub id: Uuid,
    pub org_id: String,
    /// What the caller said it would be: `jpeg` or `png`.
    pub format: String,
    pub expires_at_ms: i64,
    /// The stored picture, once it is there.
    pub input_sha256: Option<[u8; 32]>,
}

/// An API key; the key itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct KeyRow {
    pub id: String,
    pub org_id: String,
    pub user_id: String,
    pub hint: String,
    pub created_at_ms: i64,
    pub revoked_at_ms: Option<i64>,
}
