//! Stored files: pictures in, clips out. The only module that makes, renames or deletes them.
//!
//! They lie in the data folder or in an S3 bucket, under the same names in both: `inputs/{sha256}` and
//! `outputs/{job}/{attempt}/{name}`. Always true: a file under its final name is complete and durable; nothing ever
//! changes under a name. Files are written in the data folder's `staging/` first, wherever they end up.
//! Why the folder is not an `object_store` of its own: `docs/decisions/0008-a-folder-and-a-bucket.md`.

mod bucket;
mod folder;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::Url;
use uuid::Uuid;

pub use bucket::{Bucket, BucketError, BucketSettings, BucketUrl};
pub use folder::{DataDirLock, DataFolder, Staged};

const INPUTS: &str = "inputs";
const OUTPUTS: &str = "outputs";
const CHUNK_BYTES: usize = 128 << 10;

pub const VIDEO: &str = "video.mp4";
pub const THUMBNAIL: &str = "thumbnail.jpg";

/// Why a stored file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("another kinora already serves {}; stop it or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    #[error("{} must hold 32 bytes; restore it from a backup (a new one would void every media URL)", .0.display())]
    BadSecret(PathBuf),
    #[error("{0}")]
    Bucket(#[from] BucketError),
}

/// The name of a stored file, the same wherever it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactKey {
    /// A picture, by its SHA-256.
    Input([u8; 32]),
    Video {
        job: Uuid,
        attempt: i64,
    },
    Thumbnail {
        job: Uuid,
        attempt: i64,
    },
}

impl ArtifactKey {
    /// What an attempt leaves behind.
    pub fn of_attempt(job: Uuid, attempt: i64) -> [Self; 2] {
        [Self::Video { job, attempt }, Self::Thumbnail { job, attempt }]
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(sha256) => {
                write!(f, "{INPUTS}/")?;
                sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Video { job, attempt } => write!(f, "{OUTPUTS}/{job}/{attempt}/{VIDEO}"),
            Self::Thumbnail { job, attempt } => write!(f, "{OUTPUTS}/{job}/{attempt}/{THUMBNAIL}"),
        }
    }
}

/// Where files are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: DataFolder,
    bucket: Option<Bucket>,
}

/// A stored file that was found.
#[derive(Debug)]
pub struct Found {
    pub size_bytes: u64,
    place: FoundIn,
}

#[derive(Debug)]
enum FoundIn {
    Folder(tokio::fs::File, PathBuf),
    Bucket(Bucket, ArtifactKey),
}

impl Artifacts {
    /// Keeps files in the data folder at `root`, making what is missing of it.
    pub fn open(root: &Path) -> Result<Self, ArtifactError> {
        Ok(Self { folder: DataFolder::open(root)?, bucket: None })
    }

    /// Keeps files in a bucket instead; the data folder stages them.
    pub fn with_bucket(self, bucket: Option<Bucket>) -> Self {
        Self { bucket, ..self }
    }

    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// A new file to write to, which goes away unless it is committed.
    pub fn stage(&self) -> Result<Staged, ArtifactError> {
        self.folder.stage()
    }

    /// Gives a staged file its final name; it is there for good when this returns.
    pub async fn commit(
        &self,
        staged: Staged,
        key: ArtifactKey,
        content_type: &'static str,
    ) -> Result<(), ArtifactError> {
        match &self.bucket {
            Some(bucket) => Ok(bucket.upload(staged, &key, content_type).await?),
            None => {
                let path = self.folder.path(&key);
                blocking(move || staged.commit(&path)).await
            }
        }
    }

    /// Keeps a picture under its hash. Safe to repeat; a picture that is there already costs a look.
    pub async fn put_input(
        &self,
        bytes: Bytes,
        content_type: &'static str,
    ) -> Result<[u8; 32], ArtifactError> {
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        let key = ArtifactKey::Input(sha256);
        match &self.bucket {
            Some(bucket) => {
                if bucket.size_bytes(&key).await?.is_none() {
                    bucket.put(&key, bytes, content_type).await?;
                }
            }
            None => {
                let folder = self.folder.clone();
                blocking(move || folder.put(&key, &bytes)).await?;
            }
        }
        Ok(sha256)
    }

    /// A stored file, if it is there.
    pub async fn find(&self, key: ArtifactKey) -> Result<Option<Found>, ArtifactError> {
        if let Some(bucket) = &self.bucket {
            let size_bytes = bucket.size_bytes(&key).await?;
            let place = || FoundIn::Bucket(bucket.clone(), key);
            return Ok(size_bytes.map(|size_bytes| Found { size_bytes, place: place() }));
        }
        let path = self.folder.path(&key);
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(folder::failed("open", &path)(e)),
        };
        let size_bytes = file.metadata().await.map_err(folder::failed("look at", &path))?.len();
        Ok(Some(Found { size_bytes, place: FoundIn::Folder(file, path) }))
    }

    /// The whole of a stored file, if it is there.
    pub async fn read(&self, key: ArtifactKey) -> Result<Option<Bytes>, ArtifactError> {
        if let Some(bucket) = &self.bucket {
            return Ok(bucket.read(&key).await?);
        }
        let path = self.folder.path(&key);
        match tokio::fs::read(&path).await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(folder::failed("read", &path)(e)),
        }
    }

    /// An address at which the bucket itself hands the file out for a while; `None` where files lie in the folder.
    pub async fn presigned(&self, key: ArtifactKey, lasts: Duration) -> Result<Option<Url>, ArtifactError> {
        match &self.bucket {
            Some(bucket) => Ok(Some(bucket.presigned(&key, lasts).await?)),
            None => Ok(None),
        }
    }

    /// Every attempt that has files, in no order.
    pub async fn attempts(&self) -> Result<Vec<(Uuid, i64)>, ArtifactError> {
        if let Some(bucket) = &self.bucket {
            return Ok(bucket.attempts().await?);
        }
        let folder = self.folder.clone();
        blocking(move || folder.attempts()).await
    }

    /// Removes an attempt that came to nothing.
    pub async fn discard_attempt(&self, job: Uuid, attempt: i64) -> Result<(), ArtifactError> {
        if let Some(bucket) = &self.bucket {
            for key in ArtifactKey::of_attempt(job, attempt) {
                bucket.remove(&key).await?;
            }
            return Ok(());
        }
        let folder = self.folder.clone();
        blocking(move || folder.discard_attempt(job, attempt)).await
    }
}

impl Found {
    /// The bytes of `range`, which lies within the file.
    pub async fn stream(
        self,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ArtifactError> {
        match self.place {
            FoundIn::Bucket(bucket, key) => {
                Ok(bucket.stream(&key, range).await?.map(|chunk| chunk.map_err(io::Error::from)).boxed())
            }
            FoundIn::Folder(mut file, path) => {
                file.seek(io::SeekFrom::Start(range.start)).await.map_err(folder::failed("read", &path))?;
                let part = file.take(range.end - range.start);
                Ok(ReaderStream::with_capacity(part, CHUNK_BYTES).boxed())
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    tokio::task::spawn_blocking(work).await.expect("work on files does not panic")
}

#[cfg(test)]
mod tests;
