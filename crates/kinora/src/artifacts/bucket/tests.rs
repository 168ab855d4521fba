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

/// What a bucket answers to a request: status and body.
type Answers = fn(&str) -> (&'static str, Vec<u8>);

/// Lets an upload in parts begin and refuses all else for good.
fn refusing(request: &str) -> (&'static str, Vec<u8>) {
    let begun = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
    let begins = request.starts_with("POST") && request.contains("uploads");
    if begins { ("200 OK", begun.into()) } else { ("403 Forbidden", Vec::new()) }
}

/// Takes everything, lists two attempts of one job, and says of what is to be deleted that it is gone already.
fn forgetful(request: &str) -> (&'static str, Vec<u8>) {
    let object = |name: &str, size_bytes: u64| {
        format!(
            "<Contents><Key>outputs/{}/{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>1</ETag><Size>{size_bytes}</Size></Contents>",
            Uuid::from_u128(1)
        )
    };
    let listed = [object("3/thumbnail.jpg", 5), object("900/video.mp4", 70)].concat();
    let gone: String = request
        .split("<Key>")
        .skip(1)
        .map(|rest| {
            let key = rest.split('<').next().unwrap();
            format!("<Error><Key>{key}</Key><Code>NoSuchKey</Code><Message>none</Message></Error>")
        })
        .collect();
    let body = match request.split(' ').next() {
        Some("GET") => {
            format!("<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>")
        }
        Some("POST") => format!("<DeleteResult>{gone}</DeleteResult>"),
        _ => String::new(),
    };
    ("200 OK", body.into_bytes())
}

/// A bucket that answers so, and what it was asked.
pub async fn bucket(answers: Answers) -> (BucketSettings, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, answers, noted.clone()));
        }
    });
    let settings = BucketSettings {
        url: "s3://clips".parse().unwrap(),
        endpoint: Some(endpoint.parse().unwrap()),
        region: Some("us-east-1".into()),
        keys: Some(("id".into(), "secret".into())),
        path_style: true,
    };
    (settings, asked)
}

async fn answer(mut stream: TcpStream, answers: Answers, noted: Arc<Mutex<Vec<String>>>) {
    let mut received = vec![0; 1 << 20];
    let mut request = String::new();
    // What is to be deleted stands in the body.
    while request.is_empty() || (request.contains("delete ") && !request.contains("</Delete>")) {
        let length = stream.read(&mut received).await.unwrap();
        request.push_str(&String::from_utf8_lossy(&received[..length]));
    }
    let (status, body) = answers(&request);
    noted.lock().unwrap().push(request.lines().next().unwrap_or_default().to_owned());
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\netag: \"1\"\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
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
    let (settings, asked) = bucket(refusing).await;
    let bucket = Bucket::connect(&settings).unwrap();
    assert!(upload_of(1000, &bucket).await.is_err());
    assert!(bucket.probe().await.is_err());
    assert!(asked.lock().unwrap().iter().all(|line| line.starts_with("PUT ")));
}

#[tokio::test]
async fn an_upload_in_parts_that_fails_is_aborted() {
    let (settings, asked) = bucket(refusing).await;
    let bucket = Bucket::connect(&settings).unwrap();
    assert!(upload_of(PART_BYTES + 1, &bucket).await.is_err());
    let asked = asked.lock().unwrap();
    let is_abort = |line: &&String| line.starts_with("DELETE ") && line.contains("uploadId=1");
    assert_eq!(asked.iter().filter(is_abort).count(), 1, "{asked:?}");
}

#[tokio::test]
async fn a_probe_is_each_processs_own_and_may_be_gone_before_it_is_removed() {
    let (settings, asked) = bucket(forgetful).await;
    for _ in 0..2 {
        Bucket::connect(&settings).unwrap().probe().await.unwrap();
    }
    let asked = asked.lock().unwrap();
    let names: Vec<_> = asked.iter().filter_map(|line| line.strip_prefix("PUT ")).collect();
    assert!(names.len() == 2 && names[0] != names[1], "{asked:?}");
}

#[tokio::test]
async fn what_a_jobs_attempts_left_is_found_by_one_listing_however_many_there_were() {
    let (settings, asked) = bucket(forgetful).await;
    let removed = Bucket::connect(&settings).unwrap().discard_job(Uuid::from_u128(1)).await.unwrap();
    assert_eq!(removed, Volume { files_count: 2, size_bytes: 75 });
    let asked = asked.lock().unwrap();
    let count = |method: &str| asked.iter().filter(|line| line.starts_with(method)).count();
    assert_eq!((count("GET "), count("POST "), asked.len()), (1, 1, 2), "{asked:?}");
}
