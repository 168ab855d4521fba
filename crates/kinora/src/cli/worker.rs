//! `kinora worker`: makes videos for the servers that share its database and bucket.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::collector::Collector;
use super::serve::{running_max, stop_on_signals};
use super::storage::Files;
use super::{Failure, run_service};
use crate::api::Here;
use crate::artifacts::{Artifacts, Bucket, BucketSettings};
use crate::jobs::{DatabaseUrl, JobStore, StoreSettings};
use crate::models::{EngineChoice, ServeAs};
use crate::observe::{self, LogFormat};
use crate::server;
use crate::traces;
use crate::worker::{self, Worker};

/// Make videos for servers on other machines, from the queue in a PostgreSQL database and the files in a bucket.
///
/// Prints one line once it works. Any number of workers may run, and any of them may die: what one had begun is begun
/// again by another once its lease is over. Stops on SIGTERM or SIGINT as `kinora serve` does.
#[derive(Debug, Args)]
pub struct WorkerCommand {
    /// PostgreSQL database that keeps the queue, as postgres://user:password@host/name.
    #[arg(long, value_name = "URL", env = "KINORA_DATABASE_URL", hide_env_values = true)]
    database_url: Option<DatabaseUrl>,
    #[command(flatten)]
    files: Files,
    /// Folder for what is being made; the system's folder for temporary files otherwise.
    #[arg(long, value_name = "DIR", env = "KINORA_STAGING_DIR")]
    staging_dir: Option<PathBuf>,
    /// Address on which Prometheus may ask for /metrics; nowhere otherwise.
    #[arg(long, value_name = "ADDR:PORT", env = "KINORA_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    collector: Collector,
    /// Videos made at the same time; one already uses every core.
    #[arg(long, value_name = "N", env = "KINORA_WORKERS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    #[command(flatten)]
    serve_as: ServeAs,
    #[command(flatten)]
    engine: EngineChoice,
    /// Requests that one organisation may have in progress, 0 for no limit; the rest waits. The same for all workers.
    #[arg(long, value_name = "N", env = "KINORA_RUNNING_LIMIT", default_value = "0", value_parser = clap::value_parser!(i64).range(0..))]
    running_limit: i64,
    /// Attempts lost to crashes after which a request fails.
    #[arg(long, value_name = "N", env = "KINORA_ATTEMPTS_MAX", default_value = "3", value_parser = clap::value_parser!(i64).range(1..=1000))]
    attempts_max: i64,
    /// Seconds without a sign of life after which a worker counts as lost.
    #[arg(long, value_name = "S", env = "KINORA_LEASE_S", default_value = "30", value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_s: u64,
    /// Seconds that the running video may take to finish after SIGTERM before it is given back.
    #[arg(long, value_name = "S", env = "KINORA_GRACE_S", default_value = "10", value_parser = clap::value_parser!(u64).range(0..=3600))]
    grace_s: u64,
    /// What to log: a level (error, warn, info, debug) or a list such as `kinora=debug,info`.
    #[arg(long, value_name = "FILTER", env = "KINORA_LOG", default_value = "info")]
    log: String,
    /// How log lines on stderr look.
    #[arg(long, env = "KINORA_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl WorkerCommand {
    pub fn run(self) -> Result<(), Failure> {
        let (url, bucket) = self.places()?;
        observe::start(self.log_format, &self.log).map_err(|e| Failure::Usage(anyhow::anyhow!(e)))?;
        run_service(self.work(&url, &bucket))
    }

    /// The database and the bucket, without which there is nothing to share.
    fn places(&self) -> Result<(DatabaseUrl, BucketSettings), Failure> {
        let usage = |told: &'static str| Failure::Usage(anyhow::anyhow!(told));
        let url = self.database_url.clone().ok_or_else(|| {
            usage(
                "kinora worker needs --database-url postgres://…: a SQLite queue belongs to the one process that \
                 serves it, which makes its videos itself (kinora serve --workers N)",
            )
        })?;
        let bucket = self.files.bucket()?.ok_or_else(|| {
            usage("kinora worker needs --artifacts s3://bucket/prefix, the same as the servers that it works for")
        })?;
        Ok((url, bucket))
    }

    async fn work(self, url: &DatabaseUrl, bucket: &BucketSettings) -> Result<(), Failure> {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        self.collector.start()?;
        let staging = match &self.staging_dir {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        }
        .context("cannot make a folder for what is being made")?;
        let artifacts = Artifacts::open(staging.path())?.with_bucket(Some(Bucket::open(bucket).await?));
        let settings = StoreSettings {
            running_max: running_max(self.running_limit),
            attempts_max: self.attempts_max,
            ..StoreSettings::default()
        };
        let store = JobStore::open_postgres(url, settings).await?;
        let opened = self.engine.load(None, self.workers).map_err(|e| Failure::Usage(e.into()))?;
        let (engine, names) = (opened.told(), self.serve_as.names());
        let tasks = TaskTracker::new();
        if let Some(address) = self.metrics_listen {
            let listener = server::listen(address).await?;
            tracing::info!(address = %listener.local_addr()?, "metrics.listening");
            let here =
                Here { names: names.clone(), engine: Some(engine.name()), workers_count: self.workers };
            tasks.spawn(server::serve_metrics(listener, store.clone(), here, stop.clone()));
        }
        tasks.spawn(worker::sweep_leases(store.clone(), stop.clone()));
        let mut workers = JoinSet::new();
        for _ in 0..self.workers {
            let worker = Worker {
                store: store.clone(),
                artifacts: artifacts.clone(),
                engine: engine.clone(),
                names: names.clone(),
                worker_id: worker::new_id(),
                lease: Duration::from_secs(self.lease_s),
                grace: Duration::from_secs(self.grace_s),
            };
            workers.spawn(worker.run(stop.clone()));
        }
        tasks.close();
        let engine = engine.name();
        writeln!(std::io::stdout(), "working on {names} with the engine {engine}")?;
        tracing::info!(models = %names, engine, workers_count = self.workers, "worker.started");
        tasks.wait().await;
        let left = worker::all_left(workers).await;
        traces::stop().await;
        left?;
        tracing::info!("worker.stopped");
        Ok(())
    }
}
