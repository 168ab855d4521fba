//! What ended long ago is removed: requests with their clips, and pictures that nobody names any more.
//!
//! Always true: only requests that ended before the cutoff are touched, and of pictures only those that neither a request
//! nor an upload names and that nobody was handed since. A request's files go before its row, so that a crash in between
//! leaves a row whose removal is tried again. A picture's row goes before its file, so that no request can name a picture
//! whose file is about to go; a crash in between leaves a file that no row knows, which is found by its age.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::artifacts::{ArtifactError, ArtifactKey, Artifacts};
use crate::clock;
use crate::jobs::{Expired, JobStore, StoreError};

/// Rows looked up at once.
const BATCH: i64 = 200;
/// Requests whose files do not go, after which a look gives up.
const STUCK_MAX: i64 = 20;
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
        // What cannot be removed of one kind keeps nothing of the others.
        let jobs = self.remove_jobs(before_ms).await;
        let uploads = self.store.forget_uploads(before_ms).await;
        let inputs = self.remove_inputs(before_ms).await;
        let strays = if listing { self.remove_strays(before_ms).await } else { Ok(0) };
        Ok(Expired { jobs_count: jobs?, uploads_count: uploads?, inputs_count: inputs? + strays? })
    }

    fn before_ms(&self) -> i64 {
        clock::wall_ms() - self.keep.as_millis() as i64
    }

    async fn remove_jobs(&self, before_ms: i64) -> Result<u64, RetentionError> {
        let mut removed_count = 0;
        // A file that does not go keeps its own request only; when many do not, storage as a whole is to blame.
        let mut stuck = HashSet::new();
        loop {
            let ended = self.store.ended_before(before_ms, BATCH + stuck.len() as i64).await?;
            let mut gone = Vec::new();
            for job in ended.iter().filter(|job| !stuck.contains(&job.id)).collect::<Vec<_>>() {
                match self.artifacts.discard_job(job.id, job.attempt).await {
                    Ok(()) => gone.push(job.id),
                    Err(error) if stuck.len() as i64 >= STUCK_MAX => return Err(error.into()),
                    Err(error) => {
                        tracing::error!(job.id = %job.id, %error, "retention.stuck");
                        stuck.insert(job.id);
                    }
                }
            }
            if gone.is_empty() {
                return Ok(removed_count);
            }
            removed_count += gone.len() as u64;
            self.store.forget_jobs(gone).await?;
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

    /// A picture's row is written right after its file, so a file of that age without one was left by a crash. But
    /// files may also be all that is left of a lost database, or another's: one that knows no picture touches none.
    async fn remove_strays(&self, before_ms: i64) -> Result<u64, RetentionError> {
        let mut removed_count = 0;
        if !self.store.has_inputs().await? {
            return Ok(removed_count);
        }
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
