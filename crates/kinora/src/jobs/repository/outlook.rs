//! Who works, and how long a waiting job may still wait.

use super::writer::{Applied, Change};
use super::{Connection, Repository, lease_clock_ms};
use crate::jobs::changes::{Presence, WorkerGone};
use crate::jobs::outlook::{Pace, WORKER_SEEN_MS};
use crate::jobs::record::Job;
use crate::jobs::store::StoreError;

impl Change for Presence {
    type Answer = ();

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<()>, sqlx::Error> {
        let now_ms = lease_clock_ms(connection).await?;
        for model in &self.models {
            sqlx::query(
                "INSERT INTO workers (id, model, engine, pace_ms, seen_at_ms) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (model, id) DO UPDATE SET pace_ms = excluded.pace_ms, seen_at_ms = excluded.seen_at_ms",
            )
            .bind(&self.worker_id)
            .bind(model)
            .bind(&self.engine)
            .bind(self.pace_ms)
            .bind(now_ms)
            .execute(&mut *connection)
            .await?;
        }
        sqlx::query("DELETE FROM workers WHERE seen_at_ms < $1 OR seen_at_ms > $2")
            .bind(now_ms - 10 * WORKER_SEEN_MS)
            // A clock that began anew: whoever was seen by the old one is gone.
            .bind(now_ms + WORKER_SEEN_MS)
            .execute(connection)
            .await?;
        Ok(().into())
    }
}

impl Change for WorkerGone {
    type Answer = ();

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<()>, sqlx::Error> {
        sqlx::query("DELETE FROM workers WHERE id = $1").bind(&self.worker_id).execute(connection).await?;
        Ok(().into())
    }
}

impl Repository {
    /// How many waiting jobs may be served before this one, at most, if no more are submitted: those of its own
    /// organisation that go first, and from every other organisation one for each turn until then.
    pub(in crate::jobs) async fn ahead_of(&self, job: &Job) -> Result<i64, StoreError> {
        let own: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM jobs WHERE status = 'queued' AND model = $1 AND org_id = $2 \
             AND (priority > $3 OR (priority = $3 AND seq < $4))",
        )
        .bind(&job.model)
        .bind(&job.org_id)
        .bind(job.priority)
        .bind(job.seq)
        .fetch_one(&self.readers)
        .await?;
        let others: i64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(CASE WHEN others.waiting > $3 THEN $3 ELSE others.waiting END), 0) AS BIGINT) \
             FROM (SELECT SUM(count) AS waiting FROM job_counts \
                   WHERE status = 'queued' AND model = $1 AND org_id <> $2 GROUP BY org_id) AS others",
        )
        .bind(&job.model)
        .bind(&job.org_id)
        .bind(own + 1)
        .fetch_one(&self.readers)
        .await?;
        Ok(own + others)
    }

    /// The engines of the workers that serve a model and were seen lately, one for each worker.
    pub(in crate::jobs) async fn engines(&self, model: &str) -> Result<Vec<String>, StoreError> {
        let now_ms = lease_clock_ms(&mut *self.readers.acquire().await?).await?;
        let sql = "SELECT engine FROM workers WHERE model = $1 AND seen_at_ms > $2 ORDER BY engine";
        Ok(sqlx::query_scalar(sql).bind(model).bind(now_ms - WORKER_SEEN_MS).fetch_all(&self.readers).await?)
    }

    /// The paces of the workers that serve a model and were seen lately.
    pub(in crate::jobs) async fn paces(&self, model: &str) -> Result<Vec<Pace>, StoreError> {
        let now_ms = lease_clock_ms(&mut *self.readers.acquire().await?).await?;
        Ok(sqlx::query_scalar("SELECT pace_ms FROM workers WHERE model = $1 AND seen_at_ms > $2")
            .bind(model)
            .bind(now_ms - WORKER_SEEN_MS)
            .fetch_all(&self.readers)
            .await?)
    }
}
