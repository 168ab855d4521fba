//! From what the caller named to a checked picture in the store.
//!
//! Always true: whatever lies in the store under its hash has passed every check, so a picture that is known is never
//! decoded again. A picture that is handed out was noted as used within the last hour, so that it is not removed before
//! it is named. Checks and fetches are bounded in number; the rest wait.

use std::sync::Arc;

use bytes::Bytes;
use kinora_media::{PictureError, PictureFormat};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use url::Url;

use crate::artifacts::{ArtifactError, ArtifactKey, Artifacts};
use crate::capability::{Claim, Signer, Void};
use crate::clock;
use crate::fetch::{FetchError, Fetcher};
use crate::jobs::{InputRow, JobStore, StoreError};
use crate::submission::ImageSource;

/// Pictures decoded at the same time: each may take some hundred megabytes.
const CHECKS_MAX: usize = 2;
const FETCHES_MAX: usize = 32;
/// Known pictures kept in memory, to spare the database a look.
const KNOWN_MAX: usize = 16 << 10;
/// How old the note may be that a picture is used. Much less than the shortest time that anything is kept, a day.
const USED_ANEW_MS: i64 = 3600 * 1000;
/// The path under which this server's own media are read.
pub const MEDIA_PATH: &str = "/media/";

/// Why a picture is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("{0}")]
    Picture(#[from] PictureError),
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("image is a media URL of this server, but {0}")]
    Capability(#[from] Void),
    #[error("image is a media URL of this server, but {0}")]
    Unusable(&'static str),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Artifact(#[from] ArtifactError),
}

/// Takes pictures in.
#[derive(Debug)]
pub struct Intake {
    pub store: JobStore,
    pub artifacts: Artifacts,
    pub signer: Signer,
    fetcher: Fetcher,
    known: quick_cache::sync::Cache<[u8; 32], InputRow>,
    checks: Arc<Semaphore>,
    fetches: Semaphore,
}

impl Intake {
    pub fn new(store: JobStore, artifacts: Artifacts, signer: Signer, fetcher: Fetcher) -> Self {
        Self {
            store,
            artifacts,
            signer,
            fetcher,
            known: quick_cache::sync::Cache::new(KNOWN_MAX),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            fetches: Semaphore::new(FETCHES_MAX),
        }
    }

    /// The stored picture that `image` names. `own_authority` is the host and port by which the caller knows this
    /// server.
    pub async fn take(&self, image: ImageSource, own_authority: &str) -> Result<InputRow, IntakeError> {
        match image {
            ImageSource::Inline(bytes) => self.keep(bytes).await,
            ImageSource::Url(url) => match self.own_media(&url, own_authority)? {
                Some(claim) => self.read_own(claim).await,
                None => {
                    let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
                    let bytes = self.fetcher.fetch(&url).await?;
                    self.keep(bytes).await
                }
            },
        }
    }

    /// Checks a picture and stores it.
    pub async fn keep(&self, bytes: Vec<u8>) -> Result<InputRow, IntakeError> {
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        if let Some(known) = self.in_use(&sha256).await? {
            return Ok(known);
        }
        let _permit = self.checks.clone().acquire_owned().await.expect("the semaphore is never closed");
        let bytes = Bytes::from(bytes);
        let (format, width_px, height_px) = check(bytes.clone()).await?;
        let size_bytes = bytes.len() as u64;
        let version = ArtifactKey::new_version();
        let key = ArtifactKey::of_input(sha256, version);
        self.artifacts.put(key, bytes, content_type(format)).await?;
        let row = InputRow {
            sha256,
            version,
            format: format.to_owned(),
            width_px,
            height_px,
            size_bytes,
            used_at_ms: self.store.now_ms(),
        };
        let stands = self.store.add_input(row.clone()).await?;
        if stands.version != row.version {
            // Somebody else stored the same picture meanwhile.
            self.artifacts.remove(key).await?;
        }
        self.known.insert(sha256, stands.clone());
        Ok(stands)
    }

    /// Looks a picture up anew when it is next named.
    pub fn forget(&self, sha256: &[u8; 32]) {
        self.known.remove(sha256);
    }

    /// The stored picture with this hash, to be named by a job or an upload.
    async fn in_use(&self, sha256: &[u8; 32]) -> Result<Option<InputRow>, StoreError> {
        let now_ms = self.store.now_ms();
        let is_noted = |row: &InputRow| now_ms - row.used_at_ms < USED_ANEW_MS;
        if let Some(row) = self.known.get(sha256).filter(is_noted) {
            return Ok(Some(row));
        }
        let row = match self.store.input(sha256).await? {
            Some(row) if !is_noted(&row) => self.store.use_input(*sha256, now_ms).await?,
            row => row,
        };
        if let Some(row) = &row {
            self.known.insert(*sha256, row.clone());
        }
        Ok(row)
    }

    /// What a media URL of this server opens; `None` for any other URL.
    ///
    /// A valid signature proves that a URL is ours whatever its host, so an address behind a proxy works too.
    fn own_media(&self, url: &Url, own_authority: &str) -> Result<Option<Claim>, Void> {
        let Some(rest) = url.path().strip_prefix(MEDIA_PATH) else { return Ok(None) };
        let token = rest.split('/').next().unwrap_or_default();
        match self.signer.verify(token, clock::wall_ms() / 1000) {
            Ok(claim) => Ok(Some(claim)),
            Err(Void::Forged) if authority(url) != own_authority => Ok(None),
            Err(void) => Err(void),
        }
    }

    async fn read_own(&self, claim: Claim) -> Result<InputRow, IntakeError> {
        match claim {
            Claim::Input { sha256 } => {
                self.in_use(&sha256).await?.ok_or(IntakeError::Unusable("the picture is no longer stored"))
            }
            Claim::Upload { upload } => {
                let filled = self.store.upload(upload).await?.and_then(|row| row.input_sha256);
                let sha256 = filled.ok_or(IntakeError::Unusable("nothing has been uploaded to it yet"))?;
                self.in_use(&sha256).await?.ok_or(IntakeError::Unusable("the picture is no longer stored"))
            }
            Claim::Thumbnail { job, attempt } => {
                let bytes = self.artifacts.read(ArtifactKey::Thumbnail { job, attempt }).await?;
                self.keep(bytes.ok_or(IntakeError::Unusable("the picture is no longer stored"))?.into()).await
            }
            Claim::Video { .. } => Err(IntakeError::Unusable("it is a video, not a picture")),
            Claim::Grant { .. } => {
                Err(IntakeError::Unusable("it is an upload_url; give the public_url that came with it"))
            }
        }
    }
}

/// Decodes a picture to see that it can be: its format, width and height.
async fn check(bytes: Bytes) -> Result<(&'static str, u32, u32), PictureError> {
    tokio::task::spawn_blocking(move || {
        let decoded = kinora_media::decode(&bytes)?;
        Ok((format_name(decoded.format), decoded.picture.width_px(), decoded.picture.height_px()))
    })
    .await
    .expect("checking a picture does not panic")
}

/// As stored.
fn format_name(format: PictureFormat) -> &'static str {
    match format {
        PictureFormat::Jpeg => "jpeg",
        PictureFormat::Png => "png",
    }
}

/// The media type of a stored picture's format.
pub fn content_type(format: &str) -> &'static str {
    if format == "png" { "image/png" } else { "image/jpeg" }
}

/// `host:port`, or `host` where the port is the scheme's own, as in a Host header.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
