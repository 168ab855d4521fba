//! Adapters against weights that they were added to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use kinora_engine::Noise;
use kinora_wan::WanError;
use kinora_wan::dit::{Dit, TokenTimes};
use kinora_wan::ops::Products;
use kinora_wan::weights::{Lora, Weights};

use crate::dit::place;
use crate::golden::{Golden, error, model, targets};

const RANK: usize = 3;
/// Layers as diffusers calls them, and as the models' own program does.
const LAYERS: [(&str, &str); 4] = [
    ("blocks.0.attn1.to_q", "blocks.0.self_attn.q"),
    ("blocks.1.attn2.to_out.0", "blocks.1.cross_attn.o"),
    ("blocks.0.ffn.net.0.proj", "blocks.0.ffn.0"),
    ("condition_embedder.time_proj", "time_projection.1"),
];

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kinora-lora-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn random(name: &str, shape: (usize, usize)) -> Tensor {
    let noise = Noise::new(1, name);
    let numbers: Vec<f32> = (0..(shape.0 * shape.1) as u64).map(|at| 0.2 * noise.normal(at)).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

fn velocity(dit: &Dit) -> Tensor {
    let golden = Golden::read("ti2v/dit.safetensors");
    let latents = golden.tensor("a.hidden_states");
    let times = golden.tensor("a.timestep").squeeze(0).unwrap().to_vec1::<f32>().unwrap();
    let clip = dit.clip(latents.dims()[2..].try_into().unwrap()).unwrap();
    let text = dit.project_text(&golden.tensor("a.encoder_hidden_states")).unwrap();
    dit.forward(&clip, &latents, &TokenTimes::of_tokens(&times), &text, &|| false).unwrap()
}

/// Writes the adapters in one way of naming; gives the tensors of the checkpoint with them added.
fn adapters(path: &Path, weights: &Weights, own_names: bool, strength: f64) -> HashMap<String, Tensor> {
    let all = weights.names().map(|name| {
        let shape = weights.shape(name).unwrap().to_vec();
        (name.to_owned(), weights.tensor(name, shape, DType::F32, &Device::Cpu).unwrap())
    });
    let mut merged: HashMap<String, Tensor> = all.collect();
    let mut file = HashMap::new();
    for (name, own) in LAYERS {
        let weight = merged.get_mut(&format!("{name}.weight")).unwrap();
        let (outputs, inputs) = weight.dims2().unwrap();
        let (down, up) = (random(name, (RANK, inputs)), random(own, (outputs, RANK)));
        // Half the rank: a scale of a half.
        let scale = if own_names { strength * 0.5 } else { strength };
        *weight = (&*weight + (up.matmul(&down).unwrap() * scale).unwrap()).unwrap();
        if own_names {
            let alpha = Tensor::new(RANK as f32 / 2.0, &Device::Cpu).unwrap();
            file.insert(format!("diffusion_model.{own}.lora_down.weight"), down);
            file.insert(format!("diffusion_model.{own}.lora_up.weight"), up);
            file.insert(format!("diffusion_model.{own}.alpha"), alpha);
        } else {
            file.insert(format!("transformer.{name}.lora_A.weight"), down);
            file.insert(format!("transformer.{name}.lora_B.weight"), up);
        }
    }
    candle_core::safetensors::save(&file, path).unwrap();
    merged
}

#[test]
fn an_adapter_gives_what_adding_it_to_the_weights_gives() {
    for target in targets(Products::F32) {
        let part = model("ti2v").join("transformer");
        let plain = velocity(&Dit::load(&part, target.place()).unwrap());
        for (own_names, strength) in [(false, 1.0), (true, 0.7)] {
            let folder = folder(&format!("{own_names}"));
            let path = folder.join("lora.safetensors");
            let merged = adapters(&path, &Weights::open(&part).unwrap(), own_names, strength);
            let adapted =
                Dit::load_adapted(&part, &[Lora { path: path.clone(), strength }], target.place()).unwrap();
            let checkpoint = folder.join("merged");
            std::fs::create_dir_all(&checkpoint).unwrap();
            std::fs::copy(part.join("config.json"), checkpoint.join("config.json")).unwrap();
            candle_core::safetensors::save(&merged, checkpoint.join("model.safetensors")).unwrap();
            let wanted = velocity(&Dit::load(&checkpoint, target.place()).unwrap());
            let got = velocity(&adapted);
            assert!(error(&got, &wanted) < 1e-5, "{}", error(&got, &wanted));
            assert!(error(&got, &plain) > 1e-2, "the adapter shows");
            let unlike =
                Dit::load_adapted(&part, &[Lora { path, strength: strength * 1.1 }], target.place()).unwrap();
            assert!(error(&velocity(&unlike), &wanted) > 1e-5, "its strength shows");
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

#[test]
fn an_adapter_for_another_model_is_refused() {
    let folder = folder("refused");
    let path = folder.join("lora.safetensors");
    let part = model("ti2v").join("transformer");
    let open = |tensors: HashMap<String, Tensor>| {
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let lora = Lora { path: path.clone(), strength: 1.0 };
        Dit::load_adapted(&part, &[lora], place()).unwrap_err().to_string()
    };
    let pair = |layer: &str, inputs| {
        HashMap::from([
            (format!("{layer}.lora_A.weight"), random("a", (RANK, inputs))),
            (format!("{layer}.lora_B.weight"), random("b", (60, RANK))),
        ])
    };
    let error = open(pair("blocks.9.attn1.to_q", 60));
    assert!(error.contains("blocks.9.attn1.to_q"), "{error}");
    let error = open(pair("blocks.0.attn1.to_q", 61));
    assert!(error.contains("another shape"), "{error}");
    let error = open(HashMap::from([("blocks.0.attn1.to_q.diff".to_owned(), random("c", (60, 60)))]));
    assert!(error.contains("no low-rank adapters") && error.contains("lora.safetensors"), "{error}");
    let mut half = pair("blocks.0.attn1.to_q", 60);
    half.remove("blocks.0.attn1.to_q.lora_B.weight");
    let error = open(half);
    assert!(error.contains("lora_B"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
    let nowhere = Lora { path: "/nowhere.safetensors".into(), strength: 1.0 };
    assert!(matches!(Dit::load_adapted(&part, &[nowhere], place()), Err(WanError::Read { .. })));
}
