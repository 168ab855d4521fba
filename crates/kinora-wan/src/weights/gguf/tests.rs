//! Files written by the tensor library's own writer, read here; files that lie.

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};

use super::super::Weights;
use super::super::tests::folder_with;
use super::library_name;

fn file_of(tensors: &[(&str, &QTensor)]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let text = gguf_file::Value::String("wan".to_owned());
    let list = gguf_file::Value::Array(vec![gguf_file::Value::U32(5), gguf_file::Value::U32(7)]);
    let values = [("general.architecture", &text), ("shapes", &list)];
    gguf_file::write(&mut bytes, &values, tensors).unwrap();
    bytes.into_inner()
}

fn matrix() -> Tensor {
    let noise = kinora_engine::Noise::new(4, "gguf");
    let numbers: Vec<f32> = (0..3 * 512).map(|at| noise.normal(at)).collect();
    Tensor::from_vec(numbers, (3, 512), &Device::Cpu).unwrap()
}

#[test]
fn every_type_is_widened_from_any_place_to_any_other() {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
        let (before, quantised) =
            (QTensor::quantize(&matrix(), Q8_0).unwrap(), QTensor::quantize(&matrix(), dtype).unwrap());
        let wanted =
            quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let folder = folder_with(&[("a.GGUF", &file_of(&[("first", &before), ("w.weight", &quantised)]))]);
        let weights = Weights::open(&folder).unwrap();
        let found = weights.matrix("w.weight", &[3, 512]).unwrap();
        for range in [0..1536, 0..1, 511..513, 5..700, 256..512, 1535..1536] {
            let mut numbers = vec![0.0; range.len()];
            found.widen(range.clone(), &mut numbers);
            assert_eq!(numbers, wanted[range.clone()], "{dtype:?} {range:?}");
        }
        let whole = weights.tensor("w.weight", (3, 512), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(whole.flatten_all().unwrap().to_vec1::<f32>().unwrap(), wanted, "{dtype:?}");
        // Sides of 1 do not count, others do.
        assert!(
            weights.matrix("w.weight", &[3, 512, 1, 1]).is_ok()
                && weights.matrix("w.weight", &[512, 3]).is_err()
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn names_are_those_of_the_libraries() {
    for (own, library) in [
        ("patch_embedding.weight", "patch_embedding.weight"),
        ("model.diffusion_model.blocks.3.self_attn.q.weight", "blocks.3.attn1.to_q.weight"),
        ("blocks.12.cross_attn.o.bias", "blocks.12.attn2.to_out.0.bias"),
        ("blocks.0.self_attn.norm_k.weight", "blocks.0.attn1.norm_k.weight"),
        ("blocks.0.norm3.bias", "blocks.0.norm2.bias"),
        ("blocks.0.modulation", "blocks.0.scale_shift_table"),
        ("blocks.0.ffn.2.weight", "blocks.0.ffn.net.2.weight"),
        ("head.modulation", "scale_shift_table"),
        ("head.head.bias", "proj_out.bias"),
        ("time_projection.1.weight", "condition_embedder.time_proj.weight"),
        ("blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_q.weight"),
        ("token_embd.weight", "shared.weight"),
        (
            "enc.blk.7.attn_rel_b.weight",
            "encoder.block.7.layer.0.SelfAttention.relative_attention_bias.weight",
        ),
        ("enc.blk.7.ffn_gate.weight", "encoder.block.7.layer.1.DenseReluDense.wi_0.weight"),
        ("enc.output_norm.weight", "encoder.final_layer_norm.weight"),
    ] {
        assert_eq!(library_name(own), library);
    }
}

#[test]
fn files_that_lie_are_told_and_nothing_panics() {
    let quantised = QTensor::quantize(&matrix(), GgmlDType::Q4_0).unwrap();
    let whole = file_of(&[("w.weight", &quantised)]);
    let told = |bytes: &[u8]| {
        let folder = folder_with(&[("a.gguf", bytes)]);
        let error = Weights::open(&folder).err().map(|error| error.to_string());
        std::fs::remove_dir_all(folder).unwrap();
        error
    };
    assert_eq!(told(&whole), None);
    // Up to the numbers' end; what follows is padding.
    let last = whole.len() - 32;
    for length in (0..300).chain([last]) {
        let error =
            told(&whole[..length.min(last)]).unwrap_or_else(|| panic!("{length} bytes pass for a file"));
        assert!(error.contains("a.gguf"), "{error}");
    }
    for at in 0..200 {
        let mut lying = whole.clone();
        lying[at] ^= 0xFF;
        drop(told(&lying));
    }
    let folder = folder_with(&[("a.gguf", &whole), ("b.gguf", &whole)]);
    let error = Weights::open(&folder).unwrap_err().to_string();
    assert!(error.contains("a.gguf and b.gguf"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
    let folder = folder_with(&[("a.gguf", &whole), ("model.safetensors", b"")]);
    let error = Weights::open(&folder).unwrap_err().to_string();
    assert!(error.contains("a.gguf") && error.contains("keep one of the two"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}
