//! A serving process: store, data folder, API and workers, from start to an orderly end.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kinora_engine::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, App, KeyRing, MediaDelivery, Origin};
use crate::artifacts::{Artifacts, Bucket, BucketSettings, DataDirLock};
use crate::capability::Signer;
use crate::clock;
use crate::connections::{self, Limits};
use crate::fetch::{FetchPolicy, Fetcher};
use crate::intake::Intake;
use crate::jobs::{JobStore, StoreSettings};
use crate::keys::random_bytes;
use crate::sweep::sweep_outputs;
use crate::worker::{self, Worker};

/// How a server serves.
#[derive(Debug)]
pub struct ServerSettings {
    pub listen: SocketAddr,
    pub data_dir: std::path::PathBuf,
    /// Where files are kept; the data folder where `None`.
    pub bucket: Option<BucketSettings>,
    pub public_url: Option<String>,
    pub engine: Arc<dyn Engine>,
    pub workers_count: u32,
    pub fetch: FetchPolicy,
    pub store: StoreSettings,
    pub rate_per_second: Option<NonZeroU32>,
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
        let store = JobStore::open(&artifacts.folder().database(), settings.store).await?;
        store.expire_leases(None, clock::wall_ms()).await?.iter().for_each(worker::log_lost);
        let listener = TcpListener::bind(settings.listen)
            .await
            .map_err(|e| anyhow::anyhow!("cannot listen on {}: {e}", settings.listen))?;
        let address = listener.local_addr()?;
        Ok(Self { settings, listener, address, artifacts, store, _lock: lock })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn store(&self) -> &JobStore {
        &self.store
    }

    /// Serves until `stop`: then no request is accepted any more, and running jobs finish within the grace period or
    /// are given back.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let tasks = TaskTracker::new();
        tasks.spawn(worker::sweep_leases(self.store.clone(), stop.clone()));
        tasks.spawn(sweep_outputs(self.store.clone(), self.artifacts.clone(), stop.clone()));
        for _ in 0..self.settings.workers_count {
            tasks.spawn(self.worker().run(stop.clone()));
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
        Ok(())
    }

    fn worker(&self) -> Worker {
        Worker {
            store: self.store.clone(),
            artifacts: self.artifacts.clone(),
            engine: self.settings.engine.clone(),
            worker_id: format!("worker-{:08x}", u32::from_be_bytes(random_bytes())),
            lease: self.settings.lease,
            grace: self.settings.grace,
        }
    }

    fn app(&self, stop: CancellationToken) -> anyhow::Result<App> {
        let signer = Signer::new(self.artifacts.folder().secret()?);
        let fetcher = Fetcher::new(self.settings.fetch.clone());
        Ok(App {
            intake: Intake::new(self.store.clone(), self.artifacts.clone(), signer, fetcher),
            engine: self.settings.engine.clone(),
            public: self.settings.public_url.as_deref().map(Origin::new),
            listen: self.address.to_string(),
            media_delivery: self.settings.media_delivery,
            media_ttl_s: self.settings.media_ttl.as_secs() as i64,
            workers_count: self.settings.workers_count,
            started_at_s: clock::wall_ms() / 1000,
            keys: KeyRing::new(self.settings.rate_per_second),
            stop,
        })
    }
}
