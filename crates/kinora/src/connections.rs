//! Connections: accepted up to a number, and cut where their caller is too slow to ask.
//!
//! Always true: a caller that sends nothing, or a request's head byte by byte, costs one descriptor for at most
//! [`Limits::head_time_max`]; what it may send as a head is bounded. Bodies have limits of their own in `api`. A caller
//! that stops taking its answer is cut after [`Limits::write_time_max`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

/// Descriptors left to the database, files, fetches and the listener.
const DESCRIPTORS_RESERVED: u64 = 256;
/// Where the system names no limit of descriptors.
const CONNECTIONS_MAX: u64 = 65_536;
/// Before accepting again where the system has just refused.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What callers may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open at the same time; further callers wait in the system's queue.
    pub connections_max: usize,
    /// For the head of a request, and between two requests of one connection.
    pub head_time_max: Duration,
    /// Method, path and headers of one request; more is answered 431.
    pub head_bytes_max: usize,
    /// For the system's buffer to take more of an answer. Bounds from below how fast a clip may be read: by about a
    /// third of that buffer, which is some megabytes at most, in this time.
    pub write_time_max: Duration,
}

impl Limits {
    /// As many connections as this process may open descriptors for; raises its soft limit to the hard one.
    pub fn of_this_process() -> Self {
        let descriptors = raise_descriptors().unwrap_or(CONNECTIONS_MAX);
        let connections = descriptors.saturating_sub(DESCRIPTORS_RESERVED).clamp(64, CONNECTIONS_MAX);
        Self {
            connections_max: connections as usize,
            head_time_max: Duration::from_secs(30),
            head_bytes_max: 64 << 10,
            write_time_max: Duration::from_secs(300),
        }
    }
}

/// The limit of open descriptors after raising it as far as allowed; `None` for no limit.
fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Some systems refuse more than they can count with; the number of connections bounds what is of use.
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(CONNECTIONS_MAX + DESCRIPTORS_RESERVED);
    if limit.current.is_some_and(|current| current >= wanted) {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => Some(wanted),
        Err(_) => limit.current,
    }
}

/// Answers with `router` until `stop`; then the connections that are open end after the request they are busy with.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_buf_size(limits.head_bytes_max);
    let service = TowerToHyperService::new(router);
    let open = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            (accept(&listener).await, permit)
        };
        let (stream, permit) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_time_max));
        let connection = protocol.serve_connection(TokioIo::new(Box::pin(stream)), service.clone());
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // A caller that breaks off, or breaks the protocol, has been answered as far as it can be.
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection.broken");
            }
            drop(permit);
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// The next connection. A shortage of descriptors or memory passes; until then nobody is accepted.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(error = %error, "server.cannot_accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
