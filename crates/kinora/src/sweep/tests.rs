use super::*;
use crate::artifacts::ArtifactKey;
use crate::jobs::{Claim, Event, InputRow, NewJob, Outcome, StoreSettings};

const MODEL: &str = "model";

struct Fixture {
    _folder: tempfile::TempDir,
    artifacts: Artifacts,
    store: JobStore,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let store = JobStore::open(&artifacts.folder().database(), StoreSettings::default()).await.unwrap();
        let input = InputRow {
            sha256: [7; 32],
            version: 0,
            format: "png".into(),
            width_px: 300,
            height_px: 300,
            size_bytes: 10,
            used_at_ms: 1,
        };
        store.add_input(input).await.unwrap();
        Self { _folder: folder, artifacts, store }
    }

    /// A job in progress, in its first attempt.
    async fn claimed(&self) -> Job {
        let job = NewJob {
            id: Uuid::now_v7(),
            org_id: "org".into(),
            user_id: "user".into(),
            model: MODEL.into(),
            payload: "{}".into(),
            input_sha256: [7; 32],
            input_inline: true,
            seed: 1,
            priority: 0,
            now_ms: 1,
        };
        self.store.submit(job).await.unwrap().unwrap();
        self.claim().await
    }

    async fn claim(&self) -> Job {
        let claim = Claim { model: MODEL.into(), worker_id: "worker".into(), lease_ms: 60_000, now_ms: 2 };
        self.store.claim(claim).await.unwrap().unwrap()
    }

    async fn report(&self, id: Uuid, event: Event) {
        self.store.report(id, event, 3).await.unwrap().unwrap().unwrap();
    }

    async fn leave_clip(&self, job: Uuid, attempt: i64) {
        let key = ArtifactKey::Video { job, attempt };
        self.artifacts.commit(self.artifacts.stage().unwrap(), key, "video/mp4").await.unwrap();
    }

    /// The attempts of a job that still have files after a sweep.
    async fn swept(&self, id: Uuid) -> Vec<i64> {
        sweep_outputs(self.store.clone(), self.artifacts.clone(), CancellationToken::new()).await;
        let mut left: Vec<i64> = self
            .artifacts
            .attempts()
            .await
            .unwrap()
            .into_iter()
            .filter(|(of, _)| *of == id)
            .map(|(_, n)| n)
            .collect();
        left.sort_unstable();
        left
    }
}

fn outcome(attempt: i64) -> Outcome {
    Outcome {
        attempt,
        engine: "pattern".into(),
        seed: 1,
        duration_s: 5,
        width_px: 160,
        height_px: 96,
        fps: 24,
        frames_count: 120,
        size_bytes: 9,
        plan: None,
    }
}

#[tokio::test]
async fn an_attempt_in_progress_is_kept_and_goes_once_it_is_given_back() {
    let fixture = Fixture::new().await;
    let job = fixture.claimed().await;
    fixture.leave_clip(job.id, 1).await;
    assert_eq!(fixture.swept(job.id).await, [1]);
    fixture.report(job.id, Event::Released { attempt: 1 }).await;
    assert!(fixture.swept(job.id).await.is_empty());
}

#[tokio::test]
async fn of_a_success_only_the_attempt_of_its_outcome_is_kept() {
    let fixture = Fixture::new().await;
    let job = fixture.claimed().await;
    fixture.leave_clip(job.id, 1).await;
    fixture.report(job.id, Event::Released { attempt: 1 }).await;
    fixture.claim().await;
    fixture.leave_clip(job.id, 2).await;
    assert_eq!(fixture.swept(job.id).await, [2], "a lost attempt goes while the next is in progress");
    fixture.leave_clip(job.id, 1).await;
    fixture.report(job.id, Event::Finished { attempt: 2, outcome: outcome(2) }).await;
    assert_eq!(fixture.swept(job.id).await, [2]);
}

#[tokio::test]
async fn what_belongs_to_a_cancelled_job_goes_and_to_an_unknown_one_stays() {
    let fixture = Fixture::new().await;
    let (job, unknown) = (fixture.claimed().await, Uuid::now_v7());
    fixture.leave_clip(job.id, 1).await;
    fixture.leave_clip(unknown, 1).await;
    fixture.report(job.id, Event::Cancelled).await;
    assert!(fixture.swept(job.id).await.is_empty());
    assert_eq!(fixture.swept(unknown).await, [1]);
}
