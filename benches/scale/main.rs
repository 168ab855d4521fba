//! Whether a full store is as fast as an empty one: submits, polls, lists and leases, on both databases.
//!
//!     cargo bench --bench scale -- [--rows 1000000] [--postgres postgres://user@host:port/name]
//!
//! The database that `--postgres` names must be empty; without it only SQLite is measured, in a temporary folder. Each
//! figure is the median of several rounds. Ends with 1 if anything is less than half as fast with all rows as without.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use futures_util::future::try_join_all;
use kinora::jobs::{
    Claim, DatabaseUrl, Event, InputRow, JobFilter, JobStore, NewJob, Outcome, StoreSettings,
};
use sqlx::Connection as _;
use uuid::Uuid;

const ORGS: usize = 200;
const MODEL: &str = "model";
/// Callers at the same time, and what each does in a round.
const CALLERS: usize = 32;
const CALLS: usize = 25;
const ROUNDS: usize = 7;
const RATIO_MAX: f64 = 2.0;
/// Of the rows that are filled in, how many wait; the others have ended.
const WAITING_PART: usize = 50;

#[derive(Debug, Parser)]
struct Options {
    /// Requests to fill in.
    #[arg(long, default_value = "1000000")]
    rows: usize,
    /// An empty PostgreSQL database.
    #[arg(long)]
    postgres: Option<String>,
    /// What `cargo bench` always says.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kinora.db");
    let settings = StoreSettings { queued_max: i64::MAX, ..StoreSettings::default() };
    let mut is_slower = false;
    let store = JobStore::open(&file, settings).await?;
    is_slower |=
        compare("SQLite", &store, &format!("sqlite://{}", file.display()), SQLITE, options.rows).await?;
    if let Some(url) = &options.postgres {
        let address: DatabaseUrl =
            url.parse().map_err(|wrong: &str| anyhow::anyhow!("--postgres {wrong}"))?;
        let store = JobStore::open_postgres(&address, settings).await?;
        is_slower |= compare("PostgreSQL", &store, url, POSTGRES, options.rows).await?;
    }
    Ok(if is_slower { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Rows of `ORGS` organisations: one of `WAITING_PART` waits, the others have ended.
const SQLITE: &str = "
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
    INSERT INTO jobs (id, revision, org_id, user_id, model, status, payload, input_sha256, input_inline, seed, priority,
        created_at_ms, updated_at_ms, queued_at_ms, finished_at_ms, attempt, attempts_lost, worker_id)
    SELECT randomblob(16), 2, printf('org-%03d', i % 200), 'user', 'model', CASE i % 50 WHEN 0 THEN 'queued' ELSE 'success' END,
        printf('{\"prompt\":\"request %d\"}', i), $2, 1, i, 0, i, i, i, CASE i % 50 WHEN 0 THEN NULL ELSE i END, 1, 0, 'worker'
    FROM n";
const POSTGRES: &str = "
    INSERT INTO jobs (id, revision, org_id, user_id, model, status, payload, input_sha256, input_inline, seed, priority,
        created_at_ms, updated_at_ms, queued_at_ms, finished_at_ms, attempt, attempts_lost, worker_id)
    SELECT gen_random_uuid(), 2, 'org-' || lpad((i % 200)::text, 3, '0'), 'user', 'model',
        CASE i % 50 WHEN 0 THEN 'queued' ELSE 'success' END, '{\"prompt\":\"request ' || i || '\"}', $2, true, i, 0, i, i, i,
        CASE i % 50 WHEN 0 THEN NULL ELSE i END, 1, 0, 'worker'
    FROM generate_series(1, $1) AS i";

#[expect(clippy::print_stdout, reason = "the program's result")]
async fn compare(
    name: &str,
    store: &JobStore,
    url: &str,
    fill: &'static str,
    rows: usize,
) -> anyhow::Result<bool> {
    store.add_input(input()).await?;
    let empty = Figures::of(store).await?;
    let began = Instant::now();
    fill_in(url, fill, rows).await?;
    let filled_s = began.elapsed().as_secs_f64();
    let full = Figures::of(store).await?;
    println!(
        "{name}: {rows} requests of {ORGS} organisations, one in {WAITING_PART} waiting (filled in {filled_s:.0} s)"
    );
    println!("| a second | empty | full | empty / full |\n|---|---|---|---|");
    let mut is_slower = false;
    for ((what, empty), (_, full)) in empty.named().into_iter().zip(full.named()) {
        println!("| {what} | {empty:.0} | {full:.0} | {:.2} |", empty / full);
        is_slower |= empty / full > RATIO_MAX;
    }
    Ok(is_slower)
}

async fn fill_in(url: &str, fill: &'static str, rows: usize) -> anyhow::Result<()> {
    let (rows, input) = (i64::try_from(rows)?, input().sha256);
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await?;
        sqlx::query(fill).bind(rows).bind(&input[..]).execute(&mut connection).await?;
        connection.close().await?;
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        sqlx::query(fill).bind(rows).bind(&input[..]).execute(&mut connection).await?;
        // As autovacuum does by itself soon after.
        sqlx::query("VACUUM ANALYZE").execute(&mut connection).await?;
        connection.close().await?;
    }
    Ok(())
}

/// Calls a second.
struct Figures {
    submits: f64,
    polls: f64,
    lists: f64,
    leases: f64,
}

impl Figures {
    fn named(&self) -> [(&'static str, f64); 4] {
        [
            ("submits", self.submits),
            ("polls", self.polls),
            ("lists", self.lists),
            ("leases with their end", self.leases),
        ]
    }

    async fn of(store: &JobStore) -> anyhow::Result<Self> {
        let mut rounds: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
        for _ in 0..ROUNDS {
            let mut ids = Vec::new();
            rounds[0].push(rate(submit_all(store, &mut ids)).await?);
            rounds[1].push(rate(poll_all(store, &ids)).await?);
            rounds[2].push(rate(list_all(store)).await?);
            rounds[3].push(rate(lease_all(store)).await?);
        }
        let [submits, polls, lists, leases] = rounds.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        Ok(Self { submits, polls, lists, leases })
    }
}

async fn rate(round: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let began = Instant::now();
    round.await?;
    Ok((CALLERS * CALLS) as f64 / began.elapsed().max(Duration::from_micros(1)).as_secs_f64())
}

fn org(number: usize) -> String {
    format!("org-{:03}", number % ORGS)
}

fn input() -> InputRow {
    let format = "png".to_owned();
    InputRow {
        sha256: [7; 32],
        version: 1,
        format,
        width_px: 300,
        height_px: 300,
        size_bytes: 1,
        used_at_ms: 1,
    }
}

async fn submit_all(store: &JobStore, ids: &mut Vec<Uuid>) -> anyhow::Result<()> {
    let submitted = try_join_all((0..CALLERS).map(|caller| async move {
        let mut mine = Vec::with_capacity(CALLS);
        for call in 0..CALLS {
            let job = NewJob {
                id: Uuid::now_v7(),
                org_id: org(caller * CALLS + call),
                user_id: "user".into(),
                model: MODEL.into(),
                payload: r#"{"prompt":"slow push in"}"#.into(),
                input_sha256: [7; 32],
                input_inline: true,
                seed: 1,
                priority: 0,
                now_ms: 1,
            };
            mine.push(store.submit(job).await??.id);
        }
        anyhow::Ok(mine)
    }));
    ids.extend(submitted.await?.into_iter().flatten());
    Ok(())
}

async fn poll_all(store: &JobStore, ids: &[Uuid]) -> anyhow::Result<()> {
    try_join_all(ids.chunks(CALLS).map(|mine| async move {
        for id in mine {
            let job = store.get(*id).await?.context("a job is gone")?;
            store.outlook(&job).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}

async fn list_all(store: &JobStore) -> anyhow::Result<()> {
    try_join_all((0..CALLERS).map(|caller| async move {
        for call in 0..CALLS {
            let org_id = org(caller * CALLS + call);
            let filter = JobFilter { org_id, model: None, status: None, limit: 20, offset: 0 };
            store.list(&filter).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}

/// As many workers as there are callers, each of which ends what it leases.
async fn lease_all(store: &JobStore) -> anyhow::Result<()> {
    try_join_all((0..CALLERS).map(|worker| async move {
        for _ in 0..CALLS {
            let claim = Claim {
                model: MODEL.into(),
                worker_id: format!("worker-{worker}"),
                lease_ms: 60_000,
                now_ms: 2,
            };
            // All that an organisation waits for may be locked by others for a moment.
            let Some(job) = store.claim(claim).await? else { continue };
            let finished = Event::Finished { attempt: job.attempt, outcome: outcome(job.attempt) };
            store.report(job.id, finished, 3).await?.context("a job is gone")??;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}

fn outcome(attempt: i64) -> Outcome {
    Outcome {
        attempt,
        engine: "pattern".into(),
        seed: 1,
        duration_s: 5,
        width_px: 160,
        height_px: 96,
        fps: 24,
        frames_count: 120,
        size_bytes: 1,
        plan: None,
    }
}
