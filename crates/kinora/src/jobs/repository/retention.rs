//! Forgetting what is kept no longer. Each step finds its rows by an index, however much is kept; in SQLite the pictures
//! of requests that wait or are worked on are looked through, while nothing is locked.

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::writer::{Applied, Change};
use super::{BEGIN, Connection, Db, Repository};
use crate::jobs::changes::{ForgetJobs, ForgetUploads};
use crate::jobs::record::{Expired, InputRow};
use crate::jobs::store::StoreError;

/// Pictures that go in one transaction: bounds how long others wait to write.
const INPUTS_AT_ONCE: usize = 50;

impl Change for ForgetJobs {
    type Answer = u64;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<u64>, sqlx::Error> {
        let mut delete =
            QueryBuilder::<Db>::new("DELETE FROM jobs WHERE finished_at_ms IS NOT NULL AND id IN (");
        let mut listed = delete.separated(", ");
        for id in &self.ids {
            listed.push_bind(*id);
        }
        listed.push_unseparated(")");
        let deleted = delete.build().execute(connection).await?;
        Ok(Applied { forgotten: self.ids.clone(), ..Applied::from(deleted.rows_affected()) })
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
    ) -> Result<Vec<Uuid>, StoreError> {
        let sql = "SELECT id FROM jobs WHERE finished_at_ms < $1 ORDER BY finished_at_ms LIMIT $2";
        Ok(sqlx::query_scalar(sql).bind(before_ms).bind(limit).fetch_all(&self.readers).await?)
    }

    /// Whether any picture is known.
    pub(in crate::jobs) async fn has_inputs(&self) -> Result<bool, StoreError> {
        let first: Option<i64> =
            sqlx::query_scalar("SELECT MIN(used_at_ms) FROM inputs").fetch_one(&self.readers).await?;
        Ok(first.is_some())
    }

    /// Forgets pictures that neither a job nor an upload names and that nobody was handed since a time.
    ///
    /// They are looked for while others write, and then few at a time are looked at again and go. A job that was there
    /// when the look began was seen by it, since its picture never changes; so only what came later, and what was handed
    /// out or uploaded meanwhile, is looked at twice. In PostgreSQL, where a job may appear that was numbered before,
    /// the foreign key refuses the deletion.
    pub(in crate::jobs) async fn forget_inputs(
        &self,
        before_ms: i64,
        limit: i64,
    ) -> Result<Vec<InputRow>, StoreError> {
        let last_seq: i64 =
            sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM jobs").fetch_one(&self.readers).await?;
        let unnamed: Vec<InputRow> = sqlx::query_as(concat!(
            "SELECT * FROM inputs WHERE used_at_ms < $1 AND ",
            named_by_no_job!(),
            " AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.input_sha256 = inputs.sha256) \
             ORDER BY used_at_ms LIMIT $2"
        ))
        .bind(before_ms)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let mut forgotten = Vec::with_capacity(unnamed.len());
        for few in unnamed.chunks(INPUTS_AT_ONCE) {
            let mut transaction = self.forgetters.begin_with(BEGIN).await?;
            for input in few {
                let deleted = forget_input(&mut transaction, input, before_ms, last_seq).await?;
                forgotten.extend(deleted.then(|| input.clone()));
            }
            transaction.commit().await?;
        }
        Ok(forgotten)
    }

    /// What would be forgotten by all of the changes above, one after the other.
    pub(in crate::jobs) async fn expired(&self, before_ms: i64) -> Result<Expired, StoreError> {
        let jobs_count = "SELECT count(*) FROM jobs WHERE finished_at_ms < $1";
        let uploads_count = "SELECT count(*) FROM uploads WHERE created_at_ms < $1";
        let inputs_count = concat!(
            "SELECT count(*) FROM inputs WHERE used_at_ms < $1 AND ",
            named_by_no_job_that_stays!(),
            " AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.input_sha256 = inputs.sha256 \
                 AND uploads.created_at_ms >= $1)"
        );
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

/// Whether the picture went: not if it was named or handed out since it was found.
async fn forget_input(
    connection: &mut Connection,
    input: &InputRow,
    before_ms: i64,
    last_seq: i64,
) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM inputs WHERE sha256 = $1 AND used_at_ms < $2 \
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.input_sha256 = inputs.sha256 AND jobs.seq > $3) \
         AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.input_sha256 = inputs.sha256)",
    )
    .bind(&input.sha256[..])
    .bind(before_ms)
    .bind(last_seq)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected() > 0)
}
