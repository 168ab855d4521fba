//! The rows, as Rust sees them.

use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};
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
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    pub queued_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
    /// Counts claims; names the lease that may write.
    pub attempt: i64,
    /// Counts claims that ended with neither a result nor a give-back.
    pub attempts_lost: i64,
    /// On the clock of the process that holds the database.
    pub lease_until_ms: Option<i64>,
    pub worker_id: String,
    pub progress: Option<JobProgress>,
    pub outcome: Option<Outcome>,
    pub error: Option<String>,
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

impl FromRow<'_, SqliteRow> for Job {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            seq: row.try_get("seq")?,
            id: row.try_get("id")?,
            revision: row.try_get("revision")?,
            org_id: row.try_get("org_id")?,
            user_id: row.try_get("user_id")?,
            model: row.try_get("model")?,
            status: decoded(
                "status",
                row.try_get::<&str, _>("status")?.parse().map_err(|()| "unknown status"),
            )?,
            payload: row.try_get("payload")?,
            input_sha256: sha256(row, "input_sha256")?,
            input_inline: row.try_get("input_inline")?,
            seed: row.try_get("seed")?,
            created_at_ms: row.try_get("created_at_ms")?,
            updated_at_ms: row.try_get("updated_at_ms")?,
            queued_at_ms: row.try_get("queued_at_ms")?,
            started_at_ms: row.try_get("started_at_ms")?,
            finished_at_ms: row.try_get("finished_at_ms")?,
            attempt: row.try_get("attempt")?,
            attempts_lost: row.try_get("attempts_lost")?,
            lease_until_ms: row.try_get("lease_until_ms")?,
            worker_id: row.try_get("worker_id")?,
            progress: json(row, "progress")?,
            outcome: json(row, "outcome")?,
            error: row.try_get("error")?,
        })
    }
}

/// A picture that passed every check and lies in the data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRow {
    pub sha256: [u8; 32],
    /// `jpeg` or `png`.
    pub format: String,
    pub width_px: u32,
    pub height_px: u32,
    pub size_bytes: u64,
}

impl FromRow<'_, SqliteRow> for InputRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sha256: sha256(row, "sha256")?,
            format: row.try_get("format")?,
            width_px: row.try_get("width_px")?,
            height_px: row.try_get("height_px")?,
            size_bytes: row.try_get::<i64, _>("size_bytes")?.unsigned_abs(),
        })
    }
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

impl FromRow<'_, SqliteRow> for UploadRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let stored: Option<Vec<u8>> = row.try_get("input_sha256")?;
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            format: row.try_get("format")?,
            expires_at_ms: row.try_get("expires_at_ms")?,
            input_sha256: match stored {
                Some(_) => Some(sha256(row, "input_sha256")?),
                None => None,
            },
        })
    }
}

/// An API key; the key itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct KeyRow {
    pub id: String,
    pub org_id: String,
    pub user_id: String,
    pub hint: String,
    pub created_at_ms: i64,
    pub revoked_at_ms: Option<i64>,
}

fn sha256(row: &SqliteRow, column: &str) -> Result<[u8; 32], sqlx::Error> {
    decoded(column, row.try_get::<&[u8], _>(column)?.try_into())
}

fn json<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<Option<T>, sqlx::Error> {
    let text: Option<&str> = row.try_get(column)?;
    decoded(column, text.map(serde_json::from_str).transpose())
}

fn decoded<T, E>(column: &str, value: Result<T, E>) -> Result<T, sqlx::Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    value.map_err(|e| sqlx::Error::ColumnDecode { index: column.to_owned(), source: e.into() })
}
