//! Weights on this machine: which sets are known, where they lie, and whether they are whole.
//!
//! A set is one folder below the models' folder, in the layout of diffusers, with a list of its files beside them.
//! Always true: a file under its final name has the size and the hash that the list names, since it was checked
//! before it was renamed; what is still being fetched ends in `.part`. Once the list is complete no network is asked.
//!
//! Not here: reading weights. What is fetched by hand, without a list, is opened by its folder's path.

mod catalogue;
mod digest;
mod hub;
mod pull;

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use catalogue::{CATALOGUE, Card, Variant, card};
pub use digest::Digest;
pub use hub::{Hub, HubError};
pub use pull::{Order, PullError, Watcher, pull};

/// The list of a set's files, in its folder.
const LIST: &str = "kinora-files.json";
const PART_SUFFIX: &str = ".part";

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative, with `/` between folders; never leads out of the set's folder.
    pub path: String,
    pub size_bytes: u64,
    pub digest: Digest,
    /// Where the file comes from, when that is not the set's own repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A file of another repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub repository: String,
    /// The commit that was listed.
    pub revision: String,
    /// Its path there.
    pub path: String,
}

/// What a set consists of, as its repositories listed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    pub repository: String,
    /// The commit that was listed: every file belongs to it, but those of another origin.
    pub revision: String,
    /// Which variant was asked for, if not the full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub files: Vec<FileEntry>,
}

impl FileList {
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// The name of the variant that this is.
    pub fn variant(&self) -> &str {
        self.variant.as_deref().unwrap_or(Variant::Full.name())
    }
}

/// How much of a set is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Absent,
    /// Fetched in part; `kinora models pull` goes on.
    Partial {
        here_bytes: u64,
        size_bytes: u64,
    },
    Complete {
        size_bytes: u64,
    },
}

/// Why the folder of models does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a list of files: {source}", path.display())]
    List { path: PathBuf, source: serde_json::Error },
    #[error(
        "{} is neither a folder nor a set of weights that is known: `kinora models list` names those", .0.display()
    )]
    NoFolder(PathBuf),
    #[error(
        "{} is not a model in the layout of diffusers: it has neither model_index.json nor transformer/. The published \
         folders in that layout have names that end in -Diffusers",
        .0.display()
    )]
    OtherLayout(PathBuf),
    #[error("another process is fetching into {}", .0.display())]
    InUse(PathBuf),
    #[error("{0} has not been fetched; run `kinora models pull {0}`")]
    Absent(&'static str),
    #[error("{0} has been fetched in part; run `kinora models pull {0}` to go on")]
    Partial(&'static str),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LibraryError {
    move |source| LibraryError::Io { action, path: path.to_owned(), source }
}

/// The folder of all sets.
#[derive(Debug, Clone, clap::Args)]
pub struct Library {
    /// Folder for weights.
    #[arg(
        id = "models_dir",
        long = "models-dir",
        value_name = "DIR",
        env = "KINORA_MODELS_DIR",
        default_value = "kinora-models"
    )]
    root: PathBuf,
}

impl Library {
    /// The folder of the model that is named: any folder by its path, or a known set that is complete.
    pub fn find(&self, named: &Path) -> Result<PathBuf, LibraryError> {
        if named.is_dir() {
            let has = |name: &str| !matches!(named.join(name).try_exists(), Ok(false));
            return match has("model_index.json") || has("transformer") {
                true => Ok(with_name(named)),
                false => Err(LibraryError::OtherLayout(named.to_owned())),
            };
        }
        let Some(card) = named.to_str().and_then(card) else {
            return match named.try_exists() {
                Ok(_) => Err(LibraryError::NoFolder(named.to_owned())),
                // Whoever opens it tells why it cannot be looked at.
                Err(_) => Ok(named.to_owned()),
            };
        };
        match self.state(card)? {
            State::Complete { .. } => Ok(self.folder(card)),
            State::Partial { .. } => Err(LibraryError::Partial(card.name)),
            State::Absent => Err(LibraryError::Absent(card.name)),
        }
    }

    /// Where a set lies, or would.
    pub fn folder(&self, card: &Card) -> PathBuf {
        self.root.join(card.name)
    }

    /// What a set consists of; `None` where its list has not been fetched.
    pub fn list(&self, card: &Card) -> Result<Option<FileList>, LibraryError> {
        let path = self.folder(card).join(LIST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &path)(source)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| LibraryError::List { path, source })
    }

    /// Looks at names and sizes only; [`Library::verify`] reads every byte.
    pub fn state(&self, card: &Card) -> Result<State, LibraryError> {
        let Some(list) = self.list(card)? else { return Ok(State::Absent) };
        let folder = self.folder(card);
        let size_bytes = list.size_bytes();
        let here = |file: &FileEntry| -> u64 {
            let whole = folder.join(&file.path);
            let length = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
            match length(&whole) {
                length if length == file.size_bytes => length,
                _ => length(&part_of(&whole)).min(file.size_bytes),
            }
        };
        let is_whole = |file: &FileEntry| {
            fs::metadata(folder.join(&file.path)).is_ok_and(|found| found.len() == file.size_bytes)
        };
        if list.files.iter().all(is_whole) {
            return Ok(State::Complete { size_bytes });
        }
        Ok(State::Partial { here_bytes: list.files.iter().map(here).sum(), size_bytes })
    }

    /// Reads every file of a set and names those that are missing or not what the list says. `progress` hears of each
    /// stretch of bytes read.
    pub fn verify(&self, card: &Card, mut progress: impl FnMut(u64)) -> Result<Vec<String>, LibraryError> {
        let list = self.list(card)?.ok_or(LibraryError::Absent(card.name))?;
        let folder = self.folder(card);
        let mut wrong = Vec::new();
        for file in &list.files {
            let path = folder.join(&file.path);
            match File::open(&path) {
                Ok(mut open) => {
                    let found = file.digest.of_reader(&mut open, file.size_bytes, &mut progress);
                    if !found.map_err(failed("read", &path))? {
                        wrong.push(format!("{} is damaged", file.path));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    wrong.push(format!("{} is missing", file.path));
                }
                Err(source) => return Err(failed("open", &path)(source)),
            }
        }
        Ok(wrong)
    }

    /// Removes a set, unless it is being fetched; `false` where there is none.
    pub fn remove(&self, card: &Card) -> Result<bool, LibraryError> {
        let folder = self.folder(card);
        if !folder.is_dir() {
            return Ok(false);
        }
        let _lock = pull::lock(&folder)?;
        match fs::remove_dir_all(&folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed("remove", &folder)(source)),
        }
    }

    fn write_list(&self, card: &Card, list: &FileList) -> Result<(), LibraryError> {
        let path = self.folder(card).join(LIST);
        let part = part_of(&path);
        let text = serde_json::to_vec_pretty(list).expect("a list of files is JSON");
        fs::write(&part, text).map_err(failed("write", &part))?;
        fs::rename(&part, &path).map_err(failed("rename", &part))
    }
}

/// The same folder by a path that ends in its name, which outcomes tell: `.` and `..` have none.
fn with_name(folder: &Path) -> PathBuf {
    match folder.file_name() {
        Some(_) => folder.to_owned(),
        None => folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PART_SUFFIX);
    name.into()
}

/// Whether a listed path stays inside the folder it is joined to, on every system.
fn stays_inside(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    plain
        && !path.is_empty()
        && !path.contains(['\\', ':', '\0'])
        && !path.ends_with(PART_SUFFIX)
        && path != LIST
}

#[cfg(test)]
mod tests;
