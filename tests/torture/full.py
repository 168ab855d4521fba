"""A small file system, and a disk that is full for a while."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

FULL_S = 1.5
BLOCK = bytes(1 << 20)
CRUMB = bytes(4096)


def is_root() -> bool:
    return os.geteuid() == 0


def mount(folder: Path, size_bytes: int) -> bool:
    """Gives the folder a small file system of its own, where that is allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "kinora-torture", folder]
    return is_root() and subprocess.run(command, capture_output=True).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    """Fills the disk on which the folder lies, takes what others free meanwhile as well, and gives it all back."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(BLOCK)
        except OSError:
            pass
        until = time.monotonic() + FULL_S
        while time.monotonic() < until:
            try:
                file.write(CRUMB)
            except OSError:
                time.sleep(0.02)
    filler.unlink()
