//! Hashes that a repository names its files by: SHA-256 for large files, Git's for small ones.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const STRETCH_BYTES: usize = 1 << 20;

/// The hash a file must have, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    Sha256(String),
    /// SHA-1 over `blob`, the size, a zero byte and the content, as Git names files.
    GitBlob(String),
}

/// A hash being computed.
pub(super) enum Hasher {
    Sha256(Sha256),
    GitBlob(sha1::Sha1),
}

impl Digest {
    /// A hasher for a file of this size.
    pub(super) fn hasher(&self, size_bytes: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitBlob(_) => {
                let mut hasher = <sha1::Sha1 as sha1::Digest>::new();
                sha1::Digest::update(&mut hasher, format!("blob {size_bytes}\0"));
                Hasher::GitBlob(hasher)
            }
        }
    }

    pub(super) fn is(&self, hasher: Hasher) -> bool {
        match (self, hasher) {
            (Self::Sha256(wanted), Hasher::Sha256(hasher)) => *wanted == hex(&hasher.finalize()),
            (Self::GitBlob(wanted), Hasher::GitBlob(hasher)) => {
                *wanted == hex(&sha1::Digest::finalize(hasher))
            }
            _ => false,
        }
    }

    /// Whether `reader` gives exactly `size_bytes` with this hash.
    pub(super) fn of_reader(
        &self,
        reader: &mut impl Read,
        size_bytes: u64,
        progress: &mut impl FnMut(u64),
    ) -> io::Result<bool> {
        let mut hasher = self.hasher(size_bytes);
        let read_bytes = hasher.read(reader, progress)?;
        Ok(read_bytes == size_bytes && self.is(hasher))
    }
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => sha1::Digest::update(hasher, bytes),
        }
    }

    /// Takes in all that `reader` gives and returns how many bytes that were.
    pub(super) fn read(&mut self, reader: &mut impl Read, progress: &mut impl FnMut(u64)) -> io::Result<u64> {
        let mut stretch = vec![0; STRETCH_BYTES];
        let mut total_bytes = 0;
        loop {
            let count = reader.read(&mut stretch)?;
            if count == 0 {
                return Ok(total_bytes);
            }
            self.update(&stretch[..count]);
            total_bytes += count as u64;
            progress(count as u64);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}
