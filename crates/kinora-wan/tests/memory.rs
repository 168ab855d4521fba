//! How much memory the stages take, counted by an allocator of its own: hence a binary of its own, whose tests take turns.

#![allow(unsafe_code, clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use kinora_engine::{FrameSink, GenerateSpec, Picture, SinkError, Unwatched};
use kinora_wan::Settings;
use kinora_wan::device::Target;
use kinora_wan::dit::{Dit, TokenTimes};
use kinora_wan::model::{Adapters, Model, Residency};
use kinora_wan::ops::{Ops, Place, Products, Set};
use kinora_wan::picture::Size;
use kinora_wan::pipeline::Pipeline;
use kinora_wan::text::Encoder;
use kinora_wan::vae::Vae;
use kinora_wan::weights::{Lora, Weights};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time, by two threads on every machine: the tensor library's products take a slab for each thread on the CPU,
/// which no device does and no estimate counts.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static THREADS: Once = Once::new();
    THREADS.call_once(|| rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes at most above what was held before, while `work` is done.
fn peak_bytes(work: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work();
    MOST.load(Ordering::Relaxed) - before
}

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/models").join(name)
}

/// The CPU, with the operations of `set`.
fn place(set: Set, products: Products) -> Place<'static> {
    Place { ops: Ops { set, products }, ..Place::new(products, &Device::Cpu) }
}

fn vae(name: &str, set: Set) -> Vae {
    Vae::load(&model(name).join("vae"), place(set, Products::F32)).unwrap()
}

/// Decodes a clip of `frames` latent frames of `size` and throws it away.
fn decode(vae: &Vae, size: [usize; 2], frames: usize, tile: Option<usize>) {
    let shape = (1, vae.latent_channels(), 1, size[0], size[1]);
    let latent = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let mut decoder = vae.decoder(tile).unwrap();
    for _ in 0..frames {
        decoder.push(&latent, &|| false).unwrap();
    }
}

#[test]
fn memory_does_not_grow_with_the_clip() {
    let _turn = alone();
    for (name, set) in [("ti2v", Set::Cpu), ("i2v", Set::Cpu), ("ti2v", Set::Tensors), ("i2v", Set::Tensors)]
    {
        let vae = vae(name, set);
        decode(&vae, [8, 10], 1, None); // threads start, tables are made
        for tile in [None, Some(4 * vae.spatial_scale())] {
            let [short, long] = [4, 16].map(|frames| peak_bytes(|| decode(&vae, [8, 10], frames, tile)));
            println!("{name} {set:?} {tile:?}: {short} bytes for 4 latent frames, {long} for 16");
            assert!(long < short + short / 20, "{name} {set:?} {tile:?}: {long} bytes after {short}");
        }
    }
}

/// What was told beforehand must be enough, and not so much that clips are refused that would fit.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    fn compare(&mut self, what: &str, told: u64, took: usize) {
        let ratio = told as f64 / took as f64;
        println!("{what}: told {told}, took {took}, {ratio:.2}");
        if !(1.0..1.8).contains(&ratio) {
            self.0.push(format!("{what}: told {told} bytes, took {took}"));
        }
    }

    fn end(self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

#[test]
fn the_vae_tells_what_it_will_take() {
    let _turn = alone();
    let mut told = Told::default();
    for (name, set) in [("ti2v", Set::Cpu), ("i2v", Set::Cpu), ("ti2v", Set::Tensors), ("i2v", Set::Tensors)]
    {
        let vae = vae(name, set);
        let scale = vae.spatial_scale();
        for latent in [[12, 16], [24, 14]] {
            let size = latent.map(|side| side * scale);
            for tile in [None, Some(6 * scale)] {
                let took = peak_bytes(|| decode(&vae, latent, 3, tile));
                let bytes = vae.decoding_bytes(size, tile, set).unwrap();
                told.compare(&format!("{name} {set:?} decodes {size:?} in {tile:?}"), bytes, took);
            }
            for frames in [1, 9] {
                let clip = Tensor::zeros((1, 3, frames, size[0], size[1]), DType::F32, &Device::Cpu).unwrap();
                let took = peak_bytes(|| drop(vae.encode(&clip, &|| false).unwrap()));
                told.compare(
                    &format!("{name} {set:?} encodes {frames} of {size:?}"),
                    vae.encoding_bytes(size, frames, set),
                    took,
                );
            }
        }
    }
    told.end();
}

#[test]
fn the_transformer_tells_what_it_will_take() {
    let _turn = alone();
    let mut told = Told::default();
    // In bf16 the tensor library widens whole weights on the CPU, which no device does.
    for (set, products) in
        [(Set::Cpu, Products::F32), (Set::Cpu, Products::Bf16), (Set::Tensors, Products::F32)]
    {
        let place = place(set, products);
        let dit = Dit::load(&model("ti2v").join("transformer"), place).unwrap();
        for grid in [[3, 64, 96], [1, 96, 96]] {
            let [frames, height, width] = grid;
            let shape = (1, dit.config().in_channels, frames, height, width);
            let latents = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            let states = Tensor::ones((1, 512, dit.config().text_dim), DType::F32, &Device::Cpu).unwrap();
            let text = dit.project_text(&states).unwrap();
            let times = TokenTimes::same(500.0, frames * height * width / 4);
            let took = peak_bytes(|| {
                let clip = dit.clip(grid).unwrap();
                drop(dit.forward(&clip, &latents, &times, &text, &|| false).unwrap());
            });
            told.compare(&format!("{:?} {grid:?}", place.ops), dit.working_bytes(grid, place.ops), took);
        }
    }
    told.end();
}

/// A folder with the weights of `part` in Q4_0, where they are whole blocks.
fn quantised(part: &Path) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kinora-quantised-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(part.join("config.json"), folder.join("config.json")).unwrap();
    let weights = Weights::open(part).unwrap();
    let all: Vec<_> = weights
        .names()
        .map(|name| {
            let shape = weights.shape(name).unwrap();
            let whole = shape.len() > 1 && shape.last().unwrap().is_multiple_of(GgmlDType::Q4_0.block_size());
            let tensor = weights.tensor(name, shape, DType::F32, &Device::Cpu).unwrap();
            (name, QTensor::quantize(&tensor, if whole { GgmlDType::Q4_0 } else { GgmlDType::F32 }).unwrap())
        })
        .collect();
    let listed: Vec<_> = all.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut file = std::fs::File::create(folder.join("weights.gguf")).unwrap();
    gguf_file::write(&mut file, &[], &listed).unwrap();
    folder
}

#[test]
fn quantised_weights_stay_so_on_a_device() {
    let _turn = alone();
    let part = model("ti2v-bf16").join("transformer");
    let place = place(Set::Tensors, Products::F32);
    let held_bytes = |folder: &Path| {
        let before = NOW.load(Ordering::Relaxed);
        let dit = Dit::load(folder, place).unwrap();
        (NOW.load(Ordering::Relaxed) - before, dit.resident_bytes(Products::F32))
    };
    let folder = quantised(&part);
    let ((wide, wide_told), (narrow, narrow_told)) = (held_bytes(&part), held_bytes(&folder));
    std::fs::remove_dir_all(folder).unwrap();
    println!("{wide} bytes held, {wide_told} told; quantised {narrow} held, {narrow_told} told");
    let saved = (wide - narrow) as f64 / (wide_told - narrow_told) as f64;
    assert!(
        (0.95..1.05).contains(&saved),
        "told to save {} bytes, saved {}",
        wide_told - narrow_told,
        wide - narrow
    );
    assert!(narrow_told * 2 < wide_told, "{narrow_told} of {wide_told} bytes: was anything quantised?");
}

/// A file with a pair of matrices for every layer of the transformer in `part`.
fn adapters(part: &Path) -> Lora {
    const RANK: usize = 4;
    let weights = Weights::open(part).unwrap();
    let mut tensors = std::collections::HashMap::new();
    for layer in weights.names().filter_map(|name| name.strip_suffix(".weight")) {
        if let [outputs, inputs] = *weights.shape(&format!("{layer}.weight")).unwrap() {
            for (key, shape) in [("lora_A", (RANK, inputs)), ("lora_B", (outputs, RANK))] {
                let matrix = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
                tensors.insert(format!("{layer}.{key}.weight"), matrix);
            }
        }
    }
    let path = std::env::temp_dir().join(format!("kinora-memory-{}.safetensors", std::process::id()));
    candle_core::safetensors::save(&tensors, &path).unwrap();
    Lora { path, strength: 0.1 }
}

#[test]
fn adapters_take_no_room_that_grows_with_the_clip() {
    let _turn = alone();
    let part = model("ti2v").join("transformer");
    let lora = adapters(&part);
    let grid = [3, 64, 96];
    for set in [Set::Cpu, Set::Tensors] {
        let peak = |loras: &[Lora]| {
            let dit = Dit::load_adapted(&part, loras, place(set, Products::F32)).unwrap();
            let [frames, height, width] = grid;
            let shape = (1, dit.config().in_channels, frames, height, width);
            let latents = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            let states = Tensor::ones((1, 512, dit.config().text_dim), DType::F32, &Device::Cpu).unwrap();
            let text = dit.project_text(&states).unwrap();
            let tokens = frames * height * width / 4;
            let times = TokenTimes::same(500.0, tokens);
            let clip = dit.clip(grid).unwrap();
            let took = peak_bytes(|| drop(dit.forward(&clip, &latents, &times, &text, &|| false).unwrap()));
            (took, tokens * dit.config().width() * size_of::<f32>())
        };
        let ((plain, all_tokens), (adapted, _)) = (peak(&[]), peak(std::slice::from_ref(&lora)));
        println!("{set:?}: {plain} bytes, {adapted} with adapters; a tensor of all tokens has {all_tokens}");
        assert!(adapted < plain + all_tokens / 2, "{set:?}: {adapted} bytes after {plain}");
    }
    std::fs::remove_file(lora.path).unwrap();
}

/// Bytes held at most since it was asked last.
fn most_since() -> usize {
    MOST.swap(NOW.load(Ordering::Relaxed), Ordering::Relaxed)
}

/// Bytes held at most before each frame; the frames themselves are thrown away.
struct Held(Vec<usize>);

impl FrameSink for Held {
    fn frame(&mut self, _: &[u8]) -> Result<(), SinkError> {
        self.0.push(most_since());
        Ok(())
    }
}

#[test]
fn parts_that_take_turns_are_never_there_together() {
    const STEPS: usize = 4;
    const CLIPS: usize = 4;
    let _turn = alone();
    let target = Target { ops: Ops { set: Set::Tensors, products: Products::F32 }, ..Target::cpu_f32() };
    // At most for each step after the first, and at most for a frame.
    let held = |residency| {
        let before = NOW.load(Ordering::Relaxed);
        let model =
            Model::open_adapted(&model("i2v"), target.clone(), &Adapters::default(), residency).unwrap();
        let told = model.resident_bytes(Products::F32, residency);
        let settings = Settings {
            steps: Some(STEPS),
            size: Some(Size { width_px: 64, height_px: 32 }),
            frames: Some(5),
            ..Settings::default()
        };
        let pipeline = Pipeline::new(model, settings).unwrap();
        let picture = Picture::new(16, 16, vec![90; 16 * 16 * 3]).unwrap();
        let (mut decoding, mut steps) = (Held(Vec::new()), Vec::new());
        let mut tap = |_: &Tensor| steps.push(most_since() - before);
        pipeline.run(&GenerateSpec::default(), &picture, &mut decoding, &Unwatched, &mut tap).unwrap();
        (steps[1..STEPS].to_vec(), decoding.0.into_iter().max().unwrap() - before, told)
    };
    // Buffers of threads come and go, so of several clips the least at each point.
    let least = |residency| {
        let clips = (0..CLIPS).map(|_| held(residency));
        clips.reduce(|(steps, frames, told), (other_steps, other_frames, _)| {
            let steps = steps.into_iter().zip(other_steps).map(|(a, b)| a.min(b)).collect();
            (steps, frames.min(other_frames), told)
        })
    };
    held(Residency::Whole); // threads start, tables are made
    let (whole_steps, whole_decoding, whole) = least(Residency::Whole).unwrap();
    let (steps, decoding, in_turn) = least(Residency::InTurn).unwrap();
    let steps = steps.iter().zip(&whole_steps).map(|(took, whole)| (*took, *whole, 2));
    for (took, whole_took, stage) in steps.chain([(decoding, whole_decoding, 3)]) {
        let (saved, told) = (whole_took as f64 - took as f64, (whole[stage] - in_turn[stage]) as f64);
        println!("{took} bytes at most instead of {whole_took}: saved {saved}, told {told}");
        // Any other part beside the one in use would be told by its size.
        let smallest_part = in_turn[2].min(in_turn[3]) as f64;
        assert!((saved - told).abs() < smallest_part / 2.0, "saved {saved} of {told} bytes");
    }
}

#[test]
fn the_text_encoder_tells_what_it_will_take() {
    let _turn = alone();
    let mut told = Told::default();
    for (name, set) in [("ti2v", Set::Cpu), ("i2v", Set::Cpu), ("ti2v", Set::Tensors), ("i2v", Set::Tensors)]
    {
        let place = Place { streamed: true, ..place(set, Products::F32) };
        let encoder = Encoder::load(&model(name).join("text_encoder"), place).unwrap();
        let took = peak_bytes(|| drop(encoder.forward(&[5; 512], &|| false).unwrap()));
        told.compare(&format!("{name} {set:?}"), encoder.config().working_bytes(place.ops), took);
    }
    told.end();
}
