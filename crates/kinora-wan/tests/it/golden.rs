//! Reads goldens: what the reference implementation computed. `goldens/README.md` is their contract.
//!
//! Always true: a file that is missing, that the manifest does not name, or whose hash is another fails the test.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use kinora_wan::device::{DeviceName, Target};
use kinora_wan::ops::{Ops, Products, Set};
use sha2::{Digest as _, Sha256};

#[derive(serde::Deserialize)]
struct Manifest {
    format: u32,
    files: BTreeMap<String, Entry>,
}

#[derive(serde::Deserialize)]
struct Entry {
    sha256: String,
    #[serde(default)]
    tolerance: Tolerance,
}

#[derive(serde::Deserialize, Default, Clone, Copy)]
struct Tolerance {
    error: Option<f64>,
    psnr_db: Option<f64>,
    worst_levels: Option<u8>,
}

/// Where the goldens are to be met: by both sets of operations on the CPU; with `KINORA_TEST_DEVICE` set to `cuda` or
/// `cuda:N`, on that device alone, which must be there.
pub fn targets(products: Products) -> impl Iterator<Item = Target> {
    let device = std::env::var("KINORA_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let name: DeviceName = device.parse().unwrap_or_else(|problem| panic!("KINORA_TEST_DEVICE {problem}"));
    let own = Target::open(name, products)
        .unwrap_or_else(|problem| panic!("KINORA_TEST_DEVICE={device}: {problem}"));
    let by_tensors = Target { ops: Ops { set: Set::Tensors, products }, ..own.clone() };
    let targets = if name == DeviceName::Cpu { vec![own, by_tensors] } else { vec![by_tensors] };
    targets.into_iter().inspect(|target| println!("{:?} on {:?}", target.ops, target.device))
}

/// The folder of all goldens.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens")
}

fn manifest(root: &Path) -> Manifest {
    let text = std::fs::read_to_string(root.join("manifest.json")).expect("goldens/manifest.json is there");
    let manifest: Manifest = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest.format, 1, "another format of goldens: run reference/make_goldens.py");
    manifest
}

/// The bytes of `file`, which the manifest must know with this hash.
fn checked(file: &str) -> (Vec<u8>, Tolerance) {
    checked_in(&root(), file)
}

fn checked_in(root: &Path, file: &str) -> (Vec<u8>, Tolerance) {
    let manifest = manifest(root);
    let entry = manifest.files.get(file).unwrap_or_else(|| panic!("the manifest does not name {file}"));
    let bytes = std::fs::read(root.join(file)).unwrap_or_else(|e| panic!("goldens/{file}: {e}"));
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hash, entry.sha256,
        "goldens/{file} is not what the manifest tells: run reference/make_goldens.py"
    );
    (bytes, entry.tolerance)
}

/// A JSON file among the goldens.
pub fn json<T: serde::de::DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&checked(file).0).unwrap()
}

/// A picture among the goldens: width, height, `[H, W, 3]`.
pub fn picture(file: &str) -> (u32, u32, Vec<u8>) {
    let picture = image::load_from_memory(&checked(file).0).unwrap().into_rgb8();
    (picture.width(), picture.height(), picture.into_raw())
}

/// The path of a checked file.
pub fn path(file: &str) -> PathBuf {
    checked(file);
    root().join(file)
}

/// The folder of a tiny checkpoint, every file of which is checked.
pub fn model(name: &str) -> PathBuf {
    let prefix = format!("models/{name}/");
    let files: Vec<String> =
        manifest(&root()).files.into_keys().filter(|file| file.starts_with(&prefix)).collect();
    assert!(files.len() > 5, "the manifest names {files:?}");
    for file in &files {
        checked(file);
    }
    root().join(prefix)
}

/// Tensors of one file, with the tolerance for them.
pub struct Golden {
    file: String,
    tensors: HashMap<String, Tensor>,
    tolerance: Tolerance,
}

impl Golden {
    pub fn read(file: &str) -> Self {
        let (bytes, tolerance) = checked(file);
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        Self { file: file.to_owned(), tensors, tolerance }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{} has no tensor {name}", self.file)).clone()
    }

    /// The cases in the file, by the letters before the first dot.
    pub fn cases(&self) -> Vec<String> {
        let prefix = |name: &String| name.split_once('.').map(|(case, _)| case.to_owned());
        let mut cases: Vec<String> = self.tensors.keys().filter_map(prefix).collect();
        cases.sort();
        cases.dedup();
        assert!(!cases.is_empty(), "{} has no cases", self.file);
        cases
    }

    /// How far `got` is from the golden `name`, over the tolerance: above 1 fails.
    pub fn overshoot(&self, name: &str, got: &Tensor) -> f64 {
        error(got, &self.tensor(name)) / self.tolerance.error.expect("the file has a tolerance")
    }

    /// Demands that `got` is the golden `name`, within the tolerance.
    #[track_caller]
    pub fn assert_close(&self, name: &str, got: &Tensor) {
        self.assert_within(1.0, name, got);
    }

    /// The same within so many times the tolerance.
    #[track_caller]
    pub fn assert_within(&self, times: f64, name: &str, got: &Tensor) {
        let error = error(got, &self.tensor(name));
        println!("{:<28} {name:<16} error {error:.2e}", self.file);
        let most = times * self.tolerance.error.expect("the file has a tolerance");
        assert!(error <= most, "{} {name}: the error is {error:e}, allowed are {most:e}", self.file);
    }

    /// Demands that 8-bit pixels are the golden `name`, within the tolerance.
    #[track_caller]
    pub fn assert_pixels(&self, name: &str, got: &[u8]) {
        let wanted = self.tensor(name).flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let (psnr_db, worst) = pixel_error(got, &wanted);
        println!("{:<28} {name:<16} PSNR {psnr_db:.1} dB, worst {worst}", self.file);
        assert!(psnr_db >= self.tolerance.psnr_db.unwrap(), "{} {name}: {psnr_db} dB", self.file);
        assert!(worst <= self.tolerance.worst_levels.unwrap(), "{} {name}: {worst} levels", self.file);
    }
}

/// `(PSNR in dB, largest difference in levels)`
pub fn pixel_error(got: &[u8], wanted: &[u8]) -> (f64, u8) {
    assert_eq!(got.len(), wanted.len(), "as many pixels");
    let differences = || got.iter().zip(wanted).map(|(a, b)| a.abs_diff(*b));
    let squares: f64 = differences().map(|d| f64::from(d).powi(2)).sum();
    let psnr_db = 10.0 * (255.0f64.powi(2) * got.len() as f64 / squares).log10();
    (psnr_db, differences().max().unwrap_or(0))
}

/// `max(‖a-b‖₂ / ‖b‖₂, max|a-b| / max|b|)` in f64; infinite where shapes differ or a number is none.
pub fn error(got: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(got.dims(), wanted.dims(), "shapes");
    let numbers = |tensor: &Tensor| {
        let here = tensor.to_device(&Device::Cpu).unwrap();
        let flat = here.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        flat.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let (a, b) = (numbers(got), numbers(wanted));
    let norm = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|n| n * n).sum::<f64>().sqrt();
    let largest = |numbers: &mut dyn Iterator<Item = f64>| numbers.fold(0.0f64, |most, n| most.max(n.abs()));
    let apart = || a.iter().zip(&b).map(|(a, b)| a - b);
    if apart().any(|difference| !difference.is_finite()) {
        return f64::INFINITY;
    }
    let all = norm(&mut apart()) / norm(&mut b.iter().copied());
    all.max(largest(&mut apart()) / largest(&mut b.iter().copied()))
}

/// A copy of a checkpoint's part in which one tensor is disturbed: its first number by a tenth, and a tenth of its
/// largest.
pub struct Disturbed {
    folder: PathBuf,
}

impl Disturbed {
    pub fn new(part: &Path, tensor: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("kinora-disturbed-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut found = false;
        for file in std::fs::read_dir(part).unwrap().map(|entry| entry.unwrap().path()) {
            let mut bytes = std::fs::read(&file).unwrap();
            if file.extension().is_some_and(|extension| extension == "safetensors") {
                found |= disturb(&mut bytes, tensor);
            }
            std::fs::write(folder.join(file.file_name().unwrap()), bytes).unwrap();
        }
        assert!(found, "{} has no tensor {tensor}", part.display());
        Self { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Disturbed {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn disturb(bytes: &mut [u8], tensor: &str) -> bool {
    let (header, metadata) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    let Some(info) = metadata.info(tensor) else { return false };
    assert_eq!(info.dtype, safetensors::Dtype::F32);
    let (start, end) = (8 + header + info.data_offsets.0, 8 + header + info.data_offsets.1);
    let number = |at: &[u8]| f32::from_le_bytes(at.try_into().unwrap());
    let largest = bytes[start..end].chunks_exact(4).fold(0.0f32, |most, at| most.max(number(at).abs()));
    let first = number(&bytes[start..start + 4]) * 1.1 + largest * 0.1 + 0.01;
    bytes[start..start + 4].copy_from_slice(&first.to_le_bytes());
    true
}

#[test]
fn a_golden_that_is_missing_changed_or_unknown_fails() {
    let root = &std::env::temp_dir().join(format!("kinora-goldens-{}", std::process::id()));
    std::fs::create_dir_all(root).unwrap();
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1: of "abc"
    let manifest = serde_json::json!({ "format": 1, "files": { "known": { "sha256": hash } } });
    std::fs::write(root.join("manifest.json"), manifest.to_string()).unwrap();
    let panics = |file: &str| std::panic::catch_unwind(|| checked_in(root, file)).is_err();

    assert!(panics("known"), "it is missing");
    std::fs::write(root.join("known"), "abd").unwrap();
    assert!(panics("known"), "it holds something else");
    std::fs::write(root.join("known"), "abc").unwrap();
    assert!(!panics("known"), "it is as the manifest tells");
    std::fs::write(root.join("unknown"), "abc").unwrap();
    assert!(panics("unknown"), "the manifest does not name it");
    std::fs::remove_dir_all(root).unwrap();
}
