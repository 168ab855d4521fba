//! A backup that is made while everything runs, in the documented order, and put back elsewhere.

use std::process::Command;

use serde_json::Value;
use sqlx::Connection as _;

use crate::fleet::{Database, Member, create_key, record, submit};
use crate::process::{Process, get};
use crate::s3::S3;
use crate::upgrade::copied;

/// The clip of a finished record, as the server at `address` hands it out.
fn clip(address: &str, record: &Value) -> Vec<u8> {
    let url = record["outcome"]["video_url"].as_str().unwrap();
    let path = url.strip_prefix(&format!("http://{address}")).unwrap();
    let (status, bytes) = get(address, path);
    assert_eq!(status, 200, "{url}");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_copied_while_it_was_served_serves_what_it_had() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Process::start(folder.path(), "pattern", None);
    let finished = server.submit("5");
    let before = clip(&server.address, &server.until(&finished, &["success"]));
    let going_on = server.submit("10");
    let database = folder.path().join("kinora.db");
    let database = format!("sqlite://{}", database.display());
    let mut connection = sqlx::SqliteConnection::connect(&database).await.unwrap();
    let to = copy.path().join("kinora.db");
    sqlx::query("VACUUM INTO $1").bind(to.to_str().unwrap()).execute(&mut connection).await.unwrap();
    let later = server.submit("5");
    server.until(&later, &["success"]);
    std::fs::copy(folder.path().join("secret"), copy.path().join("secret")).unwrap();
    for files in ["inputs", "outputs"] {
        copied(&folder.path().join(files), &copy.path().join(files));
    }
    let key = server.key.clone();
    drop((connection, server));

    let restored = Process::start(copy.path(), "pattern", Some(&key));
    let record = restored.until(&finished, &["success"]);
    assert_eq!(clip(&restored.address, &record), before);
    let resumed = restored.until(&going_on, &["success", "failed"]);
    assert_eq!(resumed["status"], "success", "{resumed}");
    assert_eq!(restored.record(&later)["code"], "no_such_request", "it came after the copy");
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and s3s-fs: `scripts/test fleet` starts both"]
async fn a_database_and_a_bucket_that_were_copied_in_that_order_serve_what_they_had() {
    let (database, s3) = (Database::create().await, S3::start());
    let folder = tempfile::tempdir().unwrap();
    let key = create_key(&database);
    let server = Member::serve(&folder, &database, &s3);
    let worker = Member::start(&["worker"], &database, &s3);
    let finished = submit(server.address(), &key);
    let before = clip(server.address(), &until_success(server.address(), &key, &finished).await);
    drop(worker);
    let waiting = submit(server.address(), &key);
    let dump = folder.path().join("dump.sql");
    let dump = dump.to_str().unwrap();
    run("pg_dump", &["--no-owner", "--file", dump, &database.url]);
    let later = submit(server.address(), &key);
    let other_s3 = S3::start();
    copied(s3.folder.path(), other_s3.folder.path());
    drop((server, s3));

    let restored = Database::create().await;
    run("psql", &["--quiet", "--set", "ON_ERROR_STOP=1", "--file", dump, &restored.url]);
    let folder = tempfile::tempdir().unwrap();
    let server = Member::serve(&folder, &restored, &other_s3);
    let address = server.address();
    assert_eq!(clip(address, &until_success(address, &key, &finished).await), before);
    let _worker = Member::start(&["worker"], &restored, &other_s3);
    until_success(address, &key, &waiting).await;
    assert_eq!(record(address, &key, &later)["code"], "no_such_request", "it came after the dump");
}

async fn until_success(address: &str, key: &str, id: &str) -> Value {
    let started = std::time::Instant::now();
    loop {
        let record = record(address, key, id);
        if record["status"] == "success" {
            return record;
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "still {record}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
