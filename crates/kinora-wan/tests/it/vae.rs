//! The autoencoder against the reference: encoding, decoding over chunk boundaries, and tiles.

use candle_core::{DType, Device, Tensor};
use kinora_wan::WanError;
use kinora_wan::ops::Products;
use kinora_wan::vae::{Tiling, Vae};

use crate::dit::place;
use crate::golden::{Disturbed, Golden, model, targets};

const MODELS: [&str; 2] = ["ti2v", "i2v"];

fn load(folder: &std::path::Path) -> Vae {
    Vae::load(folder, place()).unwrap()
}

fn encode(vae: &Vae, frames: &Tensor) -> Tensor {
    vae.encode(frames, &|| false).unwrap()
}

/// All frames of `latents` `[1, z, f, h, w]`, pushed one by one.
fn decode(vae: &Vae, latents: &Tensor, tiling: Option<Tiling>) -> Tensor {
    let mut decoder = vae.decoder_in(tiling);
    let frames: Vec<Tensor> = (0..latents.dim(2).unwrap())
        .map(|index| decoder.push(&latents.narrow(2, index, 1).unwrap(), &|| false).unwrap())
        .collect();
    assert_eq!(frames[0].dim(2).unwrap(), 1);
    assert!(frames[1..].iter().all(|chunk| chunk.dim(2).unwrap() == vae.temporal_scale()));
    Tensor::cat(&frames, 2).unwrap()
}

fn tiling(golden: &Golden) -> Tiling {
    let [tile, stride] = golden.tensor("tiled.tile").to_vec1::<i64>().unwrap().try_into().unwrap();
    Tiling { tile: tile as usize, stride: stride as usize }
}

#[test]
fn encodes_as_the_reference() {
    for target in targets(Products::F32) {
        for name in MODELS {
            let vae = Vae::load(&model(name).join("vae"), target.place()).unwrap();
            let golden = Golden::read(&format!("{name}/vae_encode.safetensors"));
            for case in golden.cases() {
                let frames = golden.tensor(&format!("{case}.frames"));
                let moments = vae.encode_moments(&frames, &|| false).unwrap();
                golden.assert_close(&format!("{case}.moments"), &moments);
                golden.assert_close(&format!("{case}.normalised"), &encode(&vae, &frames));
            }
        }
    }
}

#[test]
fn decodes_as_the_reference() {
    for target in targets(Products::F32) {
        for name in MODELS {
            let vae = Vae::load(&model(name).join("vae"), target.place()).unwrap();
            let golden = Golden::read(&format!("{name}/vae_decode.safetensors"));
            for case in golden.cases() {
                let tiling = (case == "tiled").then(|| tiling(&golden));
                let frames = decode(&vae, &golden.tensor(&format!("{case}.normalised")), tiling);
                golden.assert_close(&format!("{case}.frames"), &frames);
            }
        }
    }
}

#[test]
fn a_disturbed_weight_or_operand_is_noticed() {
    for (name, encoders, decoders) in [
        (
            "ti2v",
            [
                "encoder.down_blocks.1.downsampler.time_conv.weight",
                "encoder.mid_block.attentions.0.to_qkv.weight",
            ],
            ["decoder.up_blocks.0.upsampler.time_conv.weight", "decoder.norm_out.gamma"],
        ),
        (
            "i2v",
            ["encoder.down_blocks.8.time_conv.weight", "quant_conv.bias"],
            ["decoder.up_blocks.1.upsamplers.0.time_conv.weight", "post_quant_conv.weight"],
        ),
    ] {
        let folder = model(name).join("vae");
        let golden = Golden::read(&format!("{name}/vae_encode.safetensors"));
        for tensor in encoders {
            let disturbed = Disturbed::new(&folder, tensor);
            let latents = encode(&load(disturbed.folder()), &golden.tensor("a.frames"));
            assert!(golden.overshoot("a.normalised", &latents) > 3.0, "{name}: {tensor}");
        }
        let whole = encode(&load(&folder), &golden.tensor("a.frames").flip(&[2]).unwrap());
        assert!(golden.overshoot("a.normalised", &whole) > 3.0, "{name}: frames in another order");

        let golden = Golden::read(&format!("{name}/vae_decode.safetensors"));
        let latents = golden.tensor("c.normalised"); // long enough for every step in time of every kernel
        for tensor in decoders {
            let disturbed = Disturbed::new(&folder, tensor);
            let frames = decode(&load(disturbed.folder()), &latents, None);
            assert!(golden.overshoot("c.frames", &frames) > 3.0, "{name}: {tensor}");
        }
        let flipped = decode(&load(&folder), &latents.flip(&[4]).unwrap(), None);
        assert!(golden.overshoot("c.frames", &flipped) > 3.0, "{name}: columns in another order");
        let other = Tiling { stride: tiling(&golden).tile / 2, ..tiling(&golden) };
        let frames = decode(&load(&folder), &golden.tensor("tiled.normalised"), Some(other));
        assert!(golden.overshoot("tiled.frames", &frames) > 3.0, "{name}: another stride");
    }
}

#[test]
fn a_tile_as_large_as_the_frame_changes_nothing() {
    let vae = load(&model("ti2v").join("vae"));
    let golden = Golden::read("ti2v/vae_decode.safetensors");
    let latents = golden.tensor("a.normalised");
    let mut decoder = vae.decoder(Some(5 * vae.spatial_scale())).unwrap();
    let first = decoder.push(&latents.narrow(2, 0, 1).unwrap(), &|| false).unwrap();
    let whole = decode(&vae, &latents, None).narrow(2, 0, 1).unwrap();
    assert_eq!(first.to_vec_all(), whole.to_vec_all());
}

#[test]
fn bad_requests_are_told_and_cancelling_stops() {
    let vae = load(&model("ti2v").join("vae"));
    let told = |result: Result<Tensor, WanError>| result.unwrap_err().to_string();
    let frames = Tensor::zeros((1, 3, 1, 40, 64), DType::F32, &Device::Cpu).unwrap();
    assert!(told(vae.encode(&frames, &|| false)).contains("divide by 16"));
    assert!(vae.decoder(Some(24)).unwrap_err().to_string().contains("multiple of 16"));
    let latent = |height| Tensor::zeros((1, 7, 1, height, 3), DType::F32, &Device::Cpu).unwrap();
    let mut decoder = vae.decoder(None).unwrap();
    decoder.push(&latent(2), &|| false).unwrap();
    assert!(told(decoder.push(&latent(3), &|| false)).contains("one size"));
    assert!(matches!(vae.decoder(None).unwrap().push(&latent(2), &|| true), Err(WanError::Cancelled)));
    let frames = Tensor::zeros((1, 3, 1, 32, 64), DType::F32, &Device::Cpu).unwrap();
    assert!(matches!(vae.encode(&frames, &|| true), Err(WanError::Cancelled)));
}

#[test]
fn a_cancel_is_heard_within_a_tile() {
    let vae = load(&model("ti2v").join("vae"));
    let scale = vae.spatial_scale();
    let latent = Tensor::zeros((1, vae.latent_channels(), 1, 3, 6), DType::F32, &Device::Cpu).unwrap();
    let asked_until = |limit: usize, tile: Option<usize>| {
        let asked = std::cell::Cell::new(0);
        let cancel = || {
            asked.set(asked.get() + 1);
            asked.get() > limit
        };
        let result = vae.decoder(tile).unwrap().push(&latent, &cancel);
        (result.map(drop), asked.get())
    };
    let (whole, in_frame) = asked_until(usize::MAX, None);
    let (tiled, in_tiles) = asked_until(usize::MAX, Some(4 * scale));
    whole.and(tiled).unwrap();
    // Three layers to a level at least, whatever the size, and once more before each of the two tiles.
    assert!(in_frame > 6 && in_tiles == 2 * (in_frame + 1), "asked {in_frame} and {in_tiles} times");
    for limit in [0, 1, in_frame / 2, in_frame, in_tiles - 1] {
        let (result, asked) = asked_until(limit, Some(4 * scale));
        assert!(matches!(result, Err(WanError::Cancelled)), "{limit}: {result:?}");
        assert_eq!(asked, limit + 1, "nothing is done after");
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_told() {
    let text = std::fs::read_to_string(model("i2v").join("vae/config.json")).unwrap();
    for (from, to, problem) in [
        ("\"z_dim\": 5", "\"z_dim\": 6", "`latents_mean` must hold 6"),
        ("\"z_dim\": 5", "\"z_dim\": 0", "`z_dim` must be from 1 to 1048576, not 0"),
        ("\"num_res_blocks\": 2", "\"num_res_blocks\": 0", "`num_res_blocks` must be from 1"),
        ("\"base_dim\": 6", "\"base_dim\": 999999", "`base_dim * dim_mult` must be"),
        ("\"scale_factor_spatial\": 8", "\"scale_factor_spatial\": 16", "`scale_factor_spatial` is 16"),
        ("\"out_channels\": 3", "\"out_channels\": 4", "must be 3"),
        ("\"attn_scales\": []", "\"attn_scales\": [1.0]", "`attn_scales` must be empty"),
        ("\"base_dim\": 6", "\"base_dim\": 7", "has the shape"),
    ] {
        let folder = Disturbed::new(&model("i2v").join("vae"), "quant_conv.bias");
        assert!(text.contains(from), "{from}");
        std::fs::write(folder.folder().join("config.json"), text.replace(from, to)).unwrap();
        let error = Vae::load(folder.folder(), place()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

trait Numbers {
    fn to_vec_all(&self) -> Vec<f32>;
}

impl Numbers for Tensor {
    fn to_vec_all(&self) -> Vec<f32> {
        self.flatten_all().unwrap().to_vec1().unwrap()
    }
}
