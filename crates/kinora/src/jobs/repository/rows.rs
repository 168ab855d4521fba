//! Rows as this database hands them over.

use sqlx::{FromRow, Row as _};

use super::Row;
use crate::jobs::record::{InputRow, Job, UploadRow};

impl FromRow<'_, Row> for Job {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
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
            priority: row.try_get("priority")?,
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

impl FromRow<'_, Row> for InputRow {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sha256: sha256(row, "sha256")?,
            version: row.try_get("version")?,
            format: row.try_get("format")?,
            width_px: pixels(row, "width_px")?,
            height_px: pixels(row, "height_px")?,
            size_bytes: row.try_get::<i64, _>("size_bytes")?.unsigned_abs(),
            used_at_ms: row.try_get("used_at_ms")?,
        })
    }
}

impl FromRow<'_, Row> for UploadRow {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        let stored: Option<&[u8]> = row.try_get("input_sha256")?;
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            format: row.try_get("format")?,
            expires_at_ms: row.try_get("expires_at_ms")?,
            input_sha256: decoded("input_sha256", stored.map(TryInto::try_into).transpose())?,
        })
    }
}

fn sha256(row: &Row, column: &str) -> Result<[u8; 32], sqlx::Error> {
    decoded(column, row.try_get::<&[u8], _>(column)?.try_into())
}

fn pixels(row: &Row, column: &str) -> Result<u32, sqlx::Error> {
    decoded(column, row.try_get::<i64, _>(column)?.try_into())
}

fn json<T: serde::de::DeserializeOwned>(row: &Row, column: &str) -> Result<Option<T>, sqlx::Error> {
    let text: Option<&str> = row.try_get(column)?;
    decoded(column, text.map(serde_json::from_str).transpose())
}

fn decoded<T, E>(column: &str, value: Result<T, E>) -> Result<T, sqlx::Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    value.map_err(|e| sqlx::Error::ColumnDecode { index: column.to_owned(), source: e.into() })
}
