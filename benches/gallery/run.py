"""Renders photographs × vocabulary with `kinora animate`, as pages that a person can look over.

For each photograph one page: a row for each prompt with six frames of the clip, and two slit-scans, one for a line of
the picture across time and one for a column. In a slit-scan a smooth move draws smooth lines, and a jump, a flicker or
a border shows at once. Time runs down in the first and to the right in the second. Each label says how unsteady the
clip is: the mean second difference over time of its brightness, and that of its worst part, in grey levels. Clips that
are shaken or lit on purpose aside, much more than the others means flicker.
"""

from __future__ import annotations

import argparse
import html
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from photos import find
from prompts import prompts_for

FRAMES_SHOWN = 6
FRAME_WIDTH_PX = 300
LABEL_PX = 16
SEED = 7


def animate(program: Path, photo: Path, prompt: str, out: Path, duration_s: int) -> float:
    command = [program, "animate", photo, "-o", out, "--prompt", prompt, "--seed", SEED]
    command += ["--duration", duration_s, "--quiet"]
    began = time.monotonic()
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{photo.name} with {prompt!r}: {done.stderr.strip()}")
    return time.monotonic() - began


def frames(clip: Path) -> np.ndarray:
    """The clip as RGB, [frames, height, width, 3], at the width of the page's pictures."""
    probe = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=width,height", "-of", "json"]
    stream = json.loads(subprocess.run([*probe, clip], check=True, stdout=subprocess.PIPE).stdout)["streams"][0]
    height = round(stream["height"] * FRAME_WIDTH_PX / stream["width"])
    command = ["ffmpeg", "-v", "error", "-i", clip, "-vf", f"scale={FRAME_WIDTH_PX}:{height}:flags=area"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, FRAME_WIDTH_PX, 3)


def unsteadiness(clip: np.ndarray) -> tuple[float, float]:
    """Mean absolute second difference over time, in grey levels: of the whole, and of the 99th percentile of blocks."""
    count, height, width = clip.shape[:3]
    rows, columns = height // 12, width // 12
    grey = clip[:, : rows * 12, : columns * 12].mean(axis=3, dtype=np.float32)
    blocks = grey.reshape(count, rows, 12, columns, 12).mean(axis=(2, 4))
    whole = np.abs(np.diff(blocks.mean(axis=(1, 2)), 2)).mean()
    return float(whole), float(np.percentile(np.abs(np.diff(blocks, 2, axis=0)).mean(axis=0), 99))


def row(clip: np.ndarray, label: str) -> Image.Image:
    """Frames from first to last, then the two slit-scans."""
    count, height = clip.shape[:2]
    shown = [clip[round(at * (count - 1) / (FRAMES_SHOWN - 1))] for at in range(FRAMES_SHOWN)]
    line, column = clip[:, height // 2], clip[:, :, FRAME_WIDTH_PX // 2].swapaxes(0, 1)
    pictures = [Image.fromarray(picture) for picture in (*shown, line, column)]
    strip = Image.new("RGB", (sum(p.width + 2 for p in pictures), max(p.height for p in pictures) + LABEL_PX))
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, LABEL_PX))
        left += picture.width + 2
    ImageDraw.Draw(strip).text((2, 2), label, fill="white")
    return strip


def stacked(strips: list[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)))
    top = 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    return page


def write_index(out: Path) -> None:
    """All pages that are there, those of earlier runs included: a whole gallery may be made in pieces."""
    body = []
    for page in sorted(out.glob("*.jpg")):
        name, clips = page.stem, sorted(clip.stem for clip in (out / page.stem).glob("*.mp4"))
        links = " ".join(f'<a href="{name}/{clip}.mp4">{html.escape(clip)}</a>' for clip in clips)
        body.append(f'<h2>{html.escape(name)}</h2><p>{links}</p><img src="{name}.jpg" loading="lazy">')
    style = "<style>body{background:#222;color:#ddd;font-family:sans-serif}a{color:#9cf}img{max-width:100%}</style>"
    (out / "index.html").write_text(f'<!doctype html><meta charset="utf-8">{style}' + "\n".join(body))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinora", type=Path, required=True)
    parser.add_argument("--debian-root", type=Path, help="where Debian's wallpaper packages are unpacked")
    parser.add_argument("--out", type=Path, default=Path("gallery"))
    parser.add_argument("--photos", nargs="+", help="only these photographs")
    parser.add_argument("--prompts", nargs="+", help="only these entries of the vocabulary")
    parser.add_argument("--duration", type=int, default=5, choices=[5, 10])
    options = parser.parse_args()
    found = find(options.debian_root)
    unknown = set(options.photos or ()) - found.keys()
    if unknown:
        sys.exit(f"no photographs {sorted(unknown)}; there are: {', '.join(found)}")
    photos_count, clips_count = 0, 0
    for name, (photo, shows) in found.items():
        if options.photos and name not in options.photos:
            continue
        wanted = {k: v for k, v in prompts_for(shows).items() if not options.prompts or k in options.prompts}
        (options.out / name).mkdir(parents=True, exist_ok=True)
        strips = []
        for entry, prompt in wanted.items():
            clip = options.out / name / f"{entry}.mp4"
            took_s = animate(options.kinora, photo, prompt, clip, options.duration)
            shown = frames(clip)
            whole, worst = unsteadiness(shown)
            label = f"{entry}: {prompt!r} ({took_s:.1f} s; unsteady by {whole:.3f}, at worst {worst:.2f})"
            strips.append(row(shown, label))
        if strips:
            stacked(strips).save(options.out / f"{name}.jpg", quality=88)
            photos_count, clips_count = photos_count + 1, clips_count + len(strips)
            print(f"{options.out / name}.jpg: {len(wanted)} clips", flush=True)
    write_index(options.out)
    print(f"{clips_count} clips of {photos_count} photographs; open {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
