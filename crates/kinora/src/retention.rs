//! What ended long ago is removed: requests with their clips, and pictures that nobody names any more.
//!
//! Always true: only requests that ended before the cutoff are touched, and of pictures only those that neither a request
//! nor an upload names and that nobody was handed since. A request's files go before its row, so that a crash in between
//! leaves a row whose removal is tried again. A picture's row goes before its file, so that no request can name a picture
//! whose file is about to go; a crash in between leaves a file that no row knows, which is found by its age.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::artifacts::{ArtifactError, ArtifactKey, Artifacts, Volume};
use crate::jobs::{Expired, JobStore, StoreError};
use crate::telemetry;

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

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub rows: Expired,
    /// Clips, thumbnails and pictures.
    pub files: Volume,
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
                    Ok(removed) if removed == Removed::default() => {}
                    Ok(Removed { rows: Expired { jobs_count, uploads_count, inputs_count }, files }) => {
                        let Volume { files_count, size_bytes } = files;
                        tracing::info!(
                            jobs_count,
                            uploads_count,
                            inputs_count,
                            files_count,
                            size_bytes,
                            "retention.removed"
                        );
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

    /// What [`Self::remove`] would remove, with `listing` also the files of pictures that no row knows.
    pub async fn survey(&self, listing: bool) -> Result<Expired, RetentionError> {
        let before_ms = self.before_ms();
        let mut expired = self.store.expired(before_ms).await?;
        if listing && self.store.has_inputs().await? {
            expired.inputs_count += self.strays(before_ms).await?.len() as u64;
        }
        Ok(expired)
    }

    /// Removes what is too old, with `listing` also the files of pictures that no row knows, and says how much it was.
    pub async fn remove(&self, listing: bool) -> Result<Removed, RetentionError> {
        let before_ms = self.before_ms();
        // Asked first: the last row of a picture may go now.
        let knows_pictures = listing && self.store.has_inputs().await?;
        let mut removed = Removed::default();
        // What cannot be removed of one kind keeps nothing of the others.
        let jobs = self.remove_jobs(before_ms, &mut removed).await;
        let uploads = self.remove_uploads(before_ms, &mut removed).await;
        let inputs = self.remove_inputs(before_ms, &mut removed).await;
        let strays = if knows_pictures { self.remove_strays(before_ms, &mut removed).await } else { Ok(()) };
        jobs.and(uploads).and(inputs).and(strays).map(|()| removed)
    }

    fn before_ms(&self) -> i64 {
        self.store.now_ms() - self.keep.as_millis() as i64
    }

    async fn remove_jobs(&self, before_ms: i64, removed: &mut Removed) -> Result<(), RetentionError> {
        // A file that does not go keeps its own request only; when many do not, storage as a whole is to blame.
        let mut stuck = HashSet::new();
        loop {
            let ended = self.store.ended_before(before_ms, BATCH + stuck.len() as i64).await?;
            let untried: Vec<_> = ended.into_iter().filter(|id| !stuck.contains(id)).collect();
            let mut gone = Vec::new();
            for id in untried {
                match self.artifacts.discard_job(id).await {
                    Ok(files) => {
                        telemetry::removed_files("outputs", files.files_count, files.size_bytes);
                        removed.files += files;
                        gone.push(id);
                    }
                    Err(error) if stuck.len() as i64 >= STUCK_MAX => return Err(error.into()),
                    Err(error) => {
                        tracing::error!(job.id = %id, %error, "retention.stuck");
                        stuck.insert(id);
                    }
                }
            }
            if gone.is_empty() {
                return Ok(());
            }
            let rows_count = self.store.forget_jobs(gone).await?;
            telemetry::removed_rows("jobs", rows_count);
            removed.rows.jobs_count += rows_count;
        }
    }

    async fn remove_uploads(&self, before_ms: i64, removed: &mut Removed) -> Result<(), RetentionError> {
        let rows_count = self.store.forget_uploads(before_ms).await?;
        telemetry::removed_rows("uploads", rows_count);
        removed.rows.uploads_count += rows_count;
        Ok(())
    }

    async fn remove_inputs(&self, before_ms: i64, removed: &mut Removed) -> Result<(), RetentionError> {
        loop {
            let unnamed = self.store.forget_inputs(before_ms, BATCH).await?;
            if unnamed.is_empty() {
                return Ok(());
            }
            telemetry::removed_rows("inputs", unnamed.len() as u64);
            removed.rows.inputs_count += unnamed.len() as u64;
            for input in &unnamed {
                let key = ArtifactKey::of_input(input.sha256, input.version);
                self.remove_input(key, input.size_bytes, removed).await?;
            }
        }
    }

    async fn remove_input(
        &self,
        key: ArtifactKey,
        size_bytes: u64,
        removed: &mut Removed,
    ) -> Result<(), RetentionError> {
        self.artifacts.remove(key).await?;
        telemetry::removed_files("inputs", 1, size_bytes);
        removed.files += Volume::of_file(size_bytes);
        Ok(())
    }

    async fn remove_strays(&self, before_ms: i64, removed: &mut Removed) -> Result<(), RetentionError> {
        for (key, size_bytes) in self.strays(before_ms).await? {
            self.remove_input(key, size_bytes, removed).await?;
            removed.rows.inputs_count += 1;
        }
        Ok(())
    }

    /// Files of pictures that no row knows, with their sizes. A picture's row is written right after its file, so a file
    /// of that age without one was left by a crash. But files may also be all that is left of a lost database, or
    /// another's: whoever asks must know some picture.
    async fn strays(&self, before_ms: i64) -> Result<Vec<(ArtifactKey, u64)>, RetentionError> {
        let mut strays = Vec::new();
        for (key, size_bytes) in self.artifacts.inputs_before(before_ms).await? {
            let ArtifactKey::Input { sha256, version } = key else { continue };
            if self.store.input(&sha256).await?.is_none_or(|row| row.version != version) {
                strays.push((key, size_bytes));
            }
        }
        Ok(strays)
    }
}

#[cfg(test)]
mod tests;
