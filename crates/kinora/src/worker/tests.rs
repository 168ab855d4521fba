use std::io;

use kinora_engine::{ClipFormat, EngineError, FrameSink, Generated, PatternEngine, Picture, SinkError};

use super::*;
use crate::artifacts::{Bucket, bucket_that_answers};
use crate::jobs::{InputRow, NewJob, StoreSettings};

struct Fixture {
    worker: Worker,
    folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(folder.path()).unwrap();
    let store = JobStore::open(&artifacts.folder().database(), StoreSettings::default()).await.unwrap();
    let worker = Worker {
        store,
        artifacts,
        engine: Arc::new(PatternEngine),
        names: ModelNames::default(),
        worker_id: "worker".into(),
        lease: Duration::from_secs(30),
        grace: Duration::ZERO,
    };
    Fixture { worker, folder }
}

impl Fixture {
    async fn claimed(&self) -> Job {
        let input = InputRow {
            sha256: [1; 32],
            version: 0,
            format: "png".into(),
            width_px: 300,
            height_px: 300,
            size_bytes: 1,
            used_at_ms: 1,
        };
        self.worker.store.add_input(input).await.unwrap();
        let new = NewJob {
            id: Uuid::now_v7(),
            org_id: "org".into(),
            user_id: "user".into(),
            model: ModelNames::default().first().into(),
            payload: "{}".into(),
            input_sha256: [1; 32],
            input_inline: true,
            seed: 1,
            priority: 0,
            now_ms: 1,
        };
        self.worker.store.submit(new).await.unwrap().unwrap();
        self.worker.claim(0).await.unwrap().unwrap()
    }

    /// A claimed job whose clip lies under its final name.
    async fn made(&self) -> (Job, Event) {
        let job = self.claimed().await;
        let video = ArtifactKey::Video { job: job.id, attempt: job.attempt };
        let artifacts = &self.worker.artifacts;
        artifacts.commit(artifacts.stage().unwrap(), video, "video/mp4").await.unwrap();
        let outcome = Outcome {
            attempt: job.attempt,
            engine: "pattern".into(),
            seed: 1,
            duration_s: 5,
            width_px: 160,
            height_px: 96,
            fps: 24,
            frames_count: 120,
            size_bytes: 1,
            plan: None,
        };
        let attempt = job.attempt;
        (job, Event::Finished { attempt, outcome })
    }

    async fn has_video(&self, job: &Job) -> bool {
        let video = ArtifactKey::Video { job: job.id, attempt: job.attempt };
        self.worker.artifacts.find(video).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn a_result_that_is_reported_again_keeps_its_files() {
    let fixture = fixture().await;
    let (job, finished) = fixture.made().await;
    fixture.worker.report(&job, finished.clone(), Duration::ZERO).await;
    fixture.worker.report(&job, finished, Duration::ZERO).await;
    assert!(fixture.has_video(&job).await);
}

#[tokio::test]
async fn a_result_that_comes_too_late_leaves_no_files() {
    let fixture = fixture().await;
    let (job, finished) = fixture.made().await;
    fixture.worker.store.recover(2).await.unwrap();
    fixture.worker.report(&job, finished, Duration::ZERO).await;
    assert!(!fixture.has_video(&job).await);
    let now = fixture.worker.store.get(job.id).await.unwrap().unwrap();
    assert_eq!((now.status, &now.outcome), (crate::jobs::Status::Queued, &None));
}

impl Fixture {
    /// Stores the picture that the job names.
    async fn store_picture(&self, job: &Job) {
        let key = ArtifactKey::of_input(job.input_sha256, 0);
        self.worker.artifacts.put(key, png().into(), "image/png").await.unwrap();
    }
}

fn png() -> Vec<u8> {
    let mut bytes = io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(300, 300).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Fails as it is told to.
#[derive(Debug)]
struct Failing {
    clip: fn() -> EngineError,
    probe: fn() -> Result<(), EngineError>,
}

impl Engine for Failing {
    fn name(&self) -> &'static str {
        PatternEngine.name()
    }

    fn description(&self) -> &'static str {
        PatternEngine.description()
    }

    fn clip_format(&self, width_px: u32, height_px: u32, spec: &GenerateSpec) -> ClipFormat {
        PatternEngine.clip_format(width_px, height_px, spec)
    }

    fn generate(
        &self,
        _: &GenerateSpec,
        _: &Picture,
        _: &mut dyn FrameSink,
        _: &dyn Monitor,
    ) -> Result<Generated, EngineError> {
        Err((self.clip)())
    }

    fn probe(&self) -> Result<(), EngineError> {
        (self.probe)()
    }
}

/// A worker with such an engine, and a job that it has claimed.
async fn failing(engine: Failing) -> (Fixture, Job) {
    let Fixture { mut worker, folder } = fixture().await;
    worker.engine = Arc::new(engine);
    let fixture = Fixture { worker, folder };
    let job = fixture.claimed().await;
    fixture.store_picture(&job).await;
    (fixture, job)
}

/// Frames find no room, although a probe would: the disk is as good as full.
fn no_room() -> EngineError {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    SinkError(Box::new(kinora_media::ClipError::Output(full))).into()
}

fn out_of_memory() -> EngineError {
    EngineError::Device("CUDA_ERROR_OUT_OF_MEMORY".into())
}

#[tokio::test]
async fn a_clip_that_finds_no_room_costs_no_attempt_at_first_but_does_not_go_round_for_ever() {
    let (fixture, mut job) = failing(Failing { clip: no_room, probe: || Ok(()) }).await;
    let (worker, stop) = (&fixture.worker, CancellationToken::new());
    for given_back in 0..NO_ROOM_FREE_MAX {
        assert_eq!(worker.work(job.clone(), &stop, &Pace::default()).await, Place::Unfit, "{given_back}");
        let now = worker.store.get(job.id).await.unwrap().unwrap();
        assert_eq!((now.status, now.attempts_lost), (crate::jobs::Status::Queued, 0), "{given_back}");
        job = worker.claim(0).await.unwrap().unwrap();
    }
    for lost in 1..=worker.store.attempts_max() {
        assert_eq!(worker.work(job.clone(), &stop, &Pace::default()).await, Place::Fit);
        assert_eq!(worker.store.get(job.id).await.unwrap().unwrap().attempts_lost, lost);
        job = worker.claim(0).await.unwrap().unwrap_or(job);
    }
    assert_eq!(worker.store.get(job.id).await.unwrap().unwrap().status, crate::jobs::Status::Failed);
}

#[tokio::test]
async fn a_machine_that_failed_and_works_again_costs_an_attempt_and_a_pause() {
    let files_gone = || EngineError::Files("cannot read /weights/CUDA".into());
    for (clip, sentence) in [
        (out_of_memory as fn() -> EngineError, "the device that computes the video failed"),
        (files_gone, "the model's files cannot be used any more"),
    ] {
        let (fixture, mut job) = failing(Failing { clip, probe: || Ok(()) }).await;
        let (worker, stop) = (&fixture.worker, CancellationToken::new());
        for lost in 1..=worker.store.attempts_max() {
            assert_eq!(worker.work(job.clone(), &stop, &Pace::default()).await, Place::Unfit);
            assert_eq!(worker.store.get(job.id).await.unwrap().unwrap().attempts_lost, lost);
            job = worker.claim(0).await.unwrap().unwrap_or(job);
        }
        let now = worker.store.get(job.id).await.unwrap().unwrap();
        assert_eq!(now.status, crate::jobs::Status::Failed);
        let told = now.error.as_ref().unwrap();
        assert!(told.contains(sentence) && !told.contains("CUDA"), "{told}");
    }
}

#[tokio::test]
async fn a_worker_whose_device_broke_gives_its_job_back_and_leaves() {
    let poisoned = || Err(EngineError::Device("CUDA_ERROR_ILLEGAL_ADDRESS".into()));
    let crash = || -> EngineError { panic!("the driver is gone") };
    for clip in [out_of_memory, crash] {
        let (fixture, job) = failing(Failing { clip, probe: poisoned }).await;
        let (worker, stop) = (&fixture.worker, CancellationToken::new());
        worker.store.report(job.id, Event::Released { attempt: 1 }, 2).await.unwrap().unwrap().unwrap();
        let running = worker.clone().run(stop.clone());
        let left = tokio::time::timeout(Duration::from_secs(20), running).await.expect("it leaves");
        let told = left.unwrap_err().to_string();
        assert!(told.contains("the engine `pattern` cannot compute"), "{told}");
        assert!(stop.is_cancelled(), "the process ends");
        let now = worker.store.get(job.id).await.unwrap().unwrap();
        assert_eq!((now.status, now.attempt, now.attempts_lost), (crate::jobs::Status::Queued, 2, 0));
        assert!(worker.store.engines(&job.model).await.unwrap().is_empty(), "nobody counts on it");
    }
}

#[tokio::test]
async fn a_job_that_breaks_every_engine_fails_in_the_end() {
    let poisoned = || Err(EngineError::Device("CUDA_ERROR_ILLEGAL_ADDRESS".into()));
    let (fixture, mut job) = failing(Failing { clip: out_of_memory, probe: poisoned }).await;
    let (worker, stop) = (&fixture.worker, CancellationToken::new());
    let lives = BROKEN_FREE_MAX + worker.store.attempts_max();
    for life in 1..=lives {
        assert_eq!(worker.work(job.clone(), &stop, &Pace::default()).await, Place::Broken);
        let now = worker.store.get(job.id).await.unwrap().unwrap();
        assert_eq!(now.attempts_lost, (life - BROKEN_FREE_MAX).max(0));
        let queued_until_the_last = now.status == crate::jobs::Status::Queued;
        assert_eq!(queued_until_the_last, life < lives, "after {life} of {lives}");
        job = worker.claim(0).await.unwrap().unwrap_or(job);
    }
    let now = worker.store.get(job.id).await.unwrap().unwrap();
    assert_eq!(now.status, crate::jobs::Status::Failed);
    assert!(now.error.as_ref().unwrap().contains(BROKE));
}

#[tokio::test]
async fn a_probe_that_never_answers_means_a_broken_engine() {
    let asleep = || -> Result<(), EngineError> {
        std::thread::sleep(std::time::Duration::from_secs(2));
        Ok(())
    };
    let (fixture, _) = failing(Failing { clip: out_of_memory, probe: asleep }).await;
    let said = fixture
        .worker
        .engine_problem(std::time::Duration::from_millis(100))
        .await
        .expect("it did not answer");
    assert!(said.contains("did not answer within 0.1 s"), "{said}");
}

#[tokio::test]
async fn a_defect_of_the_engine_fails_at_once_and_in_words_for_callers() {
    let defect = || EngineError::Defect("shape mismatch in matmul".into());
    let (fixture, job) = failing(Failing { clip: defect, probe: || Ok(()) }).await;
    let worker = &fixture.worker;
    assert_eq!(worker.work(job.clone(), &CancellationToken::new(), &Pace::default()).await, Place::Fit);
    let now = worker.store.get(job.id).await.unwrap().unwrap();
    let told = now.error.as_ref().unwrap();
    assert_eq!(now.status, crate::jobs::Status::Failed);
    assert!(told.contains("a defect of the program") && !told.contains("matmul"), "{told}");
}

#[tokio::test]
async fn a_place_where_no_clip_can_be_written_costs_a_job_no_attempt() {
    let fixture = fixture().await;
    let (job, _) = fixture.made().await;
    let worker = &fixture.worker;
    fixture.store_picture(&job).await;
    let staging = fixture.folder.path().join("staging");
    std::fs::remove_dir(&staging).unwrap();
    let stop = CancellationToken::new();
    assert_eq!(worker.work(job.clone(), &stop, &Pace::default()).await, Place::Unfit);
    let now = worker.store.get(job.id).await.unwrap().unwrap();
    assert_eq!((now.status, now.attempts_lost), (crate::jobs::Status::Queued, 0));
    std::fs::create_dir(&staging).unwrap();
    let again = worker.claim(0).await.unwrap().unwrap();
    assert_eq!(worker.work(again, &stop, &Pace::default()).await, Place::Fit);
    let done = worker.store.get(job.id).await.unwrap().unwrap();
    assert_eq!((done.status, done.attempt), (crate::jobs::Status::Success, 2));
}

/// A bucket over its quota: it holds one picture, takes what is empty, and refuses whatever has bytes.
fn over_quota(request: &str) -> (&'static str, Vec<u8>) {
    let is_empty = request.lines().any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    match request.split(' ').next() {
        Some("GET") if request.contains("list-type") => {
            ("200 OK", b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".to_vec())
        }
        Some("GET") => ("200 OK", png()),
        Some("PUT") if !is_empty => {
            ("403 Forbidden", b"<Error><Code>QuotaExceeded</Code><Message>full</Message></Error>".to_vec())
        }
        _ => ("200 OK", Vec::new()),
    }
}

#[tokio::test]
async fn a_bucket_that_takes_a_probe_and_no_clip_costs_no_attempt_at_first() {
    let fixture = fixture().await;
    let job = fixture.claimed().await;
    let mut worker = fixture.worker.clone();
    let (settings, asked) = bucket_that_answers(over_quota).await;
    worker.artifacts = worker.artifacts.with_bucket(Some(Bucket::open(&settings).await.unwrap()));
    assert_eq!(worker.work(job.clone(), &CancellationToken::new(), &Pace::default()).await, Place::Unfit);
    let now = worker.store.get(job.id).await.unwrap().unwrap();
    assert_eq!((now.status, now.attempts_lost), (crate::jobs::Status::Queued, 0));
    let asked = asked.lock().unwrap();
    let is_put = |name: &str| asked.iter().any(|line| line.starts_with("PUT ") && line.contains(name));
    assert!(is_put("thumbnail.jpg") && is_put("probe"), "{asked:?}");
}

#[tokio::test]
async fn a_worker_asks_for_each_of_its_models() {
    let mut fixture = fixture().await;
    fixture.worker.names = ModelNames::new(&["other".into(), ModelNames::default().first().into()]);
    assert_eq!(fixture.claimed().await.model, ModelNames::default().first());
    assert_eq!(fixture.worker.claim(1).await.unwrap(), None);
}

#[test]
fn the_rest_of_a_stage_is_estimated_by_its_own_pace() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let step = |stage, done| Progress { stage, done, total: 10 };
    let text = Noted::next(None, step("text", 9), at(0));
    let began = Noted::next(Some(text), step("denoise", 0), at(100));
    assert_eq!(began.remaining(at(101)), None, "nothing is done yet");
    let first = Noted::next(Some(began), step("denoise", 1), at(104));
    assert_eq!(first.remaining(at(104)), Some(Duration::from_secs(36)));
    let fourth = Noted::next(Some(first), step("denoise", 4), at(108));
    assert_eq!(fourth.remaining(at(110)), Some(Duration::from_secs(10)), "12 of which 2 have passed");
    assert_eq!(fourth.remaining(at(999)), Some(Duration::ZERO), "never less than nothing");
    let done = Noted::next(Some(fourth), step("denoise", 10), at(120));
    assert_eq!(done.remaining(at(120)), Some(Duration::ZERO));
}

#[test]
fn progress_that_an_older_worker_wrote_is_read() {
    let old = r#"{"stage": "denoise", "done": 1, "total": 2}"#;
    let progress: JobProgress = serde_json::from_str(old).unwrap();
    assert_eq!((progress.done, progress.stage_remaining_s), (1, None));
    assert!(!serde_json::to_string(&progress).unwrap().contains("remaining"));
}
