//! A load generator: so many connections, each sending its next request when the last is answered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

/// A service under load.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: String,
    pub url: Url,
    pub key: String,
}

/// One request to be sent again and again.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    pub path: String,
    pub body: Bytes,
}

/// What a round of load came to.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub per_second: f64,
    pub p99_ms: f64,
}

/// Sends `calls`, one for each connection, until `length` is over. Any answer but 200 is an error.
pub async fn drive(target: &Target, calls: Vec<Call>, length: Duration) -> anyhow::Result<Rate> {
    let started = Instant::now();
    let until = started + length;
    let connections: Vec<_> =
        calls.into_iter().map(|call| tokio::spawn(repeat(target.clone(), call, until))).collect();
    let mut latencies = Vec::new();
    for connection in connections {
        latencies.extend(connection.await??);
    }
    let took = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100).context("no request was answered")?;
    Ok(Rate { per_second: latencies.len() as f64 / took, p99_ms: p99.as_secs_f64() * 1e3 })
}

async fn repeat(target: Target, call: Call, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::open(&target).await?;
    let mut latencies = Vec::new();
    loop {
        let sent = Instant::now();
        if sent >= until {
            return Ok(latencies);
        }
        connection.send(&call).await?;
        latencies.push(sent.elapsed());
    }
}

/// One kept connection.
#[derive(Debug)]
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    authorization: String,
}

impl Connection {
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let host = target.url.authority().to_owned();
        let stream = TcpStream::connect(&host).await.with_context(|| format!("{} at {host}", target.name))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host, authorization: format!("Bearer {}", target.key) })
    }

    /// Sends one request and reads its whole answer.
    pub async fn send(&mut self, call: &Call) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(call.method)
            .uri(&call.path)
            .header("host", &self.host)
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(Full::new(call.body.clone()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != 200 {
            bail!("{} {} was answered {status}: {}", call.method, call.path, String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}
