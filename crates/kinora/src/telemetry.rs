//! What is measured, under which name, for Prometheus. Names and units follow its conventions: base units, `_total` for
//! what only grows.
//!
//! Always true: no label's values come from callers, so the number of series is bounded; nothing here identifies a
//! caller. What lies in the queue is asked of the store at each scrape, by `api/metrics.rs`.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const QUEUE_JOBS: &str = "kinora_queue_jobs";
const QUEUE_OLDEST: &str = "kinora_queue_oldest_seconds";
const WORKERS: &str = "kinora_workers";
const OWN_WORKERS: &str = "kinora_own_workers";
const SUBMITTED: &str = "kinora_jobs_submitted_total";
const REFUSED: &str = "kinora_jobs_refused_total";
const ATTEMPTS_ENDED: &str = "kinora_attempts_ended_total";
const LEASES_LOST: &str = "kinora_leases_lost_total";
const QUEUE_WAIT: &str = "kinora_queue_wait_seconds";
const ATTEMPT: &str = "kinora_attempt_seconds";
const STAGE: &str = "kinora_stage_seconds";
const FRAMES: &str = "kinora_frames_total";
const STORE_COMMIT: &str = "kinora_store_commit_seconds";
const STORE_ERRORS: &str = "kinora_store_errors_total";
const ARTIFACT_ERRORS: &str = "kinora_artifact_errors_total";
const FETCH_ERRORS: &str = "kinora_fetch_errors_total";
const RETENTION_ROWS: &str = "kinora_retention_rows_removed_total";
const RETENTION_FILES: &str = "kinora_retention_files_removed_total";
const RETENTION_BYTES: &str = "kinora_retention_removed_bytes_total";
const HTTP_ANSWERS: &str = "kinora_http_answers_total";

/// From a commit on a fast disk to a long video on a slow machine.
const BUCKETS_S: [f64; 18] = [
    0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
    14_400.0, 86_400.0,
];

/// Measures from now on, once for the whole process. What is measured before costs nothing and is lost.
pub fn start() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_S)
                .expect("there are buckets");
            let handle = builder.install_recorder().expect("nothing else records metrics in this process");
            describe();
            handle
        })
        .clone()
}

fn describe() {
    describe_gauge!(QUEUE_JOBS, "Requests that have not ended, by model and status");
    describe_gauge!(QUEUE_OLDEST, "Age of the oldest request that waits");
    describe_gauge!(WORKERS, "Workers seen lately, of all processes, by model");
    describe_gauge!(OWN_WORKERS, "Workers of this process, by model and engine");
    describe_counter!(ATTEMPTS_ENDED, "Attempts by how they ended");
    describe_counter!(FRAMES, "Frames of finished videos, by engine");
    describe_counter!(HTTP_ANSWERS, "Answers by HTTP status");
    describe_counter!(RETENTION_ROWS, "Rows that retention removed, by table");
    describe_counter!(RETENTION_FILES, "Files that retention removed, by folder");
    describe_counter!(RETENTION_BYTES, "Bytes of files that retention removed, by folder");
    ["jobs", "uploads", "inputs"].into_iter().for_each(|table| removed_rows(table, 0));
    ["outputs", "inputs"].into_iter().for_each(|folder| removed_files(folder, 0, 0));
    describe_histogram!(QUEUE_WAIT, "From acceptance to the claim by a worker");
    describe_histogram!(ATTEMPT, "From claim to the end of an attempt");
    describe_histogram!(STAGE, "Stages of finished attempts, by engine");
    describe_histogram!(STORE_COMMIT, "Transactions that write, each serving all that waited");
    let alone = [
        (SUBMITTED, "Requests accepted"),
        (REFUSED, "Requests refused for a full queue"),
        (LEASES_LOST, "Attempts lost to workers that fell silent"),
        (STORE_ERRORS, "Transactions and reads that failed"),
        (ARTIFACT_ERRORS, "Stored files that could not be read or written"),
        (FETCH_ERRORS, "Image URLs that could not be fetched"),
    ];
    for (name, description) in alone {
        describe_counter!(name, description);
        // A rate of what never happened is zero, not absent.
        counter!(name).increment(0);
    }
}

/// The queue as the store knows it.
pub fn queue(model: &str, status: &str, jobs_count: i64) {
    gauge!(QUEUE_JOBS, "model" => model.to_owned(), "status" => status.to_owned()).set(jobs_count as f64);
}

pub fn queue_oldest(age: Duration) {
    gauge!(QUEUE_OLDEST).set(age.as_secs_f64());
}

pub fn workers(model: &str, count: usize) {
    gauge!(WORKERS, "model" => model.to_owned()).set(count as f64);
}

pub fn own_workers(model: &str, engine: &'static str, count: u32) {
    gauge!(OWN_WORKERS, "model" => model.to_owned(), "engine" => engine).set(f64::from(count));
}

pub fn submitted() {
    counter!(SUBMITTED).increment(1);
}

pub fn refused() {
    counter!(REFUSED).increment(1);
}

pub fn claimed(waited: Duration) {
    histogram!(QUEUE_WAIT).record(waited);
}

pub fn attempt_ended(engine: &'static str, outcome: &'static str, took: Duration) {
    counter!(ATTEMPTS_ENDED, "outcome" => outcome).increment(1);
    histogram!(ATTEMPT, "engine" => engine).record(took);
}

pub fn stage(engine: &'static str, stage: &'static str, took: Duration) {
    histogram!(STAGE, "engine" => engine, "stage" => stage).record(took);
}

pub fn frames(engine: &'static str, count: u32) {
    counter!(FRAMES, "engine" => engine).increment(u64::from(count));
}

pub fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

pub fn committed(took: Duration) {
    histogram!(STORE_COMMIT).record(took);
}

pub fn store_failed() {
    counter!(STORE_ERRORS).increment(1);
}

pub fn artifact_failed() {
    counter!(ARTIFACT_ERRORS).increment(1);
}

pub fn fetch_failed() {
    counter!(FETCH_ERRORS).increment(1);
}

pub fn removed_rows(table: &'static str, rows_count: u64) {
    counter!(RETENTION_ROWS, "table" => table).increment(rows_count);
}

pub fn removed_files(folder: &'static str, files_count: u64, size_bytes: u64) {
    counter!(RETENTION_FILES, "folder" => folder).increment(files_count);
    counter!(RETENTION_BYTES, "folder" => folder).increment(size_bytes);
}

pub fn answered(status: u16) {
    counter!(HTTP_ANSWERS, "status" => status.to_string()).increment(1);
}
