//! What a commit means to those who wait: work has arrived, or a job that somebody works on was cancelled.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use super::record::Job;
use super::state::Status;

/// Workers woken at once at most; each that finds work wakes the next.
const WOKEN_MAX: usize = 64;
/// Cancels that a watcher may lag behind; one that lags more learns of its own by its next heartbeat.
const CANCELS_KEPT: usize = 256;
/// A NOTIFY holds 8000 bytes at most: beyond this many, watchers wait for their heartbeats.
const CANCELS_TOLD_MAX: usize = 128;

/// What a transaction brought about.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tidings {
    /// Jobs that wait now and did not before.
    #[serde(rename = "q")]
    pub(super) queued_count: usize,
    /// Jobs that were cancelled.
    #[serde(rename = "c")]
    pub(super) cancelled: Vec<Uuid>,
}

impl Tidings {
    /// What the jobs that a transaction changed amount to.
    pub(super) fn of<'a>(changed: impl Iterator<Item = &'a Job>) -> Self {
        let mut tidings = Self::default();
        for job in changed {
            match job.status {
                Status::Queued => tidings.queued_count += 1,
                Status::Cancelled if tidings.cancelled.len() < CANCELS_TOLD_MAX => {
                    tidings.cancelled.push(job.id);
                }
                _ => {}
            }
        }
        tidings
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Wakes the workers of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    work: Arc<Notify>,
    cancelled: broadcast::Sender<Uuid>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self { work: Arc::new(Notify::new()), cancelled: broadcast::Sender::new(CANCELS_KEPT) }
    }

    pub(super) fn tell(&self, tidings: &Tidings) {
        (0..tidings.queued_count.min(WOKEN_MAX)).for_each(|_| self.work.notify_one());
        for id in &tidings.cancelled {
            // Nobody works on anything: nobody needs to know.
            let _ = self.cancelled.send(*id);
        }
    }

    /// There may be more than what was just found.
    pub(super) fn wake_next(&self) {
        self.work.notify_one();
    }

    pub(super) async fn work_arrived(&self) {
        self.work.notified().await;
    }

    pub(super) fn cancelled(&self) -> broadcast::Receiver<Uuid> {
        self.cancelled.subscribe()
    }
}
