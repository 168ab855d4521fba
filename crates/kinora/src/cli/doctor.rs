//! `kinora doctor`: what this machine offers the engines, which weights are here, whether a model is complete, and whether a clip fits into memory.

use std::path::{Path, PathBuf};

use clap::Args;
use kinora_wan::device::{DeviceMemory, DeviceName, Target};
use kinora_wan::model::{Adapters, Residency};
use kinora_wan::picture::Size;
use kinora_wan::weights::Lora;
use kinora_wan::{Needs, Settings, WanError, needs};
use serde_json::{Value, json};

use super::models::{file_size, state_json, state_text};
use super::{Failure, print_line};
use crate::library::{CATALOGUE, Card, Library, LibraryError, State};
use crate::machine::Memory;
use crate::models::{Dtype, Fit, PARTS_IN_TURN, gigabytes, parse_lora, parse_size};

/// Say what this machine offers the engines, which weights are here, whether a model is complete, and whether a clip of it
/// fits into memory.
///
/// Fails when the device or the model cannot be used, or the clip does not fit. Nothing is computed or copied to a device,
/// so it is quick for any model.
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
    /// Adapter (LoRA) that would be used, with its strength, 1 otherwise; repeat for more.
    #[arg(long, value_name = "FILE[=S]", env = "KINORA_LORA", value_delimiter = ',', value_parser = parse_lora)]
    lora: Vec<Lora>,
    /// The same for the expert that takes the less noisy steps.
    #[arg(long, value_name = "FILE[=S]", env = "KINORA_LORA_2", value_delimiter = ',', value_parser = parse_lora)]
    lora_2: Vec<Lora>,
    /// Type of the numbers that would be multiplied; bf16 on a GPU and f32 on the CPU otherwise.
    #[arg(long, value_name = "TYPE", env = "KINORA_DTYPE", value_enum)]
    dtype: Option<Dtype>,
    /// Where that clip would be computed: cpu, cuda for the first NVIDIA GPU, or cuda:N.
    #[arg(long, value_name = "DEVICE", env = "KINORA_DEVICE", default_value = "cpu")]
    device: DeviceName,
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
        let weights: Vec<_> = CATALOGUE.iter().map(|card| (card, self.library.state(card))).collect();
        let opened = Opened::new(self.device, self.dtype());
        let model = match (self.model.as_deref(), &opened.state) {
            (Some(named), Ok((target, memory))) => Some(self.check(named, target, *memory)),
            // Whether a clip fits into a device that cannot be used is no question.
            _ => None,
        };
        if self.json {
            print_line(report(&opened, &weights, model.as_ref()))?;
        } else {
            let mut lines = lines(&opened, &weights, model.as_ref());
            if self.model.is_none() && self.asks_of_a_clip() {
                lines += "clip       not looked at: --model says of which model it would be\n";
            }
            print_line(lines.trim_end())?;
        }
        let problem = match (opened.state, model) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), model) => model.and_then(|checked| checked.problem),
        };
        problem.map_or(Ok(()), |problem| Err(Failure::Other(anyhow::anyhow!(problem))))
    }

    fn dtype(&self) -> Dtype {
        Dtype::on(self.device, self.dtype)
    }

    /// Whether anything was said of a clip.
    fn asks_of_a_clip(&self) -> bool {
        let numbers = [self.frames, self.vae_tile];
        self.size.is_some()
            || numbers.iter().any(Option::is_some)
            || !self.lora.is_empty()
            || !self.lora_2.is_empty()
    }

    fn check(&self, named: &Path, target: &Target, memory: Option<DeviceMemory>) -> Checked {
        let folder = match self.library.find(named) {
            Ok(folder) => folder,
            Err(error) => return Checked::absent(named, &error),
        };
        let count = |number: Option<u32>| number.map(|number| number as usize);
        let settings = Settings {
            size: self.size,
            frames: count(self.frames),
            vae_tile: count(self.vae_tile),
            loras: Adapters { first: self.lora.clone(), second: self.lora_2.clone() },
            ..Settings::default()
        };
        let clips_count = self.workers;
        let room = needs(&folder, target, &settings, clips_count).map(|needs| match memory {
            Some(memory) => Room::Device { needs, memory, dtype: self.dtype(), clips_count },
            None => Room::Machine(Fit { needs, clips_count, memory: Memory::read() }),
        });
        // What the model cannot make is looked at once the model was.
        let is_whole = matches!(room, Ok(_) | Err(WanError::Request(_)));
        let (problem, room) = match room {
            Ok(room) => (room.problem(), Some(room)),
            Err(error) => (Some(error.to_string()), None),
        };
        let size_bytes = Some(size_of(&folder));
        Checked { folder, size_bytes, is_whole, problem, room }
    }
}

/// The device that was asked for, and what came of opening it.
struct Opened {
    name: DeviceName,
    /// With its memory, where that is not the machine's.
    state: Result<(Target, Option<DeviceMemory>), WanError>,
}

impl Opened {
    fn new(name: DeviceName, dtype: Dtype) -> Self {
        let state = Target::open(name, dtype.products()).and_then(|target| {
            let memory = target.memory()?;
            Ok((target, memory))
        });
        Self { name, state }
    }

    fn memory(&self) -> Option<DeviceMemory> {
        self.state.as_ref().ok().and_then(|(_, memory)| *memory)
    }

    /// What is said of it in a line; nothing of the processor.
    fn line(&self) -> Option<String> {
        match &self.state {
            Err(_) => Some(format!("{} cannot be used", self.name)),
            Ok((_, memory)) => memory.map(|DeviceMemory { free_bytes, total_bytes }| {
                format!("{}, {} of {} free", self.name, gigabytes(free_bytes), gigabytes(total_bytes))
            }),
        }
    }
}

/// A set, and how much of it is here if that can be told.
type Weights<'a> = (&'a Card, Result<State, LibraryError>);

fn report(opened: &Opened, weights: &[Weights<'_>], model: Option<&Checked>) -> Value {
    let memory = Memory::read();
    let device = opened.memory();
    json!({
        "cores": cores(), "vectors": vectors(), "memory_total_bytes": memory.map(|m| m.total_bytes),
        "memory_available_bytes": memory.map(|m| m.available_bytes), "nvidia_driver": nvidia_driver(),
        "nvidia_gpus": nvidia_gpus(Path::new(NVIDIA_GPUS)), "cuda": cfg!(feature = "cuda"),
        "device": {
            "name": opened.name.to_string(), "problem": opened.state.as_ref().err().map(WanError::to_string),
            "memory_free_bytes": device.map(|m| m.free_bytes), "memory_total_bytes": device.map(|m| m.total_bytes),
        },
        "weights": weights.iter().map(|(card, state)| {
            let mut set = match state {
                Ok(state) => state_json(*state),
                Err(error) => json!({ "state": "unknown", "problem": error.to_string() }),
            };
            set["name"] = card.name.into();
            set
        }).collect::<Vec<_>>(),
        "model": model.map(|checked| json!({
            "folder": checked.folder, "size_bytes": checked.size_bytes, "complete": checked.is_whole,
            "problem": checked.problem,
            "working_bytes": checked.room.map(|room| room.working_bytes()),
            "weights_bytes": checked.room.map(|room| room.needs().weights_bytes),
            "memory": checked.room.map(|room| room.remark()),
        })),
    })
}

fn lines(opened: &Opened, weights: &[Weights<'_>], model: Option<&Checked>) -> String {
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
    if let Some(line) = opened.line() {
        lines += &format!("device     {line}\n");
    }
    let sets = weights.iter().map(|(card, state)| match state {
        Ok(state) => format!("{} {}", card.name, state_text(*state)),
        Err(error) => format!("{} not known ({error})", card.name),
    });
    lines += &format!("weights    {}\n", sets.collect::<Vec<_>>().join(", "));
    if let Some(checked) = model {
        lines += &checked.lines();
    }
    lines
}

/// A model, and a clip of it.
struct Checked {
    /// Or the name of a set that is not here.
    folder: PathBuf,
    size_bytes: Option<u64>,
    /// Whether the model can be used, for some clips if not for the one that was asked for.
    is_whole: bool,
    problem: Option<String>,
    /// Of a clip that the model can make.
    room: Option<Room>,
}

impl Checked {
    fn absent(named: &Path, error: &LibraryError) -> Self {
        let problem = Some(error.to_string());
        Self { folder: named.to_owned(), size_bytes: None, is_whole: false, problem, room: None }
    }

    fn lines(&self) -> String {
        let size = self.size_bytes.map_or_else(String::new, |bytes| format!("{}, ", file_size(bytes)));
        let state =
            if self.is_whole { "complete: every file, name and shape fits" } else { "cannot be used" };
        let model = format!("model      {}, {size}{state}\n", self.folder.display());
        match (&self.room, &self.problem) {
            (Some(room), _) => format!("{model}clip       {}\n", room.remark()),
            (None, Some(problem)) if self.is_whole => {
                format!("{model}clip       cannot be made: {problem}\n")
            }
            _ => model,
        }
    }
}

/// What a clip needs beside what there is.
#[derive(Clone, Copy)]
enum Room {
    Machine(Fit),
    Device { needs: Needs, memory: DeviceMemory, dtype: Dtype, clips_count: u32 },
}

impl Room {
    fn needs(&self) -> Needs {
        match self {
            Self::Machine(fit) => fit.needs,
            Self::Device { needs, .. } => *needs,
        }
    }

    fn working_bytes(&self) -> u64 {
        match self {
            Self::Machine(fit) => fit.working_bytes(),
            Self::Device { needs, clips_count, .. } => {
                needs.working_bytes.saturating_mul((*clips_count).into())
            }
        }
    }

    fn problem(&self) -> Option<String> {
        match self {
            Self::Machine(fit) => fit.problem(),
            Self::Device { needs, memory, dtype, clips_count } => {
                memory.check(needs, dtype.products(), *clips_count).err().map(|error| error.to_string())
            }
        }
    }

    fn remark(&self) -> String {
        match self {
            Self::Machine(fit) => fit.remark(),
            Self::Device { needs, clips_count, .. } => self.problem().unwrap_or_else(|| {
                let fits = format!(
                    "{} fits: about {} with weights and libraries",
                    needs.clips(*clips_count),
                    gigabytes(DeviceMemory::wanted_bytes(needs, *clips_count)),
                );
                match needs.residency {
                    Residency::Whole => fits,
                    Residency::InTurn => format!("{fits}, but {PARTS_IN_TURN}"),
                }
            }),
        }
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
    use super::*;

    #[test]
    fn a_clip_on_a_device_is_measured_against_the_devices_memory() {
        const GB: u64 = 1_000_000_000;
        let size = Size { width_px: 1280, height_px: 704 };
        let needs = Needs {
            size,
            frames: 121,
            stage: "denoise",
            working_bytes: 5 * GB,
            weights_bytes: 13 * GB,
            residency: Residency::Whole,
        };
        let of = |needs, clips_count, free_gb| Room::Device {
            needs,
            memory: DeviceMemory { free_bytes: free_gb * GB, total_bytes: 24 * GB },
            dtype: Dtype::Bf16,
            clips_count,
        };
        let room = |free_gb| of(needs, 1, free_gb);
        assert_eq!(room(20).problem(), None);
        let fits = room(20).remark();
        assert!(fits.contains("1280x704 and 121 frames fits: about 19.1 GB"), "{fits}");
        let problem = room(19).problem().unwrap();
        assert!(problem.contains("19.0 GB of 24.0 GB are free") && room(19).remark() == problem, "{problem}");

        let two = of(needs, 2, 25);
        assert!(two.problem().is_none() && of(needs, 2, 24).problem().is_some());
        assert_eq!(two.working_bytes(), 10 * GB);
        let in_turn = of(Needs { residency: Residency::InTurn, ..needs }, 1, 20).remark();
        assert!(in_turn.contains("fits") && in_turn.contains("one at a time"), "{in_turn}");
    }

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
