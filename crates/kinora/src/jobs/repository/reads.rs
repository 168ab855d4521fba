//! What is read outside of any change.

use std::sync::Arc;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{Db, Repository};
use crate::jobs::record::{InputRow, Job, KeyRow, UploadRow};
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

    pub(in crate::jobs) async fn oldest_queued_ms(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT MIN(queued_at_ms) FROM jobs WHERE status = 'queued'";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.readers).await?)
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
