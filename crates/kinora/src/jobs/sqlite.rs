//! The queue in a SQLite file, for one serving process.
//!
//! One connection writes (group commit), several read; one more forgets pictures that nobody names. Only the writer fills the cache of jobs, after its commit; since
//! no other process writes jobs, a cached job is never older than its row. `kinora keys` may write keys beside it.

/// Rows that a change reads first. The one writer needs no locks.
macro_rules! for_update {
    ($sql:literal) => {
        $sql
    };
}

/// The same, passing over rows that somebody else has locked.
macro_rules! skip_locked {
    ($sql:literal) => {
        $sql
    };
}

/// Of a picture: no job names it. There is no index by picture of jobs that wait: hashes come in no order, so a submit
/// would touch pages all over.
macro_rules! named_by_no_job {
    () => {
        "NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.input_sha256 = inputs.sha256 AND jobs.finished_at_ms IS NOT NULL) \
         AND sha256 NOT IN (SELECT input_sha256 FROM jobs WHERE status = 'queued' \
             UNION ALL SELECT input_sha256 FROM jobs WHERE status = 'processing')"
    };
}

/// The same, but for the jobs that ended before `$1`.
macro_rules! named_by_no_job_that_stays {
    () => {
        "NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.input_sha256 = inputs.sha256 AND jobs.finished_at_ms >= $1) \
         AND sha256 NOT IN (SELECT input_sha256 FROM jobs WHERE status = 'queued' \
             UNION ALL SELECT input_sha256 FROM jobs WHERE status = 'processing')"
    };
}

// The same statements, compiled for this database.
#[allow(clippy::duplicate_mod, reason = "one file, compiled for each database")]
#[path = "repository/mod.rs"]
mod repository;

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub(super) use repository::{Pools, Repository};

use super::signals::{Signals, Tidings};
use super::store::{StoreError, StoreSettings};
use crate::clock;

pub(super) type Db = sqlx::Sqlite;
pub(super) type Connection = sqlx::SqliteConnection;
pub(super) type Row = sqlx::sqlite::SqliteRow;

/// Takes the right to write at once, instead of failing half-way.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// SQLite before this can corrupt a database when its write-ahead log is reset (versions 3.7.0 to 3.51.2).
const VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS_COUNT: u32 = 4;

/// Opens (and creates or brings up to date) the database file at `path`.
pub(super) async fn open(
    path: &Path,
    settings: StoreSettings,
    signals: Signals,
) -> Result<Repository, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true);
    let options = quiet(options);
    let mut connection = options.connect().await?;
    require_version(&mut connection).await?;
    settings.schema.prepare(&sqlx::migrate!("migrations/sqlite"), &mut connection).await?;
    // To check its foreign keys SQLite would read all jobs for each picture that goes.
    let forgetters =
        SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options.clone().foreign_keys(false));
    let readers =
        SqlitePoolOptions::new().max_connections(READERS_COUNT).connect_with(options.read_only(true)).await?;
    let pools = Pools { readers, forgetters };
    Ok(Repository::start(vec![Seat(connection)], pools, true, settings.queued_max, &signals))
}

/// Says no statement to the log, but to the tests that explain them.
fn quiet(options: SqliteConnectOptions) -> SqliteConnectOptions {
    if cfg!(test) { options } else { options.disable_statement_logging() }
}

async fn require_version(connection: &mut Connection) -> Result<(), StoreError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    if (next(), next(), next()) < VERSION_MIN {
        return Err(StoreError::SqliteTooOld(version));
    }
    Ok(())
}

/// The writer's connection; a file does not go away.
#[derive(Debug)]
struct Seat(Connection);

impl Seat {
    async fn connection(&mut self) -> Result<&mut Connection, sqlx::Error> {
        Ok(&mut self.0)
    }

    /// Ends a transaction that failed. SQLite may already have ended it by itself (a full disk does that); then this
    /// has nothing to do.
    async fn roll_back(&mut self) {
        let _ = sqlx::query("ROLLBACK").execute(&mut self.0).await;
    }
}

/// Whether an error concerns the connection and not the changes that were tried on it.
fn is_lost(_: &sqlx::Error) -> bool {
    false
}

/// The clock of leases: this process's own, which never jumps. No worker outlives the process that holds the file.
async fn lease_clock_ms(_: &mut Connection) -> Result<i64, sqlx::Error> {
    Ok(clock::monotonic_ms())
}

/// Other processes have nothing to hear.
async fn announce(_: &mut Connection, _: &Tidings) -> Result<(), sqlx::Error> {
    Ok(())
}
