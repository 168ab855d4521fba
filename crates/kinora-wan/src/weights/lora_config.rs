//! What PEFT's configuration says of the scale that a file's pairs were trained with, where no tensor says it.
//!
//! It stands in the file's own metadata, as diffusers writes it, or beside a file in PEFT's layout.
//! Sources: `LoraConfig` of the PEFT library; `lora_adapter_metadata` in files that the diffusers library saves.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{read_json, safe};
use crate::WanError;

/// The entry of a safetensors file's metadata that diffusers writes.
const METADATA_KEY: &str = "lora_adapter_metadata";
/// What stands before the names of a transformer's settings there.
const PREFIX: &str = "transformer.";
/// PEFT's names of a file of adapters and of the configuration beside it.
const PEFT_FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_config.json"];

/// The part of PEFT's configuration that changes numbers.
#[derive(Debug, Default, Deserialize)]
pub(super) struct LoraConfig {
    lora_alpha: Option<f64>,
    /// Other alphas of some layers, by the end of their names.
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
    /// Alpha is taken over the rank's square root.
    #[serde(default)]
    use_rslora: Option<bool>,
}

impl LoraConfig {
    /// Of the adapters in the file at `path`; one that says nothing where there is none.
    pub(super) fn of(path: &Path) -> Result<Self, WanError> {
        let refused = |problem: String| WanError::config(path, problem);
        let config: Self = match safe::metadata(path, METADATA_KEY)? {
            Some(text) => serde_json::from_str(&text)
                .and_then(|settings| serde_json::from_value(of_transformer(settings)))
                .map_err(|error| refused(format!("`{METADATA_KEY}` in its metadata: {error}")))?,
            None => {
                let [file, beside] = PEFT_FILES;
                let config = path.with_file_name(beside);
                match path.file_name().is_some_and(|name| name == file) && config.exists() {
                    true => read_json(&config)?,
                    false => Self::default(),
                }
            }
        };
        let plain = |name: &String| {
            let name = name.strip_prefix('^').unwrap_or(name);
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c))
        };
        if let Some(name) =
            config.alpha_pattern.iter().flatten().map(|(name, _)| name).find(|name| !plain(name))
        {
            return Err(refused(format!(
                "its configuration's alpha_pattern `{name}` is no plain name of layers"
            )));
        }
        Ok(config)
    }

    /// The scale of the pair of `rank` of the layer that the file calls `name`, if it is told.
    pub(super) fn scale(&self, name: &str, rank: usize) -> Option<f64> {
        let ends = |end: &str| {
            let end = end.strip_prefix('^').unwrap_or(end);
            name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let own = self.alpha_pattern.iter().flatten().filter(|(end, _)| ends(end));
        let own = own.max_by_key(|(end, _)| end.len()).map(|(_, alpha)| *alpha);
        let over = if self.use_rslora.unwrap_or(false) { (rank as f64).sqrt() } else { rank as f64 };
        own.or(self.lora_alpha).map(|alpha| alpha / over)
    }
}

/// The transformer's settings without the prefix that they have beside those of other parts.
fn of_transformer(settings: Map<String, Value>) -> Value {
    if !settings.keys().any(|name| name.starts_with(PREFIX)) {
        return Value::Object(settings);
    }
    let own = |(name, value): (String, Value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value));
    Value::Object(settings.into_iter().filter_map(own).collect())
}
