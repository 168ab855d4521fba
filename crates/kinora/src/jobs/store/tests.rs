use super::*;
use crate::jobs::{Outcome, SubmitError};

const SETTINGS: StoreSettings = StoreSettings { queued_max: 1000, attempts_max: 3 };

struct Fixture {
    folder: tempfile::TempDir,
    store: JobStore,
}

impl Fixture {
    async fn new(settings: StoreSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = JobStore::open(&folder.path().join("kinora.db"), settings).await.unwrap();
        store.add_input(input(), 1).await.unwrap();
        Self { folder, store }
    }

    /// Another store on the same file: what it sees is on disk, not in a cache.
    async fn reopened(&self) -> JobStore {
        JobStore::open(&self.folder.path().join("kinora.db"), SETTINGS).await.unwrap()
    }

    async fn submit(&self, org_id: &str) -> Job {
        self.store.submit(new_job(org_id)).await.unwrap().unwrap()
    }

    async fn claim(&self) -> Option<Job> {
        let claim =
            Claim { model: "model".into(), worker_id: "worker".into(), lease_until_ms: 100, now_ms: 5 };
        self.store.claim(claim).await.unwrap()
    }
}

fn input() -> InputRow {
    InputRow { sha256: [7; 32], format: "png".into(), width_px: 300, height_px: 300, size_bytes: 10 }
}

fn new_job(org_id: &str) -> NewJob {
    NewJob {
        id: Uuid::now_v7(),
        org_id: org_id.into(),
        user_id: "user".into(),
        model: "model".into(),
        payload: r#"{"prompt":"x"}"#.into(),
        input_sha256: [7; 32],
        input_inline: true,
        seed: 42,
        now_ms: 3,
    }
}

fn outcome(attempt: i64) -> Outcome {
    Outcome {
        attempt,
        engine: "pattern".into(),
        seed: 42,
        duration_s: 5,
        width_px: 160,
        height_px: 96,
        fps: 24,
        frames_count: 120,
        size_bytes: 99,
        plan: Some(serde_json::json!({"camera": ["push"]})),
    }
}

fn all_of(org_id: &str) -> JobFilter {
    JobFilter { org_id: org_id.into(), model: None, status: None, limit: 100, offset: 0 }
}

#[tokio::test]
async fn a_job_goes_from_acceptance_to_success_and_every_field_comes_back_from_disk() {
    let fixture = Fixture::new(SETTINGS).await;
    let accepted = fixture.submit("org").await;
    assert_eq!(*fixture.reopened().await.get(accepted.id).await.unwrap().unwrap(), accepted);
    let claimed = fixture.claim().await.unwrap();
    assert_eq!((claimed.id, claimed.attempt, claimed.status), (accepted.id, 1, Status::Processing));
    assert_eq!(fixture.claim().await, None, "one lease at a time");
    let finished = Event::Finished { attempt: 1, outcome: outcome(1) };
    let done = fixture.store.report(accepted.id, finished, 9).await.unwrap().unwrap().unwrap();
    assert_eq!(*fixture.store.get(accepted.id).await.unwrap().unwrap(), done);
    assert_eq!(*fixture.reopened().await.get(accepted.id).await.unwrap().unwrap(), done);
    assert_eq!(done.outcome, Some(outcome(1)));
}

#[tokio::test]
async fn jobs_are_claimed_in_the_order_of_acceptance_and_listed_in_reverse() {
    let fixture = Fixture::new(SETTINGS).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(fixture.submit("org").await.id);
    }
    let page = fixture.store.list(&JobFilter { limit: 2, offset: 1, ..all_of("org") }).await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [ids[3], ids[2]]);
    assert_eq!(page.total, 5);
    for id in ids {
        assert_eq!(fixture.claim().await.unwrap().id, id);
    }
}

#[tokio::test]
async fn many_submits_at_once_are_all_accepted_and_counted_once() {
    let fixture = Fixture::new(SETTINGS).await;
    let submits = (0..300).map(|index| {
        let store = fixture.store.clone();
        let org = if index % 3 == 0 { "a" } else { "b" };
        tokio::spawn(async move { store.submit(new_job(org)).await.unwrap().unwrap().seq })
    });
    let mut seqs: Vec<i64> =
        futures_util::future::join_all(submits).await.into_iter().map(Result::unwrap).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=300).collect::<Vec<_>>());
    assert_eq!(fixture.store.list(&all_of("a")).await.unwrap().total, 100);
    assert_eq!(fixture.store.list(&all_of("b")).await.unwrap().total, 200);
    assert_eq!(fixture.store.count(Status::Queued).await.unwrap(), 300);
}

#[tokio::test]
async fn a_bad_change_harms_only_itself() {
    let fixture = Fixture::new(SETTINGS).await;
    let same = new_job("org");
    let twice = (0..2).map(|_| fixture.store.submit(same.clone()));
    let others = (0..20).map(|_| fixture.store.submit(new_job("org")));
    let (twice, others) =
        tokio::join!(futures_util::future::join_all(twice), futures_util::future::join_all(others));
    assert_eq!(twice.iter().filter(|answer| answer.is_ok()).count(), 1, "an id is unique");
    assert!(others.iter().all(|answer| matches!(answer, Ok(Ok(_)))));
    assert_eq!(fixture.store.list(&all_of("org")).await.unwrap().total, 21);
}

#[tokio::test]
async fn an_organisation_sees_and_cancels_only_its_own() {
    let fixture = Fixture::new(SETTINGS).await;
    let (mine, other) = (fixture.submit("mine").await, fixture.submit("other").await);
    let listed = fixture.store.list(&all_of("mine")).await.unwrap();
    assert_eq!((listed.jobs.len(), listed.total, listed.jobs[0].id), (1, 1, mine.id));
    assert!(fixture.store.cancel("mine", other.id, 4).await.unwrap().is_none());
    assert_eq!(fixture.store.get(other.id).await.unwrap().unwrap().status, Status::Queued);
    let cancelled = fixture.store.cancel("mine", mine.id, 4).await.unwrap().unwrap().unwrap();
    assert_eq!(cancelled.status, Status::Cancelled);
    let again = fixture.store.cancel("mine", mine.id, 5).await.unwrap().unwrap();
    assert_eq!(again, Err(Refused::Ended(Status::Cancelled)));
    assert_eq!(fixture.claim().await.unwrap().id, other.id, "a cancelled job is not claimed");
}

#[tokio::test]
async fn the_queue_has_an_end_for_each_organisation() {
    let fixture = Fixture::new(StoreSettings { queued_max: 2, attempts_max: 3 }).await;
    fixture.submit("org").await;
    fixture.submit("org").await;
    let refused = fixture.store.submit(new_job("org")).await.unwrap();
    assert_eq!(refused, Err(SubmitError::QueueFull { queued_max: 2 }));
    fixture.submit("another").await;
    fixture.claim().await.unwrap();
    fixture.submit("org").await;
}

#[tokio::test]
async fn submits_at_the_same_time_do_not_pass_the_queues_end_together() {
    let fixture = Fixture::new(StoreSettings { queued_max: 5, attempts_max: 3 }).await;
    let jobs: Vec<NewJob> = (0..60).map(|index| new_job(if index % 2 == 0 { "a" } else { "b" })).collect();
    let submits = jobs.iter().map(|job| fixture.store.submit(job.clone()));
    let answers = futures_util::future::join_all(submits).await;
    for org in ["a", "b"] {
        let of_org = jobs.iter().zip(&answers).filter(|(job, _)| job.org_id == org);
        let accepted: Vec<_> = of_org
            .filter_map(|(job, answer)| answer.as_ref().unwrap().as_ref().ok().map(|got| (job.id, got.id)))
            .collect();
        assert_eq!(accepted.len(), 5, "{org}");
        assert!(accepted.iter().all(|(asked, got)| asked == got), "each caller is answered with its own job");
        assert_eq!(fixture.store.list(&all_of(org)).await.unwrap().total, 5);
    }
}

#[tokio::test]
async fn lost_leases_go_back_to_the_queue_and_then_fail() {
    let fixture = Fixture::new(SETTINGS).await;
    let job = fixture.submit("org").await;
    for attempt in 1..=3 {
        assert_eq!(fixture.claim().await.unwrap().attempt, attempt);
        assert!(fixture.store.expire_leases(Some(100), 6).await.unwrap().is_empty(), "not over yet");
        assert_eq!(fixture.store.expire_leases(Some(101), 6).await.unwrap().len(), 1);
    }
    assert_eq!(fixture.store.get(job.id).await.unwrap().unwrap().status, Status::Failed);
    fixture.submit("org").await;
    fixture.claim().await.unwrap();
    assert_eq!(fixture.store.expire_leases(None, 7).await.unwrap().len(), 1, "at start all leases are over");
}

#[tokio::test]
async fn work_wakes_a_waiting_worker() {
    let fixture = Fixture::new(SETTINGS).await;
    let store = fixture.store.clone();
    let waiting = tokio::spawn(async move { store.work_arrived().await });
    fixture.submit("org").await;
    tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn keys_are_found_by_hash_until_they_are_revoked() {
    let fixture = Fixture::new(SETTINGS).await;
    let key = crate::keys::create(&fixture.store, "org", "user").await.unwrap();
    let sha256 = crate::keys::hash(key.reveal());
    let row = fixture.reopened().await.key(&sha256).await.unwrap().unwrap();
    assert_eq!((row.org_id.as_str(), row.user_id.as_str()), ("org", "user"));
    assert!(key.reveal().starts_with(&row.hint) && row.hint.len() < 12);
    assert!(fixture.store.key(&crate::keys::hash("kin_other")).await.unwrap().is_none());
    assert!(fixture.store.revoke_key(&row.id, 9).await.unwrap());
    assert!(!fixture.store.revoke_key(&row.id, 9).await.unwrap());
    assert!(fixture.store.key(&sha256).await.unwrap().is_none());
    let file = std::fs::read(fixture.folder.path().join("kinora.db")).unwrap();
    let wal = std::fs::read(fixture.folder.path().join("kinora.db-wal")).unwrap();
    let secret = key.reveal().as_bytes();
    assert!([file, wal].iter().all(|bytes| !bytes.windows(secret.len()).any(|window| window == secret)));
}
