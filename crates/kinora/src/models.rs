//! The models that are served, and by which engines.

mod choice;
mod fit;
mod names;

use clap::ValueEnum;
use kinora_engine::{Engine, EngineError, GenerateSpec, Monitor, MotionEngine, PatternEngine, Picture};
use serde_json::{Value, json};

pub use choice::{ChoiceError, Dtype, EngineChoice, Opened, PARTS_IN_TURN, parse_lora, parse_size};
pub use fit::{Fit, gigabytes};
pub use names::{ModelNames, ServeAs};

/// The hosted model's name, served for compatibility; Kinora is not affiliated with its makers.
pub const MODEL: &str = "Kling-Image2Video-V2.1-Standard";

/// What computes the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// Embedded: depth-aware camera moves, on the CPU, no weights.
    Motion,
    /// Neural: a Wan2.2 diffusion model from a folder of weights (--model).
    Wan,
    /// A test card that ignores picture and prompt, for testing clients.
    #[value(hide = true)]
    Pattern,
}

impl EngineName {
    /// What it does, in a sentence.
    fn about(self) -> &'static str {
        match self {
            Self::Motion => MotionEngine.description(),
            Self::Wan => {
                "A video diffusion transformer of the Wan2.2 kind, computed from the weights its owner chose."
            }
            Self::Pattern => PatternEngine.description(),
        }
    }

    /// What the engine makes of words and picture, without rendering; `None` where it does not say.
    pub fn explain(
        self,
        spec: &GenerateSpec,
        picture: &Picture,
        monitor: &dyn Monitor,
    ) -> Result<Option<Value>, EngineError> {
        match self {
            Self::Motion => MotionEngine.explain(spec, picture, monitor).map(Some),
            Self::Pattern | Self::Wan => Ok(None),
        }
    }
}

/// One field of the payload, as the model's page lists it and the checks enforce it.
pub fn parameters() -> Value {
    let prompt_chars = GenerateSpec::PROMPT_CHARS_MAX;
    json!([
        {"name": "prompt", "display_name": "Prompt", "type": "string", "required": false, "default": "",
         "max_length": prompt_chars, "description": "What should happen in the video."},
        {"name": "image", "display_name": "Image", "type": "string", "required": true, "default": null,
         "formats": ["jpg", "jpeg", "png"], "max_size_bytes": 10 << 20, "min_side_px": 300,
         "min_aspect_ratio": 0.4, "max_aspect_ratio": 2.5,
         "description": "The picture to start from: Base64, data URI or http(s) URL."},
        {"name": "duration", "display_name": "Duration", "type": "string", "required": false, "default": "5",
         "enum": ["5", "10"], "description": "Length of the video in seconds."},
        {"name": "negative_prompt", "display_name": "Negative prompt", "type": "string", "required": false,
         "default": "", "max_length": prompt_chars, "description": "What to avoid."},
        {"name": "cfg_scale", "display_name": "CFG scale", "type": "float", "required": false, "default": 0.5,
         "minimum": 0.0, "maximum": 1.0,
         "description": "How strictly to follow the prompt: 0.3 to 0.5 is freer, 0.7 to 1.0 more faithful."},
        {"name": "seed", "display_name": "Seed", "type": "integer", "required": false, "default": null,
         "minimum": 0, "maximum": GenerateSpec::SEED_MAX,
         "description": "Repeats a result; drawn at random and reported in the outcome when absent. An extension."},
    ])
}

/// What the engines behind a model do, by their names; of this process's own, in its own words.
#[derive(Debug)]
pub struct Behind<'a> {
    pub engines: &'a [String],
    pub own: Option<&'a dyn Engine>,
}

impl Behind<'_> {
    /// Their names, in a sentence's words.
    pub fn names(&self) -> String {
        match self.engines {
            [] => "no engine at the moment, since no worker is there".to_owned(),
            [name] => format!("Kinora's engine `{name}`"),
            names => format!("Kinora's engines `{}`", names.join("` and `")),
        }
    }

    fn abilities(&self) -> String {
        let about = |name: &String| match self.own.filter(|own| own.name() == name) {
            Some(own) => own.description(),
            None => EngineName::from_str(name, false).map_or("", EngineName::about),
        };
        self.engines.iter().map(about).collect::<Vec<_>>().join(" ")
    }
}

/// Whether a name is the hosted model's, which is answered to for compatibility.
fn is_hosted(model: &str) -> bool {
    model == MODEL
}

/// One sentence on a model.
pub fn brief_description(model: &str, behind: &Behind<'_>) -> String {
    let but = if is_hosted(model) { ", not by the hosted model" } else { "" };
    format!("Makes a video from a reference image, served by {}{but}.", behind.names())
}

/// How to use a model, in Markdown, with a plain word on what answers here.
pub fn detailed_description(model: &str, behind: &Behind<'_>) -> String {
    let hosted = if is_hosted(model) {
        "This is not the hosted model: Kinora serves its request queue under its name so that existing clients \
         work unchanged, and is not affiliated with its makers.\n\n"
    } else {
        ""
    };
    format!(
        "# {model}\n\n\
         Makes a video from a reference image, on the owner's machines, by {engines}. {what}\n\n\
         {hosted}\
         ## Usage\n\n\
         Submit with `POST requests` and a body like \
         `{{\"model\": \"{model}\", \"payload\": {{\"image\": \"https://…\", \"prompt\": \"slow push in\"}}}}`, \
         then poll `GET requests/{{request_id}}` until `status` is `success`, `failed` or `cancelled`. \
         The video's address stands in `outcome.video_url` and `outcome.media_urls[0].url`.\n\n\
         Pictures are JPEG or PNG, at most 10 MB, at least 300 pixels in width and height, with an aspect ratio \
         from 1:2.5 to 2.5:1.\n",
        engines = behind.names(),
        what = behind.abilities(),
    )
}
