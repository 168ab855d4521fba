"""Times pieces of the neural engine beside PyTorch with diffusers and transformers, in one run, turn by turn.

Both sides have random weights of the sizes of Wan2.2-TI2V-5B and as many threads, and each row of each turn is a process
of its own, for its memory. Prints medians over all turns, and the largest resident size after a first warm-up, weights
and libraries included. `scripts/bench-wan` sets up what this needs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

# How the shapes of `kinora bench wan` are asked of the reference: tokens in frames, rows and columns, or pixels.
BLOCKS = {"block-1024": (1, 32, 32), "block-4096": (4, 32, 32)}
VAE_PIXELS = {"vae-240p": (240, 416), "vae-480p": (480, 832)}
TEXT_TOKENS = {"text-512": 512}
SHAPES = [*BLOCKS, *VAE_PIXELS, *TEXT_TOKENS]
# Measured only when asked for: 29 TFLOP as the layers are defined, minutes on a few cores.
LONG = {"vae-480p"}


def block(shape, dtype):
    import torch
    from diffusers import WanTransformer3DModel

    frames, rows, columns = BLOCKS[shape]
    # As `from_pretrained(torch_dtype=…)` leaves it: what the library keeps in f32 stays so.
    model = WanTransformer3DModel(
        num_attention_heads=24, attention_head_dim=128, in_channels=48, out_channels=48, text_dim=4096, freq_dim=256,
        ffn_dim=14336, num_layers=1,
    )  # fmt: skip
    block = model.blocks[0]
    for name, parameter in block.named_parameters():
        kept = any(part in name.split(".") for part in model._keep_in_fp32_modules)
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)
    x = torch.randn(1, frames * rows * columns, 3072, dtype=dtype)
    text = torch.randn(1, 512, 3072, dtype=dtype)
    rotary = model.rope(torch.zeros(1, 48, frames, 2 * rows, 2 * columns))
    table = torch.randn(1, 6, 3072)
    return lambda: block(x, text, table, rotary)


def vae(shape, dtype):
    import torch
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan(
        z_dim=48, base_dim=160, decoder_base_dim=256, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16, scale_factor_temporal=4, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
    ).to(dtype)  # fmt: skip
    height, width = (side // 16 for side in VAE_PIXELS[shape])
    latent = torch.randn(1, 48, 1, height, width, dtype=dtype)
    model.clear_cache()
    first = True

    def decode():
        """What the library's `decode` does for each latent frame of a clip."""
        nonlocal first
        model._conv_idx = [0]
        known = {"first_chunk": True} if first else {}
        first = False
        model.decoder(model.post_quant_conv(latent), feat_cache=model._feat_map, feat_idx=model._conv_idx, **known)

    return decode  # what warms up is the clip's first latent frame


def text(shape, dtype):
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=1, vocab_size=1024, feed_forward_proj="gated-gelu"
    )
    model = UMT5EncoderModel(config).to(dtype)
    for layer in model.encoder.block:  # kept in f32 by `from_pretrained`
        layer.layer[1].DenseReluDense.wo.to(torch.float32)
    ids = torch.arange(TEXT_TOKENS[shape])[None] % 1024
    return lambda: model(ids)


def reference(shape, dtype, rounds, threads):
    """One row in this process; prints what `kinora bench wan --json` prints of a row."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    with torch.inference_mode():
        make = block if shape in BLOCKS else vae if shape in VAE_PIXELS else text
        work = make(shape, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
        work()
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")  # forgets the largest resident size so far
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    with open("/proc/self/status") as status:
        peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "peak_mb": peak_kb * 1024 // 1_000_000}))


def run(command, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(asked, shape, dtype):
    """One row of the table."""
    options = ["--shape", shape, "--dtype", dtype, "--rounds", str(asked.rounds)]
    sides = {
        "reference": [sys.executable, __file__, "--child", "--threads", str(asked.threads), *options],
        "kinora": [asked.kinora, "bench", "wan", "--random-weights", "--json", *options],
    }
    results = {side: [] for side in sides}
    for _ in range(asked.turns):
        for side, command in sides.items():
            told = run(command, asked.threads)
            results[side].append(told["pieces"][0] if side == "kinora" else told)
    seconds = {side: statistics.median(s for turn in turns for s in turn["seconds"]) for side, turns in results.items()}
    peaks = {side: max(turn["peak_mb"] for turn in turns) for side, turns in results.items()}
    cells = [f"{seconds[side]:.3f} | {peaks[side]}" for side in sides]
    print(f"| {shape} | {dtype} | {' | '.join(cells)} | {seconds['kinora'] / seconds['reference']:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--dtype", action="append", choices=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3, help="in each process, after one that warms up")
    parser.add_argument("--turns", type=int, default=2, help="processes of each side for each row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinora", default="target/release/kinora")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    shapes, dtypes = asked.shape or [shape for shape in SHAPES if shape not in LONG], asked.dtype or ["f32", "bf16"]
    if asked.child:
        return reference(shapes[0], dtypes[0], asked.rounds, asked.threads)
    print("| piece | type | PyTorch: s | peak MB | Kinora: s | peak MB | Kinora's time over PyTorch's |")
    print("|---|---|---|---|---|---|---|")
    for dtype in dtypes:
        for shape in shapes:
            compare(asked, shape, dtype)


if __name__ == "__main__":
    main()
