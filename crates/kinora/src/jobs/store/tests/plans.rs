//! Every statement of everyday finds its rows by an index: asked of the databases themselves, about what the store
//! really says to them.
//!
//! The statements are taken from sqlx's log while each call is made once, and then explained. So that the check itself
//! is known to notice, each index is dropped in turn (in a transaction that is rolled back) and has to be missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, Once};

use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::*;

/// What a statement must be answered from.
struct Expected {
    call: &'static str,
    /// How the statement begins, its parameters written as `?`.
    begins: &'static str,
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
}

const fn expect(
    call: &'static str,
    begins: &'static str,
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
) -> Expected {
    Expected { call, begins, sqlite, postgres }
}

/// In SQLite a row's number is `seq`, and the index of a `UNIQUE` or `PRIMARY KEY` has no name of its own.
const SEQ: &str = "INTEGER PRIMARY KEY (rowid";
const JOB_ID: &str = "sqlite_autoindex_jobs_1 (id=?)";

const EXPECTED: [Expected; 23] = [
    expect(
        "submit: room in the queue",
        "SELECT org_id, model, CAST(SUM(count) AS BIGINT) FROM job_counts",
        &["SEARCH job_counts USING PRIMARY KEY (org_id=?"],
        &["job_counts_pkey"],
    ),
    expect("poll, sweep", "SELECT * FROM jobs WHERE id = ?", &[JOB_ID], &["jobs_id_key"]),
    expect("list", "SELECT * FROM jobs WHERE org_id = ? ORDER BY", &["jobs_by_org ("], &["jobs_by_org on"]),
    expect(
        "list, one model's",
        "SELECT * FROM jobs WHERE org_id = ? AND model = ? ORDER BY",
        &["jobs_by_org ("],
        &["jobs_by_org on"],
    ),
    expect(
        "list, in one state",
        "SELECT * FROM jobs WHERE org_id = ? AND status = ? ORDER BY",
        &["jobs_by_org_status"],
        &["jobs_by_org_status"],
    ),
    expect(
        "list: how many",
        "SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM job_counts WHERE org_id",
        &["SEARCH job_counts USING PRIMARY KEY (org_id=?"],
        &["job_counts_pkey"],
    ),
    expect(
        "queue position",
        "SELECT count(*) FROM jobs WHERE status = 'queued' AND model = ? AND org_id = ?",
        &["jobs_queue (model=? AND org_id=?"],
        &["jobs_queue"],
    ),
    expect(
        "lease: who waits",
        "WITH RECURSIVE waiting",
        &[
            "jobs_queue (model=?)",
            "jobs_queue (model=? AND org_id>?)",
            "jobs_by_org_status (org_id=? AND status=?)",
        ],
        &["jobs_queue"],
    ),
    expect(
        "lease: the first",
        "SELECT * FROM jobs WHERE status = 'queued' AND model = ? AND org_id = ?",
        &["jobs_queue (model=? AND org_id=?)"],
        &["jobs_queue"],
    ),
    expect("metrics: models that wait", "WITH RECURSIVE models", &["jobs_queue (model>?)"], &["jobs_queue"]),
    expect(
        "metrics: the oldest that waits",
        "WITH RECURSIVE orgs",
        &[
            "jobs_queue (model=?)",
            "jobs_queue (model=? AND org_id>?)",
            "jobs_by_org_status (org_id=? AND status=?)",
        ],
        &["jobs_queue", "jobs_by_org_status"],
    ),
    expect("lease: the turn", "INSERT INTO turns", &["turns_last"], &["turns_last"]),
    expect(
        "lease: the limit",
        "SELECT count(*) FROM jobs WHERE org_id = ? AND status = 'processing'",
        &["jobs_by_org_status (org_id=? AND status=?)"],
        &["jobs_"],
    ),
    expect("lease, heartbeat, end", "UPDATE jobs SET revision", &[SEQ], &["jobs_pkey"]),
    expect(
        "leases that are over",
        "SELECT * FROM jobs WHERE status = 'processing' AND lease_until_ms",
        &["jobs_leased (lease_until_ms<?)"],
        &["jobs_leased"],
    ),
    expect("picture", "SELECT * FROM inputs WHERE sha256 = ?", &["PRIMARY KEY (sha256=?)"], &["inputs_pkey"]),
    expect("picture used", "UPDATE inputs SET used_at_ms", &["PRIMARY KEY (sha256=?)"], &["inputs_pkey"]),
    expect("upload", "SELECT * FROM uploads WHERE id = ?", &["PRIMARY KEY (id=?)"], &["uploads_pkey"]),
    expect(
        "retention: requests",
        "SELECT id FROM jobs WHERE finished_at_ms < ?",
        &["jobs_ended (finished_at_ms<?)"],
        &["jobs_ended"],
    ),
    expect(
        "retention: rows",
        "DELETE FROM jobs WHERE finished_at_ms IS NOT NULL AND id IN",
        &[JOB_ID],
        &["jobs_id_key"],
    ),
    expect(
        "retention: uploads",
        "DELETE FROM uploads WHERE created_at_ms < ?",
        &["uploads_created (created_at_ms<?)"],
        &["uploads_created"],
    ),
    expect(
        "retention: pictures that nobody names",
        "SELECT * FROM inputs WHERE used_at_ms < ?",
        &[
            "inputs_used (used_at_ms<?)",
            "jobs_ended_by_input (input_sha256=?)",
            "uploads_by_input (input_sha256=?)",
        ],
        &["inputs_used", "jobs_by_input", "uploads_by_input"],
    ),
    expect(
        "retention: one picture",
        "DELETE FROM inputs WHERE sha256 = ?",
        &["PRIMARY KEY (sha256=?)", SEQ, "uploads_by_input (input_sha256=?)"],
        &["inputs_pkey", "jobs_by_input", "uploads_by_input"],
    ),
];

/// Steps over all rows of what grows with every request.
const WHOLE: [&str; 6] = [
    "SCAN jobs",
    "SCAN inputs",
    "SCAN uploads",
    "Seq Scan on jobs",
    "Seq Scan on inputs",
    "Seq Scan on uploads",
];
/// Scans of what is as long as the queue.
const SHORT: [&str; 2] = ["SCAN jobs USING INDEX jobs_queue", "SCAN jobs USING INDEX jobs_leased"];

/// The statements that sqlx logs, each with the thread that said it: this process runs other tests beside.
static SAID: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

struct Listener;

impl<S: tracing::Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            event.record(&mut Statement);
        }
    }
}

struct Statement;

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "db.statement" && !value.is_empty() {
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            SAID.lock().unwrap().insert((thread, value.trim().to_owned()));
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Notes what is said from now on. SQLite's threads are sqlx's own, so only a subscriber for all threads hears them.
fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Listener)).unwrap();
    });
}

/// What threads whose name begins so said about the tables that grow.
fn said_by(thread: &str) -> Vec<String> {
    let concerns = |sql: &str| {
        let mut words = sql.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let begins = ["SELECT", "UPDATE", "DELETE", "WITH", "INSERT INTO turns"];
        begins.iter().any(|begin| sql.starts_with(begin))
            && words.any(|word| ["jobs", "inputs", "uploads", "job_counts", "turns"].contains(&word))
    };
    let said = SAID.lock().unwrap();
    let mine = said.iter().filter(|(by, sql)| by.starts_with(thread) && concerns(sql));
    mine.map(|(_, sql)| sql.clone()).collect()
}

/// The statement with its parameters written alike.
fn normalised(sql: &str) -> String {
    let mut plain = String::new();
    for part in sql.split_inclusive(['$', '?']) {
        let rest = if plain.ends_with('?') {
            part.trim_start_matches(|letter: char| letter.is_ascii_digit())
        } else {
            part
        };
        plain.push_str(&rest.replace('$', "?"));
    }
    plain
}

type Plans = BTreeMap<String, String>;

/// What is wrong with the plans; nothing, if all is well.
fn problems(plans: &Plans, indexes: impl Fn(&Expected) -> &'static [&'static str]) -> Vec<String> {
    let mut found = Vec::new();
    for expected in &EXPECTED {
        let mut of_call =
            plans.iter().filter(|(sql, _)| normalised(sql).starts_with(expected.begins)).peekable();
        if of_call.peek().is_none() {
            found.push(format!("{}: nothing was asked that begins `{}`", expected.call, expected.begins));
        }
        for (sql, plan) in of_call {
            for index in indexes(expected).iter().filter(|index| !plan.contains(**index)) {
                found.push(format!("{}: no `{index}` for `{sql}`:\n{plan}", expected.call));
            }
        }
    }
    for (sql, plan) in plans {
        let whole = |line: &&str| {
            WHOLE.iter().any(|scan| line.contains(scan)) && !SHORT.iter().any(|scan| line.contains(scan))
        };
        found.extend(plan.lines().find(whole).map(|line| format!("`{line}` for `{sql}`")));
    }
    found
}

fn assert_sound(problems: &[String]) {
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

#[tokio::test]
async fn sqlite_finds_everything_by_an_index_and_each_index_is_needed() {
    listen();
    let home = Home::sqlite();
    let Home::Sqlite(folder) = &home else { unreachable!("it was just made there") };
    let url = format!("sqlite://{}", folder.path().join("kinora.db").display());
    let fixture = Fixture::new(home, StoreSettings { running_max: 1000, ..SETTINGS }).await;
    everyday(&fixture).await;
    let statements = said_by("sqlx-sqlite-worker");
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    // As where pictures are forgotten; all else goes the same way with them.
    sqlx::raw_sql("PRAGMA foreign_keys = OFF").execute(&mut connection).await.unwrap();
    let explained = explained_by_sqlite(&mut connection, &statements).await;
    assert_sound(&problems(&explained, |expected| expected.sqlite));
    let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut connection).await.unwrap();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {name}"))).execute(&mut *transaction).await.unwrap();
        let without = explained_by_sqlite(&mut transaction, &statements).await;
        assert!(!problems(&without, |expected| expected.sqlite).is_empty(), "nobody misses {name}");
        transaction.rollback().await.unwrap();
    }
}

async fn explained_by_sqlite(connection: &mut sqlx::SqliteConnection, statements: &[String]) -> Plans {
    let mut plans = Plans::new();
    for sql in statements {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
        let lines: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        plans.insert(sql.clone(), lines.join("\n"));
    }
    plans
}

#[tokio::test]
#[ignore = "needs PostgreSQL: `scripts/test fleet` starts one"]
async fn postgres_finds_everything_by_an_index_and_each_index_is_needed() {
    let home = Home::postgres().await;
    let Home::Postgres(url) = &home else { unreachable!("it was just made there") };
    let mut connection = sqlx::PgConnection::connect(url.as_str()).await.unwrap();
    let fixture = Fixture::new(home, StoreSettings { running_max: 1000, ..SETTINGS }).await;
    // PostgreSQL chooses by what lies in the tables.
    sqlx::raw_sql(MANY_ROWS).execute(&mut connection).await.unwrap();
    listen();
    everyday(&fixture).await;
    let this = std::thread::current();
    let statements = said_by(this.name().expect("tests have names"));
    // Small tables are read whole for good reason; what is asked here is what is done once they have grown.
    let ask = "ANALYZE; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";
    sqlx::raw_sql(ask).execute(&mut connection).await.unwrap();
    let explained = explained_by_postgres(&mut connection, &statements).await;
    assert_sound(&problems(&explained, |expected| expected.postgres));
    let names = "SELECT CAST(CAST(indexrelid AS regclass) AS TEXT) FROM pg_index \
                 JOIN pg_stat_user_tables ON relid = indrelid WHERE NOT indisunique";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut connection).await.unwrap();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {name}"))).execute(&mut *transaction).await.unwrap();
        let without = explained_by_postgres(&mut transaction, &statements).await;
        assert!(!problems(&without, |expected| expected.postgres).is_empty(), "nobody misses {name}");
        transaction.rollback().await.unwrap();
    }
}

/// The plan that a prepared statement has for whatever its parameters are.
async fn explained_by_postgres(connection: &mut sqlx::PgConnection, statements: &[String]) -> Plans {
    let mut plans = Plans::new();
    for sql in statements {
        let prepare = AssertSqlSafe(format!("PREPARE asked AS {sql}"));
        sqlx::raw_sql(prepare)
            .execute(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let parameters_count = (1..100).take_while(|number| sql.contains(&format!("${number}"))).count();
        let nulls = vec!["NULL"; parameters_count].join(", ");
        let execute = if nulls.is_empty() { "asked".to_owned() } else { format!("asked ({nulls})") };
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE {execute}"));
        let rows = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
        sqlx::raw_sql("DEALLOCATE asked").execute(&mut *connection).await.unwrap();
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        plans.insert(sql.clone(), lines.join("\n"));
    }
    plans
}
