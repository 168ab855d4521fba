//! `kinora gc`: removes what ended long ago, or says what it would remove.

use std::time::Duration;

use clap::Args;

use super::storage::{Database, Files, kept};
use super::{Failure, runtime};
use crate::artifacts::{Artifacts, Bucket, DataFolder, Volume};
use crate::jobs::{Expired, StoreSettings};
use crate::retention::{Removed, Retention};

/// Remove what ended long ago, as `kinora serve --keep-days` does by itself: requests, their clips, unused pictures.
///
/// Give it the same --database-url and --artifacts as the server. A data folder must not be served meanwhile, but for
/// --dry-run; with PostgreSQL it may run beside servers and workers.
#[derive(Debug, Args)]
pub struct Gc {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    files: Files,
    /// Days that ended requests, their clips and unused pictures are kept.
    #[arg(long, value_name = "DAYS", env = "KINORA_KEEP_DAYS", value_parser = clap::value_parser!(u64).range(1..=36500))]
    keep_days: u64,
    /// Remove nothing; print how much would go.
    #[arg(long, env = "KINORA_DRY_RUN")]
    dry_run: bool,
}

/// Days as a length of time.
pub(super) fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

fn said(count: Expired) -> String {
    let Expired { jobs_count, uploads_count, inputs_count } = count;
    format!("{jobs_count} requests, {uploads_count} uploads, {inputs_count} pictures")
}

impl Gc {
    pub fn run(self) -> Result<(), Failure> {
        runtime()?.block_on(self.collect())
    }

    #[expect(clippy::print_stdout, reason = "the command's result")]
    async fn collect(self) -> Result<(), Failure> {
        let file = DataFolder::database_in(&self.database.data.data_dir);
        if self.database.database_url.is_none() && !file.exists() {
            let problem = format!(
                "there is no database at {}; give --database-url or another --data-dir",
                file.display()
            );
            return Err(Failure::Usage(anyhow::Error::msg(problem)));
        }
        let artifacts = Artifacts::open(&self.database.data.data_dir)?;
        let is_alone = self.database.database_url.is_none() && !self.dry_run;
        let _lock = is_alone.then(|| artifacts.folder().lock()).transpose()?;
        let bucket = match self.files.bucket()? {
            Some(bucket) => Some(Bucket::open(&bucket).await?),
            None => None,
        };
        // Who holds the folder alone may bring its database up to date.
        let settings = if is_alone { StoreSettings::default() } else { kept() };
        let store = self.database.open(settings).await?;
        let artifacts = artifacts.with_bucket(bucket);
        let retention = Retention { store, artifacts, keep: days(self.keep_days) };
        if self.dry_run {
            println!("would remove {}", said(retention.survey(true).await?));
        } else {
            let Removed { rows, files: Volume { files_count, size_bytes } } = retention.remove(true).await?;
            println!("removed {}: {files_count} files, {size_bytes} bytes", said(rows));
        }
        Ok(())
    }
}
