//! A server in this process on a free port and a temporary folder, and a plain client for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use kinora::api::MediaDelivery;
use kinora::fetch::FetchPolicy;
use kinora::jobs::{JobStore, StoreSettings};
use kinora::models::ModelNames;
use kinora::server::{Server, ServerSettings};
use kinora_engine::{Engine, PatternEngine, Picture};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub const BASE: &str = "/api/v1/ie/requestqueue/apikey";
pub const MODEL: &str = "Kling-Image2Video-V2.1-Standard";

pub struct TestServer {
    pub address: SocketAddr,
    pub store: JobStore,
    pub folder: Arc<tempfile::TempDir>,
    pub key: String,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub fn settings(folder: &tempfile::TempDir) -> ServerSettings {
    ServerSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: folder.path().to_owned(),
        database_url: None,
        bucket: None,
        metrics_listen: None,
        public_url: None,
        engine: Some(Arc::new(PatternEngine)),
        names: ModelNames::default(),
        workers_count: 1,
        fetch: FetchPolicy::default(),
        store: StoreSettings::default(),
        rate_per_second: None,
        media_delivery: MediaDelivery::Stream,
        keep: None,
        media_ttl: Duration::from_secs(24 * 3600),
        lease: Duration::from_secs(30),
        grace: Duration::from_secs(5),
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Accepts, but works on nothing.
    pub async fn start_idle() -> Self {
        Self::start_with(|settings| settings.engine = None).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ServerSettings)) -> Self {
        Self::start_on(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    pub async fn start_on(folder: Arc<tempfile::TempDir>, change: impl FnOnce(&mut ServerSettings)) -> Self {
        let mut settings = settings(&folder);
        change(&mut settings);
        let server = Server::bind(settings).await.unwrap();
        let (address, store) = (server.address(), server.store().clone());
        let key = kinora::keys::create(&store, "org", "user").await.unwrap().reveal().to_owned();
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { server.run(stop).await }
        });
        Self { address, store, folder, key, stop, running }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.ended().await.unwrap();
    }

    /// How it ended, once it did.
    pub async fn ended(self) -> anyhow::Result<()> {
        self.running.await.unwrap()
    }

    pub async fn key_of(&self, org: &str) -> String {
        kinora::keys::create(&self.store, org, "user").await.unwrap().reveal().to_owned()
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request =
            hyper::Request::builder().method(method).uri(path).header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn call_as(&self, key: &str, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(method, path, &[("authorization", &format!("Bearer {key}"))], body).await
    }

    pub async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let key = self.key.clone();
        self.call_as(&key, method, path, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", &format!("{BASE}{path}"), "").await
    }

    /// GETs an absolute URL of this server without a key.
    pub async fn open(&self, url: &Value, method: &str, headers: &[(&str, &str)]) -> Answer {
        let url = url.as_str().unwrap();
        let path = url.strip_prefix(&format!("http://{}", self.address)).unwrap_or_else(|| panic!("{url}"));
        self.send(method, path, headers, "").await
    }

    pub async fn submit(&self, payload: Value) -> Answer {
        let body = json!({"model": MODEL, "payload": payload}).to_string();
        self.call("POST", &format!("{BASE}/requests"), body).await
    }

    pub async fn accepted(&self) -> String {
        let answer = self.submit(json!({"image": picture_base64()})).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()["request_id"].as_str().unwrap().to_owned()
    }

    pub async fn record(&self, id: &str) -> Value {
        let answer = self.get(&format!("/requests/{id}")).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()
    }

    pub async fn until(&self, id: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let record = self.record(id).await;
            if reached(&record) {
                return record;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "still {record}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn finished(&self, id: &str) -> Value {
        self.until(id, |record| !matches!(record["status"].as_str(), Some("queued" | "processing"))).await
    }
}

/// A valid JPEG of 320 by 300 pixels.
pub fn picture_bytes() -> Vec<u8> {
    let rgb = (0..320 * 300 * 3).map(|at| (at / 960) as u8).collect();
    kinora_media::thumbnail_jpeg(&Picture::new(320, 300, rgb).unwrap(), 320).unwrap()
}

pub fn picture_base64() -> String {
    base64::engine::general_purpose::STANDARD.encode(picture_bytes())
}

/// Cannot compute any more.
#[derive(Debug)]
pub struct BrokenEngine;

impl Engine for BrokenEngine {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn description(&self) -> &'static str {
        "Computes nothing."
    }

    fn clip_format(
        &self,
        width_px: u32,
        height_px: u32,
        spec: &kinora_engine::GenerateSpec,
    ) -> kinora_engine::ClipFormat {
        PatternEngine.clip_format(width_px, height_px, spec)
    }

    fn generate(
        &self,
        _: &kinora_engine::GenerateSpec,
        _: &Picture,
        _: &mut dyn kinora_engine::FrameSink,
        _: &dyn kinora_engine::Monitor,
    ) -> Result<kinora_engine::Generated, kinora_engine::EngineError> {
        self.probe().map(|()| unreachable!("it is broken"))
    }

    fn probe(&self) -> Result<(), kinora_engine::EngineError> {
        Err(kinora_engine::EngineError::Device("the card fell off the bus".into()))
    }
}

/// Makes the same clip as the test card, but waits before each frame until `gate` lets it.
#[derive(Debug)]
pub struct GatedEngine {
    pub gate: Arc<tokio::sync::Semaphore>,
}

impl Engine for GatedEngine {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn description(&self) -> &'static str {
        "Waits to be let go."
    }

    fn clip_format(
        &self,
        width_px: u32,
        height_px: u32,
        spec: &kinora_engine::GenerateSpec,
    ) -> kinora_engine::ClipFormat {
        PatternEngine.clip_format(width_px, height_px, spec)
    }

    fn generate(
        &self,
        spec: &kinora_engine::GenerateSpec,
        picture: &Picture,
        sink: &mut dyn kinora_engine::FrameSink,
        monitor: &dyn kinora_engine::Monitor,
    ) -> Result<kinora_engine::Generated, kinora_engine::EngineError> {
        monitor.progress(kinora_engine::Progress { stage: "gate", done: 0, total: 1 });
        loop {
            if monitor.is_cancelled() {
                return Err(kinora_engine::EngineError::Cancelled);
            }
            if let Ok(permit) = self.gate.try_acquire() {
                permit.forget();
                return PatternEngine.generate(spec, picture, sink, monitor);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
