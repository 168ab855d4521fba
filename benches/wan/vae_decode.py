"""Times the VAE's decoder beside the diffusers library: widths of TI2V-5B, random weights, f32, two threads, interleaved.

    .venv-reference/bin/python benches/wan/vae_decode.py --height 480 --width 832 --rounds 1

Needs the packages of reference/requirements.txt and a release build of the example:
    cargo build --release -p kinora-wan --example vae_decode
Prints medians of each side: the first latent frame (one frame out) and a later one (four frames out), and the largest
resident size of the process, weights and all. Kinora maps its weights: pages of the file count as resident.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TI2V_5B = dict(
    z_dim=48, base_dim=160, decoder_base_dim=256, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
    scale_factor_spatial=16, scale_factor_temporal=4, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
)  # fmt: skip


def make(folder):
    import torch
    from diffusers import AutoencoderKLWan

    torch.manual_seed(1)
    AutoencoderKLWan(**TI2V_5B).save_pretrained(folder)


def reference(folder, height, width, threads):
    """In a process of its own, for its memory; prints what the example prints."""
    import resource

    import torch
    from diffusers import AutoencoderKLWan

    torch.set_num_threads(threads)
    vae = AutoencoderKLWan.from_pretrained(folder).eval()
    latents = torch.randn(1, vae.config.z_dim, 2, height, width)
    seconds = []
    with torch.inference_mode():
        for frames in (1, 2):
            started = time.perf_counter()
            vae.decode(latents[:, :, :frames])
            seconds.append(time.perf_counter() - started)
    seconds[1] -= seconds[0]
    print(json.dumps({"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def timed(command, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tile", type=int, help="tile of Kinora's decoder in pixels")
    parser.add_argument("--program", default=ROOT / "target/release/examples/vae_decode")
    parser.add_argument("--weights", help="a folder to keep the random weights in")
    parser.add_argument("--only", choices=["reference", "kinora"])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    height, width = asked.height // 16, asked.width // 16
    if asked.child:
        return reference(asked.weights, height, width, asked.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(asked.weights or scratch)
        if not (folder / "config.json").exists():
            make(folder)
        size = [str(folder), str(height), str(width), "2", *([str(asked.tile)] if asked.tile else [])]
        child = [sys.executable, __file__, "--child", "--weights", str(folder), "--height", str(asked.height),
                 "--width", str(asked.width), "--threads", str(asked.threads)]  # fmt: skip
        sides = {"reference": child, "kinora": [str(asked.program), *size]}
        sides = {name: command for name, command in sides.items() if asked.only in (None, name)}
        results = {name: [] for name in sides}
        for _ in range(asked.rounds):
            for name, command in sides.items():
                results[name].append(timed(command, asked.threads))
    for name, runs in results.items():
        first, later = (statistics.median(run["seconds"][i] for run in runs) for i in range(2))
        peak = max(run["peak_mb"] for run in runs)
        print(f"{name:<10} first latent frame {first:7.2f} s   later {later:7.2f} s   peak {peak} MB")


if __name__ == "__main__":
    main()
