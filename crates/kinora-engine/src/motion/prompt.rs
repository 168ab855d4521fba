//! Words become a plan: prompt, negative prompt, cfg and seed in, moves and motions out.
//!
//! A small lexicon, not a language model: it knows the words of camera and scene, their inflections, who
//! modifies whom, "no X" and "X, then Y", in English and Chinese. What it does not know it says.
//! Not here: anything about the picture.

mod clauses;
mod lexicon;
mod phrases;
mod plan;
mod tokens;

pub(crate) use lexicon::{Effect, Move};
pub(crate) use plan::{CameraMove, Plan};

use crate::GenerateSpec;

/// Reads the words of `spec`.
pub(crate) fn plan(spec: &GenerateSpec) -> Plan {
    Plan::new(spec, clauses::read(&spec.prompt, false), clauses::read(&spec.negative_prompt, true))
}

/// The vocabulary as a Markdown table: what each meaning is called and the phrases that carry it.
pub fn vocabulary_table() -> String {
    let mut table =
        String::from("| meaning | English | in a clause about the camera | Chinese |\n|---|---|---|---|\n");
    for entry in lexicon::ENTRIES {
        let list = |phrases: &str| phrases.replace('|', ", ");
        table += &format!(
            "| {} | {} | {} | {} |\n",
            entry.label,
            list(entry.english),
            list(entry.of_camera),
            list(entry.chinese)
        );
    }
    table
}

#[cfg(test)]
mod tests;
