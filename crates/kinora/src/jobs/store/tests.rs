//! One suite for every store: whoever keeps the queue, it behaves the same.

mod plans;

use super::*;
use crate::jobs::{Outcome, SubmitError};

const SETTINGS: StoreSettings =
    StoreSettings { queued_max: 1000, running_max: i64::MAX, attempts_max: 3, schema: Schema::Renewed };

/// Every case on every store.
macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $case() { super::$case(super::Home::sqlite()).await; })*
        }
        mod on_postgres {
            $(
                #[tokio::test]
                #[ignore = "needs PostgreSQL: `scripts/test fleet` starts one"]
                async fn $case() { super::$case(super::Home::postgres().await).await; }
            )*
        }
    };
}

conformance! {
    a_job_goes_from_acceptance_to_success_and_every_field_comes_back_from_disk,
    jobs_are_claimed_in_the_order_of_acceptance_and_listed_in_reverse,
    many_submits_at_once_are_all_accepted_and_counted_once,
    a_bad_change_harms_only_itself,
    an_organisation_sees_and_cancels_only_its_own,
    the_queue_has_an_end_for_each_organisation,
    submits_at_the_same_time_do_not_pass_the_queues_end_together,
    lost_leases_go_back_to_the_queue_and_then_fail,
    organisations_take_turns_however_many_jobs_each_has,
    no_organisation_starves,
    urgent_jobs_go_first_among_their_organisations_own,
    an_organisation_has_no_more_in_progress_than_it_may,
    workers_are_counted_while_they_are_there,
    a_worker_is_leased_jobs_of_the_model_it_asks_for_and_no_others,
    the_oldest_that_waits_is_found_whoever_submitted_it,
    only_what_ended_before_the_cutoff_is_forgotten,
    a_picture_is_forgotten_once_nobody_names_it_and_nobody_was_handed_it_lately,
    work_wakes_a_waiting_worker,
    keys_are_found_by_hash_until_they_are_revoked,
    a_heartbeat_keeps_the_lease_and_a_late_worker_changes_nothing,
    many_workers_never_hold_the_same_job,
    a_cancel_is_heard_by_whoever_works_on_the_job,
}

struct Fixture {
    home: Home,
    store: JobStore,
}

enum Home {
    Sqlite(tempfile::TempDir),
    Postgres(DatabaseUrl),
}

impl Home {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// A database of its own on the server that `KINORA_TEST_POSTGRES` names (with no database in its path).
    async fn postgres() -> Self {
        use sqlx::Connection as _;
        let server = std::env::var("KINORA_TEST_POSTGRES").expect("KINORA_TEST_POSTGRES names a server");
        let name = format!("kinora_{}", Uuid::now_v7().simple());
        let mut connection = sqlx::PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        Self::Postgres(format!("{server}/{name}").parse().unwrap())
    }

    async fn open(&self, settings: StoreSettings) -> JobStore {
        match self {
            Self::Sqlite(folder) => JobStore::open(&folder.path().join("kinora.db"), settings).await.unwrap(),
            Self::Postgres(url) => JobStore::open_postgres(url, settings).await.unwrap(),
        }
    }
}

impl Fixture {
    async fn new(home: Home, settings: StoreSettings) -> Self {
        let store = home.open(settings).await;
        store.add_input(input()).await.unwrap();
        Self { home, store }
    }

    /// Another store on the same database: what it sees is on disk, not in a cache.
    async fn reopened(&self) -> JobStore {
        self.home.open(SETTINGS).await
    }

    async fn submit(&self, org_id: &str) -> Job {
        self.store.submit(new_job(org_id)).await.unwrap().unwrap()
    }

    async fn claim(&self) -> Option<Job> {
        self.claim_for(60_000).await
    }

    async fn claim_for(&self, lease_ms: i64) -> Option<Job> {
        let claim = Claim { model: "model".into(), worker_id: "worker".into(), lease_ms, now_ms: 5 };
        self.store.claim(claim).await.unwrap()
    }
}

fn input() -> InputRow {
    InputRow {
        sha256: [7; 32],
        version: 1,
        format: "png".into(),
        width_px: 300,
        height_px: 300,
        size_bytes: 10,
        used_at_ms: 1,
    }
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
        priority: 0,
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

async fn a_job_goes_from_acceptance_to_success_and_every_field_comes_back_from_disk(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
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

async fn jobs_are_claimed_in_the_order_of_acceptance_and_listed_in_reverse(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
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

async fn many_submits_at_once_are_all_accepted_and_counted_once(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
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

async fn a_bad_change_harms_only_itself(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let same = new_job("org");
    let twice = (0..2).map(|_| fixture.store.submit(same.clone()));
    let others = (0..20).map(|_| fixture.store.submit(new_job("org")));
    let (twice, others) =
        tokio::join!(futures_util::future::join_all(twice), futures_util::future::join_all(others));
    assert_eq!(twice.iter().filter(|answer| answer.is_ok()).count(), 1, "an id is unique");
    assert!(others.iter().all(|answer| matches!(answer, Ok(Ok(_)))));
    assert_eq!(fixture.store.list(&all_of("org")).await.unwrap().total, 21);
}

async fn an_organisation_sees_and_cancels_only_its_own(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
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

async fn the_queue_has_an_end_for_each_organisation(home: Home) {
    let fixture = Fixture::new(home, StoreSettings { queued_max: 2, ..SETTINGS }).await;
    fixture.submit("org").await;
    fixture.submit("org").await;
    let refused = fixture.store.submit(new_job("org")).await.unwrap();
    assert_eq!(refused, Err(SubmitError::QueueFull { queued_max: 2 }));
    fixture.submit("another").await;
    let served = [fixture.claim().await.unwrap().org_id, fixture.claim().await.unwrap().org_id];
    assert!(served.contains(&"org".to_owned()), "both take their turn: {served:?}");
    fixture.submit("org").await;
}

async fn submits_at_the_same_time_do_not_pass_the_queues_end_together(home: Home) {
    let fixture = Fixture::new(home, StoreSettings { queued_max: 5, ..SETTINGS }).await;
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

async fn lost_leases_go_back_to_the_queue_and_then_fail(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let job = fixture.submit("org").await;
    for attempt in 1..=3 {
        assert_eq!(fixture.claim_for(-1).await.unwrap().attempt, attempt);
        assert_eq!(fixture.store.expire_leases(6).await.unwrap().len(), 1);
    }
    assert_eq!(fixture.store.get(job.id).await.unwrap().unwrap().status, Status::Failed);
    fixture.submit("org").await;
    fixture.claim().await.unwrap();
    assert!(fixture.store.expire_leases(7).await.unwrap().is_empty(), "this one is not over yet");
    let recovered = fixture.store.recover(8).await.unwrap().len();
    assert_eq!(
        recovered,
        usize::from(!fixture.store.is_shared()),
        "alone, whoever starts has no workers yet"
    );
}

async fn a_heartbeat_keeps_the_lease_and_a_late_worker_changes_nothing(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let job = fixture.submit("org").await;
    let beat = |attempt, lease_ms| {
        let progress = Some(crate::jobs::JobProgress {
            stage: "render".into(),
            done: 1,
            total: 2,
            stage_remaining_s: Some(3),
        });
        fixture.store.heartbeat(job.id, Heartbeat { attempt, lease_ms, progress }, 6)
    };
    fixture.claim_for(-1).await.unwrap();
    let alive = beat(1, 60_000).await.unwrap().unwrap().unwrap();
    assert_eq!(alive.progress.as_ref().unwrap().stage, "render");
    assert_eq!(*fixture.reopened().await.get(job.id).await.unwrap().unwrap(), alive);
    assert!(fixture.store.expire_leases(7).await.unwrap().is_empty());
    beat(1, -1).await.unwrap().unwrap().unwrap();
    assert_eq!(fixture.store.expire_leases(8).await.unwrap().len(), 1);
    assert_eq!(fixture.claim().await.unwrap().attempt, 2);
    assert_eq!(beat(1, 60_000).await.unwrap().unwrap(), Err(Refused::StaleAttempt));
    let late = Event::Finished { attempt: 1, outcome: outcome(1) };
    assert_eq!(fixture.store.report(job.id, late, 9).await.unwrap().unwrap(), Err(Refused::StaleAttempt));
    let finished = Event::Finished { attempt: 2, outcome: outcome(2) };
    fixture.store.report(job.id, finished, 10).await.unwrap().unwrap().unwrap();
}

async fn many_workers_never_hold_the_same_job(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    for _ in 0..60 {
        fixture.submit("org").await;
    }
    let workers = (0..8).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            let mut claimed = Vec::new();
            let claim =
                Claim { model: "model".into(), worker_id: "worker".into(), lease_ms: 60_000, now_ms: 5 };
            while let Some(job) = store.claim(claim.clone()).await.unwrap() {
                assert_eq!(job.attempt, 1);
                claimed.push(job.id);
            }
            claimed
        })
    });
    let claimed = futures_util::future::join_all(workers).await;
    let mut ids: Vec<_> = claimed.into_iter().flat_map(Result::unwrap).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 60);
    assert_eq!(fixture.store.count(Status::Queued).await.unwrap(), 0);
    assert_eq!(fixture.store.count(Status::Processing).await.unwrap(), 60);
}

async fn a_cancel_is_heard_by_whoever_works_on_the_job(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let job = fixture.submit("org").await;
    let other = if fixture.store.is_shared() { fixture.reopened().await } else { fixture.store.clone() };
    let mut cancelled = fixture.store.cancelled();
    // A listener takes a moment to be connected; a cancel before that is learnt of by the next heartbeat.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    other.cancel("org", job.id, 4).await.unwrap().unwrap().unwrap();
    let heard = tokio::time::timeout(std::time::Duration::from_secs(5), cancelled.recv()).await;
    assert_eq!(heard.unwrap().unwrap(), job.id);
}

async fn organisations_take_turns_however_many_jobs_each_has(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    for _ in 0..6 {
        fixture.submit("many").await;
    }
    assert_eq!(fixture.claim().await.unwrap().org_id, "many");
    for org in ["few", "one", "few"] {
        fixture.submit(org).await;
    }
    let mut served = Vec::new();
    while let Some(job) = fixture.claim().await {
        served.push(job.org_id);
    }
    assert_eq!(served, ["few", "one", "many", "few", "many", "many", "many", "many"]);
}

#[expect(clippy::needless_range_loop, reason = "the number names the organisation in three lists")]
/// A simulation: organisations of very different appetite submit at random, and jobs are served one by one.
async fn no_organisation_starves(home: Home) {
    const ORGS: usize = 12;
    let settings = StoreSettings { queued_max: 20, ..SETTINGS };
    let fixture = Fixture::new(home, settings).await;
    let mut seed = 0x9e37_79b9_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let name = |org: usize| format!("org-{org:02}");
    let mut waiting = [0_i64; ORGS];
    let mut passed_over = [0_usize; ORGS];
    let mut served = [0_usize; ORGS];
    for _ in 0..250 {
        for org in 0..ORGS {
            // The first submits far more than can be served, the last hardly anything.
            if random(ORGS as u64) >= org as u64
                && fixture.store.submit(new_job(&name(org))).await.unwrap().is_ok()
            {
                waiting[org] += 1;
            }
        }
        let job = fixture.claim().await.unwrap();
        for org in 0..ORGS {
            if name(org) == job.org_id {
                (waiting[org], passed_over[org], served[org]) = (waiting[org] - 1, 0, served[org] + 1);
            } else if waiting[org] > 0 {
                passed_over[org] += 1;
                assert!(passed_over[org] < ORGS, "{} waits while others are served twice", name(org));
            }
        }
        let finished = Event::Finished { attempt: 1, outcome: outcome(1) };
        fixture.store.report(job.id, finished, 9).await.unwrap().unwrap().unwrap();
    }
    assert!(served.iter().all(|&count| count > 0), "{served:?}");
    let (most, least_busy) = (*served.iter().max().unwrap(), served[ORGS / 2]);
    assert!(most <= least_busy + least_busy / 2 + 2, "those who always wait are served alike: {served:?}");
}

async fn urgent_jobs_go_first_among_their_organisations_own(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let submit = |org: &str, priority| fixture.store.submit(NewJob { priority, ..new_job(org) });
    let usual = submit("a", 0).await.unwrap().unwrap();
    let urgent = submit("a", 9).await.unwrap().unwrap();
    let later = submit("a", 9).await.unwrap().unwrap();
    let other = submit("b", 0).await.unwrap().unwrap();
    let outlook = fixture.store.outlook(&usual).await.unwrap().unwrap();
    assert_eq!((outlook.position, outlook.estimated_wait_s), (4, None), "two of its own, one of the other's");
    assert_eq!(fixture.store.outlook(&urgent).await.unwrap().unwrap().position, 2, "the other may go first");
    let mut served = Vec::new();
    while let Some(job) = fixture.claim().await {
        assert_eq!(fixture.store.outlook(&job).await.unwrap(), None, "it waits no more");
        served.push(job.id);
    }
    assert_eq!(served, [urgent.id, other.id, later.id, usual.id]);
}

async fn an_organisation_has_no_more_in_progress_than_it_may(home: Home) {
    let fixture = Fixture::new(home, StoreSettings { running_max: 2, ..SETTINGS }).await;
    for _ in 0..5 {
        fixture.submit("a").await;
    }
    let other = fixture.submit("b").await;
    let claims = (0..6).map(|_| fixture.claim());
    let claimed: Vec<_> = futures_util::future::join_all(claims).await.into_iter().flatten().collect();
    let of = |org: &str| claimed.iter().filter(|job| job.org_id == org).count();
    assert_eq!((of("a"), of("b")), (2, 1));
    assert!(claimed.iter().any(|job| job.id == other.id));
    let mine = claimed.iter().find(|job| job.org_id == "a").unwrap();
    let finished = Event::Finished { attempt: 1, outcome: outcome(1) };
    fixture.store.report(mine.id, finished, 9).await.unwrap().unwrap().unwrap();
    assert_eq!(fixture.claim().await.unwrap().org_id, "a", "as one ends, the next may begin");
    assert_eq!(fixture.claim().await, None);
}

fn presence(worker: &str, pace_ms: Option<i64>) -> Presence {
    Presence { worker_id: worker.into(), models: vec!["model".into()], engine: "pattern".into(), pace_ms }
}

async fn workers_are_counted_while_they_are_there(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    for (worker, pace_ms) in [("a", None), ("b", Some(4000)), ("a", Some(4000))] {
        fixture.store.worker_present(presence(worker, pace_ms)).await.unwrap();
    }
    let both = Presence { models: vec!["model".into(), "more".into()], ..presence("b", Some(4000)) };
    fixture.store.worker_present(both).await.unwrap();
    for (model, count) in [("model", 2), ("more", 1), ("other", 0)] {
        assert_eq!(fixture.store.engines(model).await.unwrap(), vec!["pattern"; count], "{model}");
    }
    for _ in 0..3 {
        fixture.submit("org").await;
    }
    let last = fixture.submit("org").await;
    assert_eq!(
        fixture.store.outlook(&last).await.unwrap().unwrap().estimated_wait_s,
        Some(6),
        "3 before, 2 s each"
    );
    fixture.store.worker_gone("b".into()).await.unwrap();
    assert_eq!(fixture.store.engines("model").await.unwrap().len(), 1);
    assert_eq!(fixture.store.engines("more").await.unwrap().len(), 0, "it is gone for all its models");
}

async fn a_worker_is_leased_jobs_of_the_model_it_asks_for_and_no_others(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let submit = |model: &str| fixture.store.submit(NewJob { model: model.into(), ..new_job("org") });
    let first = submit("large").await.unwrap().unwrap();
    let second = submit("small").await.unwrap().unwrap();
    let claim = |model: &str| {
        let claim = Claim { model: model.into(), worker_id: "worker".into(), lease_ms: 60_000, now_ms: 5 };
        fixture.store.claim(claim)
    };
    assert_eq!(claim("small").await.unwrap().unwrap().id, second.id, "what waits longer is of another model");
    assert_eq!(claim("small").await.unwrap(), None);
    let mut unended: Vec<_> = fixture.store.unended().await.unwrap();
    unended.retain(|known| known.jobs_count > 0);
    unended.sort_by(|one, other| one.model.cmp(&other.model));
    let counted: Vec<_> = unended.iter().map(|known| (known.model.as_str(), known.status.as_str())).collect();
    assert_eq!(counted, [("large", "queued"), ("small", "processing")]);
    assert_eq!(claim("large").await.unwrap().unwrap().id, first.id);
}

async fn the_oldest_that_waits_is_found_whoever_submitted_it(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let submit = |org: &str, model: &str, priority, now_ms| {
        fixture.store.submit(NewJob { model: model.into(), priority, now_ms, ..new_job(org) })
    };
    assert_eq!(fixture.store.oldest_queued_ms().await.unwrap(), None);
    let oldest = submit("b", "small", 0, 10).await.unwrap().unwrap();
    for (org, model, priority, now_ms) in
        [("b", "small", 9, 20), ("a", "large", 0, 30), ("c", "small", 0, 40), ("a", "small", 5, 50)]
    {
        submit(org, model, priority, now_ms).await.unwrap().unwrap();
    }
    assert_eq!(fixture.store.oldest_queued_ms().await.unwrap(), Some(10));
    fixture.store.cancel("b", oldest.id, 60).await.unwrap().unwrap().unwrap();
    assert_eq!(fixture.store.oldest_queued_ms().await.unwrap(), Some(20));
}

async fn only_what_ended_before_the_cutoff_is_forgotten(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let (old, new) = (fixture.submit("org").await, fixture.submit("org").await);
    let (waiting, working) = (fixture.submit("org").await, fixture.submit("other").await);
    while fixture.claim().await.unwrap().id != working.id {}
    fixture.store.cancel("org", old.id, 100).await.unwrap().unwrap().unwrap();
    fixture.store.cancel("org", new.id, 200).await.unwrap().unwrap().unwrap();
    assert_eq!(fixture.store.expired(200).await.unwrap().jobs_count, 1);
    let ended = fixture.store.ended_before(200, 10).await.unwrap();
    assert_eq!(ended, [old.id]);
    fixture.store.forget_jobs(vec![old.id, waiting.id, working.id]).await.unwrap();
    assert!(fixture.store.get(old.id).await.unwrap().is_none(), "not in a cache either");
    for job in [&new, &waiting, &working] {
        assert!(fixture.store.get(job.id).await.unwrap().is_some(), "what has not ended is never forgotten");
    }
    assert_eq!(fixture.store.list(&all_of("org")).await.unwrap().total, 2);
    assert_eq!(fixture.store.ended_before(300, 10).await.unwrap(), [new.id]);
}

async fn a_picture_is_forgotten_once_nobody_names_it_and_nobody_was_handed_it_lately(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let store = &fixture.store;
    let forget = |before_ms| async move { shades(store.forget_inputs(before_ms, 10).await.unwrap()) };
    let row = |shade: u8, used_at_ms| InputRow { sha256: [shade; 32], used_at_ms, ..input() };
    for shade in [1, 2] {
        fixture.store.add_input(row(shade, 100)).await.unwrap();
    }
    let again = InputRow { version: 9, ..row(1, 300) };
    assert_eq!(fixture.store.add_input(again).await.unwrap(), row(1, 300), "the first to add it stands");
    assert_eq!(fixture.store.use_input([2; 32], 400).await.unwrap(), Some(row(2, 400)));
    for late in [
        fixture.store.use_input([2; 32], 90).await.unwrap().unwrap(),
        fixture.store.add_input(row(1, 90)).await.unwrap(),
    ] {
        assert!(late.used_at_ms >= 300, "a use that is told late takes nothing back");
    }
    assert_eq!(fixture.store.use_input([3; 32], 400).await.unwrap(), None);
    let job = fixture.submit("org").await;
    assert_eq!(fixture.store.expired(350).await.unwrap().inputs_count, 1);
    assert_eq!(forget(350).await, [1], "2 was handed out since, and the job names the other");
    fixture.store.cancel("org", job.id, 360).await.unwrap().unwrap().unwrap();
    assert_eq!(forget(500).await, [2], "a job that ended still names it");
    assert_eq!(fixture.store.expired(500).await.unwrap().inputs_count, 1, "not after that job went");
    fixture.store.forget_jobs(vec![job.id]).await.unwrap();
    assert_eq!(forget(500).await, [7]);
    assert!(fixture.store.submit(new_job("org")).await.is_err(), "what is gone cannot be named");
    fixture.store.add_input(input()).await.unwrap();
    fixture.submit("org").await;
}

/// What tells the pictures of these tests apart.
fn shades(rows: Vec<InputRow>) -> Vec<u8> {
    rows.into_iter().map(|row| row.sha256[0]).collect()
}

async fn work_wakes_a_waiting_worker(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let store = fixture.store.clone();
    let waiting = tokio::spawn(async move { store.work_arrived().await });
    fixture.submit("org").await;
    tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await.unwrap().unwrap();
}

async fn keys_are_found_by_hash_until_they_are_revoked(home: Home) {
    let fixture = Fixture::new(home, SETTINGS).await;
    let key = crate::keys::create(&fixture.store, "org", "user").await.unwrap();
    let sha256 = crate::keys::hash(key.reveal());
    let row = fixture.reopened().await.key(&sha256).await.unwrap().unwrap();
    assert_eq!((row.org_id.as_str(), row.user_id.as_str()), ("org", "user"));
    assert!(key.reveal().starts_with(&row.hint) && row.hint.len() < 12);
    assert!(fixture.store.key(&crate::keys::hash("kin_other")).await.unwrap().is_none());
    assert!(fixture.store.revoke_key(&row.id, 9).await.unwrap());
    assert!(!fixture.store.revoke_key(&row.id, 9).await.unwrap());
    assert!(fixture.store.key(&sha256).await.unwrap().is_none());
    if let Home::Sqlite(folder) = &fixture.home {
        let file = std::fs::read(folder.path().join("kinora.db")).unwrap();
        let wal = std::fs::read(folder.path().join("kinora.db-wal")).unwrap();
        let secret = key.reveal().as_bytes();
        assert!([file, wal].iter().all(|bytes| !bytes.windows(secret.len()).any(|window| window == secret)));
    }
}

/// A database whose clock is forty days ahead of this machine's.
#[tokio::test]
#[ignore = "needs PostgreSQL: `scripts/test fleet` starts one"]
async fn what_many_share_is_kept_by_the_databases_clock() {
    use sqlx::Connection as _;
    const AHEAD_MS: i64 = 40 * 24 * 3600 * 1000;
    let home = Home::postgres().await;
    let Home::Postgres(url) = &home else { unreachable!("it was just made there") };
    let mut connection = sqlx::PgConnection::connect(url.as_str()).await.unwrap();
    let ahead = "CREATE FUNCTION public.clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE sql AS \
                     $$ SELECT pg_catalog.clock_timestamp() + INTERVAL '40 days' $$; \
                 DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', \
                     current_database()); END $$";
    sqlx::raw_sql(ahead).execute(&mut connection).await.unwrap();
    let fixture = Fixture::new(home, SETTINGS).await;
    let ahead_ms = fixture.store.now_ms() - crate::clock::wall_ms();
    assert!((ahead_ms - AHEAD_MS).abs() < 10_000, "{ahead_ms}");
    assert!(
        JobStore::open(&tempfile::tempdir().unwrap().path().join("kinora.db"), SETTINGS)
            .await
            .unwrap()
            .now_ms()
            < fixture.store.now_ms() - AHEAD_MS / 2,
        "one machine has its own"
    );
}

/// PostgreSQL chooses its plans by what lies in the tables: with enough in them, no statement of everyday reads all
/// jobs or all pictures, which the server itself counts.
#[tokio::test]
#[ignore = "needs PostgreSQL: `scripts/test fleet` starts one"]
async fn no_everyday_statement_reads_a_whole_table() {
    use sqlx::Connection as _;
    let home = Home::postgres().await;
    let Home::Postgres(url) = &home else { unreachable!("it was just made there") };
    let mut watcher = sqlx::PgConnection::connect(url.as_str()).await.unwrap();
    let first = home.open(SETTINGS).await;
    first.add_input(input()).await.unwrap();
    sqlx::raw_sql(MANY_ROWS).execute(&mut watcher).await.unwrap();
    let before = whole_reads(&mut watcher).await;
    drop(first);
    let store = home.open(SETTINGS).await;
    let url = url.clone();
    everyday(&Fixture { home, store }).await;
    assert_eq!(whole_reads(&mut watcher).await, before);
    let mut other = sqlx::PgConnection::connect(url.as_str()).await.unwrap();
    sqlx::query("SELECT id FROM jobs WHERE payload = 'y'").fetch_all(&mut other).await.unwrap();
    assert_ne!(whole_reads(&mut watcher).await, before, "one that does is noticed");
}

/// Each call of everyday, once.
async fn everyday(fixture: &Fixture) {
    let store = &fixture.store;
    let unnamed = InputRow { sha256: [5; 32], ..input() };
    store.add_input(unnamed.clone()).await.unwrap();
    store.worker_present(presence("worker", None)).await.unwrap();
    let job = fixture.submit("org-7").await;
    assert!(store.outlook(&job).await.unwrap().is_some());
    for status in [None, Some(Status::Queued), Some(Status::Success)] {
        store.list(&JobFilter { status, ..all_of("org-8") }).await.unwrap();
    }
    store.list(&JobFilter { model: Some("model".into()), ..all_of("org-9") }).await.unwrap();
    store.count(Status::Queued).await.unwrap();
    store.oldest_queued_ms().await.unwrap();
    let claimed = fixture.claim().await.unwrap();
    let beat = Heartbeat { attempt: claimed.attempt, lease_ms: 60_000, progress: None };
    store.heartbeat(claimed.id, beat, 6).await.unwrap().unwrap().unwrap();
    let finished = Event::Finished { attempt: claimed.attempt, outcome: outcome(claimed.attempt) };
    store.report(claimed.id, finished, 7).await.unwrap().unwrap().unwrap();
    let other = fixture.submit("org-7").await;
    store.cancel("org-7", other.id, 8).await.unwrap().unwrap().unwrap();
    // Another reader: what this one wrote it would find in its cache.
    fixture.reopened().await.get(other.id).await.unwrap().unwrap();
    store.expire_leases(9).await.unwrap();
    let used = store.add_input(InputRow { sha256: [3; 32], ..input() }).await.unwrap();
    store.use_input(used.sha256, 10).await.unwrap().unwrap();
    store.input(&used.sha256).await.unwrap().unwrap();
    let ended = store.ended_before(100, 10).await.unwrap();
    assert!(!ended.is_empty());
    store.forget_jobs(ended).await.unwrap();
    assert!(store.has_inputs().await.unwrap());
    assert!(!store.forget_inputs(5, 10).await.unwrap().is_empty());
    store.forget_uploads(3).await.unwrap();
    assert!(store.upload(Uuid::now_v7()).await.unwrap().is_none());
}

/// Jobs of many organisations, each with a picture of its own, few of them waiting; uploads; pictures that nobody names.
const MANY_ROWS: &str = "
    INSERT INTO inputs (sha256, version, format, width_px, height_px, size_bytes, created_at_ms, used_at_ms)
        SELECT sha256(i::text::bytea), 1, 'png', 300, 300, 10, i, i FROM generate_series(1, 30000) AS i;
    INSERT INTO jobs (id, revision, org_id, user_id, model, status, payload, input_sha256, input_inline, seed, created_at_ms,
        updated_at_ms, queued_at_ms, finished_at_ms, attempt, attempts_lost, worker_id)
        SELECT gen_random_uuid(), 1, 'org-' || i % 200, 'user', 'model',
            CASE i % 50 WHEN 0 THEN 'queued' ELSE 'success' END, repeat('x', 200), sha256(i::text::bytea), TRUE, i, i, i, i,
            CASE i % 50 WHEN 0 THEN NULL ELSE i END, 0, 0, ''
        FROM generate_series(1, 29000) AS i;
    INSERT INTO uploads (id, org_id, format, created_at_ms, expires_at_ms, input_sha256)
        SELECT gen_random_uuid(), 'org', 'png', i, i, sha256(i::text::bytea) FROM generate_series(1, 20000) AS i;
    INSERT INTO inputs (sha256, version, format, width_px, height_px, size_bytes, created_at_ms, used_at_ms)
        SELECT sha256(i::text::bytea), 1, 'png', 300, 300, 10, 1, 1 FROM generate_series(50001, 50020) AS i;
    ANALYZE";

/// How often each large table was read from end to end since its creation. Ends all other connections: one tells what
/// it did when it ends, and otherwise only after a while.
async fn whole_reads(watcher: &mut sqlx::PgConnection) -> Vec<(String, i64)> {
    let end = "SELECT pid FROM (SELECT pid, pg_terminate_backend(pid) AS told FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()) AS others WHERE told";
    let ended: Vec<i32> = sqlx::query_scalar(end).fetch_all(&mut *watcher).await.unwrap();
    let still_there = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)";
    while sqlx::query_scalar::<_, i64>(still_there).bind(&ended).fetch_one(&mut *watcher).await.unwrap() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let sql = "SELECT CAST(relname AS TEXT), seq_scan FROM pg_stat_user_tables \
               WHERE relname IN ('jobs', 'inputs', 'uploads') ORDER BY 1";
    sqlx::query_as(sql).fetch_all(watcher).await.unwrap()
}

#[test]
fn damaged_rows_are_not_taken_for_a_failing_database() {
    let damaged = sqlx::Error::ColumnDecode { index: "width_px".into(), source: "not a number".into() };
    assert!(!StoreError::Database(damaged).is_everywhere());
    assert!(StoreError::Database(sqlx::Error::PoolTimedOut).is_everywhere());
}
