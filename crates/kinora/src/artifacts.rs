//! Stored files: pictures in, clips out. The only module that makes, renames or deletes them.
//!
//! They lie in the data folder or in an S3 bucket, under the same names in both: `inputs/{sha256}-{version}` and
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
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::Url;
use uuid::Uuid;

use crate::keys::random_bytes;

#[cfg(test)]
pub use bucket::tests::bucket as bucket_that_answers;
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
    /// A picture, by its SHA-256. Each time it is stored it has another version, so that a removal which comes late
    /// never removes what was stored since.
    Input {
        sha256: [u8; 32],
        version: i64,
    },
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
    /// The file of a stored picture.
    pub fn of_input(sha256: [u8; 32], version: i64) -> Self {
        Self::Input { sha256, version }
    }

    /// A version of a picture under which nothing was stored before.
    pub fn new_version() -> i64 {
        i64::from_be_bytes(random_bytes()) & i64::MAX
    }

    /// The picture whose file has this name in the folder of inputs.
    fn parse_input(name: &str) -> Option<Self> {
        let (sha256, version) = match name.split_once('-') {
            Some((sha256, version)) => (sha256, i64::from_str_radix(version, 16).ok()?),
            None => (name, 0),
        };
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(sha256.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        let key = Self::Input { sha256: bytes, version };
        (key.to_string() == format!("{INPUTS}/{name}")).then_some(key)
    }

    /// What an attempt leaves behind.
    pub fn of_attempt(job: Uuid, attempt: i64) -> [Self; 2] {
        [Self::Video { job, attempt }, Self::Thumbnail { job, attempt }]
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input { sha256, version } => {
                write!(f, "{INPUTS}/")?;
                sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                // Releases before versions stored under the hash alone.
                if *version == 0 { Ok(()) } else { write!(f, "-{version:016x}") }
            }
            Self::Video { job, attempt } => write!(f, "{OUTPUTS}/{job}/{attempt}/{VIDEO}"),
            Self::Thumbnail { job, attempt } => write!(f, "{OUTPUTS}/{job}/{attempt}/{THUMBNAIL}"),
        }
    }
}

/// How many files, and how much they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    pub files_count: u64,
    pub size_bytes: u64,
}

impl Volume {
    pub fn of_file(size_bytes: u64) -> Self {
        Self { files_count: 1, size_bytes }
    }
}

impl std::ops::AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.files_count += other.files_count;
        self.size_bytes += other.size_bytes;
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

    /// Keeps bytes under a name; they are there for good when this returns.
    pub async fn put(
        &self,
        key: ArtifactKey,
        bytes: Bytes,
        content_type: &'static str,
    ) -> Result<(), ArtifactError> {
        match &self.bucket {
            Some(bucket) => Ok(bucket.put(&key, bytes, content_type).await?),
            None => {
                let folder = self.folder.clone();
                blocking(move || folder.put(&key, &bytes)).await
            }
        }
    }

    /// Removes one file; safe to repeat.
    pub async fn remove(&self, key: ArtifactKey) -> Result<(), ArtifactError> {
        if let Some(bucket) = &self.bucket {
            return Ok(bucket.remove(&key).await?);
        }
        let folder = self.folder.clone();
        blocking(move || folder.remove(&key)).await
    }

    /// Every picture that was stored before a time (milliseconds since the Unix epoch), whether a row knows it or not,
    /// with its size in bytes.
    pub async fn inputs_before(&self, before_ms: i64) -> Result<Vec<(ArtifactKey, u64)>, ArtifactError> {
        if let Some(bucket) = &self.bucket {
            return Ok(bucket.inputs_before(before_ms).await?);
        }
        let folder = self.folder.clone();
        blocking(move || folder.inputs_before(before_ms)).await
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

    /// Whether a clip could be written now: in staging and, where files lie in a bucket, there.
    pub async fn probe(&self) -> Result<(), ArtifactError> {
        let folder = self.folder.clone();
        blocking(move || folder.probe()).await?;
        match &self.bucket {
            Some(bucket) => Ok(bucket.probe().await?),
            None => Ok(()),
        }
    }

    /// Removes all that a job's attempts left, and says how much it was.
    pub async fn discard_job(&self, job: Uuid) -> Result<Volume, ArtifactError> {
        if let Some(bucket) = &self.bucket {
            return Ok(bucket.discard_job(job).await?);
        }
        let folder = self.folder.clone();
        blocking(move || folder.discard_job(job)).await
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
