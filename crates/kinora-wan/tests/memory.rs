//! How much memory decoding takes, counted by an allocator of its own: hence a binary of its own, with one test.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use kinora_wan::vae::Vae;

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

/// Bytes at most above what was held before, while a clip of `frames` latent frames is decoded and thrown away.
fn peak_bytes(vae: &Vae, frames: usize, tile: Option<usize>) -> usize {
    let latent = Tensor::ones((1, vae.latent_channels(), 1, 8, 10), DType::F32, &Device::Cpu).unwrap();
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let mut decoder = vae.decoder(tile).unwrap();
    for _ in 0..frames {
        decoder.push(&latent, &|| false).unwrap();
    }
    MOST.load(Ordering::Relaxed) - before
}

#[test]
fn memory_does_not_grow_with_the_clip() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/models");
    for name in ["ti2v", "i2v"] {
        let vae = Vae::load(&root.join(name).join("vae"), &Device::Cpu, DType::F32).unwrap();
        peak_bytes(&vae, 1, None); // threads start, tables are made
        for tile in [None, Some(4 * vae.spatial_scale())] {
            let [short, long] = [4, 16].map(|frames| peak_bytes(&vae, frames, tile));
            println!("{name} {tile:?}: {short} bytes for 4 latent frames, {long} for 16");
            assert!(long < short + short / 20, "{name} {tile:?}: {long} bytes after {short}");
        }
    }
}
