"""Times one block of the transformer and the text encoder beside diffusers and transformers: widths of TI2V-5B, random
weights, f32, two threads, interleaved.

    .venv-reference/bin/python benches/wan/layers.py --rounds 3

Needs the packages of reference/requirements.txt and a release build of the example:
    cargo build --release -p kinora-wan --example layers
The text encoder has one of its 24 layers. Prints medians, and the largest resident size of the process, weights and
all. Kinora maps its weights: pages of the file count as resident.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Rows: name, part, sizes as the example takes them.
ROWS = [
    ("block, 1024 tokens", "block", [1, 32, 32]),
    ("block, 4096 tokens", "block", [4, 32, 32]),
    ("text layer, 512 tokens", "text", [512]),
]


def make(folder):
    import torch
    from diffusers import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(1)
    WanTransformer3DModel(
        num_attention_heads=24, attention_head_dim=128, in_channels=48, out_channels=48, text_dim=4096, freq_dim=256,
        ffn_dim=14336, num_layers=1,
    ).save_pretrained(folder / "block")  # fmt: skip
    config = UMT5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=1, vocab_size=1024, feed_forward_proj="gated-gelu"
    )
    UMT5EncoderModel(config).save_pretrained(folder / "text")


def reference(folder, part, sizes, rounds, threads):
    """In a process of its own, for its memory; prints what the example prints."""
    import torch
    from diffusers import WanTransformer3DModel
    from transformers import UMT5EncoderModel

    torch.set_num_threads(threads)
    if part == "block":
        model = WanTransformer3DModel.from_pretrained(folder).eval()
        frames, rows, columns = sizes
        x = torch.randn(1, frames * rows * columns, 3072)
        text = torch.randn(1, 512, 3072)
        rotary = model.rope(torch.zeros(1, 48, frames, 2 * rows, 2 * columns))
        table = torch.randn(1, 6, 3072)
        work = lambda: model.blocks[0](x, text, table, rotary)  # noqa: E731
    else:
        model = UMT5EncoderModel.from_pretrained(folder).eval()
        ids = torch.arange(sizes[0])[None] % 1024
        work = lambda: model(ids)  # noqa: E731
    seconds = []
    with torch.inference_mode():
        work()
        for _ in range(rounds):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def timed(command, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", default=ROOT / "target/release/examples/layers")
    parser.add_argument("--weights", help="a folder to keep the random weights in")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        folder, part, *sizes = asked.child
        return reference(folder, part, [int(size) for size in sizes], 2, asked.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(asked.weights or scratch)
        if not (folder / "text").exists():
            make(folder)
        for name, part, sizes in ROWS:
            sizes = [str(size) for size in sizes]
            child = [sys.executable, __file__, "--threads", str(asked.threads), "--child", str(folder / part), part, *sizes]
            own = [str(asked.program), part, str(folder / part), *sizes, "2"]
            runs = {"reference": [], "kinora": []}
            for _ in range(asked.rounds):
                runs["reference"].append(timed(child, asked.threads))
                runs["kinora"].append(timed(own, asked.threads))
            told = []
            medians = {}
            for side, results in runs.items():
                medians[side] = statistics.median(second for run in results for second in run["seconds"])
                told.append(f"{side} {medians[side] * 1000:8.0f} ms {max(run['peak_mb'] for run in results):6} MB")
            print(f"{name:<24} {'   '.join(told)}   ratio {medians['kinora'] / medians['reference']:.2f}", flush=True)


if __name__ == "__main__":
    main()
