//! The data folder on a local disk: staging, final names, lock, secret. Everything here blocks.
//!
//! Always true: a file under its final name is complete and synced, and so is the name. What is being written lies in
//! `staging/`, which is emptied at start.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use uuid::Uuid;

use super::{ArtifactError, ArtifactKey, INPUTS, OUTPUTS, Volume};
use crate::keys::random_bytes;

const DATABASE: &str = "kinora.db";
const LOCK: &str = "lock";
const SECRET: &str = "secret";
const STAGING: &str = "staging";
/// What a clip may take, in pieces that no file system can make smaller.
const PROBE_BYTES: usize = 16 << 20;
const PROBE_PIECE_BYTES: usize = 64 << 10;

/// A data folder on a local disk.
#[derive(Debug, Clone)]
pub struct DataFolder {
    root: PathBuf,
}

/// Keeps a data folder to one serving process until it is dropped.
#[derive(Debug)]
pub struct DataDirLock(#[expect(dead_code, reason = "closing the file is what releases the lock")] File);

impl DataFolder {
    /// Opens `root`, making what is missing.
    pub fn open(root: &Path) -> Result<Self, ArtifactError> {
        for path in [root.to_owned(), root.join(INPUTS), root.join(OUTPUTS), root.join(STAGING)] {
            create_folder(&path, &private_folder())?;
        }
        // Who was here before may have been killed between making a folder and syncing its name.
        sync_folder(root)?;
        sync_folder(&root.join(OUTPUTS))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Takes the folder for serving, and clears what a crash left half-written.
    pub fn lock(&self) -> Result<DataDirLock, ArtifactError> {
        let path = self.root.join(LOCK);
        let file = File::create(&path).map_err(failed("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ArtifactError::InUse(self.root.clone())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        let staging = self.root.join(STAGING);
        for entry in fs::read_dir(&staging).map_err(failed("read", &staging))? {
            let path = entry.map_err(failed("read", &staging))?.path();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(DataDirLock(file))
    }

    pub fn database(&self) -> PathBuf {
        Self::database_in(&self.root)
    }

    /// Where the database of a folder lies that may not be there.
    pub fn database_in(root: &Path) -> PathBuf {
        root.join(DATABASE)
    }

    /// The secret that signs media URLs; made on first use, readable by the owner alone.
    pub fn secret(&self) -> Result<[u8; 32], ArtifactError> {
        let path = self.root.join(SECRET);
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| ArtifactError::BadSecret(path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let secret = random_bytes::<32>();
                let mut staged = self.stage()?;
                owner_only(&staged.file).map_err(failed("protect", &staged.path))?;
                staged.file.write_all(&secret).map_err(failed("write", &staged.path))?;
                staged.commit(&path)?;
                Ok(secret)
            }
            Err(e) => Err(failed("read", &path)(e)),
        }
    }

    /// Keeps bytes under a name at which nothing else ever lies.
    pub(super) fn put(&self, key: &ArtifactKey, bytes: &[u8]) -> Result<(), ArtifactError> {
        let mut staged = self.stage()?;
        staged.file.write_all(bytes).map_err(failed("write", &staged.path))?;
        staged.commit(&self.path(key))
    }

    /// Where a file lies once it is committed.
    pub(super) fn path(&self, key: &ArtifactKey) -> PathBuf {
        self.root.join(key.to_string())
    }

    /// A new file to write to, which goes away unless it is committed.
    pub fn stage(&self) -> Result<Staged, ArtifactError> {
        let path = self.root.join(STAGING).join(Uuid::now_v7().to_string());
        Staged::create(path)
    }

    /// Whether a file of a clip's size can be written and synced.
    pub(super) fn probe(&self) -> Result<(), ArtifactError> {
        let mut staged = self.stage()?;
        for _ in 0..PROBE_BYTES / PROBE_PIECE_BYTES {
            let piece = random_bytes::<PROBE_PIECE_BYTES>();
            staged.file.write_all(&piece).map_err(failed("write", &staged.path))?;
        }
        staged.file.sync_all().map_err(failed("sync", &staged.path))
    }

    /// Every attempt that has files, in no order.
    pub(super) fn attempts(&self) -> Result<Vec<(Uuid, i64)>, ArtifactError> {
        let outputs = self.root.join(OUTPUTS);
        let mut attempts = Vec::new();
        for job in names_in(&outputs)? {
            let Ok(id) = Uuid::try_parse(&job) else { continue };
            let numbers = names_in(&outputs.join(&job))?;
            attempts.extend(numbers.iter().filter_map(|number| Some((id, number.parse().ok()?))));
        }
        Ok(attempts)
    }

    /// Every picture whose file was written before a time; names that are not ours are passed over.
    pub(super) fn inputs_before(&self, before_ms: i64) -> Result<Vec<(ArtifactKey, u64)>, ArtifactError> {
        let inputs = self.root.join(INPUTS);
        let before = UNIX_EPOCH + Duration::from_millis(before_ms.max(0).unsigned_abs());
        let mut found = Vec::new();
        for name in names_in(&inputs)? {
            let Some(key) = ArtifactKey::parse_input(&name) else { continue };
            let path = inputs.join(name);
            match fs::metadata(&path).and_then(|meta| Ok((meta.modified()?, meta.len()))) {
                Ok((modified, size_bytes)) if modified < before => found.push((key, size_bytes)),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("look at", &path)(e)),
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) fn remove(&self, key: &ArtifactKey) -> Result<(), ArtifactError> {
        let path = self.path(key);
        unless_gone(fs::remove_file(&path)).map_err(failed("remove", &path))
    }

    /// Removes an attempt that came to nothing.
    pub(super) fn discard_attempt(&self, job: Uuid, attempt: i64) -> Result<(), ArtifactError> {
        let path = self.root.join(OUTPUTS).join(job.to_string()).join(attempt.to_string());
        unless_gone(fs::remove_dir_all(&path)).map_err(failed("remove", &path))
    }

    /// Removes all attempts of a job.
    pub(super) fn discard_job(&self, job: Uuid) -> Result<Volume, ArtifactError> {
        let path = self.root.join(OUTPUTS).join(job.to_string());
        let held = match held_below(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Volume::default()),
            held => held.map_err(failed("look at", &path))?,
        };
        unless_gone(fs::remove_dir_all(&path)).map_err(failed("remove", &path))?;
        Ok(held)
    }
}

/// A file being written. Dropped uncommitted, it is removed.
#[derive(Debug)]
pub struct Staged {
    pub file: File,
    path: PathBuf,
    committed: bool,
}

impl Staged {
    /// Starts a file at `path`, which must be on the file system it will be committed to.
    pub fn create(path: PathBuf) -> Result<Self, ArtifactError> {
        let mut options = fs::OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).open(&path).map_err(failed("create", &path))?;
        Ok(Self { file, path, committed: false })
    }

    /// Where it lies while it is written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file and gives it its final name; both are on disk when this returns.
    pub fn commit(mut self, path: &Path) -> Result<(), ArtifactError> {
        let folder = path.parent().expect("a final name has a folder");
        self.file.sync_all().map_err(failed("sync", &self.path))?;
        create_folder(folder, &fs::DirBuilder::new())?;
        fs::rename(&self.path, path).map_err(failed("rename to", path))?;
        self.committed = true;
        sync_folder(folder)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "staging.remove_failed");
        }
    }
}

/// Makes a folder and what is missing above it, each synced into its parent.
fn create_folder(path: &Path, builder: &fs::DirBuilder) -> Result<(), ArtifactError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    create_folder(parent, builder)?;
    match builder.create(path) {
        // Somebody else may have made it meanwhile.
        Err(e) if !(e.kind() == io::ErrorKind::AlreadyExists && path.is_dir()) => {
            return Err(failed("create", path)(e));
        }
        _ => {}
    }
    sync_folder(parent)
}

/// What is gone already needs no removal.
fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// What the files in a folder and in those below it hold.
fn held_below(folder: &Path) -> io::Result<Volume> {
    let mut held = Volume::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        held += if meta.is_dir() { held_below(&entry.path())? } else { Volume::of_file(meta.len()) };
    }
    Ok(held)
}

/// What lies in a folder; names that are not UTF-8 are not ours.
fn names_in(folder: &Path) -> Result<Vec<String>, ArtifactError> {
    let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
    let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name().into_string().ok())).collect();
    Ok(names.map_err(failed("read", folder))?.into_iter().flatten().collect())
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> Result<(), ArtifactError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))
}

/// Makes folders that only their owner may enter.
fn private_folder() -> fs::DirBuilder {
    #[cfg_attr(not(unix), expect(unused_mut))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

#[cfg(unix)]
fn owner_only(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn owner_only(_: &File) -> io::Result<()> {
    Ok(())
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    let path = path.to_owned();
    move |source| ArtifactError::Io { doing, path, source }
}
