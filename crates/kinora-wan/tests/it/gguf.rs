//! Weights in GGUF files, under the names that published ones have, against the reference and against safetensors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use kinora_wan::dit::{Dit, TokenTimes};
use kinora_wan::ops::{Linear, Place, Products};
use kinora_wan::text::TextEncoder;
use kinora_wan::weights::{Lora, Weights};

use crate::dit::{Case, place};
use crate::golden::{Golden, error, json, model, targets};

/// Numbers in a block of the types used here.
const BLOCK: usize = 32;

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("kinora-gguf-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// All weights in `part`, by name.
fn weights(part: &Path) -> Vec<(String, Tensor)> {
    let weights = Weights::open(part).unwrap();
    let tensor =
        |name: &str| weights.tensor(name, weights.shape(name).unwrap(), DType::F32, &Device::Cpu).unwrap();
    weights.names().map(|name| (name.to_owned(), tensor(name))).collect()
}

fn quantised(tensor: &Tensor, dtype: GgmlDType) -> QTensor {
    let fits = tensor.rank() > 1 && tensor.dims().last().unwrap().is_multiple_of(BLOCK);
    QTensor::quantize(tensor, if fits { dtype } else { GgmlDType::F32 }).unwrap()
}

/// `part` with its weights in one GGUF file, named by `name`, as `dtype` where that fits.
fn in_gguf(part: &Path, name: impl Fn(&str) -> String, dtype: GgmlDType) -> Folder {
    let folder = Folder::new();
    std::fs::copy(part.join("config.json"), folder.0.join("config.json")).unwrap();
    let all = weights(part).into_iter().map(|(own, tensor)| (name(&own), quantised(&tensor, dtype)));
    let all: Vec<_> = all.collect();
    let listed: Vec<_> = all.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = std::fs::File::create(folder.0.join("weights.gguf")).unwrap();
    gguf_file::write(&mut file, &[], &listed).unwrap();
    folder
}

/// The name that the models' own program has for a tensor of the transformer.
fn own_name(name: &str) -> String {
    let pairs = [
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("proj_out", "head.head"),
        ("attn1", "self_attn"),
        ("attn2", "cross_attn"),
        ("to_out.0", "o"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("ffn.net.0.proj", "ffn.0"),
        ("ffn.net.2", "ffn.2"),
        ("norm2", "norm3"),
        ("scale_shift_table", "modulation"),
    ];
    let name = pairs.iter().fold(name.to_owned(), |name, (library, own)| name.replace(library, own));
    if name == "modulation" { "head.modulation".to_owned() } else { name }
}

/// The name that llama.cpp has for a tensor of the text encoder.
fn encoder_name(name: &str) -> String {
    let pairs = [
        ("shared", "token_embd"),
        ("encoder.final_layer_norm", "enc.output_norm"),
        ("encoder.block", "enc.blk"),
        ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
        ("layer.0.SelfAttention.", "attn_"),
        ("layer.0.layer_norm", "attn_norm"),
        ("layer.1.layer_norm", "ffn_norm"),
        ("layer.1.DenseReluDense.wi_0", "ffn_gate"),
        ("layer.1.DenseReluDense.wi_1", "ffn_up"),
        ("layer.1.DenseReluDense.wo", "ffn_down"),
    ];
    pairs.iter().fold(name.to_owned(), |name, (library, own)| name.replace(library, own))
}

#[test]
fn transformers_from_gguf_are_the_references() {
    for name in ["ti2v", "i2v"] {
        let folder = in_gguf(&model(name).join("transformer"), own_name, GgmlDType::F32);
        let golden = Golden::read(&format!("{name}/dit.safetensors"));
        let dit = Dit::load(&folder.0, place()).unwrap();
        golden.assert_close("a.out", &Case::of(&golden, "a", &dit).out(&dit));
    }
}

#[test]
fn text_encoders_from_gguf_are_the_references() {
    for name in ["ti2v", "i2v"] {
        let whole = Folder::new();
        let part = in_gguf(&model(name).join("text_encoder"), encoder_name, GgmlDType::F32);
        std::fs::rename(&part.0, whole.0.join("text_encoder")).unwrap();
        std::fs::create_dir_all(&part.0).unwrap(); // for its end
        std::fs::create_dir_all(whole.0.join("tokenizer")).unwrap();
        let tokenizer = "tokenizer/tokenizer.json";
        std::fs::copy(model(name).join(tokenizer), whole.0.join(tokenizer)).unwrap();
        let prompts: Vec<String> = json(&format!("{name}/prompts.json"));
        let states = TextEncoder::load(&whole.0, place()).unwrap().states(&prompts[0], &|| false).unwrap();
        Golden::read(&format!("{name}/text.safetensors")).assert_close("states_0", &states);
    }
}

/// The one tiny model whose sides are whole blocks.
fn of_whole_blocks() -> PathBuf {
    model("ti2v-bf16").join("transformer")
}

/// `part` in safetensors with other weights.
fn in_safetensors(part: &Path, weights: &HashMap<String, Tensor>) -> Folder {
    let folder = Folder::new();
    std::fs::copy(part.join("config.json"), folder.0.join("config.json")).unwrap();
    candle_core::safetensors::save(weights, folder.0.join("diffusion_pytorch_model.safetensors")).unwrap();
    folder
}

/// The weights in `part` as they are after they were quantised.
fn widened(part: &Path, dtype: GgmlDType) -> HashMap<String, Tensor> {
    let wide = |(name, tensor)| (name, quantised(&tensor, dtype).dequantize(&Device::Cpu).unwrap());
    weights(part).into_iter().map(wide).collect()
}

/// What the transformer in `folder` says of some latents.
fn velocity(folder: &Path, loras: &[Lora], place: Place<'_>) -> Tensor {
    let device = place.device;
    let dit = Dit::load_adapted(folder, loras, place).unwrap();
    let latents = Tensor::arange(0f32, 4.0 * 2.0 * 6.0 * 8.0, device).unwrap().sin().unwrap();
    let latents = latents.reshape((1, 4, 2, 6, 8)).unwrap();
    let states = Tensor::ones((1, 9, dit.config().text_dim), DType::F32, device).unwrap();
    let times = TokenTimes::same(700.0, 2 * 3 * 4);
    let (clip, text) = (dit.clip([2, 6, 8]).unwrap(), dit.project_text(&states).unwrap());
    dit.forward(&clip, &latents, &times, &text, &|| false).unwrap()
}

#[test]
fn quantised_weights_give_what_the_same_weights_widened_give() {
    let part = of_whole_blocks();
    for dtype in [GgmlDType::Q8_0, GgmlDType::Q5_1, GgmlDType::Q4_0] {
        let narrow = in_gguf(&part, own_name, dtype);
        let wide = in_safetensors(&part, &widened(&part, dtype));
        for target in [Products::F32, Products::Bf16].into_iter().flat_map(targets) {
            let of = |folder: &Path| velocity(folder, &[], target.place());
            let (got, wanted) = (of(&narrow.0), of(&wide.0));
            let streamed = velocity(&narrow.0, &[], Place { streamed: true, ..target.place() });
            for got in [&got, &streamed] {
                assert!(error(got, &wanted) < 1e-6, "{dtype:?}: {}", error(got, &wanted));
            }
            let lost = error(&got, &of(&part));
            println!("{dtype:?}: {lost:.1e} from the weights before");
            assert!(lost > 1e-3, "{dtype:?}: {lost} from the weights before: was anything quantised?");
        }
    }
}

#[test]
fn adapters_change_quantised_weights_as_they_change_others() {
    let part = of_whole_blocks();
    let mut merged = widened(&part, GgmlDType::Q4_0);
    let mut file = HashMap::new();
    for (index, (name, weight)) in merged.iter_mut().enumerate() {
        let Some(layer) = name.strip_suffix(".weight") else { continue };
        let waves = |shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            let numbers = (0..count).map(|at| 0.05 * ((at * (index + 3)) as f32).sin()).collect();
            Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
        };
        let change = if let [outputs, inputs] = *weight.dims() {
            let (down, up) = (waves(&[3, inputs]), waves(&[outputs, 3]));
            let change = up.matmul(&down).unwrap();
            file.insert(format!("{layer}.lora_A.weight"), down);
            file.insert(format!("{layer}.lora_B.weight"), up);
            change
        } else {
            let change = waves(weight.dims());
            file.insert(format!("{layer}.diff"), change.clone());
            change
        };
        *weight = (&*weight + change).unwrap();
    }
    let narrow = in_gguf(&part, own_name, GgmlDType::Q4_0);
    let wide = in_safetensors(&part, &merged);
    let lora = Lora { path: narrow.0.join("lora.safetensors"), strength: 1.0 };
    candle_core::safetensors::save(&file, &lora.path).unwrap();
    for target in targets(Products::F32) {
        let got = velocity(&narrow.0, std::slice::from_ref(&lora), target.place());
        let apart = error(&got, &velocity(&wide.0, &[], target.place()));
        let changed = error(&got, &velocity(&narrow.0, &[], target.place()));
        println!("{apart:.1e} from weights with the adapters in them, {changed:.1e} from those without");
        assert!(apart < 1e-5 && changed > 1e-2, "{apart}, {changed}");
    }
}

#[test]
fn a_layer_at_hand_gives_what_it_gives_at_each_use() {
    let quantised = in_gguf(&model("ti2v-bf16").join("transformer"), own_name, GgmlDType::Q5_0);
    let plain = model("ti2v").join("transformer");
    for (folder, target) in [&quantised.0, &plain]
        .into_iter()
        .flat_map(|folder| targets(Products::F32).map(move |target| (folder, target)))
    {
        let weights = Weights::open(folder).unwrap();
        let name = "blocks.0.ffn.net.2";
        let shape = weights.shape(&format!("{name}.weight")).unwrap();
        for streamed in [false, true] {
            let place = Place { streamed, ..target.place() };
            let layer = Linear::load(&weights, name, shape, true, place).unwrap();
            let x = Tensor::arange(0f32, (6 * shape[1]) as f32, &target.device).unwrap().cos().unwrap();
            let x = x.reshape((6, shape[1])).unwrap();
            let at_hand = layer.at_hand().unwrap();
            for (start, count) in [(0, 4), (4, 2)] {
                let x = x.narrow(0, start, count).unwrap();
                let (got, wanted) = (at_hand.forward(&x).unwrap(), layer.forward(&x).unwrap());
                assert_eq!(
                    got.to_vec2::<f32>().unwrap(),
                    wanted.to_vec2::<f32>().unwrap(),
                    "streamed: {streamed}"
                );
            }
        }
    }
}
