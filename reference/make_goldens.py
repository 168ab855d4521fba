"""Writes goldens/: tiny random-weight models of the Wan2.2 family and what the reference makes of them, stage by stage.

The reference is the diffusers library with transformers for text, as published on the package index and pinned in
requirements.txt; nothing of the models is written again here. Everything runs on one CPU thread, in f32 but for the files
whose name ends in _bf16. The names and shapes of all tensors are the contract in goldens/README.md; manifest.json records
versions, tolerances and hashes.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zlib
from importlib.metadata import version

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import numpy as np
import PIL.Image
import sentencepiece
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan.pipeline_wan_i2v import prompt_clean
from safetensors.torch import load_file, save_file
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

SEED = 20221
LIBRARIES = ["diffusers", "transformers", "tokenizers", "sentencepiece", "torch", "safetensors", "numpy", "pillow", "ftfy"]

# How far f32 arithmetic in another order may lie from the reference, by stage; see "How far two tensors are apart".
TOLERANCE = {
    "tokens": {"equal": True},
    "text": {"error": 1e-5},
    "rope": {"error": 1e-6},
    "time": {"error": 1e-6},
    "dit": {"error": 1e-5},
    "solver": {"error": 1e-6},
    "vae_encode": {"error": 1e-5},
    "vae_decode": {"error": 1e-5},
    "condition": {"error": 5e-6},
    "pipeline": {"error": 1e-5, "psnr_db": 70.0, "worst_levels": 1},
    # Both sides round to bf16, not in the same places. The tests ask as well that ours is as near to f32 as the reference's.
    "text_bf16": {"error": 2e-1},
    "dit_bf16": {"error": 1.5e-2},
    "pipeline_bf16": {"error": 4e-2, "psnr_db": 42.0, "worst_levels": 18},
    "picture": {"equal": True},
    "noise": {"equal": True},
}

# The default negative prompt of the published configuration.
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，"
    "静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
PROMPTS = [
    "A small boat drifts on a calm lake while the camera pushes in.",
    "",
    NEGATIVE,
    "  Two\tspaces &amp; “curly” quotes…\n the ﬁrst ＡＢＣ 🎈 café, isn’t it? &lt;b&gt; ",
    "the waves roll and the leaves turn " * 120,
]
CORPUS = [
    "A small boat drifts on a calm lake while the camera slowly pushes in towards the shore.",
    "The waves roll in, the leaves turn in the wind and the clouds pass over the hills.",
    "A woman turns her head, smiles and walks away from the camera; her hair moves softly.",
    "Slow pan to the left, then the picture zooms out. Snow falls on the roofs of the old town.",
    "The first light of the morning lies on the water & the birds fly up from the trees.",
    NEGATIVE,
]


def generator(name):
    """A random stream of its own for every name, so that adding a tensor leaves the others alone."""
    return torch.Generator().manual_seed(SEED ^ zlib.crc32(name.encode()))


def normal(name, *shape):
    return torch.randn(shape, generator=generator(name))


def weigh(model, name):
    """Random weights that keep activations near one: no layer may vanish, or an error in it would too."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = normal(f"{name}.{key}", *parameter.shape)
            if key.endswith((".gamma", "norm.weight")) or ("norm" in key and key.endswith("weight")):
                parameter.copy_(1 + 0.2 * noise)
            elif key.endswith("bias") and "relative_attention" not in key:
                parameter.copy_(0.1 * noise)
            elif key.endswith("scale_shift_table"):
                parameter.copy_(0.3 * noise)
            elif key.endswith(("shared.weight", "relative_attention_bias.weight")):
                parameter.copy_(noise)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * 1.1 / fan_in**0.5)
    return model.eval().requires_grad_(False)


def make_tokenizer(vocab_size, rule):
    """A small SentencePiece unigram model in the two forms a checkpoint folder has: spiece.model and tokenizer.json."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "spiece")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_prefix=prefix, vocab_size=vocab_size, model_type="unigram",
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True, normalization_rule_name=rule,
            hard_vocab_limit=False, num_threads=1, minloglevel=2,
        )  # fmt: skip
        return T5Tokenizer.from_pretrained(folder, extra_ids=0, legacy=False, model_max_length=512)


def make_text_encoder(name, tokenizer, **sizes):
    config = UMT5Config(vocab_size=len(tokenizer) + 5, feed_forward_proj="gated-gelu", use_cache=False, **sizes)
    return weigh(UMT5EncoderModel(config), f"{name}.text_encoder")


def make_vae(name, z_dim, **sizes):
    mean = (0.3 * normal(f"{name}.mean", z_dim)).tolist()
    std = (1 + 0.3 * normal(f"{name}.std", z_dim).clamp(-2, 2)).tolist()
    round4 = lambda values: [round(value, 4) for value in values]
    vae = AutoencoderKLWan(z_dim=z_dim, latents_mean=round4(mean), latents_std=round4(std), **sizes)
    return weigh(vae, f"{name}.vae")


def make_transformer(name, **sizes):
    return weigh(WanTransformer3DModel(cross_attn_norm=True, rope_max_seq_len=64, **sizes), name)


def unipc(shift):
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000
    )


def make_ti2v():
    tokenizer = make_tokenizer(400, "nmt_nfkc")
    return WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=make_text_encoder(
            "ti2v", tokenizer, d_model=28, d_kv=12, d_ff=52, num_layers=3, num_heads=3,
            relative_attention_num_buckets=16, relative_attention_max_distance=40,
        ),
        vae=make_vae(
            "ti2v", z_dim=7, base_dim=5, decoder_base_dim=7, is_residual=True, in_channels=12, out_channels=12,
            patch_size=2, scale_factor_spatial=16, scale_factor_temporal=4,
        ),
        transformer=make_transformer(
            "ti2v.transformer", num_attention_heads=3, attention_head_dim=20, in_channels=7, out_channels=7,
            text_dim=28, freq_dim=30, ffn_dim=116, num_layers=2,
        ),
        scheduler=unipc(5.0),
        expand_timesteps=True,
    )  # fmt: skip


def make_i2v():
    tokenizer = make_tokenizer(380, "nfkc")
    sizes = dict(
        num_attention_heads=2, attention_head_dim=26, in_channels=14, out_channels=5, text_dim=20, freq_dim=24,
        ffn_dim=84, num_layers=3,
    )  # fmt: skip
    return WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=make_text_encoder("i2v", tokenizer, d_model=20, d_kv=8, d_ff=36, num_layers=2, num_heads=4),
        vae=make_vae("i2v", z_dim=5, base_dim=6, scale_factor_spatial=8, scale_factor_temporal=4),
        transformer=make_transformer("i2v.transformer", **sizes),
        transformer_2=make_transformer("i2v.transformer_2", **sizes),
        scheduler=unipc(5.0),
        boundary_ratio=0.9,
    )


def make_ti2v_bf16():
    tokenizer = make_tokenizer(390, "identity")
    pipeline = WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=make_text_encoder("bf16", tokenizer, d_model=24, d_kv=16, d_ff=40, num_layers=1, num_heads=2),
        vae=make_vae(
            "bf16", z_dim=4, base_dim=4, decoder_base_dim=6, is_residual=True, in_channels=12, out_channels=12,
            patch_size=2, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[True, True],
            scale_factor_spatial=8, scale_factor_temporal=4,
        ),
        transformer=make_transformer(
            "bf16.transformer", num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4,
            text_dim=24, freq_dim=32, ffn_dim=96, num_layers=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, num_train_timesteps=1000),
        expand_timesteps=True,
    )  # fmt: skip
    return pipeline.to(torch.bfloat16)


class Writer:
    """Writes files below goldens/ and keeps the manifest."""

    def __init__(self, root):
        self.root, self.files = root, {}

    def tensors(self, path, stage, tensors):
        tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target)
        listing = {key: [str(value.dtype).removeprefix("torch."), list(value.shape)] for key, value in tensors.items()}
        self.record(path, stage, listing)

    def record(self, path, stage, listing=None):
        digest = hashlib.sha256((self.root / path).read_bytes()).hexdigest()
        entry = {"stage": stage, "sha256": digest}
        if stage in TOLERANCE:
            entry["tolerance"] = TOLERANCE[stage]
        if listing:
            entry["tensors"] = listing
        self.files[path] = entry

    def json(self, path, value, stage="question"):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
        self.record(path, stage)

    def manifest(self):
        manifest = {
            "format": 1,
            "written_by": "reference/make_goldens.py",
            "versions": {name: version(name) for name in LIBRARIES},
            "seed": SEED,
            "dtype": "f32",
            "device": "cpu, one thread",
            "files": dict(sorted(self.files.items())),
        }
        (self.root / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def save_checkpoint(writer, pipeline, name, **kwargs):
    folder = writer.root / "models" / name
    pipeline.save_pretrained(folder, **kwargs)
    shutil.rmtree(folder / "vae")  # published checkpoints keep it in one file
    pipeline.vae.save_pretrained(folder / "vae")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            writer.record(path.relative_to(writer.root).as_posix(), "checkpoint")


def write_text(writer, pipeline, name):
    writer.json(f"{name}/prompts.json", PROMPTS)
    tokens, states = {}, {}
    cleaned = []
    for i, prompt in enumerate(PROMPTS):
        cleaned.append(prompt_clean(prompt))
        inputs = pipeline.tokenizer(
            [cleaned[-1]], padding="max_length", max_length=512, truncation=True, add_special_tokens=True,
            return_attention_mask=True, return_tensors="pt",
        )  # fmt: skip
        tokens[f"ids_{i}"], tokens[f"mask_{i}"] = inputs.input_ids[0], inputs.attention_mask[0]
        states[f"states_{i}"] = pipeline._get_t5_prompt_embeds(prompt, max_sequence_length=512)
    writer.json(f"{name}/prompts_cleaned.json", cleaned)
    writer.tensors(f"{name}/tokens.safetensors", "tokens", tokens)
    writer.tensors(f"{name}/text.safetensors", "text", states)
    return states


def write_tables(writer, transformer, name):
    tables = {}
    for case, size in {"a": (3, 6, 10), "b": (1, 4, 14), "c": (5, 10, 6)}.items():
        cos, sin = transformer.rope(torch.zeros(1, 1, *size))
        tables[f"{case}.size"] = torch.tensor(size)
        tables[f"{case}.cos"], tables[f"{case}.sin"] = cos[0, :, 0], sin[0, :, 0]
    writer.tensors(f"{name}/rope.safetensors", "rope", tables)
    timestep = torch.tensor([0.0, 1.0, 37.5, 499.0, 937.0, 999.0])
    embedder = transformer.condition_embedder
    sinusoid = embedder.timesteps_proj(timestep)
    temb = embedder.time_embedder(sinusoid)
    tensors = {"timestep": timestep, "sinusoid": sinusoid, "temb": temb, "proj": embedder.time_proj(embedder.act_fn(temb))}
    writer.tensors(f"{name}/time.safetensors", "time", tensors)


def write_dit(writer, transformer, path, name, states, expand, stage="dit"):
    tensors, dtype = {}, transformer.dtype
    for case, size, step, text in [("a", (3, 6, 10), 937.0, states["states_0"]), ("b", (2, 10, 6), 208.5, states["states_3"])]:
        hidden = normal(f"{name}.{case}.hidden", 1, transformer.config.in_channels, *size)
        if expand:
            mask = torch.ones(size)
            mask[0] = 0
            timestep = (mask[:, ::2, ::2] * step).flatten()[None]
        else:
            timestep = torch.tensor([step])
        taps, hooks = {}, []

        def tap(key, module, pick=lambda out: out):
            hooks.append(module.register_forward_hook(lambda _m, _i, out: taps.__setitem__(key, pick(out))))

        tap("patches", transformer.patch_embedding, lambda out: out.flatten(2).transpose(1, 2))
        tap("text", transformer.condition_embedder.text_embedder)
        for j, block in enumerate(transformer.blocks):
            tap(f"block_{j}", block)
        out = transformer(hidden.to(dtype), timestep, text.to(dtype), return_dict=False)[0]
        for hook in hooks:
            hook.remove()
        taps["out"] = out
        if stage == "dit":  # others have the same inputs
            taps |= {"hidden_states": hidden, "timestep": timestep, "encoder_hidden_states": text}
        tensors |= {f"{case}.{key}": value for key, value in taps.items()}
    writer.tensors(path, stage, tensors)


def write_solvers(writer):
    cases = {
        "unipc": {"a": (unipc(5.0), 4), "b": (unipc(3.0), 1), "c": (unipc(5.0), 9)},
        "euler": {
            "a": (FlowMatchEulerDiscreteScheduler(shift=5.0), 4),
            "b": (FlowMatchEulerDiscreteScheduler(shift=3.0), 1),
            "c": (FlowMatchEulerDiscreteScheduler(shift=1.0), 9),
        },
    }
    for solver, runs in cases.items():
        tensors = {}
        for case, (scheduler, steps) in runs.items():
            writer.json(f"solver/{solver}_{case}.json", json.loads(scheduler.to_json_string()))
            scheduler.set_timesteps(steps)
            shift = getattr(scheduler.config, "flow_shift", None) or scheduler.config.shift
            sample = normal(f"{solver}.{case}.sample", 1, 3, 2, 4, 5)
            tensors |= {
                f"{case}.shift": torch.tensor([shift]),
                f"{case}.sigmas": scheduler.sigmas.float(),
                f"{case}.timesteps": scheduler.timesteps.float(),
                f"{case}.sample_0": sample,
            }
            for i, t in enumerate(scheduler.timesteps):
                output = normal(f"{solver}.{case}.output.{i}", *sample.shape)
                sample = scheduler.step(output, t, sample, return_dict=False)[0]
                tensors |= {f"{case}.model_output_{i}": output, f"{case}.sample_{i + 1}": sample}
        writer.tensors(f"solver/{solver}.safetensors", "solver", tensors)


def statistics(vae):
    shape = (1, vae.config.z_dim, 1, 1, 1)
    return torch.tensor(vae.config.latents_mean).view(shape), torch.tensor(vae.config.latents_std).view(shape)


def write_vae(writer, vae, name):
    mean, std = statistics(vae)
    scale = vae.config.scale_factor_spatial
    tensors = {}
    for case, (frames, h, w) in {"a": (9, 3, 5), "b": (1, 5, 4), "c": (13, 2, 3)}.items():
        video = smooth(f"{name}.{case}.video", frames, h * scale, w * scale)
        posterior = vae.encode(video).latent_dist
        mode = posterior.mode()
        tensors |= {
            f"{case}.frames": video, f"{case}.moments": posterior.parameters, f"{case}.mode": mode,
            f"{case}.normalised": (mode - mean) * (1.0 / std),
        }  # fmt: skip
    writer.tensors(f"{name}/vae_encode.safetensors", "vae_encode", tensors)

    tensors = {}
    z = vae.config.z_dim
    for case, size in {"a": (3, 3, 5), "b": (1, 5, 4), "c": (5, 3, 2)}.items():
        tensors |= decode(vae, case, normal(f"{name}.{case}.latents", 1, z, *size), mean, std)
    tile, stride = 4 * scale, 3 * scale
    vae.enable_tiling(tile, tile, stride, stride)
    tensors |= decode(vae, "tiled", normal(f"{name}.tiled.latents", 1, z, 2, 7, 5), mean, std)
    tensors["tiled.tile"] = torch.tensor([tile, stride])
    vae.disable_tiling()
    writer.tensors(f"{name}/vae_decode.safetensors", "vae_decode", tensors)


def decode(vae, case, normalised, mean, std):
    latents = normalised / (1.0 / std) + mean
    frames = vae.decode(latents, return_dict=False)[0]
    return {f"{case}.normalised": normalised, f"{case}.latents": latents, f"{case}.frames": frames}


def smooth(name, frames, height, width):
    """A video in -1..1 with structure at several scales, so that no frequency goes untested."""
    coarse = normal(name, 1, 3, max(frames // 2, 1), 4, 5)
    video = torch.nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear", align_corners=False)
    return (0.6 * video + 0.1 * normal(name + ".fine", 1, 3, frames, height, width)).clamp(-1, 1)


def picture(name, height, width):
    pixels = (smooth(name, 1, height, width)[0, :, 0] * 127.5 + 127.5).round().to(torch.uint8)
    return PIL.Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def write_pipeline(writer, pipeline, name, case, question):
    """The whole of it, from a picture and saved noise to 8-bit pixels, with the condition on the way."""
    height, width, count = question["height"], question["width"], question["num_frames"]
    vae = pipeline.vae
    image = picture(f"{name}.{case}.picture", height, width)
    image.save(writer.root / name / f"picture_{case}.png")
    writer.record(f"{name}/picture_{case}.png", "picture")
    scale = vae.config.scale_factor_spatial
    shape = (1, vae.config.z_dim, (count - 1) // vae.config.scale_factor_temporal + 1, height // scale, width // scale)
    noise = normal(f"{name}.{case}.noise", *shape)
    writer.tensors(f"{name}/noise_{case}.safetensors", "noise", {"latents": noise})
    writer.json(f"{name}/pipeline_{case}.json", {"model": f"models/{name}", **question})

    steps = []
    keep = lambda _pipeline, _step, _time, kwargs: steps.append(kwargs["latents"].clone()) or {}
    ask = dict(image=image, latents=noise.clone(), callback_on_step_end=keep, **question)
    final = pipeline(**ask, output_type="latent").frames
    tensors = {f"latents_{i}": latents for i, latents in enumerate(steps)}
    frames = pipeline(**ask, output_type="np").frames[0]
    tensors |= {"final": final, "frames": torch.from_numpy((frames * 255).round().astype(np.uint8))}
    writer.tensors(f"{name}/pipeline_{case}.safetensors", "pipeline", tensors)

    prepared = pipeline.video_processor.preprocess(image, height=height, width=width).float()
    condition = pipeline.prepare_latents(
        prepared, 1, vae.config.z_dim, height, width, count, torch.float32, torch.device("cpu"), None, noise
    )[1]
    return {
        f"{case}.rgb": torch.from_numpy(np.array(image)), f"{case}.picture": prepared, f"{case}.condition": condition,
    }  # fmt: skip


def write_bf16(writer, name, question):
    """What the libraries make of an f32 checkpoint that is opened in bf16, with the VAE in f32, as their guide has it."""
    folder = writer.root / "models" / name
    vae = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    pipeline = WanImageToVideoPipeline.from_pretrained(folder, vae=vae, torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    embeds = [pipeline._get_t5_prompt_embeds(prompt, max_sequence_length=512) for prompt in PROMPTS]
    states = {f"states_{i}": embed for i, embed in enumerate(embeds)}
    writer.tensors(f"{name}/text_bf16.safetensors", "text_bf16", states)
    wide = load_file(writer.root / name / "text.safetensors")
    expand = pipeline.config.expand_timesteps
    write_dit(writer, pipeline.transformer, f"{name}/dit_bf16.safetensors", f"{name}.dit", wide, expand, "dit_bf16")
    image = PIL.Image.open(writer.root / name / "picture_a.png")
    noise = load_file(writer.root / name / "noise_a.safetensors")["latents"]
    final = pipeline(image=image, latents=noise.clone(), **question, output_type="latent").frames
    frames = pipeline(image=image, latents=noise.clone(), **question, output_type="np").frames[0]
    frames = torch.from_numpy((frames * 255).round().astype(np.uint8))
    writer.tensors(f"{name}/pipeline_a_bf16.safetensors", "pipeline_bf16", {"final": final.float(), "frames": frames})


def question(prompt, height, width, num_frames, num_inference_steps, guidance_scale, **more):
    return dict(
        prompt=prompt, negative_prompt=NEGATIVE, height=height, width=width, num_frames=num_frames,
        num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, **more,
    )  # fmt: skip


def write_model(writer, pipeline, name, questions):
    pipeline.set_progress_bar_config(disable=True)
    states = write_text(writer, pipeline, name)
    write_tables(writer, pipeline.transformer, name)
    expand = pipeline.config.expand_timesteps
    write_dit(writer, pipeline.transformer, f"{name}/dit.safetensors", f"{name}.dit", states, expand)
    if pipeline.transformer_2 is not None:
        write_dit(writer, pipeline.transformer_2, f"{name}/dit_2.safetensors", f"{name}.dit_2", states, expand)
    write_vae(writer, pipeline.vae, name)
    conditions = {}
    for case, asked in questions.items():
        conditions |= write_pipeline(writer, pipeline, name, case, asked)
    writer.tensors(f"{name}/condition.safetensors", "condition", conditions)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "goldens")
    root = parser.parse_args().out
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    root.mkdir(parents=True, exist_ok=True)
    for folder in ["models", "ti2v", "i2v", "ti2v-bf16", "solver"]:
        shutil.rmtree(root / folder, ignore_errors=True)
    writer = Writer(root)
    write_solvers(writer)

    ti2v = make_ti2v()
    save_checkpoint(writer, ti2v, "ti2v", max_shard_size="120KB")
    asked = question(PROMPTS[0], 64, 96, 9, 4, 5.0)
    write_model(writer, ti2v, "ti2v", {
        "a": asked,
        "b": question(PROMPTS[3], 96, 32, 13, 1, 1.0),
    })  # fmt: skip
    write_bf16(writer, "ti2v", asked)

    i2v = make_i2v()
    save_checkpoint(writer, i2v, "i2v", max_shard_size="160KB")
    asked = question(PROMPTS[0], 48, 80, 9, 4, 3.5, guidance_scale_2=2.5)
    write_model(writer, i2v, "i2v", {
        "a": asked,
        "b": question(PROMPTS[3], 80, 48, 5, 2, 1.0),
    })  # fmt: skip
    write_bf16(writer, "i2v", asked)

    # Stored in bf16, read as f32: widening is exact, so the arithmetic can be compared like that of the others.
    save_checkpoint(writer, make_ti2v_bf16(), "ti2v-bf16")
    widened = WanImageToVideoPipeline.from_pretrained(root / "models/ti2v-bf16", torch_dtype=torch.float32)
    widened.set_progress_bar_config(disable=True)
    asked = question(PROMPTS[0], 48, 80, 9, 4, 4.0)
    (root / "ti2v-bf16").mkdir()
    writer.tensors(
        "ti2v-bf16/condition.safetensors", "condition", write_pipeline(writer, widened, "ti2v-bf16", "a", asked)
    )
    writer.manifest()
    print(f"{len(writer.files)} files, {sum(p.stat().st_size for p in root.rglob('*') if p.is_file()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
