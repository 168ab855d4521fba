//! What ended long ago is removed: requests with their clips, and pictures that nobody names any more.
//!
//! Always true: only requests that ended before the cutoff are touched, and of pictures only those that neither a request
//! nor an upload names and that nobody was handed since. A request's files go before its row, so that a crash in between
//! leaves a row whose removal is tried again. A picture's row goes before its file, so that no request can name a picture
//! whose file is about to go; a crash in between leaves a file that no row knows, which is found by its age.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::artifacts::{ArtifactError, ArtifactKey, Artifacts};
use crate::clock;
use crate::jobs::{Expired, JobStore, StoreError};

/// Rows looked up at once.
const BATCH: i64 = 200;
/// How often a server looks for what to remove.
const EVERY: Duration = Duration::from_secs(3600);
/// Looks after which all stored pictures are listed, to find those that no row knows.
const LOOKS_PER_LISTING: u64 = 24;

/// Why something could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Artifact(#[from] ArtifactError),
}

/// Keeps what ended for a while and no longer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Retention {
    pub store: JobStore,
    pub artifacts: Artifacts,
    pub keep: Duration,
}

impl Retention {
    /// Removes what is too old now and every hour, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let removing = async {
            for look in 0_u64.. {
                match self.remove(look % LOOKS_PER_LISTING == 0).await {
                    Ok(removed) if removed == Expired::default() => {}
                    Ok(Expired { jobs_count, uploads_count, inputs_count }) => {
                        tracing::info!(jobs_count, uploads_count, inputs_count, "retention.removed");
                    }
                    Err(error) => tracing::error!(%error, "retention.failed"),
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        // Whatever is cut short is found again by the next look.
        tokio::select! {
            () = removing => {}
            () = stop.cancelled() => {}
        }
    }

    /// What is too old.
    pub async fn survey(&self) -> Result<Expired, RetentionError> {
        Ok(self.store.expired(self.before_ms()).await?)
    }

    /// Removes what is too old, with `listing` also the files of pictures that no row knows, and says how much it was.
    pub async fn remove(&self, listing: bool) -> Result<Expired, RetentionError> {
        let before_ms = self.before_ms();
        let jobs_count = self.remove_jobs(before_ms).await?;
        let uploads_count = self.store.forget_uploads(before_ms).await?;
        let mut inputs_count = self.remove_inputs(before_ms).await?;
        if listing {
            inputs_count += self.remove_strays(before_ms).await?;
        }
        Ok(Expired { jobs_count, uploads_count, inputs_count })
    }

    fn before_ms(&self) -> i64 {
        clock::wall_ms() - self.keep.as_millis() as i64
    }

    async fn remove_jobs(&self, before_ms: i64) -> Result<u64, RetentionError> {
        let mut removed_count = 0;
        loop {
            let ended = self.store.ended_before(before_ms, BATCH).await?;
            if ended.is_empty() {
                return Ok(removed_count);
            }
            for job in &ended {
                self.artifacts.discard_job(job.id, job.attempt).await?;
            }
            removed_count += ended.len() as u64;
            self.store.forget_jobs(ended.into_iter().map(|job| job.id).collect()).await?;
        }
    }

    async fn remove_inputs(&self, before_ms: i64) -> Result<u64, RetentionError> {
        let mut removed_count = 0;
        loop {
            let unnamed = self.store.forget_inputs(before_ms, BATCH).await?;
            if unnamed.is_empty() {
                return Ok(removed_count);
            }
            for input in &unnamed {
                self.artifacts.remove(ArtifactKey::of_input(input.sha256, input.version)).await?;
            }
            removed_count += unnamed.len() as u64;
        }
    }

    /// A picture's row is written right after its file, so a file of that age without one was left by a crash.
    async fn remove_strays(&self, before_ms: i64) -> Result<u64, RetentionError> {
        let mut removed_count = 0;
        for key in self.artifacts.inputs_before(before_ms).await? {
            let ArtifactKey::Input { sha256, version } = key else { continue };
            if self.store.input(&sha256).await?.is_none_or(|row| row.version != version) {
                self.artifacts.remove(key).await?;
                removed_count += 1;
            }
        }
        Ok(removed_count)
    }
}

#[cfg(test)]
mod tests;
