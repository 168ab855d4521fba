//! The SQLite store: one writer with group commit, several readers, and a cache of the jobs that changed lately.
//!
//! Always true: only the writer fills the cache, after its commit, so a cached job is never older than the row. Where
//! the cache does not know a job, the row is read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, QueryBuilder, Sqlite};
use tokio::sync::Notify;
use uuid::Uuid;

use super::changes::{AddInput, Claim, ExpireLeases, FillUpload, GrantUpload, Happen, NewKey, RevokeKey};
use super::record::{InputRow, Job, KeyRow, UploadRow};
use super::state::{Event, Refused, Status};
use super::submits::{NewJob, SubmitError, Submitter};
use super::writer::Writer;

/// SQLite before this can corrupt a database when its write-ahead log is reset (versions 3.7.0 to 3.51.2).
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS_COUNT: u32 = 4;
/// Bounds the cache by what its jobs weigh.
const CACHE_BYTES: u64 = 16 << 20;
const CACHE_JOBS_ESTIMATE: usize = 16 << 10;

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the bundled SQLite is {0}; at least 3.51.3 is needed")]
    SqliteTooOld(String),
    #[error("the store is closed")]
    Closed,
}

/// Limits the store keeps.
#[derive(Debug, Clone, Copy)]
pub struct StoreSettings {
    /// Waiting jobs that one organisation may have.
    pub queued_max: i64,
    /// Lost attempts after which a job fails.
    pub attempts_max: i64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { queued_max: 1000, attempts_max: 3 }
    }
}

/// The durable queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobStore {
    writer: Writer,
    submitter: Submitter,
    readers: SqlitePool,
    cache: Arc<JobCache>,
    settings: StoreSettings,
    work: Arc<Notify>,
}

/// Which of an organisation's jobs to list.
#[derive(Debug, Clone)]
pub struct JobFilter {
    pub org_id: String,
    pub model: Option<String>,
    pub status: Option<Status>,
    pub limit: i64,
    pub offset: i64,
}

/// Jobs, newest first, and how many match in all.
#[derive(Debug)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    pub total: i64,
}

impl JobStore {
    /// Opens (and creates or brings up to date) the database file at `path`.
    pub async fn open(path: &Path, settings: StoreSettings) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .disable_statement_logging();
        let mut connection = options.connect().await?;
        require_sqlite_version(&mut connection).await?;
        sqlx::migrate!().run(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_COUNT)
            .connect_with(options.read_only(true))
            .await?;
        let cache = Arc::new(JobCache::new());
        let writer = Writer::start(connection, cache.clone());
        let submitter = Submitter::start(writer.clone(), settings.queued_max);
        Ok(Self { writer, submitter, readers, cache, settings, work: Arc::new(Notify::new()) })
    }

    /// Accepts a job: when this returns `Ok(Ok(_))` it is on disk.
    pub async fn submit(&self, job: NewJob) -> Result<Result<Job, SubmitError>, StoreError> {
        let accepted = self.submitter.submit(job).await?;
        if accepted.is_ok() {
            self.work.notify_one();
        }
        Ok(accepted)
    }

    /// Returns when a job may be waiting; workers poll slowly beside it.
    pub async fn work_arrived(&self) {
        self.work.notified().await;
    }

    /// Leases the oldest waiting job of a model.
    pub async fn claim(&self, claim: Claim) -> Result<Option<Job>, StoreError> {
        self.writer.commit(claim).await
    }

    /// Applies a worker's event; `None` where there is no such job.
    pub async fn report(
        &self,
        id: Uuid,
        event: Event,
        now_ms: i64,
    ) -> Result<Option<Result<Job, Refused>>, StoreError> {
        let gives_back = matches!(event, Event::Released { .. } | Event::Failed { .. });
        let answer = self.writer.commit(Happen { id, org_id: None, event, now_ms }).await?;
        if gives_back {
            self.work.notify_one();
        }
        Ok(answer)
    }

    /// Cancels a job of this organisation; `None` where it has no such job.
    pub async fn cancel(
        &self,
        org_id: &str,
        id: Uuid,
        now_ms: i64,
    ) -> Result<Option<Result<Job, Refused>>, StoreError> {
        let org_id = Some(org_id.to_owned());
        self.writer.commit(Happen { id, org_id, event: Event::Cancelled, now_ms }).await
    }

    /// Takes back every lease that ends before `before_ms` (all leases where `None`) and returns the jobs it touched.
    pub async fn expire_leases(&self, before_ms: Option<i64>, now_ms: i64) -> Result<Vec<Job>, StoreError> {
        let attempts_max = self.settings.attempts_max;
        let expired = self.writer.commit(ExpireLeases { before_ms, attempts_max, now_ms }).await?;
        if !expired.is_empty() {
            self.work.notify_one();
        }
        Ok(expired)
    }

    /// Lost attempts after which a job fails.
    pub fn attempts_max(&self) -> i64 {
        self.settings.attempts_max
    }

    /// A job of any organisation.
    pub async fn get(&self, id: Uuid) -> Result<Option<Arc<Job>>, StoreError> {
        if let Some(job) = self.cache.get(id) {
            return Ok(Some(job));
        }
        let row: Option<Job> =
            sqlx::query_as("SELECT * FROM jobs WHERE id = ?").bind(id).fetch_optional(&self.readers).await?;
        Ok(row.map(Arc::new))
    }

    /// A page of an organisation's jobs, newest first.
    pub async fn list(&self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        let mut rows = QueryBuilder::<Sqlite>::new("SELECT * FROM jobs");
        filter.push_where(&mut rows);
        rows.push(" ORDER BY seq DESC LIMIT ").push_bind(filter.limit);
        rows.push(" OFFSET ").push_bind(filter.offset);
        let jobs = rows.build_query_as().fetch_all(&self.readers).await?;
        let mut count = QueryBuilder::<Sqlite>::new("SELECT COALESCE(SUM(count), 0) FROM job_counts");
        filter.push_where(&mut count);
        let total = count.build_query_scalar().fetch_one(&self.readers).await?;
        Ok(JobPage { jobs, total })
    }

    /// How many jobs of all organisations are in a state.
    pub async fn count(&self, status: Status) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT COALESCE(SUM(count), 0) FROM job_counts WHERE status = ?")
            .bind(status.as_str())
            .fetch_one(&self.readers)
            .await?)
    }

    pub async fn add_input(&self, input: InputRow, now_ms: i64) -> Result<(), StoreError> {
        self.writer.commit(AddInput { input, now_ms }).await
    }

    pub async fn input(&self, sha256: &[u8; 32]) -> Result<Option<InputRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM inputs WHERE sha256 = ?")
            .bind(&sha256[..])
            .fetch_optional(&self.readers)
            .await?)
    }

    pub async fn grant_upload(&self, upload: UploadRow, now_ms: i64) -> Result<(), StoreError> {
        self.writer.commit(GrantUpload { upload, now_ms }).await
    }

    pub async fn fill_upload(&self, id: Uuid, input_sha256: [u8; 32]) -> Result<(), StoreError> {
        self.writer.commit(FillUpload { id, input_sha256 }).await
    }

    pub async fn upload(&self, id: Uuid) -> Result<Option<UploadRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM uploads WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?)
    }

    pub async fn add_key(&self, key: NewKey) -> Result<(), StoreError> {
        self.writer.commit(key).await
    }

    /// Revokes a key; `false` where there is no such live key.
    pub async fn revoke_key(&self, id: &str, now_ms: i64) -> Result<bool, StoreError> {
        self.writer.commit(RevokeKey { id: id.to_owned(), now_ms }).await
    }

    /// The live key with this hash.
    pub async fn key(&self, sha256: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM keys WHERE sha256 = ? AND revoked_at_ms IS NULL")
            .bind(&sha256[..])
            .fetch_optional(&self.readers)
            .await?)
    }

    /// All keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM keys ORDER BY created_at_ms, id").fetch_all(&self.readers).await?)
    }
}

impl JobFilter {
    fn push_where(&self, query: &mut QueryBuilder<Sqlite>) {
        query.push(" WHERE org_id = ").push_bind(self.org_id.clone());
        if let Some(model) = &self.model {
            query.push(" AND model = ").push_bind(model.clone());
        }
        if let Some(status) = self.status {
            query.push(" AND status = ").push_bind(status.as_str());
        }
    }
}

async fn require_sqlite_version(connection: &mut sqlx::SqliteConnection) -> Result<(), StoreError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    if (next(), next(), next()) < SQLITE_VERSION_MIN {
        return Err(StoreError::SqliteTooOld(version));
    }
    Ok(())
}

/// Jobs as of their last commit, the least recently used dropped first.
#[derive(Debug)]
pub(super) struct JobCache(quick_cache::sync::Cache<Uuid, Arc<Job>, JobWeight>);

#[derive(Debug, Clone)]
struct JobWeight;

impl quick_cache::Weighter<Uuid, Arc<Job>> for JobWeight {
    fn weight(&self, _: &Uuid, job: &Arc<Job>) -> u64 {
        let plan_bytes = if job.outcome.is_some() { 4096 } else { 0 };
        (size_of::<Job>() + job.payload.len() + plan_bytes) as u64
    }
}

impl JobCache {
    fn new() -> Self {
        Self(quick_cache::sync::Cache::with_weighter(CACHE_JOBS_ESTIMATE, CACHE_BYTES, JobWeight))
    }

    pub(super) fn put(&self, job: Job) {
        self.0.insert(job.id, Arc::new(job));
    }

    fn get(&self, id: Uuid) -> Option<Arc<Job>> {
        self.0.get(&id)
    }
}

#[cfg(test)]
mod tests;
