//! A serving process: store, data folder, API and workers, from start to an orderly end.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kinora_engine::Engine;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, App, Here, KeyRing, MediaDelivery, Origin};
use crate::artifacts::{Artifacts, Bucket, BucketSettings, DataDirLock};
use crate::capability::Signer;
use crate::clock;
use crate::connections::{self, Limits};
use crate::fetch::{FetchPolicy, Fetcher};
use crate::intake::Intake;
use crate::jobs::{DatabaseUrl, JobStore, StoreSettings};
use crate::models::ModelNames;
use crate::retention::Retention;
use crate::sweep::sweep_outputs;
use crate::telemetry;
use crate::worker::{self, Worker};

/// How a server serves.
#[derive(Debug)]
pub struct ServerSettings {
    pub listen: SocketAddr,
    pub data_dir: std::path::PathBuf,
    /// Where the queue is kept; a file in the data folder where `None`.
    pub database_url: Option<DatabaseUrl>,
    /// Where files are kept; the data folder where `None`.
    pub bucket: Option<BucketSettings>,
    /// Where Prometheus may ask; nowhere where `None`.
    pub metrics_listen: Option<SocketAddr>,
    pub public_url: Option<String>,
    /// What makes videos here; nothing where `None`.
    pub engine: Option<Arc<dyn Engine>>,
    /// Which models requests may ask for.
    pub names: ModelNames,
    /// How many videos it makes at the same time.
    pub workers_count: u32,
    pub fetch: FetchPolicy,
    pub store: StoreSettings,
    pub rate_per_second: Option<NonZeroU32>,
    /// How long ended requests, their clips and unused pictures are kept; for ever where `None`.
    pub keep: Option<Duration>,
    pub media_ttl: Duration,
    pub media_delivery: MediaDelivery,
    pub lease: Duration,
    pub grace: Duration,
}

/// A server that is bound and has recovered what a crash left, but does not answer yet.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    listener: TcpListener,
    address: SocketAddr,
    metrics_listener: Option<TcpListener>,
    artifacts: Artifacts,
    store: JobStore,
    _lock: DataDirLock,
}

impl Server {
    /// Takes the data folder and the address. Jobs that a crash left in progress go back to the queue.
    pub async fn bind(settings: ServerSettings) -> anyhow::Result<Self> {
        let artifacts = Artifacts::open(&settings.data_dir)?;
        let lock = artifacts.folder().lock()?;
        let bucket = match &settings.bucket {
            Some(bucket) => Some(Bucket::open(bucket).await?),
            None => None,
        };
        let artifacts = artifacts.with_bucket(bucket);
        let store = match &settings.database_url {
            Some(url) => JobStore::open_postgres(url, settings.store).await?,
            None => JobStore::open(&artifacts.folder().database(), settings.store).await?,
        };
        store.recover(store.now_ms()).await?.iter().for_each(worker::log_lost);
        let listener = listen(settings.listen).await?;
        let address = listener.local_addr()?;
        let metrics_listener = match settings.metrics_listen {
            Some(address) => {
                telemetry::start();
                Some(listen(address).await?)
            }
            None => None,
        };
        Ok(Self { settings, listener, address, metrics_listener, artifacts, store, _lock: lock })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where Prometheus may ask.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    pub fn store(&self) -> &JobStore {
        &self.store
    }

    /// Serves until `stop`: then no request is accepted any more, and running jobs finish within the grace period or
    /// are given back. Ends with an error once its engine cannot compute any more.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let tasks = TaskTracker::new();
        tasks.spawn(worker::sweep_leases(self.store.clone(), stop.clone()));
        tasks.spawn(sweep_outputs(self.store.clone(), self.artifacts.clone(), stop.clone()));
        if let Some(keep) = self.settings.keep {
            let (store, artifacts) = (self.store.clone(), self.artifacts.clone());
            tasks.spawn(Retention { store, artifacts, keep }.run(stop.clone()));
        }
        let mut workers = JoinSet::new();
        for worker in self.workers() {
            workers.spawn(worker.run(stop.clone()));
        }
        if let Some(listener) = self.metrics_listener.take() {
            let here = Here {
                names: self.settings.names.clone(),
                engine: self.settings.engine.as_ref().map(|engine| engine.name()),
                workers_count: self.settings.workers_count,
            };
            tasks.spawn(serve_metrics(listener, self.store.clone(), here, stop.clone()));
        }
        tasks.close();
        let router = api::router(self.app(stop.clone())?);
        let answering = connections::serve(self.listener, router, Limits::of_this_process(), stop.clone());
        // A caller that keeps its connection busy must not hold up the end.
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(self.settings.grace).await;
        };
        tokio::select! {
            () = answering => {}
            () = patience => tracing::warn!("server.connections_cut"),
        }
        tasks.wait().await;
        Ok(worker::all_left(workers).await?)
    }

    fn workers(&self) -> impl Iterator<Item = Worker> {
        let engines = self.settings.engine.iter().cycle().take(self.settings.workers_count as usize);
        engines.map(|engine| Worker {
            store: self.store.clone(),
            artifacts: self.artifacts.clone(),
            engine: engine.clone(),
            names: self.settings.names.clone(),
            worker_id: worker::new_id(),
            lease: self.settings.lease,
            grace: self.settings.grace,
        })
    }

    fn app(&self, stop: CancellationToken) -> anyhow::Result<App> {
        let secret = match self.store.shared_secret() {
            Some(secret) => secret,
            None => self.artifacts.folder().secret()?,
        };
        let signer = Signer::new(secret);
        let fetcher = Fetcher::new(self.settings.fetch.clone());
        Ok(App {
            intake: Intake::new(self.store.clone(), self.artifacts.clone(), signer, fetcher),
            engine: self.settings.engine.clone(),
            names: self.settings.names.clone(),
            public: self.settings.public_url.as_deref().map(Origin::new),
            listen: self.address.to_string(),
            media_delivery: self.settings.media_delivery,
            media_ttl_s: self.settings.media_ttl.as_secs() as i64,
            started_at_s: clock::wall_ms() / 1000,
            keys: KeyRing::new(self.settings.rate_per_second),
            stop,
        })
    }
}

/// Takes an address, or says which one cannot be had.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| anyhow::anyhow!("cannot listen on {address}: {e}"))
}

/// Answers Prometheus until `stop`.
pub async fn serve_metrics(listener: TcpListener, store: JobStore, here: Here, stop: CancellationToken) {
    let answering = axum::serve(listener, api::metrics_router(store, here)).into_future();
    tokio::select! {
        served = answering => if let Err(error) = served {
            tracing::error!(%error, "metrics.serving_failed");
        },
        () = stop.cancelled() => {}
    }
}
