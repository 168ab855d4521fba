//! Adapters against weights that they were added to, in every naming that published files have.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use kinora_engine::Noise;
use kinora_wan::WanError;
use kinora_wan::device::Target;
use kinora_wan::dit::{Dit, TokenTimes};
use kinora_wan::model::{Adapters, Model, Residency};
use kinora_wan::ops::Products;
use kinora_wan::weights::{Lora, Weights};
use kinora_wan::{Settings, needs};

use crate::dit::place;
use crate::golden::{Golden, error, model, targets};

const RANK: usize = 3;
/// Layers as diffusers calls them, and as the models' own program does.
const LAYERS: [(&str, &str); 8] = [
    ("blocks.0.attn1.to_q", "blocks.0.self_attn.q"),
    ("blocks.1.attn2.to_out.0", "blocks.1.cross_attn.o"),
    ("blocks.0.ffn.net.0.proj", "blocks.0.ffn.0"),
    ("blocks.1.ffn.net.2", "blocks.1.ffn.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("patch_embedding", "patch_embedding"),
    ("proj_out", "head.head"),
];
/// What `.diff`, `.diff_b` and `.diff_m` change: diffusers' tensor, and the key for it.
const CHANGED: [(&str, &str); 10] = [
    ("blocks.0.attn1.to_k.bias", "blocks.0.self_attn.k.diff_b"),
    ("blocks.1.ffn.net.2.bias", "blocks.1.ffn.2.diff_b"),
    ("condition_embedder.time_proj.bias", "time_projection.1.diff_b"),
    ("blocks.0.attn2.norm_k.weight", "blocks.0.cross_attn.norm_k.diff"),
    ("blocks.1.norm2.weight", "blocks.1.norm3.diff"),
    ("blocks.1.norm2.bias", "blocks.1.norm3.diff_b"),
    ("blocks.0.scale_shift_table", "blocks.0.diff_m"),
    ("scale_shift_table", "head.modulation.diff"),
    ("proj_out.weight", "head.head.diff"),
    ("patch_embedding.weight", "patch_embedding.diff"),
];

type Tensors = HashMap<String, Tensor>;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kinora-lora-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// A file of adapters.
    fn lora(&self, tensors: &Tensors, strength: f64) -> Lora {
        let path = self.0.join("lora.safetensors");
        // Written beside and renamed: the last one may still be mapped.
        let new = self.0.join("new.safetensors");
        candle_core::safetensors::save(tensors, &new).unwrap();
        std::fs::rename(new, &path).unwrap();
        Lora { path, strength }
    }

    /// The transformer `part` with other tensors.
    fn checkpoint(&self, part: &Path, tensors: &Tensors) -> PathBuf {
        let folder = self.0.join("merged");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(part.join("config.json"), folder.join("config.json")).unwrap();
        candle_core::safetensors::save(tensors, folder.join("model.safetensors")).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn part() -> PathBuf {
    model("ti2v").join("transformer")
}

/// The tensors of the checkpoint.
fn tensors() -> Tensors {
    let weights = Weights::open(&part()).unwrap();
    let all = weights.names().map(|name| {
        let shape = weights.shape(name).unwrap().to_vec();
        (name.to_owned(), weights.tensor(name, shape, DType::F32, &Device::Cpu).unwrap())
    });
    all.collect()
}

fn random(name: &str, shape: &[usize]) -> Tensor {
    let noise = Noise::new(1, name);
    let count = shape.iter().product::<usize>() as u64;
    let numbers: Vec<f32> = (0..count).map(|at| 0.2 * noise.normal(at)).collect();
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

fn adapted(target: &Target, lora: Lora) -> Tensor {
    velocity(&Dit::load_adapted(&part(), &[lora], target.place()).unwrap())
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A pair for each layer: `(down, up)`, convolutions with all their sides.
fn pairs(rank: usize) -> BTreeMap<&'static str, (Tensor, Tensor)> {
    let tensors = tensors();
    let pair = |(name, own): (&'static str, &str)| {
        let shape = tensors[&format!("{name}.weight")].dims().to_vec();
        let down = [&[rank], &shape[1..]].concat();
        let mut up = vec![1; shape.len()];
        up[..2].copy_from_slice(&[shape[0], rank]);
        (name, (random(name, &down), random(own, &up)))
    };
    LAYERS.into_iter().map(pair).collect()
}

/// The checkpoint with the pairs added to its weights.
fn merged(rank: usize, scale: f64) -> Tensors {
    let mut tensors = tensors();
    for (name, (down, up)) in pairs(rank) {
        let weight = tensors.get_mut(&format!("{name}.weight")).unwrap();
        let product = up.flatten_from(1).unwrap().matmul(&down.flatten_from(1).unwrap()).unwrap();
        *weight = (&*weight + (product.reshape(weight.shape()).unwrap() * scale).unwrap()).unwrap();
    }
    tensors
}

/// The pairs in a file, each layer and part named by `name` of both names and of `down` or `up`.
fn file(rank: usize, name: impl Fn(&str, &str, bool) -> String) -> Tensors {
    let mut pairs = pairs(rank);
    let mut file = Tensors::new();
    for (library, own) in LAYERS {
        let (down, up) = pairs.remove(library).unwrap();
        file.insert(name(library, own, true), down);
        file.insert(name(library, own, false), up);
    }
    file
}

fn library_file(rank: usize) -> Tensors {
    file(rank, |library, _, down| {
        format!("transformer.{library}.lora_{}.weight", if down { "A" } else { "B" })
    })
}

#[test]
fn an_adapter_gives_what_adding_it_to_the_weights_gives() {
    let folder = Folder::new("added");
    for target in targets(Products::F32) {
        let plain = velocity(&Dit::load(&part(), target.place()).unwrap());
        for strength in [1.0, 0.7] {
            let checkpoint = folder.checkpoint(&part(), &merged(RANK, strength));
            let wanted = velocity(&Dit::load(&checkpoint, target.place()).unwrap());
            let got = adapted(&target, folder.lora(&library_file(RANK), strength));
            assert!(error(&got, &wanted) < 1e-5, "{}", error(&got, &wanted));
            assert!(error(&got, &plain) > 1e-2, "the adapter shows");
            let unlike = adapted(&target, folder.lora(&library_file(RANK), strength * 1.1));
            assert!(error(&unlike, &wanted) > 1e-5, "its strength shows");
        }
    }
}

#[test]
fn every_naming_gives_the_same_numbers() {
    let folder = Folder::new("namings");
    let of = |down| if down { "A" } else { "B" };
    let kohya = |down| if down { "down" } else { "up" };
    type Naming<'a> = &'a dyn Fn(&str, &str, bool) -> String;
    let namings: [Naming<'_>; 9] = [
        &|library, _, down| format!("{library}.lora_{}.weight", of(down)),
        &|_, own, down| format!("diffusion_model.{own}.lora_{}.weight", kohya(down)),
        &|_, own, down| format!("diffusion_model.{own}.lora_{}.weight", of(down)),
        &|_, own, down| format!("{own}.lora_{}.default.weight", of(down)),
        &|_, own, down| format!("base_model.model.{own}.lora_{}.weight", of(down)),
        &|library, _, down| format!("base_model.model.{library}.lora_{}.default.weight", of(down)),
        &|_, own, down| format!("lora_unet_{}.lora_{}.weight", own.replace('.', "_"), kohya(down)),
        &|_, own, down| format!("lora_unet__{}.lora_{}.weight", own.replace('.', "_"), kohya(down)),
        &|library, _, down| format!("lora_unet_{}.lora_{}.weight", library.replace('.', "_"), kohya(down)),
    ];
    for target in targets(Products::F32) {
        let wanted = numbers(&adapted(&target, folder.lora(&library_file(RANK), 1.0)));
        for (at, naming) in namings.iter().enumerate() {
            let got = adapted(&target, folder.lora(&file(RANK, naming), 1.0));
            assert!(numbers(&got) == wanted, "naming {at}");
        }
    }
}

#[test]
fn alpha_is_read_in_every_type_that_files_have() {
    const RANK: usize = 12;
    let folder = Folder::new("alpha");
    let alphas = |alpha: &Tensor| {
        let mut file = file(RANK, |_, own, down| {
            format!("diffusion_model.{own}.lora_{}.weight", if down { "down" } else { "up" })
        });
        file.extend(LAYERS.iter().map(|(_, own)| (format!("diffusion_model.{own}.alpha"), alpha.clone())));
        file
    };
    for target in targets(Products::F32) {
        let checkpoint = folder.checkpoint(&part(), &merged(RANK, 8.0 / 12.0));
        let wanted = velocity(&Dit::load(&checkpoint, target.place()).unwrap());
        for dtype in [DType::I64, DType::I32, DType::F64, DType::F32, DType::F16, DType::BF16] {
            let alpha = Tensor::new(8f32, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            for alpha in [alpha.clone(), alpha.reshape(1).unwrap()] {
                let got = adapted(&target, folder.lora(&alphas(&alpha), 1.0));
                assert!(error(&got, &wanted) < 1e-5, "{dtype:?}: {}", error(&got, &wanted));
            }
        }
    }
    for (alpha, told) in [
        (Tensor::new(&[8f32, 8.0], &Device::Cpu).unwrap(), "the shape [2], not []"),
        (Tensor::new(f32::NAN, &Device::Cpu).unwrap(), "a pair of rank 12 has the scale NaN"),
        (Tensor::new(8u8, &Device::Cpu).unwrap(), "the type U8"),
    ] {
        let refused = Dit::load_adapted(&part(), &[folder.lora(&alphas(&alpha), 1.0)], place());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(told) && refused.contains(".alpha"), "{refused}");
    }
}

#[test]
fn a_scale_in_pefts_configuration_is_read() {
    const RANK: usize = 12;
    let folder = Folder::new("config");
    let layer = LAYERS[0].0;
    // The same pairs with tensors for their alphas: one layer's own, and one for the others.
    let alphas = |own: f64, others: f64| {
        let alpha = |name| Tensor::new(if name == layer { own } else { others }, &Device::Cpu).unwrap();
        let alphas = LAYERS.map(|(name, _)| (format!("transformer.{name}.alpha"), alpha(name)));
        let tensors = library_file(RANK).into_iter().chain(alphas).collect();
        numbers(&velocity(&Dit::load_adapted(&part(), &[folder.lora(&tensors, 0.7)], place()).unwrap()))
    };
    let in_metadata = |said: &str| {
        let path = folder.0.join("said.safetensors");
        let said = HashMap::from([("lora_adapter_metadata".to_owned(), said.to_owned())]);
        safetensors::tensor::serialize_to_file(library_file(RANK), Some(said), &path).unwrap();
        Dit::load_adapted(&part(), &[Lora { path, strength: 0.7 }], place())
            .map(|dit| numbers(&velocity(&dit)))
    };
    let root = f64::from(RANK as u32).sqrt();
    for (said, wanted) in [
        (
            r#"{"transformer.lora_alpha": 18, "transformer.r": 12, "text_encoder.lora_alpha": 3}"#.to_owned(),
            alphas(18.0, 18.0),
        ),
        (
            r#"{"lora_alpha": 18.0, "alpha_pattern": null, "use_rslora": false, "bias": "none"}"#.to_owned(),
            alphas(18.0, 18.0),
        ),
        (format!(r#"{{"lora_alpha": 18, "alpha_pattern": {{"^{layer}": 6}}}}"#), alphas(6.0, 18.0)),
        (r#"{"lora_alpha": 3, "use_rslora": true}"#.to_owned(), alphas(3.0 * root, 3.0 * root)),
        (r#"{"text_encoder.lora_alpha": 3}"#.to_owned(), alphas(12.0, 12.0)),
    ] {
        assert!(in_metadata(&said).unwrap() == wanted, "{said}");
    }
    for (said, told) in [
        ("x", "`lora_adapter_metadata` in its metadata: expected value"),
        (r#"{"lora_alpha": "much"}"#, "`lora_adapter_metadata` in its metadata: invalid type"),
        (r#"{"lora_alpha": 1e300}"#, "a pair of rank 12 has the scale"),
        (r#"{"lora_alpha": 3, "alpha_pattern": {"blocks.*": 6}}"#, "alpha_pattern `blocks.*`"),
    ] {
        let refused = in_metadata(said).unwrap_err().to_string();
        assert!(refused.contains(told) && refused.contains("said.safetensors"), "{refused}");
    }

    let path = folder.0.join("adapter_model.safetensors");
    candle_core::safetensors::save(&library_file(RANK), &path).unwrap();
    let peft = || {
        let lora = Lora { path: path.clone(), strength: 0.7 };
        Dit::load_adapted(&part(), &[lora], place()).map(|dit| numbers(&velocity(&dit)))
    };
    assert!(peft().unwrap() == alphas(12.0, 12.0), "without a configuration beside it");
    let beside = folder.0.join("adapter_config.json");
    std::fs::write(&beside, r#"{"peft_type": "LORA", "lora_alpha": 18, "r": 12}"#).unwrap();
    assert!(peft().unwrap() == alphas(18.0, 18.0));
    std::fs::write(&beside, "{").unwrap();
    assert!(peft().unwrap_err().to_string().contains("adapter_config.json"));
}

#[test]
fn differences_give_what_changed_tensors_give() {
    let folder = Folder::new("differences");
    for target in targets(Products::F32) {
        let plain = velocity(&Dit::load(&part(), target.place()).unwrap());
        for (name, key) in CHANGED {
            let mut changed = tensors();
            let tensor = changed.get_mut(name).unwrap();
            let difference = random(key, tensor.dims());
            *tensor = (&*tensor + (&difference * 0.7).unwrap()).unwrap();
            let checkpoint = folder.checkpoint(&part(), &changed);
            let wanted = velocity(&Dit::load(&checkpoint, target.place()).unwrap());
            let file = Tensors::from([(format!("diffusion_model.{key}"), difference)]);
            let got = adapted(&target, folder.lora(&file, 0.7));
            assert!(error(&got, &wanted) < 1e-5, "{key}: {}", error(&got, &wanted));
            assert!(error(&got, &plain) > 1e-4, "{key} shows");
        }
    }
}

#[test]
fn a_bias_behind_a_pair_is_as_strong_as_the_pair() {
    let folder = Folder::new("bias");
    let target = Target::cpu_f32();
    let bias = random("bias", &[60]);
    let pair = |bias_key: &str| {
        let layer = "base_model.model.blocks.0.attn1.to_q";
        Tensors::from([
            (format!("{layer}.lora_A.weight"), random("a", &[2, 60])),
            (format!("{layer}.lora_B.weight"), random("b", &[60, 2]).zeros_like().unwrap()),
            (format!("{layer}.alpha"), Tensor::new(1i64, &Device::Cpu).unwrap()),
            (format!("{layer}.{bias_key}"), bias.clone()),
        ])
    };
    let behind = adapted(&target, folder.lora(&pair("lora_B.bias"), 1.0));
    let alone = Tensors::from([("blocks.0.self_attn.q.diff_b".to_owned(), bias.clone())]);
    let half = adapted(&target, folder.lora(&alone, 0.5));
    assert!(numbers(&behind) == numbers(&half));
    let whole = adapted(&target, folder.lora(&pair("diff_b"), 1.0));
    assert!(numbers(&whole) == numbers(&adapted(&target, folder.lora(&alone, 1.0))), "alpha is the pair's");
}

/// Tensors for the image encoder of Wan2.1, as published files have them.
fn image_branch() -> Tensors {
    let tensor = random("image", &[4, 60]);
    [
        "diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight",
        "diffusion_model.blocks.0.cross_attn.k_img.lora_up.weight",
        "diffusion_model.blocks.0.cross_attn.k_img.alpha",
        "diffusion_model.blocks.0.cross_attn.v_img.diff_b",
        "diffusion_model.blocks.0.cross_attn.norm_k_img.diff",
        "diffusion_model.img_emb.proj.0.diff",
    ]
    .map(|key| (key.to_owned(), tensor.clone()))
    .into()
}

#[test]
fn what_belongs_to_other_parts_is_left_out_and_told_once() {
    let folder = Folder::new("left-out");
    let wanted = numbers(&adapted(&Target::cpu_f32(), folder.lora(&library_file(RANK), 1.0)));
    let mut file = library_file(RANK);
    file.extend(image_branch());
    let dit = Dit::load_adapted(&part(), &[folder.lora(&file, 1.0)], place()).unwrap();
    assert!(numbers(&velocity(&dit)) == wanted);
    let [told] = dit.warnings() else { panic!("{:?}", dit.warnings()) };
    assert!(
        told.contains("6 of its 22 tensors were left out: 6 for an image encoder")
            && told.contains("lora.safetensors"),
        "{told}"
    );

    // A text-to-video model's patches have fewer inputs.
    let shape = tensors()["patch_embedding.weight"].dims().to_vec();
    let fewer = [&[shape[0], shape[1] / 2], &shape[2..]].concat();
    file.remove("transformer.patch_embedding.lora_A.weight").unwrap();
    file.remove("transformer.patch_embedding.lora_B.weight").unwrap();
    let without = numbers(&adapted(&Target::cpu_f32(), folder.lora(&file, 1.0)));
    file.insert("diffusion_model.patch_embedding.diff".to_owned(), random("patches", &fewer));
    let dit = Dit::load_adapted(&part(), &[folder.lora(&file, 1.0)], place()).unwrap();
    assert!(numbers(&velocity(&dit)) == without);
    let [told] = dit.warnings() else { panic!("{:?}", dit.warnings()) };
    assert!(told.contains("7 of its 21 tensors") && told.contains("1 for a patch embedding"), "{told}");

    let whole = Dit::load_adapted(&part(), &[folder.lora(&library_file(RANK), 1.0)], place()).unwrap();
    assert!(whole.warnings().is_empty());
}

#[test]
fn all_that_is_said_of_patches_of_other_inputs_is_left_out() {
    let folder = Folder::new("patches");
    let shape = tensors()["patch_embedding.weight"].dims().to_vec();
    let rest = shape[2..].iter().product::<usize>();
    let key = |part: &str| format!("diffusion_model.patch_embedding.{part}");
    let patches = Tensors::from([
        (key("lora_A.weight"), random("a", &[RANK, shape[1] / 2 * rest])),
        (key("lora_B.weight"), random("b", &[shape[0], RANK])),
        (key("lora_B.bias"), random("bias", &[shape[0]])),
        (key("alpha"), random("alpha", &[])),
    ]);
    let alone = Dit::load_adapted(&part(), &[folder.lora(&patches, 1.0)], place()).unwrap_err();
    assert!(alone.to_string().contains("none of its 4 tensors is for this model"), "{alone}");

    let mut others = library_file(RANK);
    others.retain(|key, _| !key.contains("patch_embedding"));
    let wanted = numbers(&adapted(&Target::cpu_f32(), folder.lora(&others, 1.0)));
    others.extend(patches);
    let dit = Dit::load_adapted(&part(), &[folder.lora(&others, 1.0)], place()).unwrap();
    assert!(numbers(&velocity(&dit)) == wanted, "its bias is not added either");
    let [told] = dit.warnings() else { panic!("{:?}", dit.warnings()) };
    assert!(told.contains("4 for a patch embedding"), "{told}");
}

#[test]
fn a_file_that_does_not_fit_is_refused_with_the_name_at_fault() {
    let folder = Folder::new("refused");
    let open = |tensors: Tensors| {
        let refused = Dit::load_adapted(&part(), &[folder.lora(&tensors, 1.0)], place());
        refused.unwrap_err().to_string()
    };
    let pair = |layer: &str, inputs| {
        Tensors::from([
            (format!("{layer}.lora_A.weight"), random("a", &[RANK, inputs])),
            (format!("{layer}.lora_B.weight"), random("b", &[60, RANK])),
        ])
    };
    let with = |key: &str, shape: &[usize]| {
        let mut file = pair("blocks.0.attn1.to_q", 60);
        file.insert(key.to_owned(), random("c", shape));
        file
    };
    let lacking = |key: &str| {
        let mut file = with("blocks.0.attn1.to_q.alpha", &[]);
        file.remove(key).unwrap();
        file
    };
    for (file, told) in [
        (pair("blocks.9.attn1.to_q", 60), "no tensor `blocks.9.attn1.to_q.weight`"),
        (pair("lora_unet_blocks_9_self_attn_q", 60), "no tensor `blocks.9.attn1.to_q.weight`"),
        (pair("text_encoder.layer.0", 60), "no tensor `text_encoder.layer.0.weight`"),
        (pair("blocks.0.attn1.to_q", 61), "`blocks.0.attn1.to_q.lora_A.weight`"),
        (pair("blocks.0.attn1.to_q", 61), "[3, 61], not [3, 60]"),
        (pair("blocks.0.attn1.norm_q", 60), "`blocks.0.attn1.norm_q` is no matrix"),
        (with("blocks.1.attn1.to_q.diff", &[60, 61]), "[60, 61], not [60, 60]"),
        (with("blocks.1.attn1.to_q.diff_b", &[61]), "[61], not [60]"),
        (with("blocks.1.diff_m", &[1, 2, 60]), "[1, 2, 60], not [1, 6, 60]"),
        (with("blocks.1.attn1.norm_q.diff_b", &[60]), "no tensor `blocks.1.attn1.norm_q.bias`"),
        (with("blocks.0.attn1.to_q.dora_scale", &[60, 1]), "`blocks.0.attn1.to_q.dora_scale` is of no kind"),
        (with("blocks.0.attn1.to_q.lokr_w1", &[6, 6]), "`blocks.0.attn1.to_q.lokr_w1` is of no kind"),
        (with("blocks.1.attn1.to_q.alpha", &[]), "`blocks.1.attn1.to_q.alpha` belongs to a pair"),
        (with("blocks.0.self_attn.q.lora_down.weight", &[RANK, 60]), "are the same part of one layer"),
        (lacking("blocks.0.attn1.to_q.lora_B.weight"), "`blocks.0.attn1.to_q.lora_A.weight` lacks"),
        (lacking("blocks.0.attn1.to_q.lora_A.weight"), "`blocks.0.attn1.to_q.lora_B.weight` lacks"),
        (Tensors::new(), "it has no adapters"),
        (image_branch(), "none of its 6 tensors is for this model"),
    ] {
        let refused = open(file);
        assert!(refused.contains(told) && refused.contains("lora.safetensors"), "{told}: {refused}");
    }
    let nowhere = Lora { path: "/nowhere.safetensors".into(), strength: 1.0 };
    assert!(matches!(Dit::load_adapted(&part(), &[nowhere], place()), Err(WanError::Read { .. })));
}

#[test]
fn adapters_come_along_where_parts_take_turns() {
    let folder = Folder::new("turns");
    let loras = Adapters { first: vec![folder.lora(&library_file(RANK), 1.0)], second: Vec::new() };
    for target in targets(Products::F32) {
        let of = |loras: &Adapters, residency| {
            let model = Model::open_adapted(&model("ti2v"), target.clone(), loras, residency).unwrap();
            numbers(&velocity(&model.dit_in_use(&model.experts[0], &|| false).unwrap()))
        };
        assert_eq!(of(&loras, Residency::InTurn), of(&loras, Residency::Whole));
        assert_ne!(of(&loras, Residency::InTurn), of(&Adapters::default(), Residency::InTurn));
    }
}

#[test]
fn adapters_count_among_the_weights() {
    let folder = Folder::new("needs");
    let half: Tensors = library_file(RANK)
        .into_iter()
        .map(|(name, tensor)| (name, tensor.to_dtype(DType::BF16).unwrap()))
        .collect();
    let count: usize = half.values().map(Tensor::elem_count).sum();
    let loras = Adapters { first: vec![folder.lora(&half, 1.0)], second: Vec::new() };
    for (target, number_bytes) in targets(Products::F32).zip([2, 4]) {
        let of = |loras: &Adapters| {
            let settings = Settings { loras: loras.clone(), ..Settings::default() };
            needs(&model("ti2v"), &target, &settings, 1).unwrap().weights_bytes
        };
        // As they are stored, in their file; on a device, in f32.
        assert_eq!(of(&loras) - of(&Adapters::default()), (count * number_bytes) as u64);
    }
}
