//! `kinora serve`: the API and its worker on one data folder.

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use kinora_engine::Engine;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::collector::Collector;
use super::gc::days;
use super::storage::{Database, Files};
use super::{Failure, run_service};
use crate::api::{BASES, MediaDelivery};
use crate::artifacts::BucketSettings;
use crate::fetch::FetchPolicy;
use crate::jobs::StoreSettings;
use crate::keys;
use crate::models::{EngineChoice, ServeAs};
use crate::observe::{self, LogFormat};
use crate::server::{Server, ServerSettings};
use crate::traces;

/// Serve the request-queue API, with a worker, on one data folder.
///
/// Prints one line with its address once it answers. Makes an API key on first start and prints it once. Stops on
/// SIGTERM or SIGINT: accepts nothing more, gives the running job a grace period, then gives it back to the queue.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", env = "KINORA_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    files: Files,
    /// Address that answered media URLs begin with; needed behind a proxy. The caller's Host header otherwise.
    #[arg(long, value_name = "URL", env = "KINORA_PUBLIC_URL", value_parser = parse_public_url)]
    public_url: Option<String>,
    /// Address on which Prometheus may ask for /metrics; nowhere otherwise.
    #[arg(long, value_name = "ADDR:PORT", env = "KINORA_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    collector: Collector,
    /// Accept and answer, but make no videos.
    #[arg(long, env = "KINORA_NO_WORKER")]
    no_worker: bool,
    /// Videos made at the same time; one already uses every core.
    #[arg(long, value_name = "N", env = "KINORA_WORKERS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    #[command(flatten)]
    serve_as: ServeAs,
    #[command(flatten)]
    engine: EngineChoice,
    /// Network that image URLs may lead to although it is not public (CIDR); repeat for more.
    #[arg(long, value_name = "NET", env = "KINORA_ALLOW_FETCH_FROM", value_delimiter = ',')]
    allow_fetch_from: Vec<IpNet>,
    /// Requests that one organisation may have waiting; more are answered 429.
    #[arg(long, value_name = "N", env = "KINORA_QUEUE_LIMIT", default_value = "1000", value_parser = clap::value_parser!(i64).range(1..))]
    queue_limit: i64,
    /// Requests that one organisation may have in progress, 0 for no limit; the rest waits.
    #[arg(long, value_name = "N", env = "KINORA_RUNNING_LIMIT", default_value = "0", value_parser = clap::value_parser!(i64).range(0..))]
    running_limit: i64,
    /// HTTP requests a second for each key, 0 for no limit; more are answered 429.
    #[arg(long, value_name = "N", env = "KINORA_RATE_LIMIT", default_value = "0")]
    rate_limit: u32,
    /// Attempts lost to crashes after which a request fails.
    #[arg(long, value_name = "N", env = "KINORA_ATTEMPTS_MAX", default_value = "3", value_parser = clap::value_parser!(i64).range(1..=1000))]
    attempts_max: i64,
    /// Seconds without a sign of life after which a worker counts as lost.
    #[arg(long, value_name = "S", env = "KINORA_LEASE_S", default_value = "30", value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_s: u64,
    /// Days that ended requests, their clips and unused pictures are kept, 0 for ever.
    #[arg(long, value_name = "DAYS", env = "KINORA_KEEP_DAYS", default_value = "0", value_parser = clap::value_parser!(u64).range(0..=36500))]
    keep_days: u64,
    /// Hours that media URLs stay valid, at least.
    #[arg(long, value_name = "H", env = "KINORA_MEDIA_TTL_H", default_value = "168", value_parser = clap::value_parser!(u64).range(24..=87600))]
    media_ttl_h: u64,
    /// How callers get files that lie in a bucket.
    #[arg(long, env = "KINORA_MEDIA_DELIVERY", value_enum, default_value = "stream")]
    media_delivery: MediaDelivery,
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

/// The limit that 0 lifts.
pub(super) fn running_max(limit: i64) -> i64 {
    if limit == 0 { i64::MAX } else { limit }
}

fn parse_public_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain {
        Ok(text.to_owned())
    } else {
        Err("must be an http or https URL without user, query or fragment".to_owned())
    }
}

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        observe::start(self.log_format, &self.log).map_err(|e| Failure::Usage(anyhow::anyhow!(e)))?;
        run_service(self.serve())
    }

    async fn serve(self) -> Result<(), Failure> {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        self.collector.start()?;
        let engine = self.engine()?;
        let name = engine.as_ref().map(|engine| engine.name());
        let server = Server::bind(self.settings(engine)?).await?;
        let origin = self.public_url.clone().unwrap_or_else(|| format!("http://{}", server.address()));
        self.greet(&server, &origin, name).await?;
        let served = server.run(stop).await;
        traces::stop().await;
        served?;
        tracing::info!("server.stopped");
        Ok(())
    }

    /// What makes videos here. Without workers nothing is opened: a server for a fleet need not have the weights.
    fn engine(&self) -> Result<Option<Arc<dyn Engine>>, Failure> {
        if self.no_worker {
            return Ok(None);
        }
        let opened = self.engine.load(None, self.workers).map_err(|e| Failure::Usage(e.into()))?;
        Ok(Some(opened.told()))
    }

    fn settings(&self, engine: Option<Arc<dyn Engine>>) -> Result<ServerSettings, Failure> {
        Ok(ServerSettings {
            listen: self.listen,
            data_dir: self.database.data.data_dir.clone(),
            database_url: self.database.database_url.clone(),
            bucket: self.bucket()?,
            metrics_listen: self.metrics_listen,
            public_url: self.public_url.clone(),
            engine,
            names: self.serve_as.names(),
            workers_count: self.workers,
            fetch: FetchPolicy { allow: self.allow_fetch_from.clone(), ..FetchPolicy::default() },
            store: StoreSettings {
                queued_max: self.queue_limit,
                running_max: running_max(self.running_limit),
                attempts_max: self.attempts_max,
                ..StoreSettings::default()
            },
            rate_per_second: NonZeroU32::new(self.rate_limit),
            keep: (self.keep_days > 0).then(|| days(self.keep_days)),
            media_ttl: Duration::from_secs(self.media_ttl_h * 3600),
            lease: Duration::from_secs(self.lease_s),
            media_delivery: self.media_delivery,
            grace: Duration::from_secs(self.grace_s),
        })
    }

    fn bucket(&self) -> Result<Option<BucketSettings>, Failure> {
        let bucket = self.files.bucket()?;
        if bucket.is_none() && self.database.database_url.is_some() {
            let told = "with --database-url several processes may serve, so files must lie where all of them reach \
                        them: give --artifacts s3://bucket/prefix as well";
            return Err(Failure::Usage(anyhow::anyhow!(told)));
        }
        Ok(bucket)
    }

    /// Tells where the server is, and on first start how to use it.
    async fn greet(&self, server: &Server, origin: &str, engine: Option<&str>) -> Result<(), Failure> {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "listening on http://{}", server.address())?;
        if server.store().keys().await?.is_empty() {
            let key = keys::create(server.store(), "default", "default").await?;
            writeln!(stdout, "made the first API key, shown only this once: {}", key.reveal())?;
            writeln!(stdout, "try it:\n{}", curl(origin, key.reveal(), self.serve_as.names().first()))?;
        }
        tracing::info!(
            address = %server.address(), data_dir = %self.database.data.data_dir.display(),
            engine, models = %self.serve_as.names(), documents = format!("{origin}/docs"), "server.started"
        );
        Ok(())
    }
}

/// A command that submits a local picture.
fn curl(origin: &str, key: &str, model: &str) -> String {
    let base = BASES[0];
    format!(
        "  base64 -w0 photo.jpg | sed 's/.*/{{\"model\": \"{model}\", \"payload\": {{\"prompt\": \"slow push in\", \
         \"image\": \"&\"}}}}/' |\n  curl -H 'Authorization: Bearer {key}' --data-binary @- {origin}{base}/requests"
    )
}

/// SIGTERM and SIGINT stop in order; a second one stops at once.
pub(super) fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("server.stopped_at_once");
                std::process::exit(i32::from(super::EXIT_INTERRUPTED));
            }
            tracing::info!("server.stopping");
            stop.cancel();
        }
    });
    Ok(())
}
