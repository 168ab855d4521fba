//! One job from claim to its end: claim, make the clip, commit its files, finish the row. Then the next.
//!
//! Always true: every write names the attempt, so a worker that lost its lease changes nothing; files are committed
//! under `outputs/{job}/{attempt}/` before the row says `success`; while the engine works, no transaction is open.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kinora_engine::{Engine, GenerateSpec, Monitor, Progress};
use tokio_util::sync::CancellationToken;

use crate::artifacts::{ArtifactError, Artifacts, THUMBNAIL, VIDEO};
use crate::clock;
use crate::jobs::{Claim, Event, Job, JobProgress, JobStore, Outcome, StoreError};
use crate::models;
use crate::produce::{ProduceError, Produced, produce};
use crate::submission::Submission;

/// How often a working worker says that it lives, reports progress and learns of a cancel.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often an idle worker looks without being woken.
const POLL: Duration = Duration::from_secs(5);
/// How often lost leases are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What a worker needs.
#[derive(Debug, Clone)]
pub struct Worker {
    pub store: JobStore,
    pub artifacts: Artifacts,
    pub engine: Arc<dyn Engine>,
    pub worker_id: String,
    pub lease: Duration,
    /// How long a running job may go on once the worker is told to stop.
    pub grace: Duration,
}

/// Returns lost leases to the queue until `stop`.
pub async fn sweep_leases(store: JobStore, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        match store.expire_leases(Some(clock::monotonic_ms()), clock::wall_ms()).await {
            Ok(jobs) => jobs.iter().for_each(log_lost),
            Err(error) => tracing::error!(%error, "worker.sweep_failed"),
        }
    }
}

/// Says what became of a job whose worker was lost.
pub fn log_lost(job: &Job) {
    tracing::warn!(job.id = %job.id, job.attempt = job.attempt, job.status = %job.status, "job.lease_expired");
}

impl Worker {
    /// Works until `stop`; then the running job has the grace period to finish, or is given back.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.claim().await {
                Ok(Some(job)) => self.work(job, &stop).await,
                Ok(None) => self.wait(POLL, &stop).await,
                Err(error) => {
                    tracing::error!(%error, "worker.claim_failed");
                    self.pause(STORE_RETRY, &stop).await;
                }
            }
        }
    }

    async fn wait(&self, longest: Duration, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.store.work_arrived() => {}
            () = tokio::time::sleep(longest) => {}
        }
    }

    async fn pause(&self, length: Duration, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(length) => {}
        }
    }

    async fn claim(&self) -> Result<Option<Job>, StoreError> {
        self.store
            .claim(Claim {
                model: models::MODEL.to_owned(),
                worker_id: self.worker_id.clone(),
                lease_until_ms: self.lease_end_ms(),
                now_ms: clock::wall_ms(),
            })
            .await
    }

    fn lease_end_ms(&self) -> i64 {
        clock::monotonic_ms() + self.lease.as_millis() as i64
    }

    async fn work(&self, job: Job, stop: &CancellationToken) {
        tracing::info!(job.id = %job.id, job.attempt = job.attempt, worker.id = self.worker_id, "job.processing");
        let started = Instant::now();
        let signals = Arc::new(Signals::default());
        let making = {
            let (worker, job, signals) = (self.clone(), job.clone(), signals.clone());
            tokio::task::spawn_blocking(move || worker.make(&job, &signals))
        };
        let watching = self.watch(&job, &signals, stop);
        let made = tokio::select! {
            made = making => made,
            never = watching => match never {},
        };
        let event = match made {
            Ok(Ok(outcome)) => Event::Finished { attempt: job.attempt, outcome },
            Ok(Err(WorkError::Produce(ProduceError::Cancelled))) if signals.lost.load(Ordering::Relaxed) => {
                tracing::info!(job.id = %job.id, job.attempt = job.attempt, "job.abandoned");
                return self.discard(&job).await;
            }
            Ok(Err(WorkError::Produce(ProduceError::Cancelled))) => Event::Released { attempt: job.attempt },
            Ok(Err(error)) => {
                self.failure(&job, &error.to_string(), error.for_caller(), error.is_retryable())
            }
            Err(panic) => self.failure(&job, &said(panic), "the engine crashed".to_owned(), true),
        };
        self.report(&job, event, started.elapsed()).await;
    }

    fn failure(&self, job: &Job, detail: &str, error: String, retryable: bool) -> Event {
        tracing::error!(job.id = %job.id, job.attempt = job.attempt, detail, retryable, "job.attempt_failed");
        Event::Failed { attempt: job.attempt, error, retryable, attempts_max: self.store.attempts_max() }
    }

    /// Writes how the attempt ended, for as long as the store needs to come back: the clip is made already.
    async fn report(&self, job: &Job, event: Event, took: Duration) {
        loop {
            match self.store.report(job.id, event.clone(), clock::wall_ms()).await {
                Ok(Some(Ok(job))) => {
                    tracing::info!(
                        job.id = %job.id, job.attempt = job.attempt, job.status = %job.status,
                        duration_ms = took.as_millis() as u64, "job.attempt_ended"
                    );
                    if job.outcome.is_none() {
                        self.discard(&job).await;
                    }
                    return;
                }
                Ok(_) if self.counts(job).await => return,
                Ok(_) => {
                    tracing::info!(job.id = %job.id, job.attempt = job.attempt, "job.late_result_refused");
                    return self.discard(job).await;
                }
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::error!(job.id = %job.id, %error, "worker.report_failed");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
    }

    /// Whether this attempt's files are the outcome after all: a commit may have reached the disk although the store
    /// reported an error. Where the store does not say, the files stay.
    async fn counts(&self, job: &Job) -> bool {
        match self.store.get(job.id).await {
            Ok(Some(now)) => now.outcome.as_ref().is_some_and(|outcome| outcome.attempt == job.attempt),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    async fn discard(&self, job: &Job) {
        let (artifacts, id, attempt) = (self.artifacts.clone(), job.id, job.attempt);
        let discarded = tokio::task::spawn_blocking(move || artifacts.discard_attempt(id, attempt)).await;
        if let Ok(Err(error)) = discarded {
            tracing::warn!(job.id = %job.id, %error, "job.discard_failed");
        }
    }

    /// Keeps the lease, passes progress on, and stops the engine when the lease is gone or the grace is over.
    async fn watch(
        &self,
        job: &Job,
        signals: &Signals,
        stop: &CancellationToken,
    ) -> std::convert::Infallible {
        let grace_over = async {
            stop.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        tokio::pin!(grace_over);
        loop {
            tokio::select! {
                () = &mut grace_over, if !signals.stop.load(Ordering::Relaxed) => {
                    tracing::info!(job.id = %job.id, job.attempt = job.attempt, "job.giving_back");
                    signals.stop.store(true, Ordering::Relaxed);
                }
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            let heartbeat = Event::Heartbeat {
                attempt: job.attempt,
                lease_until_ms: self.lease_end_ms(),
                progress: signals.progress(),
            };
            match self.store.report(job.id, heartbeat, clock::wall_ms()).await {
                Ok(Some(Ok(_))) => {}
                Ok(_) => {
                    signals.lost.store(true, Ordering::Relaxed);
                    signals.stop.store(true, Ordering::Relaxed);
                }
                Err(error) => tracing::warn!(job.id = %job.id, %error, "worker.heartbeat_failed"),
            }
        }
    }

    /// The blocking part: picture from the store, engine, encoder, files under their final names.
    fn make(&self, job: &Job, signals: &Signals) -> Result<Outcome, WorkError> {
        let input = self.artifacts.input(&job.input_sha256);
        let bytes = std::fs::read(&input).map_err(WorkError::Input)?;
        let picture = kinora_media::decode(&bytes).map_err(|e| WorkError::Invalid(e.to_string()))?.picture;
        drop(bytes);
        let spec = spec_of(job)?;
        let staged = self.artifacts.stage()?;
        let output = staged.file.try_clone().map_err(WorkError::Input)?;
        let made = produce(self.engine.as_ref(), &spec, &picture, output, signals)?;
        self.commit_thumbnail(job, &made)?;
        staged.commit(&self.artifacts.output(job.id, job.attempt, VIDEO))?;
        Ok(outcome(job, &spec, self.engine.name(), made))
    }

    fn commit_thumbnail(&self, job: &Job, made: &Produced) -> Result<(), WorkError> {
        use std::io::Write as _;
        let mut staged = self.artifacts.stage()?;
        staged.file.write_all(&made.thumbnail_jpeg).map_err(WorkError::Input)?;
        Ok(staged.commit(&self.artifacts.output(job.id, job.attempt, THUMBNAIL))?)
    }
}

fn spec_of(job: &Job) -> Result<GenerateSpec, WorkError> {
    let payload = serde_json::from_str(&job.payload).map_err(|e| WorkError::Invalid(e.to_string()))?;
    Submission::spec(&payload, job.seed.unsigned_abs()).map_err(|e| WorkError::Invalid(e.to_string()))
}

fn outcome(job: &Job, spec: &GenerateSpec, engine: &str, made: Produced) -> Outcome {
    let format = made.info.format;
    Outcome {
        attempt: job.attempt,
        engine: engine.to_owned(),
        seed: spec.seed,
        duration_s: spec.duration.seconds(),
        width_px: format.width_px,
        height_px: format.height_px,
        fps: format.fps,
        frames_count: format.frames_count,
        size_bytes: made.info.size_bytes,
        plan: made.generated.plan,
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error("the stored job cannot be carried out: {0}")]
    Invalid(String),
    #[error("the data folder cannot be used: {0}")]
    Input(std::io::Error),
    #[error("{0}")]
    Artifact(#[from] ArtifactError),
    #[error("{0}")]
    Produce(#[from] ProduceError),
}

impl WorkError {
    /// What the caller may know: nothing of the server's disk.
    fn for_caller(&self) -> String {
        match self {
            Self::Invalid(_) | Self::Produce(ProduceError::Engine(_)) => self.to_string(),
            Self::Input(_) | Self::Artifact(_) => "the server could not read or write its files".to_owned(),
            Self::Produce(_) => "the server could not encode the video".to_owned(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid(_) => false,
            Self::Input(_) | Self::Artifact(_) => true,
            Self::Produce(error) => error.is_retryable(),
        }
    }
}

fn said(panic: tokio::task::JoinError) -> String {
    match panic.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "no message".to_owned()),
        Err(error) => error.to_string(),
    }
}

/// Between the engine's thread and its watcher.
#[derive(Debug, Default)]
struct Signals {
    stop: AtomicBool,
    lost: AtomicBool,
    progress: Mutex<Option<Progress>>,
}

impl Signals {
    fn progress(&self) -> Option<JobProgress> {
        let progress = *self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        progress.map(|Progress { stage, done, total }| JobProgress { stage: stage.to_owned(), done, total })
    }
}

impl Monitor for Signals {
    fn progress(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(progress);
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
