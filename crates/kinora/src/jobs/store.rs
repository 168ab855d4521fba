//! The durable queue, whichever database holds it.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::broadcast;
use uuid::Uuid;

use super::changes::{
    AddInput, Claim, ExpireLeases, FillUpload, ForgetJobs, ForgetUploads, GrantUpload, Happen, Heartbeat,
    Leases, NewJob, NewKey, Presence, RevokeKey, SubmitError, TakeTurn, UseInput, What, WorkerGone,
};
use super::outlook::{Outlook, Outlooks};
use super::record::{Expired, InputRow, Job, KeyRow, Unended, UploadRow};
use super::row_clock::RowClock;
use super::schema::Schema;
use super::signals::Signals;
use super::state::{Event, Refused, Status};
use super::{postgres, sqlite};

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(
        "the database is an older release's, which may be at work on it: stop that release and run `kinora migrate`, \
         or use its own `kinora`"
    )]
    Older,
    #[error("the bundled SQLite is {0}; at least 3.51.3 is needed")]
    SqliteTooOld(String),
    #[error(
        "the secret in the database must be 32 bytes; restore it from a backup (a new one would void every media URL)"
    )]
    BadSecret,
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether any other job would have met it, too; otherwise the rows at hand are damaged.
    pub fn is_everywhere(&self) -> bool {
        /// SQLite's primary code, and PostgreSQL's class.
        const CORRUPT: i32 = 11;
        const INTERNAL: &str = "XX";
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().is_none_or(|code| {
                !code.starts_with(INTERNAL) && code.parse::<i32>().map_or(true, |code| code & 0xff != CORRUPT)
            }),
            Self::Database(
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_),
            ) => false,
            _ => true,
        }
    }
}

/// Limits the store keeps, and how it is opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreSettings {
    /// Waiting jobs that one organisation may have.
    pub queued_max: i64,
    /// Jobs that one organisation may have in progress.
    pub running_max: i64,
    /// Lost attempts after which a job fails.
    pub attempts_max: i64,
    pub schema: Schema,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { queued_max: 1000, running_max: i64::MAX, attempts_max: 3, schema: Schema::Renewed }
    }
}

/// The address of a PostgreSQL database, which may hold a password and so never prints itself by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if known { Ok(Self(text.to_owned())) } else { Err("must begin with postgres://") }
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// The durable queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobStore {
    repository: Repository,
    settings: StoreSettings,
    signals: Signals,
    clock: RowClock,
    shared_secret: Option<[u8; 32]>,
    outlooks: Arc<Outlooks>,
}

#[derive(Debug, Clone)]
enum Repository {
    Sqlite(sqlite::Repository),
    Postgres(postgres::Repository),
}

/// The same call on whichever database it is.
macro_rules! on {
    ($self:ident, $repository:ident => $call:expr) => {
        match &$self.repository {
            Repository::Sqlite($repository) => $call,
            Repository::Postgres($repository) => $call,
        }
    };
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
    /// Opens (and creates or brings up to date) the SQLite file at `path`, for this process alone.
    pub async fn open(path: &Path, settings: StoreSettings) -> Result<Self, StoreError> {
        let signals = Signals::new();
        let repository = sqlite::open(path, settings, signals.clone()).await?;
        Ok(Self::of(Repository::Sqlite(repository), settings, signals))
    }

    /// Opens (and brings up to date) the PostgreSQL database at `url`, which other processes may use as well.
    pub async fn open_postgres(url: &DatabaseUrl, settings: StoreSettings) -> Result<Self, StoreError> {
        let signals = Signals::new();
        let (repository, clock, secret) = postgres::open(url, settings, signals.clone()).await?;
        let store = Self::of(Repository::Postgres(repository), settings, signals);
        Ok(Self { clock, shared_secret: Some(secret), ..store })
    }

    fn of(repository: Repository, settings: StoreSettings, signals: Signals) -> Self {
        let outlooks = Arc::new(Outlooks::new());
        let clock = RowClock::default();
        Self { repository, settings, signals, clock, shared_secret: None, outlooks }
    }

    /// What time it is, in milliseconds since the Unix epoch, by the clock that all share who write here. Whatever is
    /// told to the store as `now_ms` is read from it, so that no machine's clock decides how long something is kept.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// What signs media URLs where several processes serve them; one process keeps its own in its data folder.
    pub fn shared_secret(&self) -> Option<[u8; 32]> {
        self.shared_secret
    }

    /// Whether other processes may write beside this one.
    pub fn is_shared(&self) -> bool {
        matches!(self.repository, Repository::Postgres(_))
    }

    /// Accepts a job: when this returns `Ok(Ok(_))` it is on disk.
    pub async fn submit(&self, job: NewJob) -> Result<Result<Job, SubmitError>, StoreError> {
        on!(self, repository => repository.submit(job).await)
    }

    /// Returns when a job may be waiting; workers poll slowly beside it.
    pub async fn work_arrived(&self) {
        self.signals.work_arrived().await;
    }

    /// The jobs that are cancelled from now on, as far as this process hears of it.
    pub fn cancelled(&self) -> broadcast::Receiver<Uuid> {
        self.signals.cancelled()
    }

    /// Leases the waiting job of a model whose turn it is.
    pub async fn claim(&self, claim: Claim) -> Result<Option<Job>, StoreError> {
        let claim = TakeTurn { claim, running_max: self.settings.running_max };
        let claimed = on!(self, repository => repository.commit(claim).await)?;
        if claimed.is_some() {
            // There may be more: whoever is idle looks as well.
            self.signals.wake_next();
        }
        Ok(claimed)
    }

    /// Applies a worker's event; `None` where there is no such job.
    pub async fn report(
        &self,
        id: Uuid,
        event: Event,
        now_ms: i64,
    ) -> Result<Option<Result<Job, Refused>>, StoreError> {
        let happen = Happen { id, org_id: None, what: What::Event(event), now_ms };
        on!(self, repository => repository.commit(happen).await)
    }

    /// Keeps an attempt's lease for another `lease_ms`.
    pub async fn heartbeat(
        &self,
        id: Uuid,
        beat: Heartbeat,
        now_ms: i64,
    ) -> Result<Option<Result<Job, Refused>>, StoreError> {
        let happen = Happen { id, org_id: None, what: What::Heartbeat(beat), now_ms };
        on!(self, repository => repository.commit(happen).await)
    }

    /// Cancels a job of this organisation; `None` where it has no such job.
    pub async fn cancel(
        &self,
        org_id: &str,
        id: Uuid,
        now_ms: i64,
    ) -> Result<Option<Result<Job, Refused>>, StoreError> {
        let happen =
            Happen { id, org_id: Some(org_id.to_owned()), what: What::Event(Event::Cancelled), now_ms };
        on!(self, repository => repository.commit(happen).await)
    }

    /// Takes back every lease whose time is over and returns the jobs it touched.
    pub async fn expire_leases(&self, now_ms: i64) -> Result<Vec<Job>, StoreError> {
        self.expire(Leases::Overdue, now_ms).await
    }

    /// Takes back what a process that held the database alone left behind; where others work too, that is only what is
    /// overdue.
    pub async fn recover(&self, now_ms: i64) -> Result<Vec<Job>, StoreError> {
        let which = if self.is_shared() { Leases::Overdue } else { Leases::All };
        self.expire(which, now_ms).await
    }

    async fn expire(&self, which: Leases, now_ms: i64) -> Result<Vec<Job>, StoreError> {
        let expire = ExpireLeases { which, attempts_max: self.settings.attempts_max, now_ms };
        on!(self, repository => repository.commit(expire).await)
    }

    /// A worker is there: to be said every few seconds, until [`Self::worker_gone`].
    pub async fn worker_present(&self, presence: Presence) -> Result<(), StoreError> {
        on!(self, repository => repository.commit(presence).await)
    }

    pub async fn worker_gone(&self, worker_id: String) -> Result<(), StoreError> {
        on!(self, repository => repository.commit(WorkerGone { worker_id }).await)
    }

    /// The engines of the workers that serve a model and were seen lately, one for each worker.
    pub async fn engines(&self, model: &str) -> Result<Vec<String>, StoreError> {
        on!(self, repository => repository.engines(model).await)
    }

    /// Where a job stands in the queue, as of a moment ago; `None` unless it waits.
    pub async fn outlook(&self, job: &Job) -> Result<Option<Outlook>, StoreError> {
        if job.status != Status::Queued {
            return Ok(None);
        }
        if let Some(outlook) = self.outlooks.get(job.id) {
            return Ok(Some(outlook));
        }
        let ahead = on!(self, repository => repository.ahead_of(job).await)?;
        let paces = on!(self, repository => repository.paces(&job.model).await)?;
        let outlook = Outlook::of(ahead, &paces);
        self.outlooks.put(job.id, outlook);
        Ok(Some(outlook))
    }

    /// Lost attempts after which a job fails.
    pub fn attempts_max(&self) -> i64 {
        self.settings.attempts_max
    }

    /// A job of any organisation.
    pub async fn get(&self, id: Uuid) -> Result<Option<Arc<Job>>, StoreError> {
        on!(self, repository => repository.get(id).await)
    }

    /// A page of an organisation's jobs, newest first.
    pub async fn list(&self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        on!(self, repository => repository.list(filter).await)
    }

    /// How many jobs of all organisations are in a state.
    pub async fn count(&self, status: Status) -> Result<i64, StoreError> {
        on!(self, repository => repository.count(status).await)
    }

    /// How many jobs of each model are in each state that is not an end.
    pub async fn unended(&self) -> Result<Vec<Unended>, StoreError> {
        on!(self, repository => repository.unended().await)
    }

    /// Jobs that ended before a time, those that ended first before the others.
    pub async fn ended_before(&self, before_ms: i64, limit: i64) -> Result<Vec<Uuid>, StoreError> {
        on!(self, repository => repository.ended_before(before_ms, limit).await)
    }

    /// Forgets jobs, as far as they have ended, and says how many.
    pub async fn forget_jobs(&self, ids: Vec<Uuid>) -> Result<u64, StoreError> {
        on!(self, repository => repository.commit(ForgetJobs { ids }).await)
    }

    /// Forgets the uploads that were granted before a time, and says how many.
    pub async fn forget_uploads(&self, before_ms: i64) -> Result<u64, StoreError> {
        on!(self, repository => repository.commit(ForgetUploads { before_ms }).await)
    }

    /// Whether any picture is known.
    pub async fn has_inputs(&self) -> Result<bool, StoreError> {
        on!(self, repository => repository.has_inputs().await)
    }

    /// Forgets pictures that nobody names and that were last used before a time, and says which.
    pub async fn forget_inputs(&self, before_ms: i64, limit: i64) -> Result<Vec<InputRow>, StoreError> {
        on!(self, repository => repository.forget_inputs(before_ms, limit).await)
    }

    /// What the three would forget, one after the other.
    pub async fn expired(&self, before_ms: i64) -> Result<Expired, StoreError> {
        on!(self, repository => repository.expired(before_ms).await)
    }

    /// When the oldest job that waits was accepted.
    pub async fn oldest_queued_ms(&self) -> Result<Option<i64>, StoreError> {
        on!(self, repository => repository.oldest_queued_ms().await)
    }

    /// Adds a picture and answers the row that stands for it: the one of whoever added the same picture before.
    pub async fn add_input(&self, input: InputRow) -> Result<InputRow, StoreError> {
        on!(self, repository => repository.commit(AddInput { input }).await)
    }

    /// The picture with this hash, noted as used now, so that it stays until it is named.
    pub async fn use_input(&self, sha256: [u8; 32], now_ms: i64) -> Result<Option<InputRow>, StoreError> {
        on!(self, repository => repository.commit(UseInput { sha256, now_ms }).await)
    }

    pub async fn input(&self, sha256: &[u8; 32]) -> Result<Option<InputRow>, StoreError> {
        on!(self, repository => repository.input(sha256).await)
    }

    pub async fn grant_upload(&self, upload: UploadRow, now_ms: i64) -> Result<(), StoreError> {
        on!(self, repository => repository.commit(GrantUpload { upload, now_ms }).await)
    }

    pub async fn fill_upload(&self, id: Uuid, input_sha256: [u8; 32]) -> Result<(), StoreError> {
        on!(self, repository => repository.commit(FillUpload { id, input_sha256 }).await)
    }

    pub async fn upload(&self, id: Uuid) -> Result<Option<UploadRow>, StoreError> {
        on!(self, repository => repository.upload(id).await)
    }

    pub async fn add_key(&self, key: NewKey) -> Result<(), StoreError> {
        on!(self, repository => repository.commit(key).await)
    }

    /// Revokes a key; `false` where there is no such live key.
    pub async fn revoke_key(&self, id: &str, now_ms: i64) -> Result<bool, StoreError> {
        on!(self, repository => repository.commit(RevokeKey { id: id.to_owned(), now_ms }).await)
    }

    /// The live key with this hash.
    pub async fn key(&self, sha256: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        on!(self, repository => repository.key(sha256).await)
    }

    /// All keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        on!(self, repository => repository.keys().await)
    }
}

#[cfg(test)]
mod tests;
