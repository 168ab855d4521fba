use std::fmt::Write as _;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const ATTEMPTS_MAX: i64 = 3;

fn queued() -> Job {
    Job {
        seq: 1,
        id: Uuid::nil(),
        revision: 0,
        org_id: "org".into(),
        user_id: "user".into(),
        model: "model".into(),
        status: Status::Queued,
        payload: "{}".into(),
        input_sha256: [0; 32],
        input_inline: false,
        seed: 0,
        priority: 0,
        created_at_ms: 0,
        updated_at_ms: 0,
        queued_at_ms: 0,
        started_at_ms: None,
        finished_at_ms: None,
        attempt: 0,
        attempts_lost: 0,
        lease_until_ms: None,
        worker_id: String::new(),
        progress: None,
        outcome: None,
        error: None,
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
        size_bytes: 1,
        plan: None,
    }
}

/// One of each event, from the holder of `attempt`.
fn events(attempt: i64) -> Vec<(&'static str, Event)> {
    let failed =
        |retryable| Event::Failed { attempt, error: "broken".into(), retryable, attempts_max: ATTEMPTS_MAX };
    vec![
        ("claimed", Event::Claimed { worker_id: "w".into(), lease_until_ms: 10 }),
        ("heartbeat", Event::Heartbeat { attempt, lease_until_ms: 20, progress: None }),
        ("finished", Event::Finished { attempt, outcome: outcome(attempt) }),
        ("failed for good", failed(false)),
        ("failed, worth another attempt", failed(true)),
        ("given back", Event::Released { attempt }),
        ("lease expired", Event::LeaseExpired { attempts_max: ATTEMPTS_MAX }),
        ("cancelled", Event::Cancelled),
    ]
}

fn in_state(status: Status, attempts_lost: i64) -> Job {
    let mut job = Job { attempts_lost, ..queued() };
    if status == Status::Queued {
        return job;
    }
    job.apply(Event::Claimed { worker_id: "w".into(), lease_until_ms: 10 }, 1).unwrap();
    let ending = match status {
        Status::Success => Event::Finished { attempt: 1, outcome: outcome(1) },
        Status::Failed => {
            Event::Failed { attempt: 1, error: "broken".into(), retryable: false, attempts_max: 3 }
        }
        Status::Cancelled => Event::Cancelled,
        Status::Queued | Status::Processing => return job,
    };
    job.apply(ending, 2).unwrap();
    job
}

#[test]
fn a_stale_attempt_changes_nothing() {
    let mut job = in_state(Status::Processing, 0);
    job.apply(Event::LeaseExpired { attempts_max: ATTEMPTS_MAX }, 2).unwrap();
    job.apply(Event::Claimed { worker_id: "second".into(), lease_until_ms: 10 }, 3).unwrap();
    let before = job.clone();
    for (name, event) in events(1) {
        if matches!(
            event,
            Event::Heartbeat { .. } | Event::Finished { .. } | Event::Failed { .. } | Event::Released { .. }
        ) {
            assert_eq!(job.apply(event, 4), Err(Refused::StaleAttempt), "{name}");
            assert_eq!(job, before, "{name}");
        }
    }
    job.apply(Event::Finished { attempt: 2, outcome: outcome(2) }, 5).unwrap();
    assert_eq!(job.status, Status::Success);
}

#[test]
fn a_job_that_kills_its_workers_fails_after_the_last_attempt_and_a_give_back_costs_none() {
    let mut job = queued();
    for lost in 1..=ATTEMPTS_MAX {
        job.apply(Event::Claimed { worker_id: "w".into(), lease_until_ms: 10 }, 1).unwrap();
        let attempt = job.attempt;
        job.apply(Event::Released { attempt }, 1).unwrap();
        job.apply(Event::Claimed { worker_id: "w".into(), lease_until_ms: 10 }, 1).unwrap();
        job.apply(Event::LeaseExpired { attempts_max: ATTEMPTS_MAX }, 1).unwrap();
        assert_eq!(job.attempts_lost, lost);
    }
    assert_eq!(job.status, Status::Failed);
    assert_eq!(job.error.as_deref(), Some("gave up after 3 attempts: the worker stopped without a word"));
    assert_eq!(job.outcome, None);
}

proptest! {
    #[test]
    fn whatever_happens_a_terminal_state_stays_and_the_fields_fit_the_state(
        choices in proptest::collection::vec((0..8usize, 0..4i64), 1..40)
    ) {
        let mut job = queued();
        for (index, attempt) in choices {
            let before = job.clone();
            let (_, event) = events(attempt).swap_remove(index);
            let applied = job.apply(event, 5);
            if before.status.is_terminal() || applied.is_err() {
                prop_assert_eq!(&job, &before);
            } else {
                prop_assert_eq!(job.revision, before.revision + 1);
            }
            prop_assert_eq!(job.outcome.is_some(), job.status == Status::Success);
            prop_assert_eq!(job.error.is_some(), job.status == Status::Failed);
            prop_assert_eq!(job.lease_until_ms.is_some(), job.status == Status::Processing);
            prop_assert_eq!(job.finished_at_ms.is_some(), job.status.is_terminal());
            prop_assert!(job.attempts_lost <= ATTEMPTS_MAX && job.attempts_lost <= job.attempt);
        }
    }
}

/// The table in the document is made of the transitions themselves.
#[test]
fn the_document_of_states_is_fresh() {
    let mut table = String::from("| from | what happens | to |\n|---|---|---|\n");
    for status in Status::ALL {
        for (name, event) in events(1) {
            let mut job = in_state(status, 0);
            if job.apply(event.clone(), 3).is_err() {
                continue;
            }
            let mut last = in_state(status, ATTEMPTS_MAX - 1);
            last.apply(event, 3).unwrap();
            let or_last = if last.status == job.status {
                String::new()
            } else {
                format!("; `{}` when it was the last attempt", last.status)
            };
            writeln!(table, "| `{status}` | {name} | `{}`{or_last} |", job.status).unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/STATES.md");
    let document = std::fs::read_to_string(path).unwrap();
    assert!(document.contains(&table), "docs/STATES.md must contain this table:\n\n{table}");
}
