//! Which engine a command works with, from its flags.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use kinora_engine::{Engine, MotionEngine, PatternEngine};
use kinora_wan::device::{DeviceName, Target};
use kinora_wan::model::{Adapters, Residency};
use kinora_wan::ops::Products;
use kinora_wan::picture::Size;
use kinora_wan::sampler::{SHIFTS, SolverName};
use kinora_wan::weights::Lora;
use kinora_wan::{Settings, WanEngine, WanError};

use super::{EngineName, Fit};
use crate::allocator::keep_large_blocks;
use crate::library::{Library, LibraryError};
use crate::machine::Memory;

/// Which engine, and how it is to work.
#[derive(Debug, Clone, Args)]
pub struct EngineChoice {
    /// What computes the frames.
    #[arg(long, env = "KINORA_ENGINE", value_enum, default_value = "motion")]
    engine: EngineName,
    /// Wan2.2 model for the engine `wan`: a name from `kinora models list`, or a folder in the diffusers layout.
    #[arg(long, value_name = "NAME|DIR", env = "KINORA_MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    library: Library,
    /// Solver steps of a clip, 1 to 150; the model's own number otherwise. For the engine `wan`.
    #[arg(long, value_name = "N", env = "KINORA_STEPS", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=150))]
    steps: Option<u32>,
    /// Strength of classifier-free guidance, 0 to 100, up to 1 for none; from `cfg_scale` otherwise. For the engine `wan`.
    #[arg(long, value_name = "G", env = "KINORA_GUIDANCE", allow_negative_numbers = true, value_parser = parse_guidance)]
    guidance: Option<f64>,
    /// The same for the expert that takes the less noisy steps; as --guidance otherwise. For the engine `wan`.
    #[arg(long, value_name = "G", env = "KINORA_GUIDANCE_2", allow_negative_numbers = true, value_parser = parse_guidance)]
    guidance_2: Option<f64>,
    /// Solver of the steps; the model's own otherwise. For the engine `wan`.
    #[arg(long, value_name = "NAME", env = "KINORA_SOLVER", value_enum)]
    solver: Option<Solver>,
    /// Flow shift, 0.01 to 100: the more, the more of the steps go to what is large in a clip; the model's own otherwise.
    /// For the engine `wan`.
    #[arg(long, value_name = "F", env = "KINORA_SHIFT", allow_negative_numbers = true, value_parser = parse_shift)]
    shift: Option<f64>,
    /// Size of the clip, in multiples of the model's patches (32 pixels for TI2V-5B, 16 for I2V-A14B); the model's own area in
    /// the picture's ratio otherwise. For the engine `wan`.
    #[arg(long, value_name = "WxH", env = "KINORA_SIZE", value_parser = parse_size)]
    size: Option<Size>,
    /// Frames of a clip of 5 seconds, one more than a multiple of 4, up to 1001; as the model was trained otherwise. For
    /// the engine `wan`.
    #[arg(long, value_name = "N", env = "KINORA_FRAMES", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1001))]
    frames: Option<u32>,
    /// Adapter (LoRA) for the transformer, with its strength, 1 otherwise; repeat for more. For the engine `wan`.
    #[arg(long, value_name = "FILE[=S]", env = "KINORA_LORA", value_delimiter = ',', value_parser = parse_lora)]
    lora: Vec<Lora>,
    /// The same for the expert that takes the less noisy steps. For the engine `wan`.
    #[arg(long, value_name = "FILE[=S]", env = "KINORA_LORA_2", value_delimiter = ',', value_parser = parse_lora)]
    lora_2: Vec<Lora>,
    /// Type of the numbers that the engine `wan` multiplies, bf16 on a GPU and f32 on the CPU otherwise; sums are in f32,
    /// and so is the VAE.
    #[arg(long, value_name = "TYPE", env = "KINORA_DTYPE", value_enum)]
    dtype: Option<Dtype>,
    /// Where the engine `wan` computes: cpu, cuda for the first NVIDIA GPU, or cuda:N; GPUs need a build with the feature
    /// `cuda`.
    #[arg(long, value_name = "DEVICE", env = "KINORA_DEVICE", default_value = "cpu")]
    device: DeviceName,
    /// Decode frames in squares of this many pixels, 64 to 8192, which takes less memory; whole otherwise. For the engine
    /// `wan`.
    #[arg(long, value_name = "PX", env = "KINORA_VAE_TILE", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(64..=8192))]
    vae_tile: Option<u32>,
}

/// What solves the flow from noise to a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Solver {
    /// A predictor and corrector over several steps.
    #[value(name = "unipc")]
    UniPc,
    /// Plain steps, for adapters that were distilled to few of them.
    Euler,
}

/// Type of the numbers that are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F32,
    /// Half the width: 1.2 to 2 times as fast on processors with AVX-512 BF16, slower on others, coarser everywhere.
    Bf16,
}

impl Dtype {
    /// The one that was asked for, or the device's own: a GPU has units for bf16, and rarely memory for more.
    pub fn on(device: DeviceName, asked: Option<Self>) -> Self {
        asked.unwrap_or(match device {
            DeviceName::Cpu => Self::F32,
            DeviceName::Cuda(_) => Self::Bf16,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    pub fn products(self) -> Products {
        match self {
            Self::F32 => Products::F32,
            Self::Bf16 => Products::Bf16,
        }
    }
}

/// What is said where a GPU has no room for a whole model.
pub const PARTS_IN_TURN: &str = "the GPU has no room for the whole model: its parts lie there one at a time and are copied anew \
     for every clip; a smaller quantisation of the weights may fit whole";

/// An engine, and what its user should know.
#[derive(Debug)]
pub struct Opened {
    pub engine: Arc<dyn Engine>,
    pub warnings: Vec<Warning>,
}

/// What the user of an engine should know before it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// What makes it slower with the memory there is than it could be.
    MemoryShort(String),
    /// What a file of adapters holds that the model cannot use.
    AdapterPartlyUsed(String),
    /// What was set, but the engine does not read.
    SettingUnused(String),
}

impl Warning {
    pub fn text(&self) -> &str {
        match self {
            Self::MemoryShort(text) | Self::AdapterPartlyUsed(text) | Self::SettingUnused(text) => text,
        }
    }
}

impl Opened {
    /// The engine, once the log has what its user should know.
    pub fn told(self) -> Arc<dyn Engine> {
        for warning in self.warnings {
            match warning {
                Warning::MemoryShort(warning) => tracing::warn!(warning, "engine.memory_short"),
                Warning::AdapterPartlyUsed(warning) => {
                    tracing::warn!(warning, "engine.adapter_partly_used");
                }
                Warning::SettingUnused(warning) => tracing::warn!(warning, "engine.setting_unused"),
            }
        }
        self.engine
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    #[error(
        "the engine `wan` needs --model, a name from `kinora models list` or the folder of a Wan2.2 model"
    )]
    NoModel,
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error("the model cannot be used")]
    Model(#[source] WanError),
    #[error("the adapter cannot be used")]
    Adapter(#[source] WanError),
    /// A size, a device and the like, which the error names.
    #[error(transparent)]
    Setting(WanError),
    #[error("{0}")]
    Memory(String),
}

impl From<WanError> for ChoiceError {
    fn from(error: WanError) -> Self {
        match error {
            WanError::Request(_) | WanError::Device(_) => Self::Setting(error),
            error => Self::Model(error),
        }
    }
}

/// Guidance that may be asked for. Models are run with 1 to 10; far more leads past every number.
const GUIDANCES: RangeInclusive<f64> = 0.0..=100.0;

pub fn parse_size(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.parse::<u16>().ok().filter(|side| *side > 0).map(usize::from);
    let sides = text.split_once(['x', 'X']).and_then(|(wide, high)| Some((side(wide)?, side(high)?)));
    let (width_px, height_px) = sides.ok_or("must be a width and a height in pixels, such as 1280x704")?;
    Ok(Size { width_px, height_px })
}

fn parse_shift(text: &str) -> Result<f64, String> {
    parse_within(&SHIFTS, text)
}

fn parse_guidance(text: &str) -> Result<f64, String> {
    parse_within(&GUIDANCES, text)
}

fn parse_within(range: &RangeInclusive<f64>, text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
}

pub fn parse_lora(text: &str) -> Result<Lora, String> {
    let (path, strength) = text.rsplit_once('=').unwrap_or((text, "1"));
    if path.is_empty() {
        return Err("must be a file, perhaps with `=` and its strength".to_owned());
    }
    match strength.parse::<f64>() {
        Ok(strength) if strength.is_finite() => Ok(Lora { path: path.into(), strength }),
        _ => Err(format!("the strength `{strength}` must be a finite number")),
    }
}

impl EngineChoice {
    pub fn name(&self) -> EngineName {
        self.engine
    }

    /// Opens the engine for so many clips at the same time. `noise` is a file of noise to start from, which the engine
    /// `wan` knows.
    pub fn load(&self, noise: Option<PathBuf>, clips_count: u32) -> Result<Opened, ChoiceError> {
        let opened = |engine: Arc<dyn Engine>| {
            let unused = self.unused(noise.is_some()).map(Warning::SettingUnused);
            Opened { engine, warnings: unused.into_iter().collect() }
        };
        Ok(match self.engine {
            EngineName::Motion => opened(Arc::new(MotionEngine)),
            EngineName::Pattern => opened(Arc::new(PatternEngine)),
            EngineName::Wan => {
                let folder = self.library.find(self.model.as_ref().ok_or(ChoiceError::NoModel)?)?;
                let dtype = Dtype::on(self.device, self.dtype);
                let target = Target::open(self.device, dtype.products())?;
                let engine = WanEngine::open(&folder, target, self.settings(noise), clips_count)
                    .map_err(|error| self.blamed(error))?;
                let mut warnings: Vec<Warning> =
                    engine.warnings().map(|text| Warning::AdapterPartlyUsed(text.to_owned())).collect();
                let needs = engine.needs()?;
                tracing::info!(
                    model = %folder.display(),
                    device = %self.device,
                    dtype = dtype.name(),
                    clip.working_bytes = needs.working_bytes,
                    weights.size_bytes = needs.weights_bytes,
                    "engine.opened"
                );
                // A GPU's memory was looked at when the engine was opened.
                if self.device == DeviceName::Cpu {
                    keep_large_blocks();
                    let fit = Fit { needs, clips_count, memory: Memory::read() };
                    fit.problem().map_or(Ok(()), |problem| Err(ChoiceError::Memory(problem)))?;
                    warnings.extend(fit.warning().map(Warning::MemoryShort));
                } else if needs.residency == Residency::InTurn {
                    warnings.push(Warning::MemoryShort(PARTS_IN_TURN.to_owned()));
                }
                Opened { engine: Arc::new(engine), warnings }
            }
        })
    }

    /// An error of opening a model, which may lie in a file of adapters.
    fn blamed(&self, error: WanError) -> ChoiceError {
        let is_adapter = |path: &Path| self.lora.iter().chain(&self.lora_2).any(|lora| lora.path == path);
        match &error {
            WanError::Read { path, .. }
            | WanError::Config { path, .. }
            | WanError::Damaged { path, .. }
            | WanError::MissingTensor { path, .. }
            | WanError::WrongShape { path, .. }
            | WanError::WrongType { path, .. }
                if is_adapter(path) =>
            {
                ChoiceError::Adapter(error)
            }
            _ => error.into(),
        }
    }

    /// What is said of flags that only the engine `wan` reads, where another was chosen: perhaps by mistake.
    fn unused(&self, has_noise: bool) -> Option<String> {
        let set = [
            ("--model", self.model.is_some()),
            ("--steps", self.steps.is_some()),
            ("--guidance", self.guidance.is_some()),
            ("--guidance-2", self.guidance_2.is_some()),
            ("--solver", self.solver.is_some()),
            ("--shift", self.shift.is_some()),
            ("--size", self.size.is_some()),
            ("--frames", self.frames.is_some()),
            ("--lora", !self.lora.is_empty()),
            ("--lora-2", !self.lora_2.is_empty()),
            ("--dtype", self.dtype.is_some()),
            ("--device", self.device != DeviceName::Cpu),
            ("--vae-tile", self.vae_tile.is_some()),
            ("--noise", has_noise),
        ];
        let set: Vec<_> = set.into_iter().filter_map(|(flag, is_set)| is_set.then_some(flag)).collect();
        (!set.is_empty())
            .then(|| format!("only --engine wan reads {}: another engine is chosen", set.join(", ")))
    }

    fn settings(&self, noise: Option<PathBuf>) -> Settings {
        let count = |number: Option<u32>| number.map(|number| number as usize);
        Settings {
            steps: count(self.steps),
            guidance: self.guidance,
            guidance_2: self.guidance_2,
            solver: self.solver.map(|solver| match solver {
                Solver::UniPc => SolverName::UniPc,
                Solver::Euler => SolverName::Euler,
            }),
            shift: self.shift,
            size: self.size,
            frames: count(self.frames),
            vae_tile: count(self.vae_tile),
            loras: Adapters { first: self.lora.clone(), second: self.lora_2.clone() },
            noise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_a_file_and_perhaps_a_strength() {
        let of = |path: &str, strength| Lora { path: path.into(), strength };
        assert_eq!(parse_lora("a.safetensors"), Ok(of("a.safetensors", 1.0)));
        assert_eq!(parse_lora("x=y/a.safetensors=0.5"), Ok(of("x=y/a.safetensors", 0.5)));
        for wrong in ["a.safetensors=much", "", "=0.5"] {
            assert!(parse_lora(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shift_is_a_number_within_its_limits() {
        assert_eq!(
            (parse_shift("3"), parse_shift("0.01"), parse_shift("100")),
            (Ok(3.0), Ok(0.01), Ok(100.0))
        );
        for text in ["", "x", "0", "1e-9", "-3", "NaN", "inf", "100.1"] {
            let told = parse_shift(text).unwrap_err();
            assert!(told.contains("from 0.01 to 100"), "{text}: {told}");
        }
    }

    #[test]
    fn guidance_is_a_number_within_its_limits() {
        assert_eq!((parse_guidance("0"), parse_guidance("3.5")), (Ok(0.0), Ok(3.5)));
        for text in ["", "x", "-1", "NaN", "inf", "1e30"] {
            let told = parse_guidance(text).unwrap_err();
            assert!(told.contains("from 0 to 100"), "{text}: {told}");
        }
    }

    #[test]
    fn a_gpu_multiplies_in_bf16_and_the_cpu_in_f32_unless_asked() {
        let on = |device: &str, asked| Dtype::on(device.parse().unwrap(), asked);
        assert_eq!(
            (on("cpu", None), on("cuda", None), on("cuda:1", None)),
            (Dtype::F32, Dtype::Bf16, Dtype::Bf16)
        );
        assert_eq!((on("cpu", Some(Dtype::Bf16)), on("cuda", Some(Dtype::F32))), (Dtype::Bf16, Dtype::F32));
    }

    #[test]
    fn a_size_is_two_sides() {
        assert_eq!(parse_size("1280x704"), Ok(Size { width_px: 1280, height_px: 704 }));
        for text in ["", "1280", "x704", "0x704", "-1x704", "99999x32", "1280x704x3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
