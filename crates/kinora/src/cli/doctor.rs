//! `kinora doctor`: what this machine offers the engines, whether a model is complete, and whether a clip fits into memory.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use kinora_wan::device::{DeviceName, Target};
use kinora_wan::picture::Size;
use kinora_wan::{Settings, WanEngine};
use serde_json::{Value, json};

use super::Failure;
use crate::library::Library;
use crate::machine::Memory;
use crate::models::{Dtype, Fit, gigabytes, parse_size};

/// Say what this machine offers the engines, whether a model is complete, and whether a clip of it fits into memory.
///
/// Fails when the model cannot be used or the clip does not fit. Nothing is computed, so it is quick for any model.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Wan2.2 model to check, every file, name and shape: a name from `kinora models list`, or a folder.
    #[arg(long, value_name = "NAME|DIR", env = "KINORA_MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    library: Library,
    /// Size of the clip that should fit into memory; the model's own otherwise.
    #[arg(long, value_name = "WxH", env = "KINORA_SIZE", value_parser = parse_size)]
    size: Option<Size>,
    /// Frames of that clip; as the model was trained otherwise.
    #[arg(long, value_name = "N", env = "KINORA_FRAMES", value_parser = clap::value_parser!(u32).range(1..=1001))]
    frames: Option<u32>,
    /// Type of the numbers that would be multiplied.
    #[arg(long, value_name = "TYPE", env = "KINORA_DTYPE", value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Squares that its frames would be decoded in.
    #[arg(long, value_name = "PX", env = "KINORA_VAE_TILE", value_parser = clap::value_parser!(u32).range(64..=8192))]
    vae_tile: Option<u32>,
    /// Clips that would be made at the same time.
    #[arg(long, value_name = "N", env = "KINORA_WORKERS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Print one JSON object instead of lines.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        let folder = self.model.as_deref().map(|named| self.library.find(named)).transpose()?;
        let model = folder.as_deref().map(|folder| (folder, self.check(folder)));
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

    fn check(&self, folder: &Path) -> Checked {
        let count = |number: Option<u32>| number.map(|number| number as usize);
        let settings = Settings {
            size: self.size,
            frames: count(self.frames),
            vae_tile: count(self.vae_tile),
            ..Settings::default()
        };
        let target = Target::open(DeviceName::Cpu, self.dtype.products());
        let opened = target.and_then(|target| WanEngine::open(folder, target, settings));
        let fit = opened.and_then(|engine| {
            Ok(Fit { needs: engine.needs()?, clips_count: self.workers, memory: Memory::read() })
        });
        let (problem, fit) = match fit {
            Ok(fit) => (fit.problem(), Some(fit)),
            Err(error) => (Some(error.to_string()), None),
        };
        Checked { size_bytes: size_of(folder), problem, fit }
    }

    fn report(&self, model: Option<&(&Path, Checked)>) -> Value {
        let memory = Memory::read();
        json!({
            "cores": cores(), "vectors": vectors(), "memory_total_bytes": memory.map(|m| m.total_bytes),
            "memory_available_bytes": memory.map(|m| m.available_bytes), "nvidia_driver": nvidia_driver(),
            "nvidia_gpus": nvidia_gpus(Path::new(NVIDIA_GPUS)), "cuda": cfg!(feature = "cuda"),
            "model": model.map(|(folder, checked)| json!({
                "folder": folder, "size_bytes": checked.size_bytes, "problem": checked.problem,
                "working_bytes": checked.fit.map(|fit| fit.working_bytes()),
                "weights_bytes": checked.fit.map(|fit| fit.needs.weights_bytes),
                "memory": checked.fit.map(|fit| fit.remark()),
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
        |driver| {
            let mut parts = nvidia_gpus(Path::new(NVIDIA_GPUS));
            parts.push(format!("NVIDIA driver {driver}"));
            let used = match cfg!(feature = "cuda") {
                true => "the engine `wan` computes there with --device cuda",
                false => "not used: this build computes on the CPU",
            };
            format!("{}; {used}", parts.join(", "))
        },
    );
    let mut lines = format!(
        "processor  {} cores, vectors: {}\nmemory     {memory}\ngraphics   {driver}\n",
        cores(),
        vectors()
    );
    if let Some((folder, checked)) = model {
        let state = match &checked.fit {
            Some(_) => "complete: every file, name and shape fits",
            None => "cannot be used",
        };
        lines += &format!("model      {}, {}, {state}\n", folder.display(), gigabytes(checked.size_bytes));
        if let Some(fit) = &checked.fit {
            lines += &format!("clip       {}\n", fit.remark());
        }
    }
    lines
}

/// What a model's folder holds.
struct Checked {
    size_bytes: u64,
    problem: Option<String>,
    /// Of a model that is complete.
    fit: Option<Fit>,
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
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
            return "AVX-512 with BF16";
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "AVX2";
        }
    }
    "the architecture's own"
}

/// Where the driver lists its GPUs, a folder for each.
const NVIDIA_GPUS: &str = "/proc/driver/nvidia/gpus";

/// The models of the GPUs in `folder`, in the order of their buses.
fn nvidia_gpus(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut gpus: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join("information")).collect();
    gpus.sort();
    let model = |path: PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()))
    };
    gpus.into_iter().filter_map(model).collect()
}

/// The version of the driver that the kernel has loaded.
fn nvidia_driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let version =
        text.split_whitespace().find(|word| word.contains('.') && word.starts_with(char::is_numeric));
    version.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::nvidia_gpus;

    #[test]
    fn gpus_are_named_as_the_driver_lists_them() {
        let folder = tempfile::tempdir().unwrap();
        for (bus, model) in [("0000:41:00.0", "NVIDIA H200"), ("0000:01:00.0", "NVIDIA H100 80GB HBM3")] {
            let gpu = folder.path().join(bus);
            std::fs::create_dir(&gpu).unwrap();
            std::fs::write(gpu.join("information"), format!("Model: \t\t {model}\nIRQ:   \t\t 7\n")).unwrap();
        }
        std::fs::create_dir(folder.path().join("0000:99:00.0")).unwrap();
        assert_eq!(nvidia_gpus(folder.path()), ["NVIDIA H100 80GB HBM3", "NVIDIA H200"]);
        assert!(nvidia_gpus(&folder.path().join("none")).is_empty());
    }
}
