//! The queue in PostgreSQL, for any number of serving processes and workers.
//!
//! Several processes write, so nothing is cached: every read is the row. Rows are locked by those who change them;
//! claims skip locked rows. Leases end by the database's clock, which all processes share. What happens is told to all
//! processes by NOTIFY within the transaction, so that it is heard exactly when it is true.

/// Rows that a change reads first, locked until it commits.
macro_rules! for_update {
    ($sql:literal) => {
        concat!($sql, " FOR UPDATE")
    };
}

/// The same, passing over rows that somebody else has locked.
macro_rules! skip_locked {
    ($sql:literal) => {
        concat!($sql, " FOR UPDATE SKIP LOCKED")
    };
}

/// Of a picture: no job names it.
macro_rules! named_by_no_job {
    () => {
        "NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.input_sha256 = inputs.sha256)"
    };
}

/// The same, but for the jobs that ended before `$1`.
macro_rules! named_by_no_job_that_stays {
    () => {
        "NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.input_sha256 = inputs.sha256 \
             AND (jobs.finished_at_ms IS NULL OR jobs.finished_at_ms >= $1))"
    };
}

// The same statements, compiled for this database.
#[allow(clippy::duplicate_mod, reason = "one file, compiled for each database")]
#[path = "repository/mod.rs"]
mod repository;

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

pub(super) use repository::{Pools, Repository};

use super::row_clock::RowClock;
use super::signals::{Signals, Tidings};
use super::store::{DatabaseUrl, StoreError, StoreSettings};
use crate::keys::random_bytes;

pub(super) type Db = sqlx::Postgres;
pub(super) type Connection = sqlx::PgConnection;
pub(super) type Row = sqlx::postgres::PgRow;

const BEGIN: &str = "BEGIN";

/// Connections that write, each with one transaction at a time.
const WRITERS_COUNT: usize = 3;
const READERS_COUNT: u32 = 8;
/// How long a caller waits for a connection: short, so that a database that comes back is used at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before the listening connection is made anew.
const LISTEN_RETRY: Duration = Duration::from_secs(1);
const CHANNEL: &str = "kinora";
/// How often the database is asked for the time.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);
/// No statement of ours takes long; one that does must not hold locks for ever.
const SESSION: [(&str, &str); 2] =
    [("statement_timeout", "30s"), ("idle_in_transaction_session_timeout", "30s")];

/// Opens (and brings up to date) the database at `url`.
pub(super) async fn open(
    url: &DatabaseUrl,
    settings: StoreSettings,
    signals: Signals,
) -> Result<(Repository, RowClock, [u8; 32]), StoreError> {
    let options = PgConnectOptions::from_str(url.as_str())?;
    let options = quiet(options.application_name("kinora"));
    let mut connection = connect(&options).await?;
    settings.schema.prepare(&sqlx::migrate!("migrations/postgres"), &mut connection).await?;
    let secret = secret(&mut connection).await?;
    let clock = RowClock::of_database(lease_clock_ms(&mut connection).await?);
    connection.close().await?;
    let readers = PgPoolOptions::new()
        .max_connections(READERS_COUNT)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options.clone().options(SESSION))
        .await?;
    tokio::spawn(listen(readers.clone(), signals.clone()));
    tokio::spawn(keep_time(readers.clone(), clock.clone()));
    let seats = (0..WRITERS_COUNT)
        .map(|_| Seat { options: options.clone().options(SESSION), connection: None })
        .collect();
    let pools = Pools { forgetters: readers.clone(), readers };
    Ok((Repository::start(seats, pools, false, settings.queued_max, &signals), clock, secret))
}

/// Says no statement to the log, but to the tests that explain them.
fn quiet(options: PgConnectOptions) -> PgConnectOptions {
    if cfg!(test) { options } else { options.disable_statement_logging() }
}

/// The secret that signs media URLs; whoever starts first makes it.
async fn secret(connection: &mut Connection) -> Result<[u8; 32], StoreError> {
    sqlx::query("INSERT INTO secrets (name, value) VALUES ('media', $1) ON CONFLICT DO NOTHING")
        .bind(&random_bytes::<32>()[..])
        .execute(&mut *connection)
        .await?;
    let value: Vec<u8> =
        sqlx::query_scalar("SELECT value FROM secrets WHERE name = 'media'").fetch_one(connection).await?;
    value.try_into().map_err(|_| StoreError::BadSecret)
}

async fn connect(options: &PgConnectOptions) -> Result<Connection, sqlx::Error> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect());
    connecting.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Passes on what other processes did, for as long as this one runs.
async fn listen(pool: sqlx::PgPool, signals: Signals) {
    while !pool.is_closed() {
        if let Err(error) = listen_once(&pool, &signals).await {
            tracing::warn!(%error, "store.listen_failed");
        }
        tokio::select! {
            () = pool.close_event() => return,
            () = tokio::time::sleep(LISTEN_RETRY) => {}
        }
    }
}

async fn listen_once(pool: &sqlx::PgPool, signals: &Signals) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    // Whatever happened while nobody listened.
    signals.tell(&Tidings { queued_count: 1, cancelled: Vec::new() });
    while let Some(notification) = listener.try_recv().await? {
        if let Ok(tidings) = serde_json::from_str(notification.payload()) {
            signals.tell(&tidings);
        }
    }
    Ok(())
}

/// Looks at the database's clock now and then, in case somebody sets it; this process's own drifts little meanwhile.
async fn keep_time(pool: sqlx::PgPool, clock: RowClock) {
    loop {
        tokio::select! {
            () = pool.close_event() => return,
            () = tokio::time::sleep(LOOK_AT_CLOCK) => {}
        }
        let told = async { lease_clock_ms(&mut *pool.acquire().await?).await };
        match told.await {
            Ok(now_ms) => clock.set(now_ms),
            Err(error) => tracing::warn!(%error, "store.clock_unread"),
        }
    }
}

/// A writer's connection, made when it is needed.
#[derive(Debug)]
struct Seat {
    options: PgConnectOptions,
    connection: Option<Connection>,
}

impl Seat {
    async fn connection(&mut self) -> Result<&mut Connection, sqlx::Error> {
        if self.connection.is_none() {
            self.connection = Some(connect(&self.options).await?);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    /// Ends a transaction that failed; where that fails too, the connection is given up.
    async fn roll_back(&mut self) {
        if let Some(connection) = &mut self.connection
            && sqlx::query("ROLLBACK").execute(connection).await.is_err()
        {
            self.connection = None;
        }
    }
}

/// Whether an error concerns the connection and not the changes that were tried on it.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            true
        }
        // Classes 08 (connection), 53 (resources), 57 (operator intervention): PostgreSQL, appendix A.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// The clock of leases: the database's, which all processes share.
async fn lease_clock_ms(connection: &mut Connection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)")
        .fetch_one(connection)
        .await
}

/// Tells all processes, when the transaction commits.
async fn announce(connection: &mut Connection, tidings: &Tidings) -> Result<(), sqlx::Error> {
    let payload = serde_json::to_string(tidings).map_err(|e| sqlx::Error::Encode(e.into()))?;
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(connection).await?;
    Ok(())
}
