//! A worker fails at every point of its work in every way, and each time there is exactly one outcome.

use std::path::Path;

use crate::process::{Process, get};

/// Where a worker can be made to fail.
pub const POINTS: [&str; 5] = ["Claimed", "Staged", "Uploaded", "BeforeFinish", "Finished"];

/// Names below a folder, deep ones by their whole path.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path.display().to_string()] })
        .collect();
    names.sort();
    names
}

/// A server whose first worker fails as it is told, and after it, where it ended, one that does not.
fn survives(point: &str, kind: &str) {
    let (folder, case) = (tempfile::tempdir().unwrap(), format!("{point}:{kind}"));
    let mut server =
        Process::start_with(folder.path(), &[("KINORA_FAULT", &case), ("KINORA_LEASE_S", "2")], None);
    // A process that ends as soon as its worker has the job may not have answered yet.
    let answered = if kind == "abort" { server.try_submit("5") } else { Some(server.submit("5")) };
    if kind == "abort" {
        assert_eq!(server.child.wait().unwrap().code(), None, "{case}: no fault was met");
        server = Process::start(folder.path(), "pattern", Some(&server.key));
    }
    let id = answered.unwrap_or_else(|| server.latest());
    let record = server.until(&id, &["success", "failed", "cancelled"]);
    assert_eq!(record["status"], "success", "{case}: {record}");
    let url = record["outcome"]["video_url"].as_str().unwrap();
    let (status, clip) =
        get(&server.address, url.strip_prefix(&format!("http://{}", server.address)).unwrap());
    assert_eq!(
        (status, clip.len() as u64),
        (200, record["outcome"]["size_bytes"].as_u64().unwrap()),
        "{case}"
    );
    // A restart sweeps what lost attempts left; then there is one clip with its thumbnail, and nothing half-written.
    server.signal(rustix::process::Signal::TERM);
    let mut server = Process::start(folder.path(), "pattern", Some(&server.key));
    let again = server.submit("5");
    server.until(&again, &["success"]);
    server.signal(rustix::process::Signal::TERM);
    let outputs = files(&folder.path().join("outputs").join(&id));
    assert_eq!(outputs.len(), 2, "{case}: {outputs:?}");
    assert!(files(&folder.path().join("staging")).is_empty(), "{case}");
    // The first attempt stands only where it failed after its success was on disk.
    let is_first = outputs.iter().all(|name| name.contains(&format!("/{id}/1/")));
    assert_eq!(is_first, point == "Finished", "{case}: {outputs:?}");
}

#[test]
fn a_worker_that_meets_an_error_at_any_point_leaves_one_outcome() {
    POINTS.iter().for_each(|point| survives(point, "error"));
}

#[test]
fn a_worker_that_panics_at_any_point_leaves_one_outcome_and_goes_on() {
    POINTS.iter().for_each(|point| survives(point, "panic"));
}

#[test]
fn a_process_that_ends_at_any_point_leaves_one_outcome() {
    POINTS.iter().for_each(|point| survives(point, "abort"));
}
