"""A slow zoom as it is scripted with OpenCV today: warp each frame, pipe it to ffmpeg's libx264.

Usage: ken_burns.py PICTURE OUT.mp4 WIDTH HEIGHT SECONDS
"""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np

FPS = 24
ZOOM = 1.12
X264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]


def cover(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resized and cropped to fill the frame."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return resized[top : top + height, left : left + width]


def main(path: str, out: str, width: int, height: int, seconds: int) -> int:
    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        sys.exit(f"{path} is no picture that OpenCV reads")
    still = cover(picture, width, height)
    frames = seconds * FPS
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}"]
    command += ["-r", str(FPS), "-i", "-", *X264, out]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        for index in range(frames):
            ease = 0.5 - 0.5 * np.cos(np.pi * index / (frames - 1))
            zoom = 1 + (ZOOM - 1) * ease
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0, zoom)
            encoder.stdin.write(cv2.warpAffine(still, matrix, (width, height), flags=cv2.INTER_CUBIC))
    return encoder.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
