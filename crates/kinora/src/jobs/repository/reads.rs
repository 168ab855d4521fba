//! What is read outside of any change.

use std::sync::Arc;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{Db, Repository};
use crate::jobs::record::{InputRow, Job, KeyRow, Unended, UploadRow};
use crate::jobs::state::Status;
use crate::jobs::store::{JobFilter, JobPage, StoreError};

impl Repository {
    pub(in crate::jobs) async fn get(&self, id: Uuid) -> Result<Option<Arc<Job>>, StoreError> {
        if let Some(job) = self.cache.as_ref().and_then(|cache| cache.get(id)) {
            return Ok(Some(job));
        }
        let row: Option<Job> =
            sqlx::query_as("SELECT * FROM jobs WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        Ok(row.map(Arc::new))
    }

    pub(in crate::jobs) async fn list(&self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        let mut rows = QueryBuilder::<Db>::new("SELECT * FROM jobs");
        push_where(filter, &mut rows);
        rows.push(" ORDER BY seq DESC LIMIT ").push_bind(filter.limit);
        rows.push(" OFFSET ").push_bind(filter.offset);
        let jobs = rows.build_query_as().fetch_all(&self.readers).await?;
        let mut count =
            QueryBuilder::<Db>::new("SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM job_counts");
        push_where(filter, &mut count);
        let total = count.build_query_scalar().fetch_one(&self.readers).await?;
        Ok(JobPage { jobs, total })
    }

    pub(in crate::jobs) async fn count(&self, status: Status) -> Result<i64, StoreError> {
        let sql = "SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM job_counts WHERE status = $1";
        Ok(sqlx::query_scalar(sql).bind(status.as_str()).fetch_one(&self.readers).await?)
    }

    pub(in crate::jobs) async fn unended(&self) -> Result<Vec<Unended>, StoreError> {
        let sql = "SELECT model, status, CAST(SUM(count) AS BIGINT) FROM job_counts \
                   WHERE status IN ('queued', 'processing') GROUP BY model, status";
        let rows: Vec<(String, String, i64)> = sqlx::query_as(sql).fetch_all(&self.readers).await?;
        let unended = |(model, status, jobs_count)| Unended { model, status, jobs_count };
        Ok(rows.into_iter().map(unended).collect())
    }

    /// Looks at the first that waits of each organisation that waits: neither is found by reading the queue.
    pub(in crate::jobs) async fn oldest_queued_ms(&self) -> Result<Option<i64>, StoreError> {
        let mut oldest = None;
        for model in self.models_that_wait().await? {
            let of_model: Option<i64> = sqlx::query_scalar(
                "WITH RECURSIVE orgs (org_id) AS ( \
                     SELECT (SELECT org_id FROM jobs WHERE status = 'queued' AND model = $1 ORDER BY org_id LIMIT 1) \
                     UNION ALL \
                     SELECT (SELECT jobs.org_id FROM jobs WHERE jobs.status = 'queued' AND jobs.model = $1 \
                             AND jobs.org_id > orgs.org_id ORDER BY jobs.org_id LIMIT 1) \
                     FROM orgs WHERE orgs.org_id IS NOT NULL \
                 ) \
                 SELECT MIN((SELECT queued_at_ms FROM jobs WHERE jobs.org_id = orgs.org_id \
                             AND jobs.status = 'queued' ORDER BY jobs.seq LIMIT 1)) \
                 FROM orgs WHERE orgs.org_id IS NOT NULL",
            )
            .bind(model)
            .fetch_one(&self.readers)
            .await?;
            oldest = [oldest, of_model].into_iter().flatten().min();
        }
        Ok(oldest)
    }

    async fn models_that_wait(&self) -> Result<Vec<String>, StoreError> {
        let sql = "WITH RECURSIVE models (model) AS ( \
                       SELECT (SELECT model FROM jobs WHERE status = 'queued' AND model > '' ORDER BY model LIMIT 1) \
                       UNION ALL \
                       SELECT (SELECT jobs.model FROM jobs WHERE jobs.status = 'queued' \
                               AND jobs.model > models.model ORDER BY jobs.model LIMIT 1) \
                       FROM models WHERE models.model IS NOT NULL \
                   ) \
                   SELECT model FROM models WHERE model IS NOT NULL";
        Ok(sqlx::query_scalar(sql).fetch_all(&self.readers).await?)
    }

    pub(in crate::jobs) async fn input(&self, sha256: &[u8; 32]) -> Result<Option<InputRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM inputs WHERE sha256 = $1")
            .bind(&sha256[..])
            .fetch_optional(&self.readers)
            .await?)
    }

    pub(in crate::jobs) async fn upload(&self, id: Uuid) -> Result<Option<UploadRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM uploads WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?)
    }

    pub(in crate::jobs) async fn key(&self, sha256: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM keys WHERE sha256 = $1 AND revoked_at_ms IS NULL")
            .bind(&sha256[..])
            .fetch_optional(&self.readers)
            .await?)
    }

    pub(in crate::jobs) async fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM keys ORDER BY created_at_ms, id").fetch_all(&self.readers).await?)
    }
}

fn push_where(filter: &JobFilter, query: &mut QueryBuilder<Db>) {
    query.push(" WHERE org_id = ").push_bind(filter.org_id.clone());
    if let Some(model) = &filter.model {
        query.push(" AND model = ").push_bind(model.clone());
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
}
