//! Files in an S3-compatible bucket, against `s3s-fs`, whose program `KINORA_TEST_S3S_FS` names.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use kinora::api::MediaDelivery;
use kinora::artifacts::{Bucket, BucketSettings};
use serde_json::{Value, json};

use crate::server::{TestServer, picture_base64};

const BUCKET: &str = "clips";
const KEYS: (&str, &str) = ("test-key-id", "test-secret");

/// An S3 server on a folder of its own.
pub struct S3 {
    child: Option<Child>,
    port: u16,
    pub folder: tempfile::TempDir,
}

impl S3 {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut s3 = Self { child: None, port, folder };
        s3.resume();
        s3
    }

    pub fn resume(&mut self) {
        let program =
            std::env::var_os("KINORA_TEST_S3S_FS").expect("KINORA_TEST_S3S_FS names the program s3s-fs");
        let child = Command::new(program)
            .args(["--access-key", KEYS.0, "--secret-key", KEYS.1, "--host", "127.0.0.1", "--port"])
            .arg(self.port.to_string())
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "s3s-fs does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn settings(&self) -> BucketSettings {
        BucketSettings {
            url: format!("s3://{BUCKET}/some/prefix").parse().unwrap(),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port).parse().unwrap()),
            region: Some("us-east-1".into()),
            keys: Some((KEYS.0.into(), KEYS.1.into())),
            path_style: true,
        }
    }

    /// The names of all objects under the prefix.
    pub fn objects(&self) -> Vec<String> {
        let root = self.folder.path().join(BUCKET).join("some/prefix");
        let mut names: Vec<_> = files_below(&root)
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
            .filter(|name| !name.rsplit('/').next().unwrap().starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

async fn server_on(s3: &S3, delivery: MediaDelivery) -> TestServer {
    let bucket = s3.settings();
    TestServer::start_with(move |settings| {
        settings.bucket = Some(bucket);
        settings.media_delivery = delivery;
    })
    .await
}

/// A plain GET of an absolute URL: status, headers' `content-type`, body.
async fn fetch(url: &str, range: Option<&str>) -> (u16, String, Bytes) {
    let url = url::Url::parse(url).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let path = &url[url::Position::BeforePath..];
    let mut request = hyper::Request::builder().uri(path).header("host", &address);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let answer = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let content_type =
        answer.headers().get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
    (status, content_type, answer.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
#[ignore = "needs s3s-fs: `scripts/test fleet` installs it"]
async fn clips_in_a_bucket_are_streamed_with_ranges_and_validators() {
    let s3 = S3::start();
    let server = server_on(&s3, MediaDelivery::Stream).await;
    let id = server.accepted().await;
    let record = server.finished(&id).await;
    assert_eq!(record["status"], "success", "{record}");
    let objects = s3.objects();
    assert_eq!(objects.len(), 3, "{objects:?}");
    assert!(objects[0].starts_with("inputs/"), "{objects:?}");
    assert_eq!(objects[1], format!("outputs/{id}/1/thumbnail.jpg"));
    assert_eq!(objects[2], format!("outputs/{id}/1/video.mp4"));
    for folder in ["inputs", "outputs", "staging"] {
        assert!(
            files_below(&server.folder.path().join(folder)).is_empty(),
            "the data folder's {folder} stays empty"
        );
    }

    let url = &record["outcome"]["video_url"];
    let whole = server.open(url, "GET", &[]).await;
    assert_eq!((whole.status, whole.header("content-type")), (200, "video/mp4"));
    assert_eq!(whole.body.len() as u64, record["outcome"]["size_bytes"].as_u64().unwrap());
    let on_disk = std::fs::read(s3.folder.path().join(BUCKET).join("some/prefix").join(&objects[2])).unwrap();
    assert_eq!(whole.body, on_disk);
    let part = server.open(url, "GET", &[("range", "bytes=100-199")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &whole.body[100..200]));
    assert_eq!(part.header("content-range"), format!("bytes 100-199/{}", whole.body.len()));
    let head = server.open(url, "HEAD", &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), whole.body.len().to_string());
    let same = server.open(url, "GET", &[("if-none-match", whole.header("etag"))]).await;
    assert_eq!(same.status, 304);
    let beyond = server.open(url, "GET", &[("range", "bytes=99999999-")]).await;
    assert_eq!(beyond.status, 416);

    let again = server.submit(json!({"image": record["outcome"]["thumbnail_image_url"]})).await;
    assert_eq!(
        again.status, 400,
        "the test card's thumbnail is too small, but it was found: {:?}",
        again.body
    );
    let input = server.submit(json!({"image": record["payload"]["image"]})).await;
    assert_eq!(input.status, 200, "the stored input is read from the bucket: {:?}", input.body);
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs s3s-fs: `scripts/test fleet` installs it"]
async fn callers_are_sent_to_the_bucket_itself_where_the_operator_chose_so() {
    let s3 = S3::start();
    let server = server_on(&s3, MediaDelivery::Redirect).await;
    let id = server.accepted().await;
    let record = server.finished(&id).await;
    let sent = server.open(&record["outcome"]["video_url"], "GET", &[]).await;
    assert_eq!(sent.status, 307, "{record}");
    let url = sent.header("location").to_owned();
    let (status, content_type, body) = fetch(&url, None).await;
    assert_eq!((status, content_type.as_str()), (200, "video/mp4"));
    assert_eq!(body.len() as u64, record["outcome"]["size_bytes"].as_u64().unwrap());
    let (status, _, part) = fetch(&url, Some("bytes=5-9")).await;
    assert_eq!((status, &part[..]), (206, &body[5..10]));
    let forged = url.replace("video.mp4", "thumbnail.jpg");
    assert_eq!(fetch(&forged, None).await.0, 403, "a signature opens one file");
    let head = server.open(&record["outcome"]["video_url"], "HEAD", &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, body.len().to_string().as_str()));
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs s3s-fs: `scripts/test fleet` installs it"]
async fn a_bucket_that_does_not_answer_is_said_and_waited_for() {
    let mut s3 = S3::start();
    let server = server_on(&s3, MediaDelivery::Stream).await;
    let id = server.accepted().await;
    let record = server.finished(&id).await;
    s3.stop();
    let media = server.open(&record["outcome"]["video_url"], "GET", &[]).await;
    assert_eq!((media.status, &media.json()["code"]), (503, &json!("unavailable")));
    let known = server.submit(json!({"image": picture_base64()})).await;
    assert_eq!(known.status, 200, "a known picture needs no bucket to be accepted");
    let known: Value = known.json();
    s3.resume();
    let done = server.finished(known["request_id"].as_str().unwrap()).await;
    assert_eq!(done["status"], "success", "{done}");
    assert_eq!(server.open(&record["outcome"]["video_url"], "GET", &[]).await.status, 200);
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs s3s-fs: `scripts/test fleet` installs it"]
async fn wrong_keys_and_missing_buckets_are_refused_at_start() {
    let s3 = S3::start();
    let wrong_keys = BucketSettings { keys: Some((KEYS.0.into(), "wrong".into())), ..s3.settings() };
    let error = Bucket::open(&wrong_keys).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot list clips in the bucket"), "{error}");
    let missing = BucketSettings { url: "s3://nowhere".parse().unwrap(), ..s3.settings() };
    assert!(Bucket::open(&missing).await.is_err());
    Bucket::open(&s3.settings()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs s3s-fs: `scripts/test fleet` installs it"]
async fn what_lost_attempts_left_in_the_bucket_is_swept_and_nothing_else() {
    let s3 = S3::start();
    let server = server_on(&s3, MediaDelivery::Stream).await;
    let id = server.accepted().await;
    server.finished(&id).await;
    let folder = server.folder.clone();
    server.stop().await;
    let outputs = s3.folder.path().join(BUCKET).join("some/prefix/outputs");
    let (lost, unknown) =
        (outputs.join(&id).join("7"), outputs.join(uuid::Uuid::now_v7().to_string()).join("1"));
    for attempt in [&lost, &unknown] {
        std::fs::create_dir_all(attempt).unwrap();
        std::fs::write(attempt.join("video.mp4"), b"left behind").unwrap();
    }
    let bucket = s3.settings();
    let server =
        TestServer::start_on(Arc::clone(&folder), move |settings| settings.bucket = Some(bucket)).await;
    let started = Instant::now();
    while lost.join("video.mp4").exists() {
        assert!(started.elapsed() < Duration::from_secs(20), "the lost attempt stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(unknown.join("video.mp4").exists(), "what no job is known for stays");
    assert!(outputs.join(&id).join("1/video.mp4").exists(), "the outcome stays");
    server.stop().await;
}
