//! One job from claim to its end: claim, make the clip, commit its files, finish the row. Then the next.
//!
//! Always true: every write names the attempt, so a worker that lost its lease changes nothing; files are committed
//! under the attempt's own names before the row says `success`; while the engine works, no transaction is open. A worker
//! that crashes is begun anew; one whose engine cannot compute any more gives its job back and leaves, and with it the whole
//! process, which alone can be begun anew then. What is the place's fault (its disk, the bucket, the store) and not the job's costs no
//! attempt: the job is given back, and the worker waits longer each time before it claims another.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kinora_engine::{Engine, EngineError, GenerateSpec, Monitor, Progress};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::artifacts::{ArtifactError, ArtifactKey, Artifacts, Staged};
use crate::faults::{self, Injected, Point};
use crate::jobs::{Claim, Event, Heartbeat, Job, JobProgress, JobStore, Outcome, Presence, StoreError};
use crate::keys::random_bytes;
use crate::models::ModelNames;
use crate::produce::{ProduceError, Produced, produce, says_full};
use crate::submission::Submission;
use crate::telemetry;
use crate::traces::{self, Fact, Place as Where, Side, Span};

/// How often a working worker says that it lives and reports progress, where the store is this process's own.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// The same in a shared store, as a part of the lease: sparse, since every sign of life rewrites a row.
const HEARTBEATS_IN_LEASE: u32 = 6;
/// How often an idle worker looks without being woken.
const POLL: Duration = Duration::from_secs(5);
/// How often lost leases are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// The same in a shared store, where every process looks.
const SWEEP_SHARED: Duration = Duration::from_secs(3);
/// How often a worker says that it is there.
const PRESENCE: Duration = Duration::from_secs(10);
/// How much the latest video counts for a worker's pace.
const PACE_WEIGHT: f64 = 0.3;
/// Pause after the store failed, or after a crash.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The first pause after a job was given back because no clip could be written here; each further one is twice as long.
const UNFIT_PAUSE: Duration = Duration::from_secs(1);
const UNFIT_DOUBLINGS_MAX: u32 = 5;
/// How often a job is given back for free because its clip found no room where a probe does: one whose clip is larger
/// than what is free would otherwise go round for ever.
const NO_ROOM_FREE_MAX: i64 = 20;

/// How often a job is given back for free because the engine broke as it was made: one that breaks every engine would
/// otherwise end one process after the other for ever.
const BROKEN_FREE_MAX: i64 = 2;
/// How long a probe of the engine may take: a device that fell away may never answer.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// What callers are told of an engine that crashed or broke.
const BROKE: &str = "the engine crashed";

/// What a worker needs.
#[derive(Debug, Clone)]
pub struct Worker {
    pub store: JobStore,
    pub artifacts: Artifacts,
    pub engine: Arc<dyn Engine>,
    /// Whose requests it makes.
    pub names: ModelNames,
    pub worker_id: String,
    pub lease: Duration,
    /// How long a running job may go on once the worker is told to stop.
    pub grace: Duration,
}

/// A name for a worker that no other has.
pub fn new_id() -> String {
    format!("worker-{:08x}", u32::from_be_bytes(random_bytes()))
}

/// Returns lost leases to the queue until `stop`.
pub async fn sweep_leases(store: JobStore, stop: CancellationToken) {
    let pause = if store.is_shared() { SWEEP_SHARED } else { SWEEP };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        match store.expire_leases(store.now_ms()).await {
            Ok(jobs) => jobs.iter().for_each(log_lost),
            Err(error) => tracing::error!(%error, "worker.sweep_failed"),
        }
    }
}

/// Why a worker left before it was told to.
#[derive(Debug, thiserror::Error)]
#[error(
    "the engine `{0}` cannot compute in this process any more, as the log says; what it was making was given back to the queue"
)]
pub struct Broken(&'static str);

/// Waits until all have left, and tells if one did because its engine is broken.
pub async fn all_left(mut workers: JoinSet<Result<(), Broken>>) -> Result<(), Broken> {
    let mut told = Ok(());
    while let Some(left) = workers.join_next().await {
        told = told.and(left.expect("a worker catches panics of its own"));
    }
    told
}

/// Says what became of a job whose worker was lost.
pub fn log_lost(job: &Job) {
    tracing::warn!(job.id = %job.id, job.attempt = job.attempt, job.status = %job.status, "job.lease_expired");
    telemetry::lease_lost();
}

impl Worker {
    /// Works until `stop`; then the running job has the grace period to finish, or is given back.
    ///
    /// Once the engine cannot compute any more, it cancels `stop` itself and leaves.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Broken> {
        loop {
            match tokio::spawn(self.clone().live(stop.clone())).await {
                Ok(left) => {
                    if left.is_err() {
                        stop.cancel();
                    }
                    return left;
                }
                // What it worked on is begun again once its lease is over.
                Err(panic) => {
                    tracing::error!(worker.id = self.worker_id, panic = said(panic), "worker.crashed");
                    self.pause(STORE_RETRY, &stop).await;
                }
            }
        }
    }

    async fn live(self, stop: CancellationToken) -> Result<(), Broken> {
        let pace = Pace::default();
        let left = tokio::select! {
            left = self.work_until(&stop, &pace) => left,
            never = self.show_presence(&pace) => match never {},
        };
        if let Err(error) = self.store.worker_gone(self.worker_id.clone()).await {
            tracing::warn!(%error, worker.id = self.worker_id, "worker.leave_failed");
        }
        left
    }

    async fn show_presence(&self, pace: &Pace) -> std::convert::Infallible {
        loop {
            let presence = Presence {
                worker_id: self.worker_id.clone(),
                models: self.names.iter().map(str::to_owned).collect(),
                engine: self.engine.name().to_owned(),
                pace_ms: pace.ms(),
            };
            if let Err(error) = self.store.worker_present(presence).await {
                tracing::warn!(%error, worker.id = self.worker_id, "worker.presence_failed");
            }
            tokio::time::sleep(PRESENCE).await;
        }
    }

    async fn work_until(&self, stop: &CancellationToken, pace: &Pace) -> Result<(), Broken> {
        let mut setbacks_count = 0;
        for turn in 0.. {
            if stop.is_cancelled() {
                break;
            }
            match self.claim(turn).await {
                Ok(Some(job)) => match self.work(job, stop, pace).await {
                    Place::Fit => setbacks_count = 0,
                    Place::Unfit => {
                        self.pause(UNFIT_PAUSE * 2_u32.pow(setbacks_count), stop).await;
                        setbacks_count = (setbacks_count + 1).min(UNFIT_DOUBLINGS_MAX);
                    }
                    Place::Broken => return Err(Broken(self.engine.name())),
                },
                Ok(None) => self.wait(POLL, stop).await,
                Err(error) => {
                    tracing::error!(%error, "worker.claim_failed");
                    self.pause(STORE_RETRY, stop).await;
                }
            }
        }
        Ok(())
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

    /// Leases a job of the first model that has one, another being asked for first at each turn.
    async fn claim(&self, turn: usize) -> Result<Option<Job>, StoreError> {
        for model in self.names.in_turn(turn) {
            let claim = Claim {
                model: model.to_owned(),
                worker_id: self.worker_id.clone(),
                lease_ms: self.lease_ms(),
                now_ms: self.store.now_ms(),
            };
            if let Some(job) = self.store.claim(claim).await? {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    fn lease_ms(&self) -> i64 {
        self.lease.as_millis() as i64
    }

    fn heartbeat(&self) -> Duration {
        if self.store.is_shared() { self.lease / HEARTBEATS_IN_LEASE } else { HEARTBEAT }
    }

    async fn work(&self, job: Job, stop: &CancellationToken, pace: &Pace) -> Place {
        tracing::info!(
            job.id = %job.id, job.attempt = job.attempt, model = job.model, worker.id = self.worker_id, "job.processing"
        );
        let waited_ms = self.store.now_ms() - job.queued_at_ms;
        let waited = Duration::from_millis(waited_ms.max(0).unsigned_abs());
        telemetry::claimed(waited);
        trace_step(Where::of_job(job.id, 0), "queued", waited, waited);
        let started = Instant::now();
        let signals = Arc::new(Signals::default());
        let made = tokio::select! {
            made = self.attempt(&job, &signals) => made,
            never = self.watch(&job, &signals, stop) => match never {},
        };
        let mut place = Place::Fit;
        let event = match made.and_then(|outcome| Ok(faults::hit(Point::BeforeFinish).map(|()| outcome)?)) {
            Ok(outcome) => {
                pace.took(started.elapsed());
                Event::Finished { attempt: job.attempt, outcome }
            }
            Err(WorkError::Produce(ProduceError::Cancelled)) if signals.lost.load(Ordering::Relaxed) => {
                tracing::info!(job.id = %job.id, job.attempt = job.attempt, "job.abandoned");
                self.ended(&job, "cancelled", started.elapsed());
                self.discard(&job).await;
                return place;
            }
            Err(WorkError::Produce(ProduceError::Cancelled)) => Event::Released { attempt: job.attempt },
            Err(WorkError::Unfit(detail)) => {
                tracing::error!(job.id = %job.id, job.attempt = job.attempt, detail, "worker.unfit");
                place = Place::Unfit;
                Event::Released { attempt: job.attempt }
            }
            Err(WorkError::Broken(detail)) => {
                tracing::error!(job.id = %job.id, job.attempt = job.attempt, detail, "worker.engine_broken");
                place = Place::Broken;
                match given_back_count(&job) < BROKEN_FREE_MAX {
                    true => Event::Released { attempt: job.attempt },
                    false => self.failure(&job, &detail, BROKE.to_owned(), true),
                }
            }
            Err(error) => {
                if error.is_of_the_machine() {
                    place = Place::Unfit;
                }
                self.failure(&job, &error.detail(), error.for_caller(), error.is_retryable())
            }
        };
        let ended = match &event {
            Event::Finished { .. } => "success",
            Event::Released { .. } => "given_back",
            _ => "failed",
        };
        self.ended(&job, ended, started.elapsed());
        self.report(&job, event, started.elapsed()).await;
        if let Err(error) = faults::hit(Point::Finished) {
            tracing::error!(%error, "worker.fault");
        }
        place
    }

    /// Notes how an attempt ended, for metrics and traces.
    fn ended(&self, job: &Job, outcome: &'static str, took: Duration) {
        let engine = self.engine.name();
        telemetry::attempt_ended(engine, outcome, took);
        traces::record(|| Span {
            parent: Some(Where::of_job(job.id, 0)),
            facts: vec![
                ("kinora.request.id", Fact::Text(job.id.to_string().into())),
                ("kinora.attempt", Fact::Number(job.attempt)),
                ("kinora.engine", Fact::Text(engine.into())),
                ("kinora.outcome", Fact::Text(outcome.into())),
            ],
            has_failed: outcome == "failed",
            ..Span::ending_now(Where::of_job(job.id, job.attempt), Side::Consumer, "attempt", took)
        });
    }

    /// One attempt, and where it failed, whether the place is to blame.
    async fn attempt(&self, job: &Job, signals: &Arc<Signals>) -> Result<Outcome, WorkError> {
        let made = self.make(job, signals).await;
        match made {
            Err(WorkError::Store(error)) if error.is_everywhere() => Err(WorkError::Unfit(error.to_string())),
            Err(error) if error.may_be_the_engine() => match self.engine_problem(PROBE_LIMIT).await {
                Some(problem) => Err(WorkError::Broken(format!("{}; then: {problem}", error.detail()))),
                None => Err(error),
            },
            Err(error) if error.may_be_the_place() => match self.artifacts.probe().await {
                Err(unfit) => Err(WorkError::Unfit(unfit.to_string())),
                // The clip that failed has made room by going, or is larger than what a bucket still takes.
                Ok(()) if error.may_lack_room() && given_back_count(job) < NO_ROOM_FREE_MAX => {
                    Err(WorkError::Unfit(error.to_string()))
                }
                Ok(()) => Err(error),
            },
            made => made,
        }
    }

    /// Why the engine cannot compute any more, if that is so.
    async fn engine_problem(&self, limit: Duration) -> Option<String> {
        let engine = self.engine.clone();
        let probing = tokio::task::spawn_blocking(move || engine.probe());
        match tokio::time::timeout(limit, probing).await {
            Ok(Ok(probed)) => probed.err().map(|error| error.detail()),
            Ok(Err(panic)) => Some(said(panic)),
            Err(_) => Some(format!("it did not answer within {} s", limit.as_secs_f32())),
        }
    }

    fn failure(&self, job: &Job, detail: &str, error: String, retryable: bool) -> Event {
        tracing::error!(job.id = %job.id, job.attempt = job.attempt, detail, retryable, "job.attempt_failed");
        Event::Failed { attempt: job.attempt, error, retryable, attempts_max: self.store.attempts_max() }
    }

    /// Writes how the attempt ended, for as long as the store needs to come back: the clip is made already.
    async fn report(&self, job: &Job, event: Event, took: Duration) {
        loop {
            match self.store.report(job.id, event.clone(), self.store.now_ms()).await {
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
        if let Err(error) = self.artifacts.discard_attempt(job.id, job.attempt).await {
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
        let mut cancelled = self.store.cancelled();
        loop {
            tokio::select! {
                () = &mut grace_over, if !signals.stop.load(Ordering::Relaxed) => {
                    tracing::info!(job.id = %job.id, job.attempt = job.attempt, "job.giving_back");
                    signals.stop.store(true, Ordering::Relaxed);
                }
                () = heard_of(job.id, &mut cancelled) => {}
                () = tokio::time::sleep(self.heartbeat()) => {}
            }
            let beat =
                Heartbeat { attempt: job.attempt, lease_ms: self.lease_ms(), progress: signals.progress() };
            match self.store.heartbeat(job.id, beat, self.store.now_ms()).await {
                Ok(Some(Ok(_))) => {}
                Ok(_) => {
                    signals.lost.store(true, Ordering::Relaxed);
                    signals.stop.store(true, Ordering::Relaxed);
                }
                Err(error) => tracing::warn!(job.id = %job.id, %error, "worker.heartbeat_failed"),
            }
        }
    }

    /// Picture from the store, clip by the engine, files under their final names.
    async fn make(&self, job: &Job, signals: &Arc<Signals>) -> Result<Outcome, WorkError> {
        faults::hit(Point::Claimed)?;
        let input = self.input(job).await?;
        let spec = spec_of(job)?;
        let rendering_began = Instant::now();
        let (worker, signals) = (self.clone(), signals.clone());
        let rendering = tokio::task::spawn_blocking({
            let spec = spec.clone();
            move || worker.render(&input, &spec, &signals)
        });
        let (video, thumbnail, made) = rendering.await.map_err(|panic| WorkError::Crashed(said(panic)))??;
        faults::hit(Point::Staged)?;
        let storing_began = Instant::now();
        let [video_key, thumbnail_key] = ArtifactKey::of_attempt(job.id, job.attempt);
        self.artifacts.commit(thumbnail, thumbnail_key, "image/jpeg").await.map_err(WorkError::Storing)?;
        self.artifacts.commit(video, video_key, "video/mp4").await.map_err(WorkError::Storing)?;
        faults::hit(Point::Uploaded)?;
        self.measure(job, &made, rendering_began.elapsed(), storing_began.elapsed());
        Ok(outcome(job, &spec, self.engine.name(), made))
    }

    async fn input(&self, job: &Job) -> Result<bytes::Bytes, WorkError> {
        let row = self.store.input(&job.input_sha256).await?.ok_or(WorkError::InputGone)?;
        let key = ArtifactKey::of_input(row.sha256, row.version);
        self.artifacts.read(key).await?.ok_or(WorkError::InputGone)
    }

    /// Notes the stages of a clip, which was begun and whose files began to be stored so long ago.
    fn measure(&self, job: &Job, made: &Produced, began_ago: Duration, stored: Duration) {
        let (engine, attempt) = (self.engine.name(), Where::of_job(job.id, job.attempt));
        let mut ago = began_ago;
        for time in &made.generated.stages {
            telemetry::stage(engine, time.stage, time.duration);
            // Their lengths are known, not when each began: they are shown one after the other.
            trace_step(attempt, time.stage, ago, time.duration);
            ago = ago.saturating_sub(time.duration);
        }
        trace_step(attempt, "store", stored, stored);
        telemetry::frames(engine, made.info.format.frames_count);
    }

    /// The blocking part: engine and encoder into staging.
    fn render(
        &self,
        input: &[u8],
        spec: &GenerateSpec,
        signals: &Signals,
    ) -> Result<(Staged, Staged, Produced), WorkError> {
        use std::io::Write as _;
        let picture = kinora_media::decode(input).map_err(|e| WorkError::Invalid(e.to_string()))?.picture;
        let video = self.artifacts.stage()?;
        let output = video.file.try_clone().map_err(WorkError::Staging)?;
        let made = produce(self.engine.as_ref(), spec, &picture, output, signals)?;
        let mut thumbnail = self.artifacts.stage()?;
        thumbnail.file.write_all(&made.thumbnail_jpeg).map_err(WorkError::Staging)?;
        Ok((video, thumbnail, made))
    }
}

/// Tells of a part of a span that began so long ago.
fn trace_step(of: Where, name: &'static str, ago: Duration, took: Duration) {
    traces::record(|| {
        let began = Span::ending_now(of.beside(), Side::Internal, name, ago).began;
        let span = Span::ending_now(of.beside(), Side::Internal, name, took);
        Span { parent: Some(of), began, ..span }
    });
}

/// Returns when this job may have been cancelled.
async fn heard_of(job: Uuid, cancelled: &mut broadcast::Receiver<Uuid>) {
    loop {
        match cancelled.recv().await {
            Ok(id) if id != job => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// How often the job was given back before this attempt.
fn given_back_count(job: &Job) -> i64 {
    job.attempt - 1 - job.attempts_lost
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
    #[error("the stored picture is gone")]
    InputGone,
    #[error("the data folder cannot be used: {0}")]
    Staging(#[source] std::io::Error),
    #[error("the engine crashed: {0}")]
    Crashed(String),
    #[error("no clip can be written here now: {0}")]
    Unfit(String),
    #[error("no clip can be computed here any more: {0}")]
    Broken(String),
    #[error("{0}")]
    Injected(#[from] Injected),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Artifact(#[from] ArtifactError),
    #[error("{0}")]
    Storing(#[source] ArtifactError),
    #[error("{0}")]
    Produce(#[from] ProduceError),
}

impl WorkError {
    /// All that is known, for the log.
    fn detail(&self) -> String {
        match self {
            Self::Produce(ProduceError::Engine(error)) => error.detail(),
            error => error.to_string(),
        }
    }

    /// Whether the device that the engine computes on failed.
    fn is_of_the_device(&self) -> bool {
        matches!(self, Self::Produce(ProduceError::Engine(EngineError::Device(_))))
    }

    /// Whether the next job may find the machine as it is now.
    fn is_of_the_machine(&self) -> bool {
        self.is_of_the_device() || matches!(self, Self::Produce(ProduceError::Engine(EngineError::Files(_))))
    }

    /// Whether an engine that cannot compute any more would look like this.
    fn may_be_the_engine(&self) -> bool {
        self.is_of_the_device() || matches!(self, Self::Crashed(_))
    }

    /// What the caller may know: nothing of the server's disk.
    fn for_caller(&self) -> String {
        match self {
            Self::Invalid(_) | Self::InputGone | Self::Produce(ProduceError::Engine(_)) => self.to_string(),
            Self::Crashed(_) | Self::Broken(_) => BROKE.to_owned(),
            Self::Staging(_)
            | Self::Unfit(_)
            | Self::Injected(_)
            | Self::Store(_)
            | Self::Artifact(_)
            | Self::Storing(_) => "the server could not read or write its files".to_owned(),
            Self::Produce(_) => "the server could not encode the video".to_owned(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::InputGone => false,
            Self::Staging(_)
            | Self::Unfit(_)
            | Self::Injected(_)
            | Self::Store(_)
            | Self::Artifact(_)
            | Self::Storing(_)
            | Self::Crashed(_)
            | Self::Broken(_) => true,
            Self::Produce(error) => error.is_retryable(),
        }
    }

    /// Whether a smaller clip might have found room. A bucket over its quota says so in its own words, or not at all.
    fn may_lack_room(&self) -> bool {
        match self {
            Self::Storing(_) => true,
            Self::Produce(error) => error.is_of_a_full_disk(),
            error => says_full(error),
        }
    }

    /// Whether a full disk or a bucket that does not answer would look like this.
    fn may_be_the_place(&self) -> bool {
        match self {
            Self::Staging(_) | Self::Artifact(_) | Self::Storing(_) => true,
            Self::Produce(error) => error.is_of_the_output(),
            Self::Invalid(_)
            | Self::InputGone
            | Self::Crashed(_)
            | Self::Broken(_)
            | Self::Unfit(_)
            | Self::Injected(_)
            | Self::Store(_) => false,
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

/// Whether clips can be made where this worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Fit,
    /// Not now.
    Unfit,
    /// Not by this process.
    Broken,
}

/// How long this worker takes for a video, smoothed.
#[derive(Debug, Default)]
struct Pace(Mutex<Option<f64>>);

impl Pace {
    fn took(&self, duration: Duration) {
        let mut pace = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let latest = duration.as_secs_f64() * 1000.0;
        *pace = Some(pace.map_or(latest, |before| before + (latest - before) * PACE_WEIGHT));
    }

    fn ms(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).map(|pace| pace.round() as i64)
    }
}

/// Between the engine's thread and its watcher.
#[derive(Debug, Default)]
struct Signals {
    stop: AtomicBool,
    lost: AtomicBool,
    progress: Mutex<Option<Noted>>,
}

impl Signals {
    fn progress(&self) -> Option<JobProgress> {
        let noted = *self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        noted.map(|noted| {
            let Progress { stage, done, total } = noted.latest;
            let stage_remaining_s =
                noted.remaining(Instant::now()).map(|left| left.as_secs_f64().ceil() as i64);
            JobProgress { stage: stage.to_owned(), done, total, stage_remaining_s }
        })
    }
}

/// How far the engine is, and since when.
#[derive(Debug, Clone, Copy)]
struct Noted {
    latest: Progress,
    latest_at: Instant,
    /// When the stage was heard of first, and how much of it was done then.
    began_at: Instant,
    began_done: u32,
}

impl Noted {
    fn next(before: Option<Self>, latest: Progress, now: Instant) -> Self {
        let began = before.filter(|before| before.latest.stage == latest.stage);
        let (began_at, began_done) =
            began.map_or((now, latest.done), |before| (before.began_at, before.began_done));
        Self { latest, latest_at: now, began_at, began_done }
    }

    /// How long the stage still takes at its pace so far; `None` before there is a pace.
    fn remaining(&self, now: Instant) -> Option<Duration> {
        let done = self.latest.done.checked_sub(self.began_done).filter(|done| *done > 0)?;
        let left = self.latest.total.saturating_sub(self.latest.done);
        let all = (self.latest_at - self.began_at).mul_f64(f64::from(left) / f64::from(done));
        Some(all.saturating_sub(now - self.latest_at))
    }
}

impl Monitor for Signals {
    fn progress(&self, progress: Progress) {
        let mut noted = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *noted = Some(Noted::next(*noted, progress, Instant::now()));
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
