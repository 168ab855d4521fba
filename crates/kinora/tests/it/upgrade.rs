//! A data folder as an older release left it is opened, and everything in it goes on.
//!
//! `tests/data/0.1.0` was made by that release: its key, one finished, one cancelled and one waiting request.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use crate::server::TestServer;

const KEY: &str = "kin_R2NVbFI3y5OZasO7J6VITvih69sQr2ZeayxfMhbTB8U";
const FINISHED: &str = "01a2051e-f29f-746c-8431-be94e6cb62f8";
const WAITING: &str = "01a2051e-fc14-7125-96a7-f18b659c5e42";
const CANCELLED: &str = "01a2051e-fc1a-7631-8478-abb2dc6dd1d2";

pub fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copied(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_the_first_release_goes_on() {
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/0.1.0");
    let folder = Arc::new(tempfile::tempdir().unwrap());
    copied(&release, folder.path());
    let mut server = TestServer::start_on(folder, |_| {}).await;
    server.key = KEY.to_owned();
    let finished = server.record(FINISHED).await;
    assert_eq!((&finished["status"], &finished["outcome"]["seed"]), (&json!("success"), &json!(7)));
    let video = server.open(&finished["outcome"]["video_url"], "GET", &[]).await;
    let original = std::fs::read(release.join("outputs").join(FINISHED).join("1/video.mp4")).unwrap();
    assert_eq!((video.status, &video.body[..]), (200, &original[..]));
    assert_eq!(server.record(CANCELLED).await["status"], "cancelled");
    let waited = server.finished(WAITING).await;
    assert_eq!((&waited["status"], &waited["priority"]), (&json!("success"), &json!(0)), "{waited}");
    assert_eq!(server.get("/requests").await.json()["total"], 3);
    server.accepted().await;
    server.stop().await;
}

/// What a command says of a data folder that an older release may be serving.
fn told(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kinora"))
        .args(arguments)
        .args(["--data-dir", folder.to_str().unwrap()])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_command_beside_an_older_server_leaves_its_database_alone() {
    let folder = tempfile::tempdir().unwrap();
    copied(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/0.1.0"), folder.path());
    let held = || std::fs::read(folder.path().join("kinora.db")).unwrap();
    let before = held();
    for arguments in [
        &["keys", "create", "--org", "org"][..],
        &["keys", "list"],
        &["keys", "revoke", "none"],
        &["gc", "--keep-days", "1", "--dry-run"],
    ] {
        let (succeeded, said) = told(folder.path(), arguments);
        assert!(!succeeded && said.contains("kinora migrate"), "{arguments:?}: {said}");
    }
    let wal = folder.path().join("kinora.db-wal");
    assert!(std::fs::metadata(&wal).map_or(0, |file| file.len()) == 0, "something was written");
    assert!(before == held(), "something was written");
    assert!(told(folder.path(), &["migrate"]).0);
    let (succeeded, said) = told(folder.path(), &["keys", "list"]);
    assert!(succeeded, "{said}");
}
