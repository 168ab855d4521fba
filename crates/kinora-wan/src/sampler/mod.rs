//! Solvers of the flow: from noise to a clip in a few steps of the transformer's velocity.
//!
//! Always true: coefficients are computed in f32 in the reference's order, because where a noise level is close to 1 its
//! rounding decides the first step.
//! Source: the schedulers of the diffusers library, chosen by `scheduler/scheduler_config.json`.

mod unipc;

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::WanError;
use crate::weights::read_json;
use unipc::UniPc;
pub use unipc::UniPcConfig;

/// The most steps a clip is made in: beyond, the reference's whole-numbered times repeat at the published shifts.
pub const STEPS_MAX: usize = 150;

/// Time units that a training may have had.
const TRAIN_TIMESTEPS: RangeInclusive<usize> = 1..=1_000_000;

/// The flow shifts that are taken: beyond them rounding makes levels of noise the same, or none at all.
pub const SHIFTS: RangeInclusive<f64> = 0.01..=100.0;

/// A solver that a user asks for in place of the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolverName {
    UniPc,
    Euler,
}

/// A solver as its configuration describes it.
#[derive(Debug, Clone)]
pub enum SolverConfig {
    UniPc(UniPcConfig),
    Euler(EulerConfig),
    /// Euler's steps over the levels of noise that UniPC would have.
    EulerOnLevels(UniPcConfig),
}

/// `FlowMatchEulerDiscreteScheduler`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct EulerConfig {
    num_train_timesteps: usize,
    shift: f64,
    use_dynamic_shifting: bool,
    invert_sigmas: bool,
    shift_terminal: Option<f64>,
    use_karras_sigmas: bool,
    use_exponential_sigmas: bool,
    use_beta_sigmas: bool,
    stochastic_sampling: bool,
}

impl Default for EulerConfig {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            invert_sigmas: false,
            shift_terminal: None,
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            stochastic_sampling: false,
        }
    }
}

impl SolverConfig {
    /// Reads `scheduler_config.json` in `folder`.
    pub fn read(folder: &Path) -> Result<Self, WanError> {
        Self::read_file(&folder.join("scheduler_config.json"))
    }

    /// Reads a scheduler's configuration.
    pub fn read_file(path: &Path) -> Result<Self, WanError> {
        #[derive(Deserialize)]
        struct Class {
            #[serde(rename = "_class_name")]
            name: String,
        }
        let class: Class = read_json(path)?;
        let refused = |problem: String| WanError::Config { path: PathBuf::from(path), problem };
        match class.name.as_str() {
            "UniPCMultistepScheduler" => {
                let config: UniPcConfig = read_json(path)?;
                config.check().map_err(refused)?;
                Ok(Self::UniPc(config))
            }
            "FlowMatchEulerDiscreteScheduler" => {
                let config: EulerConfig = read_json(path)?;
                config.check().map_err(refused)?;
                Ok(Self::Euler(config))
            }
            other => Err(refused(format!(
                "the scheduler {other} is not supported; UniPCMultistepScheduler and FlowMatchEulerDiscreteScheduler are"
            ))),
        }
    }

    /// The same with another solver or another flow shift, of [`SHIFTS`], where they are given.
    ///
    /// Euler in place of UniPC keeps UniPC's levels of noise, evenly spaced before the shift, which are also those that
    /// adapters for few steps were distilled at; the levels of `FlowMatchEulerDiscreteScheduler` end lower and are taken only
    /// from a file that names it.
    pub fn adapted(self, name: Option<SolverName>, shift: Option<f64>) -> Self {
        let mut adapted = match (name, self) {
            (Some(SolverName::Euler), Self::UniPc(config)) => Self::EulerOnLevels(config),
            (Some(SolverName::UniPc), Self::EulerOnLevels(config)) => Self::UniPc(config),
            (Some(SolverName::UniPc), Self::Euler(EulerConfig { num_train_timesteps, shift, .. })) => {
                Self::UniPc(UniPcConfig::of_flow(num_train_timesteps, shift))
            }
            (_, config) => config,
        };
        if let Some(shift) = shift {
            match &mut adapted {
                Self::UniPc(config) | Self::EulerOnLevels(config) => config.flow_shift = shift,
                Self::Euler(config) => config.shift = shift,
            }
        }
        adapted
    }

    /// Time units that training had, by which `boundary_ratio` counts.
    pub fn train_timesteps(&self) -> usize {
        match self {
            Self::UniPc(config) | Self::EulerOnLevels(config) => config.num_train_timesteps,
            Self::Euler(config) => config.num_train_timesteps,
        }
    }

    /// The solver's name and its flow shift.
    pub fn name_and_shift(&self) -> (&'static str, f64) {
        match self {
            Self::UniPc(config) => ("unipc", config.flow_shift),
            Self::EulerOnLevels(config) => ("euler", config.flow_shift),
            Self::Euler(config) => ("euler", config.shift),
        }
    }

    /// A solver for a clip of `steps` steps, 1 to [`STEPS_MAX`].
    pub fn solver(&self, steps: usize) -> Result<Solver, WanError> {
        if !(1..=STEPS_MAX).contains(&steps) {
            return Err(WanError::Request(format!("steps must be from 1 to {STEPS_MAX}, not {steps}")));
        }
        let (schedule, kind) = match self {
            Self::UniPc(config) => {
                (config.schedule(steps), Kind::UniPc(Box::new(UniPc::new(config.clone()))))
            }
            Self::Euler(config) => (config.schedule(steps), Kind::Euler),
            Self::EulerOnLevels(config) => (config.schedule(steps), Kind::Euler),
        };
        Ok(Solver { schedule, kind, step: 0 })
    }
}

impl EulerConfig {
    fn check(&self) -> Result<(), String> {
        let unsupported = [
            ("use_dynamic_shifting", self.use_dynamic_shifting),
            ("invert_sigmas", self.invert_sigmas),
            ("shift_terminal", self.shift_terminal.is_some()),
            ("use_karras_sigmas", self.use_karras_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
        ];
        refuse(&unsupported)?;
        check_levels(self.num_train_timesteps, ("shift", self.shift))
    }

    /// The shift is applied to the ends of the range and again to what lies between, as the reference does.
    fn schedule(&self, steps: usize) -> Schedule {
        let train = self.num_train_timesteps as f64;
        let ends = |time: f64| {
            let sigma = (time as f32) / self.num_train_timesteps as f32;
            let shift = self.shift as f32;
            f64::from(shift * sigma / (1.0 + (shift - 1.0) * sigma)) * train
        };
        let sigmas =
            linspace(ends(train), ends(1.0), steps).into_iter().map(|time| shifted(time / train, self.shift));
        let mut sigmas: Vec<f32> = sigmas.map(|sigma| sigma as f32).collect();
        let times = sigmas.iter().map(|sigma| sigma * self.num_train_timesteps as f32).collect();
        sigmas.push(0.0);
        Schedule { sigmas, times }
    }
}

/// Noise levels and times of the steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// `steps + 1` levels, falling from 1 to the last.
    pub sigmas: Vec<f32>,
    /// `steps` times, in the units of training.
    pub times: Vec<f32>,
}

/// Walks a clip from noise down the schedule.
#[derive(Debug)]
pub struct Solver {
    schedule: Schedule,
    kind: Kind,
    step: usize,
}

#[derive(Debug)]
enum Kind {
    UniPc(Box<UniPc>),
    Euler,
}

impl Solver {
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The sample after the next step, from the velocity predicted at `sample`. Both f32, of one shape.
    pub fn step(&mut self, velocity: &Tensor, sample: &Tensor) -> Result<Tensor, WanError> {
        let step = self.step;
        assert!(step < self.schedule.times.len(), "a solver takes no more steps than it was made for");
        self.step += 1;
        match &mut self.kind {
            Kind::UniPc(solver) => solver.step(&self.schedule.sigmas, step, velocity, sample),
            Kind::Euler => {
                let length = self.schedule.sigmas[step + 1] - self.schedule.sigmas[step];
                Ok((sample + (velocity * f64::from(length))?)?)
            }
        }
    }
}

/// `shift · σ / (1 + (shift - 1) σ)`: more steps where there is much noise.
fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// `count` numbers from `start` to `end`, both included.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    let mut numbers: Vec<f64> = (0..count).map(|index| index as f64 * step + start).collect();
    if count > 1 {
        numbers[count - 1] = end;
    }
    numbers
}

/// Refuses what noise levels cannot be made of.
fn check_levels(train_timesteps: usize, (name, shift): (&str, f64)) -> Result<(), String> {
    if !TRAIN_TIMESTEPS.contains(&train_timesteps) {
        let (least, most) = (TRAIN_TIMESTEPS.start(), TRAIN_TIMESTEPS.end());
        return Err(format!("`num_train_timesteps` must be from {least} to {most}, not {train_timesteps}"));
    }
    if !SHIFTS.contains(&shift) {
        return Err(format!("`{name}` must be from {} to {}, not {shift}", SHIFTS.start(), SHIFTS.end()));
    }
    Ok(())
}

fn refuse(unsupported: &[(&str, bool)]) -> Result<(), String> {
    match unsupported.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(format!("`{name}` is not supported")),
        None => Ok(()),
    }
}
