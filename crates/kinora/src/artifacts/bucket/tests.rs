use std::sync::Mutex;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::artifacts::Artifacts;

#[test]
fn addresses_of_buckets_are_read_strictly() {
    let parsed = |text: &str| text.parse::<BucketUrl>().map(|url| (url.bucket, url.prefix));
    assert_eq!(parsed("s3://clips"), Ok(("clips".into(), String::new())));
    assert_eq!(parsed("s3://clips/a/b/"), Ok(("clips".into(), "a/b".into())));
    for wrong in
        ["", "clips", "s3://", "s3:///a", "https://clips", "s3://clips/a//b", "s3://clips/../b", "s3://c?x"]
    {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
}

/// A bucket that lets an upload in parts begin and refuses all else for good, and what it was asked.
async fn refusing() -> (Bucket, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream, noted.clone()));
        }
    });
    let settings = BucketSettings {
        url: "s3://clips".parse().unwrap(),
        endpoint: Some(endpoint.parse().unwrap()),
        region: Some("us-east-1".into()),
        keys: Some(("id".into(), "secret".into())),
        path_style: true,
    };
    (Bucket::connect(&settings).unwrap(), asked)
}

async fn refuse(mut stream: TcpStream, noted: Arc<Mutex<Vec<String>>>) {
    let mut received = vec![0; 1 << 20];
    let length = stream.read(&mut received).await.unwrap();
    let line = String::from_utf8_lossy(&received[..length]).lines().next().unwrap_or_default().to_owned();
    let begins = line.starts_with("POST") && line.contains("uploads");
    noted.lock().unwrap().push(line);
    let begun = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
    let (status, body) = if begins { ("200 OK", begun) } else { ("403 Forbidden", "") };
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // What is still being sent is taken, so that the answer is not lost in a reset.
    while stream.read(&mut received).await.is_ok_and(|length| length > 0) {}
}

async fn upload_of(size_bytes: u64, bucket: &Bucket) -> Result<(), BucketError> {
    let folder = tempfile::tempdir().unwrap();
    let staged = Artifacts::open(folder.path()).unwrap().stage().unwrap();
    staged.file.set_len(size_bytes).unwrap();
    bucket.upload(staged, &ArtifactKey::Video { job: Uuid::from_u128(1), attempt: 1 }, "video/mp4").await
}

#[tokio::test]
async fn an_upload_that_is_refused_is_an_error_and_no_crash() {
    let (bucket, asked) = refusing().await;
    assert!(upload_of(1000, &bucket).await.is_err());
    assert!(bucket.probe().await.is_err());
    assert!(asked.lock().unwrap().iter().all(|line| line.starts_with("PUT ")));
}

#[tokio::test]
async fn an_upload_in_parts_that_fails_is_aborted() {
    let (bucket, asked) = refusing().await;
    assert!(upload_of(PART_BYTES + 1, &bucket).await.is_err());
    let asked = asked.lock().unwrap();
    let is_abort = |line: &&String| line.starts_with("DELETE ") && line.contains("uploadId=1");
    assert_eq!(asked.iter().filter(is_abort).count(), 1, "{asked:?}");
}
