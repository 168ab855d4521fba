//! `kinora doctor`: what this machine offers the engines, and whether a model is complete.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use kinora_wan::Settings;
use kinora_wan::WanEngine;
use serde_json::{Value, json};

use super::Failure;
use crate::library::Library;

/// Say what this machine offers the engines, and whether a model is complete.
///
/// Fails when the model cannot be used. Nothing is computed, so it is quick for any model.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Wan2.2 model to check, every file, name and shape: a name from `kinora models list`, or a folder.
    #[arg(long, value_name = "NAME|DIR", env = "KINORA_MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    library: Library,
    /// Print one JSON object instead of lines.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        let folder = self.model.as_deref().map(|named| self.library.find(named)).transpose()?;
        let model = folder.as_deref().map(|folder| (folder, Checked::new(folder)));
        let mut stdout = std::io::stdout();
        if self.json {
            writeln!(stdout, "{}", self.report(model.as_ref()))?;
        } else {
            write!(stdout, "{}", lines(model.as_ref()))?;
        }
        match model {
            Some((_, Checked { problem: Some(problem), .. })) => {
                Err(Failure::Other(anyhow::anyhow!(problem)))
            }
            _ => Ok(()),
        }
    }

    fn report(&self, model: Option<&(&Path, Checked)>) -> Value {
        let memory = Memory::read();
        json!({
            "cores": cores(), "vectors": vectors(), "memory_total_bytes": memory.map(|m| m.total_bytes),
            "memory_available_bytes": memory.map(|m| m.available_bytes), "nvidia_driver": nvidia_driver(),
            "model": model.map(|(folder, checked)| json!({
                "folder": folder, "size_bytes": checked.size_bytes, "problem": checked.problem,
            })),
        })
    }
}

fn lines(model: Option<&(&Path, Checked)>) -> String {
    let memory = Memory::read().map_or_else(
        || "not known on this system".to_owned(),
        |m| format!("{} of {} free", gigabytes(m.available_bytes), gigabytes(m.total_bytes)),
    );
    let driver = nvidia_driver().map_or_else(
        || "no NVIDIA driver; the engines compute on the CPU".to_owned(),
        |driver| format!("NVIDIA driver {driver}, not used: this build computes on the CPU"),
    );
    let mut lines = format!(
        "processor  {} cores, vectors: {}\nmemory     {memory}\ngraphics   {driver}\n",
        cores(),
        vectors()
    );
    if let Some((folder, checked)) = model {
        let state = match &checked.problem {
            None => "complete: every file, name and shape fits",
            Some(_) => "cannot be used",
        };
        lines += &format!("model      {}, {}, {state}\n", folder.display(), gigabytes(checked.size_bytes));
    }
    lines
}

/// What a model's folder holds.
struct Checked {
    size_bytes: u64,
    problem: Option<String>,
}

impl Checked {
    fn new(folder: &Path) -> Self {
        let problem = WanEngine::open(folder, Settings::default()).err().map(|error| error.to_string());
        Self { size_bytes: size_of(folder), problem }
    }
}

/// Bytes of all files below `folder` that can be read.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match std::fs::metadata(entry.path()) {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The widest vectors that the engines' loops are compiled for and this machine has.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "AVX2";
        }
    }
    "the architecture's own"
}

#[derive(Debug, Clone, Copy)]
struct Memory {
    total_bytes: u64,
    available_bytes: u64,
}

impl Memory {
    /// From Linux's `/proc/meminfo`.
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let kilobytes = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        let bytes = |name| Some(kilobytes(name)? * 1024);
        Some(Self { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
    }
}

/// The version of the driver that the kernel has loaded.
fn nvidia_driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let version =
        text.split_whitespace().find(|word| word.contains('.') && word.starts_with(char::is_numeric));
    version.map(str::to_owned)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn memory_is_read_in_kilobytes() {
        let memory =
            Memory::parse("MemTotal:       24000 kB\nMemFree: 1 kB\nMemAvailable:    2000 kB\n").unwrap();
        assert_eq!((memory.total_bytes, memory.available_bytes), (24_000 * 1024, 2000 * 1024));
        assert!(Memory::parse("MemTotal: much").is_none());
    }
}
