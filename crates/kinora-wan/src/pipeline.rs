//! The order of the stages: words, picture, steps, frames. Nothing here computes.
//!
//! Always true: the text encoder is gone before the first step; parts that take turns on a device are never there together;
//! frames leave as their latent frame is decoded; a cancel is heard between layers, blocks and latent frames.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use kinora_engine::{ClipDuration, FrameSink, GenerateSpec, Monitor, Noise, Picture, Progress, StageTime};

use crate::condition::{Condition, Family};
use crate::device::Target;
use crate::dit::{Clip, Dit, TokenTimes};
use crate::model::{Adapters, Model, Residency};
use crate::ops::{Ops, Set};
use crate::picture::{Size, best_size, fit, to_rgb, to_tensor};
use crate::sampler::{SHIFTS, STEPS_MAX, SolverName};
use crate::text::EncoderConfig;
use crate::weights::read_tensor;
use crate::{Cancel, WanError, go_on};

/// The models' published default of what to avoid (`sample_neg_prompt` in the Wan2.2 repository).
pub const NEGATIVE_PROMPT: &str = "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，\
JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，\
杂乱的背景，三条腿，背景人很多，倒着走";

/// Prompts whose states are kept.
const STATES_KEPT: usize = 16;
/// Seconds of one clip as the models were trained; longer ones are chained.
const CLIP_SECONDS: usize = 5;

/// What a user may set; the model's own recommendation otherwise.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub steps: Option<usize>,
    /// Of classifier-free guidance; from the request's `cfg_scale` otherwise.
    pub guidance: Option<f64>,
    /// The same for the second expert; as the first otherwise.
    pub guidance_2: Option<f64>,
    /// The solver and its flow shift, of [`SHIFTS`], in place of what the model's files say.
    pub solver: Option<SolverName>,
    pub shift: Option<f64>,
    pub size: Option<Size>,
    /// Frames of one clip: one more than a multiple of the VAE's scale in time.
    pub frames: Option<usize>,
    /// Side in pixels of the squares that frames are decoded in; whole frames otherwise.
    pub vae_tile: Option<usize>,
    pub loras: Adapters,
    /// A safetensors file whose tensor `latents` `[1, z, f, h, w]` is the noise to start from.
    pub noise: Option<PathBuf>,
}

/// A model ready to make clips.
#[derive(Debug)]
pub struct Pipeline {
    model: Model,
    settings: Settings,
    text_sizes: EncoderConfig,
    /// Prompts and their states, the latest first.
    states: Mutex<VecDeque<(String, Tensor)>>,
}

/// What one clip takes of the memory that it is computed in.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    pub size: Size,
    pub frames: usize,
    /// The stage that takes most.
    pub stage: &'static str,
    /// Bytes that it works with: they must be had.
    pub working_bytes: u64,
    /// On the CPU the bytes of a transformer's weights and adapters, which every step reads: they stay in their files, and
    /// what memory does not hold of them is read from the disk again. On a device the bytes of all that lie there in that
    /// stage.
    pub weights_bytes: u64,
    /// Whether clips that are made at the same time share the weights, or each has its own.
    pub residency: Residency,
}

impl Needs {
    /// The clip, or so many of them at the same time, in words.
    pub fn clips(&self, count: u32) -> String {
        let each =
            format!("a clip of {}x{} and {} frames", self.size.width_px, self.size.height_px, self.frames);
        match count {
            1 => each,
            _ => format!("{each}, {count} at a time,"),
        }
    }
}

/// What is told of a clip that was made.
#[derive(Debug)]
pub struct Made {
    pub times: Vec<StageTime>,
    /// Of two chained clips: the peak signal-to-noise ratio of the frame that they share as the second begins with it,
    /// measured against the first's, which is shown. Infinite where both are the same.
    pub seam_psnr_db: Option<f64>,
}

/// How one clip of a job is made.
#[derive(Debug, Clone, Copy)]
struct Plan {
    size: Size,
    /// Frames of one clip.
    frames: usize,
    steps: usize,
    guidance: f64,
    guidance_2: f64,
}

/// The names of a clip's stages.
struct Stages {
    image: &'static str,
    denoise: &'static str,
    decode: &'static str,
}

const PARTS: [Stages; 2] = [
    Stages { image: "image", denoise: "denoise", decode: "decode" },
    Stages { image: "image, part 2", denoise: "denoise, part 2", decode: "decode, part 2" },
];

/// Called with the latents after each step, for goldens.
pub type Tap<'a> = &'a mut dyn FnMut(&Tensor);

impl Pipeline {
    /// Checks `settings` against `model`, and that the model's text encoder can be opened.
    pub fn new(mut model: Model, settings: Settings) -> Result<Self, WanError> {
        model.solver = model.solver.adapted(settings.solver, settings.shift);
        let text_sizes = model.text()?.sizes().clone();
        let pipeline = Self { model, settings, text_sizes, states: Mutex::default() };
        pipeline.check()?;
        Ok(pipeline)
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Size of the clip that a picture of `picture` becomes.
    pub fn size(&self, picture: Size) -> Size {
        let Size { width_px, height_px } = self.model.family.defaults().size;
        self.settings.size.unwrap_or_else(|| best_size(picture, width_px * height_px, self.model.multiple()))
    }

    pub fn fps(&self) -> u32 {
        self.model.family.defaults().fps
    }

    /// Frames of a clip of `duration`. Chained clips share one.
    pub fn frames(&self, duration: ClipDuration) -> usize {
        let frames = self.clip_frames();
        frames + (parts(duration) - 1) * (frames - 1)
    }

    /// What a clip of the size that was set, or of as many pixels as any picture's has at most, takes of the memory that it is
    /// computed in.
    pub fn needs(&self) -> Result<Needs, WanError> {
        self.needs_by(self.model.target.ops, self.model.residency)
    }

    /// The same if it were computed by `ops` with the model's parts where `residency` says.
    fn needs_by(&self, ops: Ops, residency: Residency) -> Result<Needs, WanError> {
        let size = self.settings.size.unwrap_or(self.model.family.defaults().size);
        let (model, frames) = (&self.model, self.clip_frames());
        let Size { width_px, height_px } = size;
        let latent = self.latents(size);
        // In one family the encoder sees the picture alone, in the other all frames of the clip.
        let encoded = match model.family {
            Family::PerTokenTimes => 1,
            Family::Concatenated => frames,
        };
        let pixels = (encoded * 3 * width_px * height_px * size_of::<f32>()) as u64;
        let dits = || model.experts.iter().map(|expert| &expert.dit);
        let stages = [
            ("text", self.text_sizes.working_bytes(ops)),
            ("image", model.vae.encoding_bytes([height_px, width_px], encoded, ops.set) + 2 * pixels),
            ("denoise", dits().map(|dit| dit.working_bytes(latent, ops)).max().unwrap_or_default()),
            ("decode", model.vae.decoding_bytes([height_px, width_px], self.settings.vae_tile, ops.set)?),
        ];
        let weights = match ops.set {
            Set::Cpu => [dits().map(|dit| dit.weights_bytes()).max().unwrap_or_default(); 4],
            Set::Tensors => model.resident_bytes(ops.products, residency),
        };
        let ((stage, working_bytes), weights_bytes) = stages
            .into_iter()
            .zip(weights)
            .max_by_key(|((_, working), weights)| working + weights)
            .expect("there are stages");
        Ok(Needs { size, frames, stage, working_bytes, weights_bytes, residency })
    }

    /// Latent frames, rows and columns of a clip of `size`.
    fn latents(&self, Size { width_px, height_px }: Size) -> [usize; 3] {
        let vae = &self.model.vae;
        let scale = vae.spatial_scale();
        [(self.clip_frames() - 1) / vae.temporal_scale() + 1, height_px / scale, width_px / scale]
    }

    fn clip_frames(&self) -> usize {
        let scale = self.model.vae.temporal_scale();
        let trained = CLIP_SECONDS * self.fps() as usize / scale * scale + 1;
        self.settings.frames.unwrap_or(trained)
    }

    fn check(&self) -> Result<(), WanError> {
        let refused = |problem: String| Err(WanError::Request(problem));
        let Size { width_px: wide, height_px: high } = self.model.multiple();
        if let Some(Size { width_px, height_px }) = self.settings.size
            && (width_px == 0 || height_px == 0 || width_px % wide != 0 || height_px % high != 0)
        {
            return refused(format!(
                "size {width_px}x{height_px}: this model makes widths in multiples of {wide} and heights in multiples \
                 of {high}"
            ));
        }
        let (frames, scale) = (self.clip_frames(), self.model.vae.temporal_scale());
        if frames == 0 || (frames - 1) % scale != 0 {
            return refused(format!(
                "frames {frames}: this model makes one frame more than a multiple of {scale}"
            ));
        }
        // Where the picture decides the size, the smallest there is.
        let size = self.settings.size.unwrap_or(self.model.multiple());
        self.model.dit_config().grid(self.latents(size))?;
        if self.settings.guidance_2.is_some() && self.model.experts.len() == 1 {
            return refused(
                "guidance-2: this model has no second transformer that it could be for".to_owned(),
            );
        }
        if let Some(steps) = self.settings.steps
            && !(1..=STEPS_MAX).contains(&steps)
        {
            return refused(format!("steps {steps}: must be from 1 to {STEPS_MAX}"));
        }
        if let Some(shift) = self.settings.shift
            && !SHIFTS.contains(&shift)
        {
            return refused(format!("shift {shift}: must be from {} to {}", SHIFTS.start(), SHIFTS.end()));
        }
        for guidance in [self.settings.guidance, self.settings.guidance_2].into_iter().flatten() {
            if !(guidance.is_finite() && guidance >= 0.0) {
                return refused(format!("guidance {guidance}: must be 0 or more"));
            }
        }
        self.model.vae.decoder(self.settings.vae_tile).map(drop)
    }

    /// How a clip of `spec` is made, for people who want to make it again.
    pub fn recipe(&self, spec: &GenerateSpec, picture: &Picture) -> serde_json::Value {
        let plan = self.plan(spec, picture);
        let (solver, shift) = self.model.solver.name_and_shift();
        let dtype = self.model.target.ops.products.dtype().as_str();
        let mut recipe = serde_json::json!({
            "steps": plan.steps, "guidance": plan.guidance, "solver": solver, "shift": shift, "dtype": dtype,
        });
        if self.model.experts.len() > 1 {
            recipe["guidance_2"] = plan.guidance_2.into();
        }
        recipe
    }

    fn plan(&self, spec: &GenerateSpec, picture: &Picture) -> Plan {
        let defaults = self.model.family.defaults();
        // 0 follows no guidance, 0.5 is the model's own.
        let by_scale = 1.0 + 2.0 * f64::from(spec.cfg_scale) * (defaults.guidance - 1.0);
        let guidance = self.settings.guidance.unwrap_or(by_scale);
        Plan {
            size: self.size(Size {
                width_px: picture.width_px() as usize,
                height_px: picture.height_px() as usize,
            }),
            frames: self.clip_frames(),
            steps: self.settings.steps.unwrap_or(defaults.steps),
            guidance,
            guidance_2: self.settings.guidance_2.unwrap_or(guidance),
        }
    }

    /// Makes the clip, frame by frame into `sink`.
    ///
    /// `tap` hears the latents after each step, then those that are decoded.
    pub fn run(
        &self,
        spec: &GenerateSpec,
        picture: &Picture,
        sink: &mut dyn FrameSink,
        monitor: &dyn Monitor,
        tap: Tap<'_>,
    ) -> Result<Made, WanError> {
        let plan = self.plan(spec, picture);
        let mut job = Job { pipeline: self, plan, monitor, sink, tap, times: Vec::new() };
        if self.settings.noise.is_some() && parts(spec.duration) > 1 {
            return Err(WanError::Request(
                "a file of noise starts one clip, not the two of 10 seconds".to_owned(),
            ));
        }
        // A file of noise that does not fit is told before anything is computed.
        let mut first_noise = Some(self.noise(spec.seed, 0, plan)?);
        let text = job.text(spec)?;
        let mut rgb = fit(picture, plan.size)?;
        let mut seam_psnr_db = None;
        for (part, stages) in PARTS.iter().enumerate().take(parts(spec.duration)) {
            let noise = match first_noise.take() {
                Some(noise) => noise,
                None => self.noise(spec.seed, part, plan)?,
            };
            let condition = job.condition(stages, &rgb)?;
            let latents = job.denoise(stages, &condition, noise, &text)?;
            let [first, last] = job.decode(stages, &latents, part > 0)?;
            if part > 0 {
                seam_psnr_db = Some(psnr_db(&first, &rgb));
            }
            rgb = last;
        }
        Ok(Made { times: job.times, seam_psnr_db })
    }

    /// `[1, z, f, h, w]` in f32.
    fn noise(&self, seed: u64, part: usize, plan: Plan) -> Result<Tensor, WanError> {
        let [frames, height, width] = self.latents(plan.size);
        let shape = [1, self.model.vae.latent_channels(), frames, height, width];
        let noise = match &self.settings.noise {
            Some(path) => read_tensor(path, "latents", &shape)
                .map_err(|error| WanError::Request(format!("the noise cannot be used: {error}")))?,
            None => {
                let noise = Noise::new(seed, &format!("wan.noise.{part}"));
                let count = shape.iter().product::<usize>() as u64;
                Tensor::from_vec((0..count).map(|at| noise.normal(at)).collect(), &shape[..], &Device::Cpu)?
            }
        };
        Ok(noise.to_device(&self.model.target.device)?)
    }
}

/// Refuses what is no picture any more, though no operation failed. A sum tells of every number.
fn check_finite(numbers: &Tensor, place: impl Fn() -> String) -> Result<(), WanError> {
    if numbers.sum_all()?.to_scalar::<f32>()?.is_finite() {
        return Ok(());
    }
    Err(WanError::Request(format!(
        "{} made numbers that are not finite: weights or adapters are damaged, an adapter works too strongly, or guidance or \
         shift are too far from the model's own",
        place()
    )))
}

/// Peak signal-to-noise ratio of two frames.
fn psnr_db(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * a.len() as f64 / squares).log10()
}

/// Clips that a duration is chained of.
fn parts(duration: ClipDuration) -> usize {
    duration.seconds() as usize / CLIP_SECONDS
}

/// One run of the pipeline.
struct Job<'a> {
    pipeline: &'a Pipeline,
    plan: Plan,
    monitor: &'a dyn Monitor,
    sink: &'a mut dyn FrameSink,
    tap: Tap<'a>,
    times: Vec<StageTime>,
}

/// States of the prompt, and of what to avoid where that is asked for: `[1, L, text_dim]`.
struct Text {
    prompt: Tensor,
    negative: Option<Tensor>,
}

impl Job<'_> {
    fn cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }

    fn progress(&self, stage: &'static str, done: usize, total: usize) {
        self.monitor.progress(Progress { stage, done: done as u32, total: total as u32 });
    }

    fn took(&mut self, stage: &'static str, duration: Duration) {
        self.times.push(StageTime { stage, duration });
    }

    fn text(&mut self, spec: &GenerateSpec) -> Result<Text, WanError> {
        let started = Instant::now();
        let guided = self.plan.guidance > 1.0;
        let negative = if spec.negative_prompt.is_empty() { NEGATIVE_PROMPT } else { &spec.negative_prompt };
        let prompts = [Some(spec.prompt.as_str()), guided.then_some(negative)];
        let total = prompts.iter().flatten().count();
        let mut states = Vec::new();
        let mut encoder = None;
        for prompt in prompts.into_iter().flatten() {
            self.progress("text", states.len(), total);
            states.push(self.pipeline.states_of(prompt, &mut encoder, &|| self.cancelled())?);
        }
        self.progress("text", total, total);
        self.took("text", started.elapsed());
        let mut states = states.into_iter();
        let prompt = states.next().expect("the prompt has states");
        Ok(Text { prompt, negative: states.next() })
    }

    fn condition(&mut self, stages: &Stages, rgb: &[u8]) -> Result<Condition, WanError> {
        let started = Instant::now();
        self.progress(stages.image, 0, 1);
        let model = &self.pipeline.model;
        let vae = model.vae_in_use()?;
        let picture = to_tensor(rgb, self.plan.size)?.to_device(&model.target.device)?;
        let cancel = || self.cancelled();
        let condition = Condition::new(model.family, &vae, &picture, self.plan.frames, &cancel)?;
        self.progress(stages.image, 1, 1);
        self.took(stages.image, started.elapsed());
        Ok(condition)
    }

    fn denoise(
        &mut self,
        stages: &Stages,
        condition: &Condition,
        noise: Tensor,
        text: &Text,
    ) -> Result<Tensor, WanError> {
        let started = Instant::now();
        let model = &self.pipeline.model;
        let (_, _, frames, height, width) = noise.dims5()?;
        let [_, high, wide] = model.dit_config().patch_size;
        let tokens = (height / high) * (width / wide);
        let mut solver = model.solver.solver(self.plan.steps)?;
        let times = solver.schedule().times.clone();
        let mut latents = noise;
        let mut done = 0;
        self.progress(stages.denoise, done, self.plan.steps);
        let mut left = &times[..];
        for (expert, guidance) in model.experts.iter().zip([self.plan.guidance, self.plan.guidance_2]) {
            let (own, later) = left.split_at(left.partition_point(|&time| time >= expert.from_time));
            left = later;
            if own.is_empty() {
                continue;
            }
            let dit = model.dit_in_use(expert, &|| self.cancelled())?;
            let guided = Guided::new(&dit, [frames, height, width], text, guidance)?;
            for &time in own {
                go_on(&|| self.cancelled())?;
                let times = condition.token_times(time, frames, tokens);
                let input = condition.model_input(&latents)?;
                let predicted = guided.velocity(&input, &times, &|| self.cancelled())?;
                latents = solver.step(&predicted, &latents)?;
                (self.tap)(&latents);
                done += 1;
                check_finite(&latents, || format!("step {done} of {}", self.plan.steps))?;
                self.progress(stages.denoise, done, self.plan.steps);
            }
        }
        let latents = condition.finish(&latents)?;
        (self.tap)(&latents);
        self.took(stages.denoise, started.elapsed());
        Ok(latents)
    }

    /// Decodes into the sink, but for the first frame where `continued`; gives the first and the last frame, `[H, W, 3]`.
    fn decode(
        &mut self,
        stages: &Stages,
        latents: &Tensor,
        continued: bool,
    ) -> Result<[Vec<u8>; 2], WanError> {
        let started = Instant::now();
        let vae = self.pipeline.model.vae_in_use()?;
        let total = latents.dim(2)?;
        let frame_bytes = self.plan.size.width_px * self.plan.size.height_px * 3;
        let mut decoder = vae.decoder(self.pipeline.settings.vae_tile)?;
        let (mut first, mut last) = (Vec::new(), Vec::new());
        self.progress(stages.decode, 0, total);
        for index in 0..total {
            let decoded = decoder.push(&latents.narrow(2, index, 1)?, &|| self.cancelled())?;
            check_finite(&decoded, || format!("decoding latent frame {} of {total}", index + 1))?;
            let rgb = to_rgb(&decoded)?;
            if index == 0 {
                first = rgb[..frame_bytes].to_vec();
            }
            let skipped = if continued && index == 0 { frame_bytes } else { 0 };
            for frame in rgb[skipped..].chunks_exact(frame_bytes) {
                self.sink.frame(frame)?;
            }
            last = rgb[rgb.len() - frame_bytes..].to_vec();
            self.progress(stages.decode, index + 1, total);
        }
        self.took(stages.decode, started.elapsed());
        Ok([first, last])
    }
}

/// A transformer with what its steps share.
struct Guided<'a> {
    dit: &'a Dit,
    guidance: f64,
    clip: Clip,
    prompt: Tensor,
    negative: Option<Tensor>,
}

impl<'a> Guided<'a> {
    fn new(dit: &'a Dit, grid: [usize; 3], text: &Text, guidance: f64) -> Result<Self, WanError> {
        Ok(Self {
            dit,
            guidance,
            clip: dit.clip(grid)?,
            prompt: dit.project_text(&text.prompt)?,
            negative: text.negative.as_ref().map(|states| dit.project_text(states)).transpose()?,
        })
    }

    /// The velocity at `latents`, led away from what is to be avoided.
    fn velocity(&self, latents: &Tensor, times: &TokenTimes, cancel: Cancel<'_>) -> Result<Tensor, WanError> {
        let towards = |text| self.dit.forward(&self.clip, latents, times, text, cancel);
        let predicted = towards(&self.prompt)?;
        let Some(negative) = &self.negative else { return Ok(predicted) };
        let away = towards(negative)?;
        Ok((&away + ((predicted - &away)? * self.guidance)?)?)
    }
}

impl Pipeline {
    /// States of `prompt`, remembered or by `encoder`, which is opened when first needed.
    fn states_of(
        &self,
        prompt: &str,
        encoder: &mut Option<crate::text::TextEncoder>,
        cancel: Cancel<'_>,
    ) -> Result<Tensor, WanError> {
        if let Some(states) = self.remembered(prompt) {
            return Ok(states);
        }
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => encoder.insert(self.model.text()?),
        };
        let states = encoder.states(prompt, cancel)?.to_device(&Device::Cpu)?;
        let mut all = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_front((prompt.to_owned(), states.clone()));
        all.truncate(STATES_KEPT);
        Ok(states)
    }

    fn remembered(&self, prompt: &str) -> Option<Tensor> {
        let mut all = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|(known, _)| known == prompt)?;
        let entry = all.remove(place)?;
        let states = entry.1.clone();
        all.push_front(entry);
        Some(states)
    }
}

/// Opens `folder` with `settings` for so many clips at the same time.
pub fn open(
    folder: &Path,
    target: Target,
    settings: Settings,
    clips_count: u32,
) -> Result<Pipeline, WanError> {
    let residency = match target.memory()? {
        Some(memory) => {
            let needs = needs(folder, &target, &settings, clips_count)?;
            // So that what does not fit is told at once.
            memory.check(&needs, target.ops.products, clips_count)?;
            needs.residency
        }
        None => Residency::Whole,
    };
    let model = Model::open_adapted(folder, target, &settings.loras, residency)?;
    Pipeline::new(model, settings)
}

/// What each of so many clips at the same time takes where `target` computes, once everything of the model in `folder` was
/// checked. Its parts take turns there if they do not fit otherwise.
///
/// The model is opened on the CPU, so nothing is copied.
pub fn needs(
    folder: &Path,
    target: &Target,
    settings: &Settings,
    clips_count: u32,
) -> Result<Needs, WanError> {
    let model = Model::open_adapted(folder, Target::cpu_f32(), &settings.loras, Residency::Whole)?;
    let pipeline = Pipeline::new(model, settings.clone())?;
    let whole = pipeline.needs_by(target.ops, Residency::Whole)?;
    match target.memory()? {
        Some(memory) if !memory.holds(&whole, clips_count) => {
            pipeline.needs_by(target.ops, Residency::InTurn)
        }
        _ => Ok(whole),
    }
}
