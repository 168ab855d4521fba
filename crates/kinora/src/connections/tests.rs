use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::*;

const LIMITS: Limits = Limits {
    connections_max: 4,
    head_time_max: Duration::from_millis(300),
    head_bytes_max: 8192,
    write_time_max: Duration::from_millis(800),
};
/// More than the buffers of both ends take.
const LONG_BYTES: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    serving: AbortOnDropHandle<()>,
}

async fn served() -> Served {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                "slow"
            }),
        )
        .route("/long", get(|| async { vec![b'a'; LONG_BYTES] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, router, LIMITS, stop.clone())));
    Served { address, stop, serving }
}

impl Served {
    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.open().await;
        stream.write_all(request).await.unwrap();
        read_to_end(&mut stream).await
    }
}

/// What comes until the server closes; a reset counts as closing.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(PATIENCE, reading).await.expect("the server closes the connection");
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_caller_that_says_nothing_or_too_slowly_is_cut() {
    let served = served().await;
    let began = Instant::now();
    let mut silent = served.open().await;
    assert_eq!(read_to_end(&mut silent).await, "");
    assert!(began.elapsed() >= LIMITS.head_time_max);

    let mut slow = served.open().await;
    let dribble = async {
        for byte in b"GET / HTTP/1.1\r\nhost: x\r\n".iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dribble).await.expect("writing fails once the server has closed");
}

#[tokio::test]
async fn a_kept_connection_is_cut_when_it_stays_idle() {
    let served = served().await;
    let mut kept = served.open().await;
    kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut kept).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_caller_that_stops_taking_its_answer_is_cut_and_one_that_pauses_is_not() {
    let served = served().await;
    let request = b"GET /long HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut stalled = served.open().await;
    stalled.write_all(request).await.unwrap();
    tokio::time::sleep(LIMITS.write_time_max * 2).await;
    assert!(read_to_end(&mut stalled).await.len() < LONG_BYTES);

    let mut pausing = served.open().await;
    pausing.write_all(request).await.unwrap();
    tokio::time::sleep(LIMITS.write_time_max / 4).await;
    assert!(read_to_end(&mut pausing).await.len() > LONG_BYTES);
}

#[tokio::test]
async fn a_head_too_long_is_refused() {
    let served = served().await;
    let long = "x".repeat(LIMITS.head_bytes_max);
    let answer = served.answer(format!("GET / HTTP/1.1\r\nhost: x\r\na: {long}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer = served.answer(b"\x16\x03\x01 this is not http\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn callers_beyond_the_number_wait_and_are_served() {
    let served = served().await;
    let mut idle = Vec::new();
    for _ in 0..LIMITS.connections_max * 3 {
        idle.push(served.open().await);
    }
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(served.answer(request).await.ends_with("hello"));
}

#[tokio::test]
async fn the_end_waits_for_the_request_at_hand_and_not_for_idle_callers() {
    let served = served().await;
    let mut busy = served.open().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.stop.cancel();
    assert!(read_to_end(&mut busy).await.ends_with("slow"));
    tokio::time::timeout(PATIENCE, served.serving).await.expect("serving ends").unwrap();
}
