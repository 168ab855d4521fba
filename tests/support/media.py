"""Reads finished clips with ffprobe and ffmpeg, which share no code with what wrote them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

FFMPEG_LIMIT_S = 120


def have_ffmpeg() -> bool:
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def probe(clip: Path) -> dict[str, Any]:
    """Streams, container and the number of frames that really decode."""
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(clip)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FFMPEG_LIMIT_S, check=True)
    assert done.stderr.strip() == "", f"ffprobe complains: {done.stderr}"
    return json.loads(done.stdout)


def frame(clip: Path, width_px: int, height_px: int, index: int = 0) -> np.ndarray:
    """One decoded frame as RGB, [height, width, 3] of u8, through the BT.709 matrix at limited range."""
    convert = "scale=in_color_matrix=bt709:in_range=tv:out_range=pc:flags=accurate_rnd+full_chroma_int+bicubic"
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-vf", f"select=eq(n\\,{index}),{convert}"]
    command += ["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, timeout=FFMPEG_LIMIT_S, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(height_px, width_px, 3)


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal to noise ratio of two RGB pictures, over all three channels."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def boxes(clip: bytes) -> list[str]:
    """The types of the file's top-level MP4 boxes, in order; anything that is not a box is an error."""
    kinds, position = [], 0
    while position < len(clip):
        size = int.from_bytes(clip[position : position + 4])
        kinds.append(clip[position + 4 : position + 8].decode("latin-1"))
        if size == 1:
            size = int.from_bytes(clip[position + 8 : position + 16])
        elif size == 0:
            size = len(clip) - position
        assert size >= 8, f"a box of {size} bytes at {position}"
        position += size
    assert position == len(clip), f"the last box runs {position - len(clip)} bytes past the end"
    return kinds
