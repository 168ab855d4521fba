//! Every change that can be made to the store, each one atomic.

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::record::{InputRow, Job, KeyRow, UploadRow};
use super::state::{Event, Refused};
use super::writer::{Applied, Change};

/// The oldest waiting job of a model, to be leased by a worker.
#[derive(Debug, Clone)]
pub struct Claim {
    pub model: String,
    pub worker_id: String,
    pub lease_until_ms: i64,
    pub now_ms: i64,
}

impl Change for Claim {
    type Answer = Option<Job>;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        let next: Option<Job> =
            sqlx::query_as("SELECT * FROM jobs WHERE status = 'queued' AND model = ? ORDER BY seq LIMIT 1")
                .bind(&self.model)
                .fetch_optional(&mut *connection)
                .await?;
        let Some(mut job) = next else { return Ok(None.into()) };
        let claimed =
            Event::Claimed { worker_id: self.worker_id.clone(), lease_until_ms: self.lease_until_ms };
        job.apply(claimed, self.now_ms).map_err(|refused| sqlx::Error::Protocol(refused.to_string()))?;
        save(connection, &job).await?;
        Ok(Applied { answer: Some(job.clone()), changed: vec![job] })
    }
}

/// One event for one job; `None` where the organisation has no such job.
#[derive(Debug)]
pub(super) struct Happen {
    pub(super) id: Uuid,
    /// Looks only at this organisation's jobs.
    pub(super) org_id: Option<String>,
    pub(super) event: Event,
    pub(super) now_ms: i64,
}

impl Change for Happen {
    type Answer = Option<Result<Job, Refused>>;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        let found: Option<Job> = sqlx::query_as("SELECT * FROM jobs WHERE id = ?")
            .bind(self.id)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(mut job) = found.filter(|job| self.org_id.as_ref().is_none_or(|org| *org == job.org_id))
        else {
            return Ok(None.into());
        };
        if let Err(refused) = job.apply(self.event.clone(), self.now_ms) {
            return Ok(Some(Err(refused)).into());
        }
        save(connection, &job).await?;
        Ok(Applied { answer: Some(Ok(job.clone())), changed: vec![job] })
    }
}

/// Takes back what lost workers hold.
#[derive(Debug)]
pub(super) struct ExpireLeases {
    /// Leases that end before this are over; `None` ends every lease (no worker outlives the process that holds the
    /// database, so at start all are over).
    pub(super) before_ms: Option<i64>,
    pub(super) attempts_max: i64,
    pub(super) now_ms: i64,
}

impl Change for ExpireLeases {
    type Answer = Vec<Job>;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        let mut jobs: Vec<Job> = sqlx::query_as(
            "SELECT * FROM jobs WHERE status = 'processing' AND (?1 IS NULL OR lease_until_ms < ?1) ORDER BY seq",
        )
        .bind(self.before_ms)
        .fetch_all(&mut *connection)
        .await?;
        for job in &mut jobs {
            job.apply(Event::LeaseExpired { attempts_max: self.attempts_max }, self.now_ms)
                .map_err(|refused| sqlx::Error::Protocol(refused.to_string()))?;
            save(connection, job).await?;
        }
        Ok(Applied { answer: jobs.clone(), changed: jobs })
    }
}

/// Writes what [`Job::apply`] may have changed.
async fn save(connection: &mut SqliteConnection, job: &Job) -> Result<(), sqlx::Error> {
    let saved = sqlx::query(
        "UPDATE jobs SET revision = ?, status = ?, updated_at_ms = ?, started_at_ms = ?, finished_at_ms = ?, \
         attempt = ?, attempts_lost = ?, lease_until_ms = ?, worker_id = ?, progress = ?, outcome = ?, error = ? \
         WHERE seq = ? AND revision = ?",
    )
    .bind(job.revision)
    .bind(job.status.as_str())
    .bind(job.updated_at_ms)
    .bind(job.started_at_ms)
    .bind(job.finished_at_ms)
    .bind(job.attempt)
    .bind(job.attempts_lost)
    .bind(job.lease_until_ms)
    .bind(&job.worker_id)
    .bind(encoded(job.progress.as_ref())?)
    .bind(encoded(job.outcome.as_ref())?)
    .bind(&job.error)
    .bind(job.seq)
    .bind(job.revision - 1)
    .execute(connection)
    .await?;
    if saved.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

fn encoded<T: serde::Serialize>(value: Option<&T>) -> Result<Option<String>, sqlx::Error> {
    value.map(serde_json::to_string).transpose().map_err(|e| sqlx::Error::Encode(e.into()))
}

#[derive(Debug)]
pub(super) struct AddInput {
    pub(super) input: InputRow,
    pub(super) now_ms: i64,
}

impl Change for AddInput {
    type Answer = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query("INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(&self.input.sha256[..])
            .bind(&self.input.format)
            .bind(self.input.width_px)
            .bind(self.input.height_px)
            .bind(self.input.size_bytes.cast_signed())
            .bind(self.now_ms)
            .execute(connection)
            .await?;
        Ok(().into())
    }
}

#[derive(Debug)]
pub(super) struct GrantUpload {
    pub(super) upload: UploadRow,
    pub(super) now_ms: i64,
}

impl Change for GrantUpload {
    type Answer = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, NULL)")
            .bind(self.upload.id)
            .bind(&self.upload.org_id)
            .bind(&self.upload.format)
            .bind(self.now_ms)
            .bind(self.upload.expires_at_ms)
            .execute(connection)
            .await?;
        Ok(().into())
    }
}

/// Ties a stored picture to its grant; a later upload under the same grant replaces it.
#[derive(Debug)]
pub(super) struct FillUpload {
    pub(super) id: Uuid,
    pub(super) input_sha256: [u8; 32],
}

impl Change for FillUpload {
    type Answer = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query("UPDATE uploads SET input_sha256 = ? WHERE id = ?")
            .bind(&self.input_sha256[..])
            .bind(self.id)
            .execute(connection)
            .await?;
        Ok(().into())
    }
}

/// An API key to be kept as its hash.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub row: KeyRow,
    pub sha256: [u8; 32],
}

impl Change for NewKey {
    type Answer = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query(
            "INSERT INTO keys (id, org_id, user_id, sha256, hint, created_at_ms) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&self.row.id)
        .bind(&self.row.org_id)
        .bind(&self.row.user_id)
        .bind(&self.sha256[..])
        .bind(&self.row.hint)
        .bind(self.row.created_at_ms)
        .execute(connection)
        .await?;
        Ok(().into())
    }
}

#[derive(Debug)]
pub(super) struct RevokeKey {
    pub(super) id: String,
    pub(super) now_ms: i64,
}

impl Change for RevokeKey {
    /// Whether there was such a live key.
    type Answer = bool;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Applied<bool>, sqlx::Error> {
        let revoked = sqlx::query("UPDATE keys SET revoked_at_ms = ? WHERE id = ? AND revoked_at_ms IS NULL")
            .bind(self.now_ms)
            .bind(&self.id)
            .execute(connection)
            .await?;
        Ok((revoked.rows_affected() > 0).into())
    }
}
