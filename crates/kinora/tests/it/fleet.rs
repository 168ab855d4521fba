//! Servers and workers as processes that share PostgreSQL and S3, with workers killed while they work.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::crash_points::POINTS;
use crate::process::call;
use crate::s3::S3;
use crate::server::{BASE, MODEL, picture_base64};

const REASON_DATABASE: &str = "KINORA_TEST_POSTGRES names a server";

/// A database of its own, with a ledger that notes every change of a job's status behind the program's back.
pub struct Database {
    pub url: String,
    connection: PgConnection,
}

impl Database {
    pub async fn create() -> Self {
        let server = std::env::var("KINORA_TEST_POSTGRES").expect(REASON_DATABASE);
        let name = format!("kinora_{}", uuid::Uuid::now_v7().simple());
        let mut first = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut first).await.unwrap();
        let url = format!("{server}/{name}");
        Self { connection: PgConnection::connect(&url).await.unwrap(), url }
    }

    /// From now on every change of a status is noted.
    async fn keep_ledger(&mut self) {
        let ledger = "CREATE TABLE ledger (id UUID, status TEXT, attempt BIGINT); \
            CREATE FUNCTION note() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN \
                INSERT INTO ledger VALUES (NEW.id, NEW.status, NEW.attempt); RETURN NULL; END $$; \
            CREATE TRIGGER noted AFTER UPDATE OF status ON jobs \
                FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note()";
        sqlx::raw_sql(ledger).execute(&mut self.connection).await.unwrap();
    }

    async fn number(&mut self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.unwrap()
    }

    /// What the scaler in this file of deploy/kubernetes counts.
    async fn scaled_by(&mut self, file: &str) -> i64 {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes").join(file);
        let scaler = std::fs::read_to_string(path).unwrap();
        let query = scaler.lines().find_map(|line| line.trim().strip_prefix("query: ")).unwrap();
        let query = sqlx::AssertSqlSafe(format!("SELECT CAST(({query}) AS BIGINT)"));
        sqlx::query_scalar(query).fetch_one(&mut self.connection).await.unwrap()
    }
}

/// A process of the program with what it shares with the others.
pub struct Member {
    child: Child,
    said: String,
}

/// The program, pointed at what its kind shares.
fn command(arguments: &[&str], database: &Database, s3: &S3) -> Command {
    let bucket = s3.settings();
    let (id, secret) = bucket.keys.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
    command
        .args(arguments)
        .env("KINORA_DATABASE_URL", &database.url)
        .env("KINORA_ARTIFACTS", format!("s3://{}/{}", bucket.url.bucket, bucket.url.prefix))
        .env("KINORA_S3_ENDPOINT", bucket.endpoint.unwrap().as_str())
        .env("KINORA_S3_REGION", bucket.region.unwrap())
        .env("KINORA_S3_ACCESS_KEY_ID", id)
        .env("KINORA_S3_SECRET_ACCESS_KEY", secret)
        .env("KINORA_S3_PATH_STYLE", "true")
        .env("KINORA_ENGINE", "pattern")
        .env("KINORA_ATTEMPTS_MAX", "1000")
        .env("KINORA_LEASE_S", "2")
        .env("KINORA_GRACE_S", "0");
    command
}

impl Member {
    pub fn start(arguments: &[&str], database: &Database, s3: &S3) -> Self {
        Self::begin(&mut command(arguments, database, s3))
    }

    /// Waits for the first line that the program says.
    fn begin(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert!(!said.is_empty(), "{command:?} ended at once");
        Self { child, said: said.trim().to_owned() }
    }

    pub fn serve(folder: &tempfile::TempDir, database: &Database, s3: &S3) -> Self {
        let folder = folder.path().to_str().unwrap();
        let arguments = ["serve", "--no-worker", "--listen", "127.0.0.1:0", "--data-dir", folder];
        Self::start(&arguments, database, s3)
    }

    pub fn address(&self) -> &str {
        self.said.strip_prefix("listening on http://").unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn create_key(database: &Database) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kinora"))
        .args(["keys", "create", "--org", "org", "--database-url", &database.url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn submit(address: &str, key: &str) -> String {
    submit_to(address, key, MODEL)
}

fn submit_to(address: &str, key: &str, model: &str) -> String {
    let body = json!({"model": model, "payload": {"image": picture_base64()}}).to_string();
    let (status, answer) = call(address, key, "POST", &format!("{BASE}/requests"), &body);
    assert_eq!(status, 200, "{answer}");
    answer["request_id"].as_str().unwrap().to_owned()
}

pub fn record(address: &str, key: &str, id: &str) -> Value {
    call(address, key, "GET", &format!("{BASE}/requests/{id}"), "").1
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn workers_are_killed_and_nothing_is_lost_or_finished_twice() {
    const JOBS: usize = 60;
    const KILLS: usize = 12;
    let (mut database, s3) = (Database::create().await, S3::start());
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let key = create_key(&database);
    let servers = folders.each_ref().map(|folder| Member::serve(folder, &database, &s3));
    database.keep_ledger().await;
    let mut workers: Vec<_> = (0..3).map(|_| Member::start(&["worker"], &database, &s3)).collect();
    let mut ids = Vec::new();
    for round in 0..KILLS {
        // A kill that meets nobody at work proves nothing.
        ids.extend((0..JOBS / KILLS).map(|index| submit(servers[index % 2].address(), &key)));
        while database.number("SELECT count(*) FROM jobs WHERE status = 'processing'").await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        workers[round % 3].kill();
        workers[round % 3] = Member::start(&["worker"], &database, &s3);
    }
    let started = Instant::now();
    for (index, id) in ids.iter().enumerate() {
        let address = servers[(index + 1) % 2].address();
        loop {
            let record = record(address, &key, id);
            if record["status"] == "success" {
                break;
            }
            assert!(matches!(record["status"].as_str(), Some("queued" | "processing")), "{record}");
            assert!(started.elapsed() < Duration::from_secs(120), "still {record}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let successes = database.number("SELECT count(*) FROM ledger WHERE status = 'success'").await;
    assert_eq!(successes, JOBS as i64, "each job ends once");
    let after = "SELECT count(*) FROM jobs WHERE status <> 'success' \
                 OR CAST(outcome AS JSONB) -> 'attempt' <> to_jsonb(attempt)";
    assert_eq!(database.number(after).await, 0, "the outcome is the last attempt's");
    let lost = database.number("SELECT CAST(COALESCE(SUM(attempts_lost), 0) AS BIGINT) FROM jobs").await;
    println!("{JOBS} jobs, {KILLS} workers killed, {lost} attempts lost");
    assert!(lost > 0, "no kill met a worker at work: this proves nothing");
    assert_eq!(database.scaled_by("scale-on-queue.yaml").await, 0, "the scaler counts what has not ended");
    let counted = "SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM job_counts WHERE status = 'success'";
    assert_eq!(database.number(counted).await, JOBS as i64);
    for id in &ids {
        let record = record(servers[0].address(), &key, id);
        let url = record["outcome"]["video_url"].as_str().unwrap();
        let path = url.strip_prefix(&format!("http://{}", servers[0].address())).unwrap();
        // Signed by one server, opened by the other: they share the secret.
        let (status, bytes) = crate::process::get(servers[1].address(), path);
        assert_eq!((status, bytes.len() as u64), (200, record["outcome"]["size_bytes"].as_u64().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn a_cancel_at_one_server_stops_a_worker_elsewhere() {
    let (database, s3) = (Database::create().await, S3::start());
    let folder = tempfile::tempdir().unwrap();
    let key = create_key(&database);
    let server = Member::serve(&folder, &database, &s3);
    // Sixty seconds of lease: without being told, the worker would notice after ten at the earliest.
    let _worker = Member::start(&["worker", "--engine", "motion", "--lease-s", "60"], &database, &s3);
    let id = submit(server.address(), &key);
    let next = submit(server.address(), &key);
    let started = Instant::now();
    while record(server.address(), &key, &id)["status"] != "processing" {
        assert!(started.elapsed() < Duration::from_secs(30), "nobody woke");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, answer) = call(server.address(), &key, "DELETE", &format!("{BASE}/requests/{id}"), "");
    assert_eq!((status, &answer["status"]), (200, &json!("cancelled")));
    let cancelled = Instant::now();
    while record(server.address(), &key, &next)["status"] != "processing" {
        assert!(cancelled.elapsed() < Duration::from_secs(8), "the worker goes on with what nobody wants");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn workers_of_different_models_take_each_only_its_own() {
    const EACH: usize = 4;
    let (mut database, s3) = (Database::create().await, S3::start());
    let folder = tempfile::tempdir().unwrap();
    let key = create_key(&database);
    let place = ["--listen", "127.0.0.1:0", "--data-dir", folder.path().to_str().unwrap()];
    // The name that the scaler of deploy/kubernetes has for what its GPU workers serve.
    let serve = [&["serve", "--no-worker", "--serve-as", "wan2.2,Small"][..], &place].concat();
    let server = Member::start(&serve, &database, &s3);
    let ask = |model: &str| submit_to(server.address(), &key, model);
    let large: Vec<_> = (0..EACH).map(|_| ask("WAN2.2")).collect();
    let small: Vec<_> = (0..EACH).map(|_| ask("small")).collect();
    assert_eq!(database.scaled_by("gpu-workers.yaml").await, EACH as i64);
    assert_eq!(database.scaled_by("scale-on-queue.yaml").await, 2 * EACH as i64);
    let settled = |ids: &[String], engine: &str| {
        let started = Instant::now();
        for id in ids {
            let done = loop {
                let record = record(server.address(), &key, id);
                if !matches!(record["status"].as_str(), Some("queued" | "processing")) {
                    break record;
                }
                assert!(started.elapsed() < Duration::from_secs(60), "still {record}");
                std::thread::sleep(Duration::from_millis(50));
            };
            assert_eq!((&done["status"], &done["outcome"]["engine"]), (&json!("success"), &json!(engine)));
        }
    };
    let worker = |database: &Database, model: &str, engine: &str| {
        let worker = Member::start(&["worker", "--serve-as", model, "--engine", engine], database, &s3);
        assert_eq!(worker.said, format!("working on {model} with the engine {engine}"));
        worker
    };
    let of_small = worker(&database, "Small", "pattern");
    settled(&small, "pattern");
    let untouched = "SELECT count(*) FROM jobs WHERE model = 'wan2.2' AND status = 'queued' AND attempt = 0";
    assert_eq!(database.number(untouched).await, EACH as i64, "nobody serves it");
    assert_eq!(database.scaled_by("gpu-workers.yaml").await, EACH as i64);
    let of_large = worker(&database, "wan2.2", "motion");
    settled(&large, "motion");
    assert_eq!(database.scaled_by("gpu-workers.yaml").await, 0);
    let rows = "SELECT model || ' ' || engine FROM workers ORDER BY 1";
    let rows: Vec<String> = sqlx::query_scalar(rows).fetch_all(&mut database.connection).await.unwrap();
    assert_eq!(rows, ["Small pattern", "wan2.2 motion"]);
    let (_, listed) = call(server.address(), &key, "GET", &format!("{BASE}/models"), "");
    for (place, engine) in ["motion", "pattern"].into_iter().enumerate() {
        let model = &listed["models"][place];
        assert!(model["brief_description"].as_str().unwrap().contains(&format!("`{engine}`")), "{model}");
        assert_eq!(model["qworkers"], 1, "{model}");
    }
    drop((of_small, of_large));
}

/// Each point at which a worker can be made to fail, on PostgreSQL and a bucket.
async fn one_outcome_after(kind: &str) {
    let (mut database, s3) = (Database::create().await, S3::start());
    let folder = tempfile::tempdir().unwrap();
    let key = create_key(&database);
    let server = Member::serve(&folder, &database, &s3);
    let mut ids = Vec::new();
    for point in POINTS {
        let case = format!("{point}:{kind}");
        let mut failing = Member::begin(command(&["worker"], &database, &s3).env("KINORA_FAULT", &case));
        let id = submit(server.address(), &key);
        let _other = (kind == "abort").then(|| {
            assert_eq!(failing.child.wait().unwrap().code(), None, "{case}: no fault was met");
            Member::start(&["worker"], &database, &s3)
        });
        let started = Instant::now();
        let done = loop {
            let record = record(server.address(), &key, &id);
            if !matches!(record["status"].as_str(), Some("queued" | "processing")) {
                break record;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{case}: still {record}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(done["status"], "success", "{case}: {done}");
        ids.push((case, id, done["outcome"]["size_bytes"].as_u64().unwrap()));
    }
    let lost = database.number("SELECT CAST(SUM(attempts_lost) AS BIGINT) FROM jobs").await;
    assert_eq!(lost, POINTS.len() as i64 - 1, "{kind}: after its success was told, no attempt is lost");
    // A start sweeps what the lost attempts left.
    drop(server);
    let server = Member::serve(&folder, &database, &s3);
    let started = Instant::now();
    while s3.objects().len() != 1 + 2 * POINTS.len() {
        assert!(started.elapsed() < Duration::from_secs(30), "{kind}: {:?}", s3.objects());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (case, id, size_bytes) in ids {
        let record = record(server.address(), &key, &id);
        let url = record["outcome"]["video_url"].as_str().unwrap();
        let path = url.strip_prefix(&format!("http://{}", server.address())).unwrap();
        let (status, clip) = crate::process::get(server.address(), path);
        assert_eq!((status, clip.len() as u64), (200, size_bytes), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn a_fleets_worker_that_meets_an_error_at_any_point_leaves_one_outcome() {
    one_outcome_after("error").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn a_fleets_worker_that_panics_at_any_point_leaves_one_outcome() {
    one_outcome_after("panic").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn a_fleets_worker_that_ends_at_any_point_leaves_one_outcome() {
    one_outcome_after("abort").await;
}

#[test]
fn a_worker_without_a_shared_store_says_what_it_needs() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kinora")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&["worker"]);
    assert!(said.contains("needs --database-url") && said.contains("SQLite"), "{said}");
    let said = refused(&["worker", "--database-url", "postgres://nowhere/none"]);
    assert!(said.contains("needs --artifacts"), "{said}");
    let said = refused(&["serve", "--database-url", "postgres://nowhere/none"]);
    assert!(said.contains("give --artifacts"), "{said}");
    let said = refused(&["worker", "--database-url", "mysql://nowhere/none"]);
    assert!(said.contains("must begin with postgres://") && !said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn what_ended_long_ago_is_removed_from_the_bucket_too() {
    let (mut database, s3) = (Database::create().await, S3::start());
    let folder = tempfile::tempdir().unwrap();
    let key = create_key(&database);
    let server = Member::serve(&folder, &database, &s3);
    let worker = Member::start(&["worker"], &database, &s3);
    let id = submit(server.address(), &key);
    let started = Instant::now();
    while record(server.address(), &key, &id)["status"] != "success" {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(worker);
    let waiting = submit(server.address(), &key);
    assert_eq!(s3.objects().len(), 3, "a picture, a clip and its thumbnail: {:?}", s3.objects());
    let collect = |database: &Database, more: &[&str]| {
        let arguments =
            [&["gc", "--keep-days", "1", "--data-dir", folder.path().to_str().unwrap()], more].concat();
        let output = command(&arguments, database, &s3).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let removed = |database: &Database, counts: &str| {
        let said = collect(database, &[]);
        assert!(said.starts_with(&format!("removed {counts} ")), "{said}");
    };
    removed(&database, "0 requests, 0 uploads, 0 pictures: 0 files,");
    let aged =
        "UPDATE jobs SET finished_at_ms = 1 WHERE status = 'success'; UPDATE inputs SET used_at_ms = 1";
    sqlx::raw_sql(aged).execute(&mut database.connection).await.unwrap();
    assert_eq!(collect(&database, &["--dry-run"]), "would remove 1 requests, 0 uploads, 0 pictures\n");
    removed(&database, "1 requests, 0 uploads, 0 pictures: 2 files,");
    assert_eq!(s3.objects().len(), 1, "the picture, which the waiting request names: {:?}", s3.objects());
    assert_eq!(record(server.address(), &key, &id)["code"], "no_such_request");
    let (status, _) = call(server.address(), &key, "DELETE", &format!("{BASE}/requests/{waiting}"), "");
    assert_eq!(status, 200);
    let aged = "UPDATE jobs SET finished_at_ms = 1";
    sqlx::raw_sql(aged).execute(&mut database.connection).await.unwrap();
    removed(&database, "1 requests, 0 uploads, 1 pictures: 1 files,");
    assert!(s3.objects().is_empty(), "{:?}", s3.objects());
    // The server was handed that picture a moment ago and believes in it, which the database does not.
    let body = json!({"model": MODEL, "payload": {"image": picture_base64()}}).to_string();
    let (status, answer) = call(server.address(), &key, "POST", &format!("{BASE}/requests"), &body);
    assert_eq!(status, 503, "{answer}");
    submit(server.address(), &key);
    assert_eq!(s3.objects().len(), 1, "{:?}", s3.objects());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: `scripts/test fleet` starts one"]
async fn many_that_migrate_at_once_take_turns() {
    let mut database = Database::create().await;
    let start = |_| {
        let mut migrate = Command::new(env!("CARGO_BIN_EXE_kinora"));
        migrate.args(["migrate", "--database-url", &database.url]).stderr(Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<Child> = (0..8).map(start).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let applied = database.number("SELECT count(*) FROM _sqlx_migrations WHERE success").await;
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres")).unwrap();
    assert_eq!(applied, files.count() as i64);
    assert_eq!(database.number("SELECT count(*) FROM secrets").await, 1);
    // As an older release would have left it: a command beside its servers changes nothing.
    let forget = "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    sqlx::raw_sql(forget).execute(&mut database.connection).await.unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kinora"))
        .args(["keys", "list", "--database-url", &database.url])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("kinora migrate"), "{said}");
}
