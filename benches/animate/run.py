"""Times `kinora animate` beside what people script today, on the same photographs at the same size and length.

Each turn is a whole process, from reading the file to the finished MP4. Turns are interleaved, the median is reported,
and what each process used is read from its own accounting: wall and CPU seconds, peak memory, bytes written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import skimage.data

HERE = Path(__file__).resolve().parent
PHOTOS = ("rocket.jpg", "coffee.png", "astronaut.png")
FPS = 24
ZOOM = 1.12
X264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]


@dataclass(frozen=True)
class Turn:
    wall_s: float
    cpu_s: float
    peak_mb: float
    out_kb: float


def timed(command: list[str], out: Path) -> Turn:
    """Runs one process; its children's time and memory are counted with it."""
    began = time.monotonic()
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(started.pid, 0)
    wall = time.monotonic() - began
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode != 0:
        sys.exit(f"{command[0]} ended with {started.returncode}: {' '.join(command)}")
    return Turn(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.stat().st_size / 1024)


def size_of(clip: Path) -> tuple[int, int]:
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=width,height", "-of", "json"]
    facts = json.loads(subprocess.run([*command, str(clip)], check=True, stdout=subprocess.PIPE).stdout)
    return facts["streams"][0]["width"], facts["streams"][0]["height"]


def kinora(program: Path, photo: Path, out: Path, seconds: int) -> list[str]:
    command = [str(program), "animate", str(photo), "-o", str(out), "--prompt", "slow push in"]
    return [*command, "--duration", str(seconds), "--seed", "1", "--quiet"]


def zoompan(photo: Path, out: Path, size: tuple[int, int], seconds: int, oversize: int) -> list[str]:
    """ffmpeg's own zoom; it steps in whole source pixels, so a larger source is what makes it smooth."""
    width, height = size
    frames = seconds * FPS
    fill = f"scale={width * oversize}:{height * oversize}:force_original_aspect_ratio=increase"
    crop = f"crop={width * oversize}:{height * oversize}"
    zoom = f"zoompan=z=1+{ZOOM - 1}*on/{frames}:x=iw/2-iw/zoom/2:y=ih/2-ih/zoom/2:d={frames}:s={width}x{height}:fps={FPS}"
    return ["ffmpeg", "-v", "error", "-y", "-i", str(photo), "-vf", f"{fill},{crop},{zoom}", *X264, str(out)]


def ken_burns(photo: Path, out: Path, size: tuple[int, int], seconds: int) -> list[str]:
    return [sys.executable, str(HERE / "ken_burns.py"), str(photo), str(out), *map(str, (*size, seconds))]


def compare(program: Path, photo: Path, seconds: int, rounds: int, folder: Path) -> dict[str, Turn]:
    out = folder / "clip.mp4"
    timed(kinora(program, photo, out, seconds), out)
    size = size_of(out)
    rivals = {
        "kinora animate": kinora(program, photo, out, seconds),
        "ffmpeg zoompan": zoompan(photo, out, size, seconds, 1),
        "ffmpeg zoompan 4x": zoompan(photo, out, size, seconds, 4),
        "OpenCV + libx264": ken_burns(photo, out, size, seconds),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, command in rivals.items():
            out.unlink(missing_ok=True)
            turns[name].append(timed(command, out))
    print(f"\n{photo.name}, {size[0]}x{size[1]}, {seconds} s at {FPS} fps, median of {rounds}")
    print(f"{'':20} {'wall s':>8} {'CPU s':>8} {'peak MB':>8} {'out kB':>8} {'x real time':>12}")
    medians = {name: sorted(taken, key=lambda turn: turn.wall_s)[len(taken) // 2] for name, taken in turns.items()}
    for name, turn in medians.items():
        numbers = f"{turn.wall_s:8.2f} {turn.cpu_s:8.2f} {turn.peak_mb:8.0f} {turn.out_kb:8.0f}"
        print(f"{name:20} {numbers} {seconds / turn.wall_s:12.2f}")
    return medians


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinora", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--durations", type=int, nargs="+", default=[5, 10], choices=[5, 10])
    parser.add_argument("--photos", nargs="+", default=PHOTOS, help="files that scikit-image ships")
    options = parser.parse_args()
    data = Path(skimage.data.__file__).parent
    ratios = []
    with tempfile.TemporaryDirectory(prefix="kinora-bench-") as folder:
        for seconds in options.durations:
            for name in options.photos:
                medians = compare(options.kinora, data / name, seconds, options.rounds, Path(folder))
                ratios.append(medians["kinora animate"].wall_s / medians["ffmpeg zoompan"].wall_s)
    print(f"\nkinora's wall time over plain zoompan's: median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
