//! A job's life as a pure function: state and event in, state or refusal out.
//!
//! Always true: `success`, `failed` and `cancelled` never change again; every event from a worker names its attempt,
//! and a stale attempt changes nothing.

use serde::{Deserialize, Serialize};

use super::record::{Job, JobProgress, Outcome};

/// Where a job is; the words are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waiting to be processed.
    Queued,
    /// Generation in progress.
    Processing,
    /// Completed.
    Success,
    /// Failed; `error` says why.
    Failed,
    /// Cancelled by the caller.
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 5] = [Self::Queued, Self::Processing, Self::Success, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Cancelled)
    }
}

impl std::str::FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(())
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can happen to a job once it is accepted.
#[derive(Debug, Clone)]
pub enum Event {
    /// A worker takes the job.
    Claimed { worker_id: String, lease_until_ms: i64 },
    /// The worker is alive.
    Heartbeat { attempt: i64, lease_until_ms: i64, progress: Option<JobProgress> },
    /// The clip lies under its final name.
    Finished { attempt: i64, outcome: Outcome },
    /// The engine gave up; `retryable` says whether another attempt may succeed.
    Failed { attempt: i64, error: String, retryable: bool, attempts_max: i64 },
    /// The worker stops and gives the job back unharmed.
    Released { attempt: i64 },
    /// The worker has not been heard of for the length of its lease.
    LeaseExpired { attempts_max: i64 },
    /// The caller no longer wants it.
    Cancelled,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the request has already ended as `{0}`")]
    Ended(Status),
    #[error("the lease belongs to a later attempt or to nobody")]
    StaleAttempt,
    #[error("the request is not waiting")]
    NotQueued,
}

impl Job {
    /// Applies `event` at `now_ms` (wall clock), or says why it changes nothing.
    pub fn apply(&mut self, event: Event, now_ms: i64) -> Result<(), Refused> {
        if self.status.is_terminal() {
            return Err(Refused::Ended(self.status));
        }
        match event {
            Event::Claimed { worker_id, lease_until_ms } => {
                if self.status != Status::Queued {
                    return Err(Refused::NotQueued);
                }
                self.status = Status::Processing;
                self.attempt += 1;
                self.worker_id = worker_id;
                self.lease_until_ms = Some(lease_until_ms);
                self.started_at_ms = Some(now_ms);
            }
            Event::Heartbeat { attempt, lease_until_ms, progress } => {
                self.require_lease(attempt)?;
                self.lease_until_ms = Some(lease_until_ms);
                self.progress = progress;
            }
            Event::Finished { attempt, outcome } => {
                self.require_lease(attempt)?;
                self.outcome = Some(outcome);
                self.end(Status::Success, now_ms);
            }
            Event::Failed { attempt, error, retryable, attempts_max } => {
                self.require_lease(attempt)?;
                if retryable {
                    self.lose_attempt(attempts_max, &error, now_ms);
                } else {
                    self.fail(error, now_ms);
                }
            }
            Event::Released { attempt } => {
                self.require_lease(attempt)?;
                self.requeue();
            }
            Event::LeaseExpired { attempts_max } => {
                if self.status != Status::Processing {
                    return Err(Refused::StaleAttempt);
                }
                self.lose_attempt(attempts_max, "the worker stopped without a word", now_ms);
            }
            Event::Cancelled => self.end(Status::Cancelled, now_ms),
        }
        self.updated_at_ms = now_ms;
        self.revision += 1;
        Ok(())
    }

    fn require_lease(&self, attempt: i64) -> Result<(), Refused> {
        if self.status == Status::Processing && self.attempt == attempt {
            Ok(())
        } else {
            Err(Refused::StaleAttempt)
        }
    }

    fn lose_attempt(&mut self, attempts_max: i64, reason: &str, now_ms: i64) {
        self.attempts_lost += 1;
        if self.attempts_lost >= attempts_max {
            self.fail(format!("gave up after {} attempts: {reason}", self.attempts_lost), now_ms);
        } else {
            self.requeue();
        }
    }

    fn requeue(&mut self) {
        self.status = Status::Queued;
        self.lease_until_ms = None;
        self.progress = None;
    }

    fn fail(&mut self, error: String, now_ms: i64) {
        self.error = Some(error);
        self.end(Status::Failed, now_ms);
    }

    fn end(&mut self, status: Status, now_ms: i64) {
        self.status = status;
        self.lease_until_ms = None;
        self.progress = None;
        self.finished_at_ms = Some(now_ms);
    }
}

#[cfg(test)]
mod tests;
