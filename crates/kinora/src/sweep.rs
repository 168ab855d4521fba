//! Removes what crashes left in the data folder: clips of attempts that no job will ever answer.
//!
//! An attempt's files get their final names before the database hears of it, so a crash in between leaves files that
//! nobody owns. Always true: the files of a job's outcome, those of an attempt in progress, and those that no job in the
//! database is known for are never touched. An attempt is seen on disk before its job is read, so a job that is read
//! later knows of every attempt that was seen.

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::artifacts::Artifacts;
use crate::jobs::{Job, JobStore, Status};

/// Looks through all outputs once, or until `stop`. A failure leaves files for the next start and is only logged.
pub async fn sweep_outputs(store: JobStore, artifacts: Artifacts, stop: CancellationToken) {
    let attempts = match artifacts.attempts().await {
        Ok(attempts) => attempts,
        Err(error) => return tracing::warn!(%error, "sweep.listing_failed"),
    };
    let mut removed_count = 0_u64;
    for (id, attempt) in attempts {
        if stop.is_cancelled() {
            return;
        }
        match remove_unowned(&store, &artifacts, id, attempt).await {
            Ok(removed) => removed_count += u64::from(removed),
            Err(error) => tracing::warn!(job.id = %id, job.attempt = attempt, %error, "sweep.failed"),
        }
    }
    if removed_count > 0 {
        tracing::info!(removed_count, "sweep.attempts_removed");
    }
}

async fn remove_unowned(
    store: &JobStore,
    artifacts: &Artifacts,
    id: Uuid,
    attempt: i64,
) -> anyhow::Result<bool> {
    // A clip without a row is no crash's work (the row comes first): it may be all that is left of a lost database.
    let job = store.get(id).await?;
    if job.is_none_or(|job| owns(&job, attempt)) {
        return Ok(false);
    }
    artifacts.discard_attempt(id, attempt).await?;
    Ok(true)
}

fn owns(job: &Job, attempt: i64) -> bool {
    let is_outcome = job.outcome.as_ref().is_some_and(|outcome| outcome.attempt == attempt);
    is_outcome || (job.status == Status::Processing && job.attempt == attempt)
}

#[cfg(test)]
mod tests;
