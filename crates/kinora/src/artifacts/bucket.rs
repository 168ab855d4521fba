//! The same names in an S3-compatible bucket.
//!
//! Always true: an object appears whole or not at all (that is what S3 promises of PUT and of a completed multipart
//! upload). Requests that fail in a way worth repeating are repeated for `RETRY_TIMEOUT`, then reported.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use url::Url;
use uuid::Uuid;

use super::{ArtifactKey, INPUTS, OUTPUTS, Staged, Volume};
use crate::keys::random_bytes;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Silence on a connection after which a request counts as failed.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);
const RETRIES_MAX: usize = 6;
/// Bytes of one part of a multipart upload; what is smaller is put in one request.
const PART_BYTES: u64 = 8 << 20;
/// What is written to see whether anything can be; each process adds a number of its own.
const PROBE: &str = "probe";

/// Why the bucket did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("cannot {doing} {what} in the bucket: {source}")]
    Failed { doing: &'static str, what: String, source: object_store::Error },
    #[error("cannot read the staged file to upload: {0}")]
    Staged(std::io::Error),
}

/// Which bucket, and where in it: `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    pub bucket: String,
    /// Empty, or folders without a slash at either end.
    pub prefix: String,
}

impl FromStr for BucketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must look like s3://bucket or s3://bucket/prefix".to_owned();
        let rest = text.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        let folders_plain = prefix.is_empty()
            || prefix.split('/').all(|folder| plain(folder) && folder != "." && folder != "..");
        if plain(bucket) && folders_plain {
            Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        } else {
            Err(wrong())
        }
    }
}

/// How to reach a bucket.
#[derive(Clone)]
pub struct BucketSettings {
    pub url: BucketUrl,
    /// Amazon's own where `None`.
    pub endpoint: Option<Url>,
    pub region: Option<String>,
    /// Access key id and secret. Where `None`, what the platform gives: the AWS variables, a web identity, a container's
    /// or an instance's role.
    pub keys: Option<(String, String)>,
    /// The bucket's name stands in the path, not in the host.
    pub path_style: bool,
}

impl std::fmt::Debug for BucketSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketSettings")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// An S3-compatible bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    prefix: Path,
    /// This process's own, so that no other's probe is in its way.
    probe: Path,
}

impl Bucket {
    /// Reaches the bucket, and asks it one question to see that it answers.
    pub async fn open(settings: &BucketSettings) -> Result<Self, BucketError> {
        let bucket =
            Self::connect(settings).map_err(|source| failed("open", &settings.url.bucket, source))?;
        let mut listed = bucket.store.list(Some(&bucket.prefix));
        listed.try_next().await.map_err(|source| failed("list", &settings.url.bucket, source))?;
        drop(listed);
        Ok(bucket)
    }

    fn connect(settings: &BucketSettings) -> Result<Self, object_store::Error> {
        // Another library may have chosen before us, and then its choice serves as well.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let is_plain_http = settings.endpoint.as_ref().is_some_and(|url| url.scheme() == "http");
        let client = ClientOptions::new()
            .with_allow_http(is_plain_http)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(READ_TIMEOUT)
            .with_timeout_disabled();
        let mut builder = match &settings.keys {
            Some((id, secret)) => {
                AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret)
            }
            None => AmazonS3Builder::from_env(),
        };
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        let store = builder
            .with_bucket_name(&settings.url.bucket)
            .with_virtual_hosted_style_request(!settings.path_style)
            .with_client_options(client)
            .with_retry(RetryConfig {
                max_retries: RETRIES_MAX,
                retry_timeout: RETRY_TIMEOUT,
                ..RetryConfig::default()
            })
            .build()?;
        let prefix = Path::from(settings.url.prefix.as_str());
        let probe = prefix.clone().join(format!("{PROBE}-{:016x}", u64::from_be_bytes(random_bytes())));
        Ok(Self { store: Arc::new(store), prefix, probe })
    }

    fn path(&self, key: &ArtifactKey) -> Path {
        Path::from(format!("{}/{key}", self.prefix).trim_start_matches('/'))
    }

    pub(super) async fn size_bytes(&self, key: &ArtifactKey) -> Result<Option<u64>, BucketError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("find", key, source)),
        }
    }

    pub(super) async fn read(&self, key: &ArtifactKey) -> Result<Option<Bytes>, BucketError> {
        let got = async { self.store.get(&self.path(key)).await?.bytes().await };
        match got.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("read", key, source)),
        }
    }

    pub(super) async fn stream(
        &self,
        key: &ArtifactKey,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, BucketError> {
        // A range without bytes is not one that S3 knows.
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = self.store.get_opts(&self.path(key), options).await;
        Ok(got.map_err(|source| failed("read", key, source))?.into_stream())
    }

    pub(super) async fn put(
        &self,
        key: &ArtifactKey,
        bytes: Bytes,
        content_type: &'static str,
    ) -> Result<(), BucketError> {
        let options = PutOptions { attributes: labelled(content_type), ..PutOptions::default() };
        let put = self.store.put_opts(&self.path(key), bytes.into(), options).await;
        put.map(|_| ()).map_err(|source| failed("write", key, source))
    }

    /// Uploads a staged file, in parts when it is large, and removes it from staging.
    pub(super) async fn upload(
        &self,
        staged: Staged,
        key: &ArtifactKey,
        content_type: &'static str,
    ) -> Result<(), BucketError> {
        let file = tokio::fs::File::open(staged.path()).await.map_err(BucketError::Staged)?;
        let size_bytes = file.metadata().await.map_err(BucketError::Staged)?.len();
        if size_bytes <= PART_BYTES {
            let bytes = next_part(&mut file.take(PART_BYTES)).await?;
            return self.put(key, bytes, content_type).await;
        }
        let options = PutMultipartOptions { attributes: labelled(content_type), ..Default::default() };
        let started = self.store.put_multipart_opts(&self.path(key), options).await;
        let mut upload = started.map_err(|source| failed("upload", key, source))?;
        let outcome = upload_parts(upload.as_mut(), file, key).await;
        if outcome.is_err() {
            // Parts of an upload that is neither completed nor aborted are kept, and charged, for ever.
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "bucket.abort_failed");
            }
        }
        outcome
    }

    /// Whether objects can be written now.
    pub(super) async fn probe(&self) -> Result<(), BucketError> {
        let put = self.store.put(&self.probe, PutPayload::new()).await;
        put.map_err(|source| failed("write", &self.probe, source))?;
        self.delete(&self.probe).await
    }

    /// Removes an object; safe to repeat.
    pub(super) async fn remove(&self, key: &ArtifactKey) -> Result<(), BucketError> {
        self.delete(&self.path(key)).await
    }

    /// What is gone already needs no removal.
    async fn delete(&self, path: &Path) -> Result<(), BucketError> {
        match self.store.delete(path).await {
            Err(source) if !is_gone(&source) => Err(failed("remove", path, source)),
            _ => Ok(()),
        }
    }

    /// Removes all that a job's attempts left: what is listed, however many attempts there were.
    pub(super) async fn discard_job(&self, job: Uuid) -> Result<Volume, BucketError> {
        let outputs = self.prefix.clone().join(OUTPUTS).join(job.to_string());
        let listed = self.store.list(Some(&outputs)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|source| failed("list", &outputs, source))?;
        let mut held = Volume::default();
        listed.iter().for_each(|meta| held += Volume::of_file(meta.size));
        let locations = futures_util::stream::iter(listed.into_iter().map(|meta| Ok(meta.location)));
        let mut removed = self.store.delete_stream(locations.boxed());
        while let Some(outcome) = removed.next().await {
            match outcome {
                Err(source) if !is_gone(&source) => return Err(failed("remove", &outputs, source)),
                _ => {}
            }
        }
        Ok(held)
    }

    pub(super) async fn presigned(&self, key: &ArtifactKey, lasts: Duration) -> Result<Url, BucketError> {
        let signed = self.store.signed_url(hyper::Method::GET, &self.path(key), lasts).await;
        signed.map_err(|source| failed("sign an address of", key, source))
    }

    pub(super) async fn attempts(&self) -> Result<Vec<(Uuid, i64)>, BucketError> {
        let outputs = self.prefix.clone().join(OUTPUTS);
        let mut attempts = Vec::new();
        let mut listed = self.store.list(Some(&outputs));
        while let Some(meta) = listed.try_next().await.map_err(|source| failed("list", &outputs, source))? {
            let Some(parts) = meta.location.prefix_match(&outputs) else { continue };
            let parts: Vec<_> = parts.collect();
            let [job, attempt, _name] = parts.as_slice() else { continue };
            let named = Uuid::try_parse(job.as_ref()).ok().zip(attempt.as_ref().parse().ok());
            attempts.extend(named.filter(|found| attempts.last() != Some(found)));
        }
        Ok(attempts)
    }

    pub(super) async fn inputs_before(&self, before_ms: i64) -> Result<Vec<(ArtifactKey, u64)>, BucketError> {
        let inputs = self.prefix.clone().join(INPUTS);
        let mut found = Vec::new();
        let mut listed = self.store.list(Some(&inputs));
        while let Some(meta) = listed.try_next().await.map_err(|source| failed("list", &inputs, source))? {
            if meta.last_modified.timestamp_millis() < before_ms {
                let key = meta.location.filename().and_then(ArtifactKey::parse_input);
                found.extend(key.map(|key| (key, meta.size)));
            }
        }
        Ok(found)
    }
}

/// Whether there was nothing to remove. S3 does not tell; others do, and of one among many in words alone.
fn is_gone(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) || error.to_string().contains("code: NoSuchKey")
}

/// Sends a file part by part. Each part is whole in memory meanwhile, so that a request which fails can be repeated.
async fn upload_parts(
    upload: &mut dyn MultipartUpload,
    mut file: tokio::fs::File,
    key: &ArtifactKey,
) -> Result<(), BucketError> {
    loop {
        let part = next_part(&mut (&mut file).take(PART_BYTES)).await?;
        if part.is_empty() {
            break;
        }
        upload.put_part(part.into()).await.map_err(|source| failed("upload", key, source))?;
    }
    upload.complete().await.map(|_| ()).map_err(|source| failed("upload", key, source))
}

async fn next_part(from: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, BucketError> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.map_err(BucketError::Staged)?;
    Ok(bytes.into())
}

fn labelled(content_type: &'static str) -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, content_type)])
}

fn failed(doing: &'static str, what: &impl ToString, source: object_store::Error) -> BucketError {
    BucketError::Failed { doing, what: what.to_string(), source }
}

#[cfg(test)]
pub mod tests;
