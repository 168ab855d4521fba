//! The sets of weights that are known by name.

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
}

pub const CATALOGUE: [Card; 2] = [
    Card {
        name: "wan2.2-ti2v-5b",
        title: "Wan2.2 TI2V 5B",
        repository: "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        licence: "Apache-2.0",
        description: "Text and image to video, about 704x1280 at 24 frames per second, 121 frames.",
    },
    Card {
        name: "wan2.2-i2v-a14b",
        title: "Wan2.2 I2V A14B",
        repository: "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        licence: "Apache-2.0",
        description: "Image to video with two experts of 14 billion parameters, 16 frames per second, 81 frames.",
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
