//! The real program as a process: first start, signals, and a death in the middle of a job.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{BASE, MODEL, picture_base64};

pub struct Process {
    pub child: Child,
    pub address: String,
    pub key: String,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the server; `key` is read from its greeting where it makes one.
    pub fn start(folder: &Path, engine: &str, key: Option<&str>) -> Self {
        Self::start_with(folder, &[("KINORA_ENGINE", engine)], key)
    }

    /// Starts the server with more variables; the engine is the test card's unless they say otherwise.
    pub fn start_with(folder: &Path, variables: &[(&str, &str)], key: Option<&str>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kinora"))
            .args(["serve", "--listen", "127.0.0.1:0", "--grace-s", "0", "--data-dir"])
            .arg(folder)
            .env("KINORA_ENGINE", "pattern")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut next = || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line
        };
        let address = next().trim().strip_prefix("listening on http://").unwrap().to_owned();
        let key = key.map_or_else(|| next().trim().rsplit(' ').next().unwrap().to_owned(), str::to_owned);
        Self { child, address, key, output }
    }

    fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        call(&self.address, &self.key, method, path, body)
    }

    pub fn submit(&self, duration: &str) -> String {
        self.try_submit(duration).expect("the server lives")
    }

    /// `None` where the process ended before its answer was out.
    pub fn try_submit(&self, duration: &str) -> Option<String> {
        let body =
            json!({"model": MODEL, "payload": {"image": picture_base64(), "duration": duration}}).to_string();
        let head = with_key("POST", &format!("{BASE}/requests"), &self.key);
        let (status, answer) = try_exchange(&self.address, &head, &body)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(status, 200, "{answer}");
        Some(answer["request_id"].as_str().unwrap().to_owned())
    }

    /// The request that was submitted last.
    pub fn latest(&self) -> String {
        let (_, listed) = self.call("GET", &format!("{BASE}/requests"), "");
        listed["requests"][0]["request_id"].as_str().unwrap().to_owned()
    }

    pub fn record(&self, id: &str) -> Value {
        self.call("GET", &format!("{BASE}/requests/{id}"), "").1
    }

    pub fn until(&self, id: &str, wanted: &[&str]) -> Value {
        let started = Instant::now();
        loop {
            let record = self.record(id);
            if wanted.contains(&record["status"].as_str().unwrap()) {
                return record;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "still {record}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        let id = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

/// A request with a key on a connection of its own.
pub fn call(address: &str, key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let (status, body) = exchange(address, &with_key(method, path, key), body);
    (status, serde_json::from_slice(&body).unwrap())
}

fn with_key(method: &str, path: &str, key: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nauthorization: Bearer {key}")
}

/// A GET without a key.
pub fn get(address: &str, path: &str) -> (u16, Vec<u8>) {
    exchange(address, &format!("GET {path} HTTP/1.1"), "")
}

fn exchange(address: &str, head: &str, body: &str) -> (u16, Vec<u8>) {
    try_exchange(address, head, body).expect("there is an answer")
}

/// `None` where the connection ends before an answer.
fn try_exchange(address: &str, head: &str, body: &str) -> Option<(u16, Vec<u8>)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{head}\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    Some((status, answer.split_off(end + 4)))
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_start_prints_a_key_and_a_command_to_try() {
    use std::io::Read as _;
    let folder = tempfile::tempdir().unwrap();
    let mut first = Process::start(folder.path(), "pattern", None);
    assert_eq!(first.call("GET", &format!("{BASE}/requests"), "").0, 200, "the printed key works");
    let key = first.key.clone();
    assert_eq!(first.signal(rustix::process::Signal::TERM), Some(0), "an orderly end");
    let mut rest = String::new();
    first.output.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("curl") && rest.contains(&key) && rest.contains(BASE), "{rest}");
    let mut second = Process::start(folder.path(), "pattern", Some(&key));
    assert_eq!(second.call("GET", &format!("{BASE}/requests"), "").0, 200);
    second.signal(rustix::process::Signal::TERM);
    rest.clear();
    second.output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "only the first start makes a key");
}

#[test]
fn a_folder_is_served_once() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Process::start(folder.path(), "pattern", None);
    let second = Command::new(env!("CARGO_BIN_EXE_kinora"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another kinora already serves"), "{said}");
}

#[test]
fn a_request_survives_the_death_of_the_process_that_works_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Process::start(folder.path(), "motion", None);
    let id = first.submit("10");
    first.until(&id, &["processing"]);
    first.signal(rustix::process::Signal::KILL);
    let second = Process::start(folder.path(), "pattern", Some(&first.key));
    let record = second.until(&id, &["success", "failed"]);
    assert_eq!((&record["status"], &record["outcome"]["engine"]), (&json!("success"), &json!("pattern")));
    assert_eq!(
        std::fs::read_dir(folder.path().join("staging")).unwrap().count(),
        0,
        "nothing half-written stays"
    );
    let attempts = std::fs::read_dir(folder.path().join("outputs").join(&id)).unwrap();
    let names: Vec<_> = attempts.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["2"], "the one outcome is the second attempt's");
}

#[test]
fn what_ended_long_ago_is_removed_with_its_files_and_only_that() {
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/0.1.0");
    let folder = tempfile::tempdir().unwrap();
    crate::upgrade::copied(&release, folder.path());
    let collect = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
        let output = command.args(["gc", "--data-dir"]).arg(folder.path()).args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let files = |of: &str| std::fs::read_dir(folder.path().join(of)).unwrap().count();
    let nothing = "removed 0 requests, 0 uploads, 0 pictures: 0 files, 0 bytes\n";
    assert_eq!(collect(&["--keep-days", "36500"]), nothing);
    // Two of its three requests have ended; the third names the same picture.
    age(&folder.path().join("kinora.db"), 2);
    let wanted = "2 requests, 0 uploads, 0 pictures";
    assert_eq!(collect(&["--keep-days", "1", "--dry-run"]), format!("would remove {wanted}\n"));
    assert_eq!((files("outputs"), files("inputs")), (1, 1));
    let removed = collect(&["--keep-days", "1"]);
    assert!(removed.starts_with(&format!("removed {wanted}: 2 files, ")), "{removed}");
    assert_eq!((files("outputs"), files("inputs")), (0, 1));
    assert_eq!(collect(&["--keep-days", "1"]), nothing);
}

/// Makes everything in a database older by some days.
fn age(database: &Path, days: i64) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        use sqlx::Connection as _;
        let url = format!("sqlite://{}", database.display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        for statement in [
            "UPDATE jobs SET finished_at_ms = finished_at_ms - $1",
            "UPDATE inputs SET used_at_ms = used_at_ms - $1",
        ] {
            sqlx::query(statement).bind(days * 24 * 3600 * 1000).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    });
}

#[test]
fn a_collection_without_a_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinora"));
    let output = command.args(["gc", "--keep-days", "1", "--data-dir"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no database"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made there");
}
