use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::*;

pub(super) fn folder_with(files: &[(&str, &[u8])]) -> PathBuf {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("kinora-weights-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    folder
}

fn file_of(name: &str, dtype: DType) -> Vec<u8> {
    let tensor = Tensor::arange(0f32, 6f32, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
    let tensors = HashMap::from([(name.to_owned(), tensor.to_dtype(dtype).unwrap())]);
    safetensors::serialize(&tensors, None).unwrap()
}

#[test]
fn shards_are_found_through_their_index_in_every_type() {
    let index = br#"{"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
    let folder = folder_with(&[
        ("model.safetensors.index.json", index),
        ("1.safetensors", &file_of("a", DType::F32)),
        ("2.safetensors", &file_of("b", DType::BF16)),
    ]);
    let weights = Weights::open(&folder).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
    for name in ["a", "b"] {
        let tensor = weights.tensor(name, (2, 3), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[0., 1., 2.], [3., 4., 5.]]);
        let matrix = weights.matrix(name, &[2, 3]).unwrap();
        let mut row = [0f32; 3];
        matrix.widen_rows(1..2, &mut row);
        assert_eq!(row, [3., 4., 5.]);
        let copied = matrix.to_tensor(DType::F32, &Device::Cpu).unwrap();
        assert_eq!(copied.to_vec2::<f32>().unwrap(), [[0., 1., 2.], [3., 4., 5.]]);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_wrong_is_told_with_file_and_name() {
    let whole = file_of("a", DType::F32);
    let folder = folder_with(&[("model.safetensors", &whole)]);
    let weights = Weights::open(&folder).unwrap();
    let missing = weights.tensor("c", (2, 3), DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(missing.contains("`c`"), "{missing}");
    let shape = weights.matrix("a", &[3, 3]).unwrap_err().to_string();
    assert!(shape.contains("[2, 3], not [3, 3]") && shape.contains("model.safetensors"), "{shape}");
    std::fs::remove_dir_all(folder).unwrap();

    let cut = folder_with(&[("model.safetensors", &whole[..whole.len() - 1])]);
    let error = Weights::open(&cut).unwrap_err().to_string();
    let told = format!("model.safetensors is damaged: it has {} bytes, which is not", whole.len() - 1);
    assert!(error.contains(&told), "{error}");
    std::fs::remove_dir_all(cut).unwrap();

    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let pointer = folder_with(&[("model.safetensors", pointer)]);
    let error = Weights::open(&pointer).unwrap_err().to_string();
    assert!(error.contains("model.safetensors is damaged") && error.contains("`git lfs pull`"), "{error}");
    std::fs::remove_dir_all(pointer).unwrap();

    let within = folder_with(&[]);
    std::fs::create_dir(within.join("model.safetensors")).unwrap();
    let error = Weights::open(&within).unwrap_err().to_string();
    assert!(error.contains("is a directory"), "{error}");
    std::fs::remove_dir_all(within).unwrap();

    let nothing = folder_with(&[]);
    let error = Weights::open(&nothing).unwrap_err().to_string();
    assert!(error.contains("no weights"), "{error}");
    std::fs::remove_dir_all(nothing).unwrap();

    let index = br#"{"weight_map": {"a": "gone.safetensors"}}"#;
    let lost = folder_with(&[("model.safetensors.index.json", index)]);
    let error = Weights::open(&lost).unwrap_err().to_string();
    assert!(error.contains("gone.safetensors"), "{error}");
    std::fs::remove_dir_all(lost).unwrap();

    let outside = br#"{"weight_map": {"a": "../model.safetensors"}}"#;
    let escaping = folder_with(&[("model.safetensors.index.json", outside)]);
    let error = Weights::open(&escaping).unwrap_err().to_string();
    assert!(error.contains("not the name of a file beside it"), "{error}");
    std::fs::remove_dir_all(escaping).unwrap();
}
