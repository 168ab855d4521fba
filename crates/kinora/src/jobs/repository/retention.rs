//! Forgetting what is kept no longer. Each step finds its rows by an index, however much is kept, but for the pictures
//! of requests that wait or are worked on, which are looked through.

use sqlx::QueryBuilder;

use super::writer::{Applied, Change};
use super::{BEGIN, Connection, Db, Repository};
use crate::jobs::changes::{ForgetJobs, ForgetUploads};
use crate::jobs::record::{EndedJob, Expired, InputRow};
use crate::jobs::store::StoreError;

impl Change for ForgetJobs {
    type Answer = ();

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<()>, sqlx::Error> {
        let mut delete =
            QueryBuilder::<Db>::new("DELETE FROM jobs WHERE finished_at_ms IS NOT NULL AND id IN (");
        let mut listed = delete.separated(", ");
        for id in &self.ids {
            listed.push_bind(*id);
        }
        listed.push_unseparated(")");
        delete.build().execute(connection).await?;
        Ok(Applied { forgotten: self.ids.clone(), ..Applied::from(()) })
    }
}

impl Change for ForgetUploads {
    type Answer = u64;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<u64>, sqlx::Error> {
        let deleted = sqlx::query("DELETE FROM uploads WHERE created_at_ms < $1")
            .bind(self.before_ms)
            .execute(connection)
            .await?;
        Ok(deleted.rows_affected().into())
    }
}

impl Repository {
    /// Jobs that ended before a time, those that ended first before the others.
    pub(in crate::jobs) async fn ended_before(
        &self,
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<EndedJob>, StoreError> {
        let sql = "SELECT id, attempt FROM jobs WHERE finished_at_ms < $1 ORDER BY finished_at_ms LIMIT $2";
        Ok(sqlx::query_as(sql).bind(before_ms).bind(limit).fetch_all(&self.readers).await?)
    }

    /// Whether any picture is known.
    pub(in crate::jobs) async fn has_inputs(&self) -> Result<bool, StoreError> {
        let first: Option<i64> =
            sqlx::query_scalar("SELECT used_at_ms FROM inputs LIMIT 1").fetch_optional(&self.readers).await?;
        Ok(first.is_some())
    }

    /// Forgets pictures that neither a job nor an upload names and that nobody was handed since a time.
    ///
    /// Should a job come to name one between the look and the deletion, PostgreSQL's foreign key refuses the deletion;
    /// in SQLite nobody else writes meanwhile.
    pub(in crate::jobs) async fn forget_inputs(
        &self,
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<InputRow>, StoreError> {
        let mut transaction = self.forgetters.begin_with(BEGIN).await?;
        let unnamed: Vec<InputRow> = sqlx::query_as(skip_locked!(
            "SELECT * FROM inputs WHERE used_at_ms < $1 \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.input_sha256 = inputs.sha256 \
                 AND jobs.finished_at_ms IS NOT NULL) \
             AND sha256 NOT IN (SELECT input_sha256 FROM jobs WHERE status = 'queued' \
                 UNION ALL SELECT input_sha256 FROM jobs WHERE status = 'processing') \
             AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.input_sha256 = inputs.sha256) \
             ORDER BY used_at_ms LIMIT $2"
        ))
        .bind(before_ms)
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
        for input in &unnamed {
            sqlx::query("DELETE FROM inputs WHERE sha256 = $1")
                .bind(&input.sha256[..])
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(unnamed)
    }

    /// What would be forgotten by all of the changes above, one after the other.
    pub(in crate::jobs) async fn expired(&self, before_ms: i64) -> Result<Expired, StoreError> {
        let jobs_count = "SELECT count(*) FROM jobs WHERE finished_at_ms < $1";
        let uploads_count = "SELECT count(*) FROM uploads WHERE created_at_ms < $1";
        let inputs_count = "SELECT count(*) FROM inputs WHERE used_at_ms < $1 \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.input_sha256 = inputs.sha256 \
                 AND jobs.finished_at_ms >= $1) \
             AND sha256 NOT IN (SELECT input_sha256 FROM jobs WHERE status = 'queued' \
                 UNION ALL SELECT input_sha256 FROM jobs WHERE status = 'processing') \
             AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.input_sha256 = inputs.sha256 \
                 AND uploads.created_at_ms >= $1)";
        let [jobs_count, uploads_count, inputs_count] = [
            self.counted(jobs_count, before_ms).await?,
            self.counted(uploads_count, before_ms).await?,
            self.counted(inputs_count, before_ms).await?,
        ];
        Ok(Expired { jobs_count, uploads_count, inputs_count })
    }

    async fn counted(&self, sql: &'static str, before_ms: i64) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(sql).bind(before_ms).fetch_one(&self.readers).await?;
        Ok(count.unsigned_abs())
    }
}
