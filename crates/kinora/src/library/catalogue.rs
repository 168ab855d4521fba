//! The sets of weights that are known by name, and where quantised ones lie that may stand in for parts of them.
//!
//! Sources: the model cards of the repositories named here. Sizes and hashes are not kept here; a repository's listing has them.

use clap::ValueEnum;

/// A published set of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// What users call it.
    pub name: &'static str,
    pub title: &'static str,
    /// Owner and name of its repository on the hub.
    pub repository: &'static str,
    /// SPDX identifier.
    pub licence: &'static str,
    pub description: &'static str,
    pub quantised: &'static [Quantised],
}

/// Quantised weights that stand in for a set's own in one folder, made by others from those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantised {
    /// The set's folder that they go to.
    pub folder: &'static str,
    /// Owner and name of their repository on the hub.
    pub repository: &'static str,
    /// Their path there, up to the variant's name.
    stem: &'static str,
}

impl Quantised {
    /// The path of `variant` in the repository.
    pub(super) fn path(&self, variant: Variant) -> String {
        format!("{}-{}.gguf", self.stem, variant.name().to_ascii_uppercase())
    }

    /// Whether these weights stand in for the set's file at `path`.
    pub(super) fn replaces(&self, path: &str) -> bool {
        let inside = path.strip_prefix(self.folder).and_then(|rest| rest.strip_prefix('/'));
        inside.is_some_and(|name| name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"))
    }
}

/// In which numbers a set's transformers and text encoder are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// As their makers published them.
    Full,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q6_k")]
    Q6,
    #[value(name = "q5_k_m")]
    Q5,
    #[value(name = "q4_k_m")]
    Q4,
    #[value(name = "q3_k_m")]
    Q3,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Q8 => "q8_0",
            Self::Q6 => "q6_k",
            Self::Q5 => "q5_k_m",
            Self::Q4 => "q4_k_m",
            Self::Q3 => "q3_k_m",
        }
    }
}

/// Both models read prompts with the same encoder.
const TEXT_ENCODER: Quantised = Quantised {
    folder: "text_encoder",
    repository: "city96/umt5-xxl-encoder-gguf",
    stem: "umt5-xxl-encoder",
};
const I2V_A14B: &str = "QuantStack/Wan2.2-I2V-A14B-GGUF";

pub const CATALOGUE: [Card; 2] = [
    Card {
        name: "wan2.2-ti2v-5b",
        title: "Wan2.2 TI2V 5B",
        repository: "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        licence: "Apache-2.0",
        description: "Text and image to video, about 704x1280 at 24 frames per second, 121 frames.",
        quantised: &[
            Quantised {
                folder: "transformer",
                repository: "QuantStack/Wan2.2-TI2V-5B-GGUF",
                stem: "Wan2.2-TI2V-5B",
            },
            TEXT_ENCODER,
        ],
    },
    Card {
        name: "wan2.2-i2v-a14b",
        title: "Wan2.2 I2V A14B",
        repository: "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        licence: "Apache-2.0",
        description: "Image to video with two experts of 14 billion parameters, 16 frames per second, 81 frames.",
        quantised: &[
            Quantised {
                folder: "transformer",
                repository: I2V_A14B,
                stem: "HighNoise/Wan2.2-I2V-A14B-HighNoise",
            },
            Quantised {
                folder: "transformer_2",
                repository: I2V_A14B,
                stem: "LowNoise/Wan2.2-I2V-A14B-LowNoise",
            },
            TEXT_ENCODER,
        ],
    },
];

/// The set with this name, whose case does not matter.
pub fn card(name: &str) -> Option<&'static Card> {
    CATALOGUE.iter().find(|card| card.name.eq_ignore_ascii_case(name))
}

/// Whether a file of a repository belongs to what an engine reads. Examples, pictures and other formats stay where
/// they are.
pub(super) fn is_wanted(path: &str) -> bool {
    const FOLDERS: [&str; 7] =
        ["scheduler", "text_encoder", "tokenizer", "transformer", "transformer_2", "vae", "image_processor"];
    match path.split_once('/') {
        None => path == "model_index.json" || path.to_ascii_uppercase().starts_with("LICENSE"),
        Some((folder, _)) => FOLDERS.contains(&folder),
    }
}
