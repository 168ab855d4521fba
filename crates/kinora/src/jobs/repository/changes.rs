//! How each change is made: read the row, apply the pure function, write it back.

use super::writer::{Applied, Change};
use super::{Connection, lease_clock_ms};
use crate::jobs::changes::{
    AddInput, ExpireLeases, FillUpload, GrantUpload, Happen, Happened, Heartbeat, Leases, NewKey, RevokeKey,
    UseInput, What,
};
use crate::jobs::record::{InputRow, Job};
use crate::jobs::state::Event;

impl Change for Happen {
    type Answer = Happened;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        let found: Option<Job> = sqlx::query_as(for_update!("SELECT * FROM jobs WHERE id = $1"))
            .bind(self.id)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(mut job) = found.filter(|job| self.org_id.as_ref().is_none_or(|org| *org == job.org_id))
        else {
            return Ok(None.into());
        };
        let event = match self.what.clone() {
            What::Event(event) => event,
            What::Heartbeat(Heartbeat { attempt, lease_ms, progress }) => {
                let lease_until_ms = lease_clock_ms(connection).await? + lease_ms;
                Event::Heartbeat { attempt, lease_until_ms, progress }
            }
        };
        if let Err(refused) = job.apply(event, self.now_ms) {
            return Ok(Some(Err(refused)).into());
        }
        save(connection, &job).await?;
        Ok(Applied::with(Some(Ok(job.clone())), vec![job]))
    }
}

impl Change for ExpireLeases {
    type Answer = Vec<Job>;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        let before_ms = match self.which {
            Leases::Overdue => lease_clock_ms(connection).await?,
            Leases::All => i64::MAX,
        };
        // Ordered here: for the order SQLite would read the whole table instead of the index of leases.
        let mut jobs: Vec<Job> = sqlx::query_as(skip_locked!(
            "SELECT * FROM jobs WHERE status = 'processing' AND lease_until_ms < $1"
        ))
        .bind(before_ms)
        .fetch_all(&mut *connection)
        .await?;
        jobs.sort_by_key(|job| job.seq);
        for job in &mut jobs {
            job.apply(Event::LeaseExpired { attempts_max: self.attempts_max }, self.now_ms)
                .map_err(|refused| sqlx::Error::Protocol(refused.to_string()))?;
            save(connection, job).await?;
        }
        Ok(Applied::with(jobs.clone(), jobs))
    }
}

/// Writes what [`Job::apply`] may have changed.
pub(super) async fn save(connection: &mut Connection, job: &Job) -> Result<(), sqlx::Error> {
    let saved = sqlx::query(
        "UPDATE jobs SET revision = $1, status = $2, updated_at_ms = $3, started_at_ms = $4, finished_at_ms = $5, \
         attempt = $6, attempts_lost = $7, lease_until_ms = $8, worker_id = $9, progress = $10, outcome = $11, \
         error = $12 WHERE seq = $13 AND revision = $14",
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

impl Change for AddInput {
    type Answer = InputRow;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<InputRow>, sqlx::Error> {
        let stands: InputRow = sqlx::query_as(
            "INSERT INTO inputs (sha256, version, format, width_px, height_px, size_bytes, created_at_ms, used_at_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7) \
             ON CONFLICT (sha256) DO UPDATE SET used_at_ms = CASE WHEN excluded.used_at_ms > inputs.used_at_ms \
                 THEN excluded.used_at_ms ELSE inputs.used_at_ms END RETURNING *",
        )
        .bind(&self.input.sha256[..])
        .bind(self.input.version)
        .bind(&self.input.format)
        .bind(i64::from(self.input.width_px))
        .bind(i64::from(self.input.height_px))
        .bind(self.input.size_bytes.cast_signed())
        .bind(self.input.used_at_ms)
        .fetch_one(connection)
        .await?;
        Ok(stands.into())
    }
}

impl Change for UseInput {
    type Answer = Option<InputRow>;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        let used: Option<InputRow> = sqlx::query_as(
            "UPDATE inputs SET used_at_ms = CASE WHEN used_at_ms < $1 THEN $1 ELSE used_at_ms END \
             WHERE sha256 = $2 RETURNING *",
        )
        .bind(self.now_ms)
        .bind(&self.sha256[..])
        .fetch_optional(connection)
        .await?;
        Ok(used.into())
    }
}

impl Change for GrantUpload {
    type Answer = ();

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query(
            "INSERT INTO uploads (id, org_id, format, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5)",
        )
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

impl Change for FillUpload {
    type Answer = ();

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query("UPDATE uploads SET input_sha256 = $1 WHERE id = $2")
            .bind(&self.input_sha256[..])
            .bind(self.id)
            .execute(connection)
            .await?;
        Ok(().into())
    }
}

impl Change for NewKey {
    type Answer = ();

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query(
            "INSERT INTO keys (id, org_id, user_id, sha256, hint, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6)",
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

impl Change for RevokeKey {
    /// Whether there was such a live key.
    type Answer = bool;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<bool>, sqlx::Error> {
        let revoked =
            sqlx::query("UPDATE keys SET revoked_at_ms = $1 WHERE id = $2 AND revoked_at_ms IS NULL")
                .bind(self.now_ms)
                .bind(&self.id)
                .execute(connection)
                .await?;
        Ok((revoked.rows_affected() > 0).into())
    }
}
