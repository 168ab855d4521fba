//! Fetching a set: what is there is kept, what was cut off goes on, what is damaged is fetched once more.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;

use super::catalogue::is_wanted;
use super::digest::Hasher;
use super::hub::{Hub, HubError};
use super::{Card, FileEntry, FileList, Library, LibraryError, Origin, Variant, failed, part_of};

const LOCK: &str = ".lock";
/// Left free on the disk, for everything else.
const DISK_RESERVED_BYTES: u64 = 1 << 30;
/// Attempts in a row that bring no byte.
const ATTEMPTS_MAX: u32 = 6;
/// The branch that quantised weights are taken from.
const MAIN: &str = "main";
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// Why a set is not complete.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(
        "{} needs {} more on the disk, {} of it to stay free, and {} is free; make room, or choose another folder with \
         --models-dir",
        name, gigabytes(*needed_bytes), gigabytes(DISK_RESERVED_BYTES), gigabytes(*free_bytes)
    )]
    DiskTooSmall { name: &'static str, needed_bytes: u64, free_bytes: u64 },
    #[error(
        "{path} does not have the hash that its repository names, even when fetched again; is the mirror sound?"
    )]
    Damaged { path: String },
    #[error("{repository} has no {what}; is the mirror a whole one?")]
    Lacks { repository: &'static str, what: String },
    #[error(
        "{name} is here, whole or in part, as {here}: go on with it by leaving --variant out, or remove it first with \
         `kinora models rm {name}`"
    )]
    OtherVariant { name: &'static str, here: String },
    #[error("{path} breaks off after {here_bytes} of {size_bytes} bytes each time; what is here is kept")]
    BreaksOff { path: String, here_bytes: u64, size_bytes: u64 },
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Hears how far a pull is. All counts are of the whole set.
pub trait Watcher {
    /// The list is known; `here_bytes` of it lie on the disk.
    fn listed(&mut self, list: &FileList, here_bytes: u64);
    fn file(&mut self, file: &FileEntry);
    /// So many bytes of the set are here; falls when something damaged is thrown away.
    fn here(&mut self, bytes: u64);
    /// A pause before the next attempt.
    fn waiting(&mut self, why: &HubError, pause: Duration);
}

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub card: &'static Card,
    /// As the set was begun otherwise, and in full if it was not.
    pub variant: Option<Variant>,
    /// Branch, tag or commit of the set's own repository.
    pub revision: &'a str,
}

/// Fetches what is missing of a set. Safe to repeat, and to interrupt at any moment.
pub async fn pull(
    library: &Library,
    order: Order<'_>,
    hub: &Hub,
    watcher: &mut dyn Watcher,
) -> Result<(), PullError> {
    let card = order.card;
    let folder = library.folder(card);
    fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
    let _lock = lock(&folder)?;
    let list = match library.list(card)? {
        // A set that was begun is finished as it was listed, so that its files belong together.
        Some(list) => match order.variant {
            Some(asked) if asked.name() != list.variant() => {
                let here = list.variant().to_owned();
                return Err(PullError::OtherVariant { name: card.name, here });
            }
            _ => list,
        },
        None => {
            let list = listed(order, hub, watcher).await?;
            library.write_list(card, &list)?;
            list
        }
    };
    let missing: Vec<&FileEntry> = list.files.iter().filter(|file| !is_whole(&folder, file)).collect();
    let part_bytes = |file: &&FileEntry| {
        fs::metadata(part_of(&folder.join(&file.path))).map_or(0, |part| part.len().min(file.size_bytes))
    };
    let missing_bytes: u64 = missing.iter().map(|file| file.size_bytes - part_bytes(file)).sum();
    check_disk(card, &folder, missing_bytes)?;
    watcher.listed(&list, list.size_bytes() - missing_bytes);
    let mut here_bytes = list.size_bytes() - missing.iter().map(|file| file.size_bytes).sum::<u64>();
    for file in missing {
        watcher.file(file);
        fetch(hub, &list, file, &folder, here_bytes, watcher).await?;
        here_bytes += file.size_bytes;
        watcher.here(here_bytes);
    }
    Ok(())
}

/// What the repositories list now for `order`.
async fn listed(
    Order { card, variant, revision }: Order<'_>,
    hub: &Hub,
    watcher: &mut dyn Watcher,
) -> Result<FileList, PullError> {
    let own = patiently(watcher, || hub.list(card.repository, revision)).await?;
    let variant = variant.filter(|variant| *variant != Variant::Full);
    let in_variant = |variant| card.quantised.iter().map(move |part| (part, part.path(variant)));
    let quantised: Vec<_> = variant.into_iter().flat_map(in_variant).collect();
    let mut files = own.files;
    files
        .retain(|file| is_wanted(&file.path) && !quantised.iter().any(|(part, _)| part.replaces(&file.path)));
    if files.is_empty() {
        let what = "files of a model".to_owned();
        return Err(PullError::Lacks { repository: card.repository, what });
    }
    for (part, path) in quantised {
        let repository = part.repository;
        let theirs = patiently(watcher, || hub.list(repository, MAIN)).await?;
        let found = theirs.files.into_iter().find(|file| file.path == path);
        let file = found.ok_or_else(|| PullError::Lacks { repository, what: path.clone() })?;
        let name = path.rsplit('/').next().expect("a split has a last part");
        let to = format!("{}/{name}", part.folder);
        let origin = Origin { repository: repository.to_owned(), revision: theirs.commit, path };
        files.push(FileEntry { path: to, origin: Some(origin), ..file });
    }
    let variant = variant.map(|variant| variant.name().to_owned());
    Ok(FileList { repository: card.repository.to_owned(), revision: own.commit, variant, files })
}

fn is_whole(folder: &Path, file: &FileEntry) -> bool {
    fs::metadata(folder.join(&file.path)).is_ok_and(|found| found.len() == file.size_bytes)
}

/// Keeps others from fetching into `folder`, or from removing it meanwhile, for as long as what is given is held.
pub(super) fn lock(folder: &Path) -> Result<File, LibraryError> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(failed("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LibraryError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

fn check_disk(card: &'static Card, folder: &Path, missing_bytes: u64) -> Result<(), PullError> {
    let disk = rustix::fs::statvfs(folder).map_err(|error| failed("look at", folder)(error.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if missing_bytes > 0 && free_bytes < missing_bytes + DISK_RESERVED_BYTES {
        let needed_bytes = missing_bytes + DISK_RESERVED_BYTES;
        return Err(PullError::DiskTooSmall { name: card.name, needed_bytes, free_bytes });
    }
    Ok(())
}

/// A file that is being fetched: what lies on the disk, and its hash so far.
struct Part {
    file: File,
    hasher: Hasher,
    length_bytes: u64,
}

impl Part {
    fn open(path: &Path, entry: &FileEntry) -> Result<Self, LibraryError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("open", path))?;
        let mut hasher = entry.digest.hasher(entry.size_bytes);
        let length_bytes = hasher.read(&mut file, &mut |_| {}).map_err(failed("read", path))?;
        let mut part = Self { file, hasher, length_bytes };
        if length_bytes > entry.size_bytes {
            part.restart(path, entry)?;
        }
        Ok(part)
    }

    fn restart(&mut self, path: &Path, entry: &FileEntry) -> Result<(), LibraryError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(failed("empty", path))?;
        self.hasher = entry.digest.hasher(entry.size_bytes);
        self.length_bytes = 0;
        Ok(())
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<(), LibraryError> {
        self.file.write_all(bytes).map_err(failed("write", path))?;
        self.hasher.update(bytes);
        self.length_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Fetches one file, checks it, and gives it its name. `before_bytes` of the set are complete.
async fn fetch(
    hub: &Hub,
    list: &FileList,
    entry: &FileEntry,
    folder: &Path,
    before_bytes: u64,
    watcher: &mut dyn Watcher,
) -> Result<(), PullError> {
    let path = folder.join(&entry.path);
    let part_path = part_of(&path);
    for is_last in [false, true] {
        let mut part = Part::open(&part_path, entry)?;
        watcher.here(before_bytes + part.length_bytes);
        let mut attempts_left = ATTEMPTS_MAX;
        while part.length_bytes < entry.size_bytes {
            let had_bytes = part.length_bytes;
            let mut here = |bytes| watcher.here(before_bytes + bytes);
            let broken = go_on(hub, list, entry, &part_path, &mut part, &mut here).await;
            attempts_left = if part.length_bytes > had_bytes { ATTEMPTS_MAX } else { attempts_left - 1 };
            let tried = ATTEMPTS_MAX - attempts_left;
            match broken {
                Ok(()) if attempts_left > 0 => {}
                Ok(()) => {
                    let here_bytes = part.length_bytes;
                    let (path, size_bytes) = (entry.path.clone(), entry.size_bytes);
                    return Err(PullError::BreaksOff { path, here_bytes, size_bytes });
                }
                Err(PullError::Hub(error)) if error.is_passing() && attempts_left > 0 => {
                    pause(&error, tried, watcher).await;
                }
                Err(error) => return Err(error),
            }
        }
        if entry.digest.is(part.hasher) {
            part.file.sync_all().map_err(failed("sync", &part_path))?;
            fs::rename(&part_path, &path).map_err(failed("rename", &part_path))?;
            return Ok(());
        }
        fs::remove_file(&part_path).map_err(failed("remove", &part_path))?;
        if is_last {
            break;
        }
    }
    Err(PullError::Damaged { path: entry.path.clone() })
}

/// One request for the rest of a file. `Ok` also where the answer ended too early.
async fn go_on(
    hub: &Hub,
    list: &FileList,
    entry: &FileEntry,
    path: &Path,
    part: &mut Part,
    here: &mut dyn FnMut(u64),
) -> Result<(), PullError> {
    let mut answer = match hub.open(list, entry, part.length_bytes).await {
        Err(HubError::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) if part.length_bytes > 0 => {
            return Ok(part.restart(path, entry)?);
        }
        answer => answer?,
    };
    if answer.status() != StatusCode::PARTIAL_CONTENT && part.length_bytes > 0 {
        part.restart(path, entry)?;
    }
    // A connection that is cut in the middle is no error here: the next request goes on from what has come.
    while let Ok(Some(bytes)) = answer.chunk().await {
        let room_bytes = entry.size_bytes - part.length_bytes;
        let bytes = &bytes[..bytes.len().min(usize::try_from(room_bytes).unwrap_or(usize::MAX))];
        part.append(path, bytes)?;
        here(part.length_bytes);
        if part.length_bytes == entry.size_bytes {
            break;
        }
    }
    Ok(())
}

/// Asks again while what stands in the way may pass.
async fn patiently<T, F>(watcher: &mut dyn Watcher, mut ask: impl FnMut() -> F) -> Result<T, HubError>
where
    F: Future<Output = Result<T, HubError>>,
{
    for tried in 1..ATTEMPTS_MAX {
        match ask().await {
            Err(error) if error.is_passing() => pause(&error, tried, watcher).await,
            answer => return answer,
        }
    }
    ask().await
}

/// Waits as long as the server asks, and otherwise twice as long each time.
async fn pause(error: &HubError, tried: u32, watcher: &mut dyn Watcher) {
    let growing = PAUSE_FIRST * 2_u32.saturating_pow(tried.saturating_sub(1));
    let pause = error.retry_after().unwrap_or(growing);
    watcher.waiting(error, pause);
    tokio::time::sleep(pause).await;
}
