//! Words to tokens to states, against the reference.

use kinora_wan::ops::{Place, Products};
use kinora_wan::text::{Encoder, TextEncoder, Tokens, clean};

use crate::dit::place;
use crate::golden::{Disturbed, Golden, json, model, targets};

const MODELS: [&str; 2] = ["ti2v", "i2v"];

fn ids(golden: &Golden, prompt: usize) -> Vec<u32> {
    let numbers = |name: String| golden.tensor(&name).to_vec1::<i64>().unwrap();
    let mask = numbers(format!("mask_{prompt}"));
    let kept = numbers(format!("ids_{prompt}")).into_iter().zip(mask).filter(|(_, mask)| *mask == 1);
    kept.map(|(id, _)| u32::try_from(id).unwrap()).collect()
}

#[test]
fn prompts_are_cleaned_like_the_reference() {
    for name in MODELS {
        let (typed, cleaned): (Vec<String>, Vec<String>) =
            (json(&format!("{name}/prompts.json")), json(&format!("{name}/prompts_cleaned.json")));
        assert!(typed.len() == cleaned.len() && typed != cleaned);
        for (typed, cleaned) in typed.iter().zip(&cleaned) {
            assert_eq!(&clean(typed), cleaned);
        }
    }
}

#[test]
fn tokens_are_the_references() {
    for name in MODELS {
        let tokens = Tokens::load(&model(name).join("tokenizer")).unwrap();
        let golden = Golden::read(&format!("{name}/tokens.safetensors"));
        let prompts: Vec<String> = json(&format!("{name}/prompts.json"));
        let mut longest = 0;
        for (index, prompt) in prompts.iter().enumerate() {
            let expected = ids(&golden, index);
            longest = longest.max(expected.len());
            assert_eq!(tokens.ids(prompt).unwrap(), expected, "{prompt}");
            assert_ne!(tokens.ids(&format!("x{prompt}")).unwrap(), expected, "a letter more shows");
        }
        assert_eq!(longest, 512, "one prompt is cut");
    }
}

#[test]
fn text_states_are_the_references() {
    for target in targets(Products::F32) {
        for name in MODELS {
            // As the pipeline has it; of no account where weights are never copied.
            let place = Place { streamed: name == "ti2v", ..target.place() };
            let text = TextEncoder::load(&model(name), place).unwrap();
            let golden = Golden::read(&format!("{name}/text.safetensors"));
            for (index, prompt) in json::<Vec<String>>(&format!("{name}/prompts.json")).iter().enumerate() {
                golden.assert_close(&format!("states_{index}"), &text.states(prompt, &|| false).unwrap());
            }
        }
    }
}

#[test]
fn every_weight_of_the_text_encoder_shows_in_the_states() {
    for name in MODELS {
        let part = model(name).join("text_encoder");
        let golden = Golden::read(&format!("{name}/text.safetensors"));
        let ids = ids(&Golden::read(&format!("{name}/tokens.safetensors")), 4);
        let states = |folder: &std::path::Path| {
            let encoder = Encoder::load(folder, place()).unwrap();
            encoder.forward(&ids, &|| false).unwrap().unsqueeze(0).unwrap()
        };
        assert!(golden.overshoot("states_4", &states(&part)) <= 1.0);
        let weights = kinora_wan::weights::Weights::open(&part).unwrap();
        for tensor in
            weights.names().filter(|name| !name.contains("shared") && !name.contains("embed_tokens"))
        {
            let disturbed = Disturbed::new(&part, tensor);
            let overshoot = golden.overshoot("states_4", &states(disturbed.folder()));
            assert!(overshoot > 1.0, "{name}: {tensor} disturbed gives {overshoot} of the tolerance");
        }
    }
}

#[test]
fn a_cancel_is_heard_between_layers() {
    let text = TextEncoder::load(&model("ti2v"), place()).unwrap();
    let asked = std::cell::Cell::new(0);
    let second = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    assert!(matches!(text.states("a", &second), Err(kinora_wan::WanError::Cancelled)));
}
