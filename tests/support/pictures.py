"""Pictures for the tests: small drawn ones, and photographs that scikit-image ships (public domain or CC0)."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageCms, ImageOps


def encoded(picture: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return buffer.getvalue()


@cache
def drawn(width_px: int = 320, height_px: int = 320, kind: str = "JPEG", shade: int = 90) -> bytes:
    """A small gradient with a disc, so that sizes, turns and colours can be told apart."""
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    pixels = np.empty((height_px, width_px, 3), np.uint8)
    pixels[..., 0] = columns * 255 // max(width_px - 1, 1)
    pixels[..., 1] = rows * 255 // max(height_px - 1, 1)
    pixels[..., 2] = shade
    disc = (columns - width_px / 3) ** 2 + (rows - height_px / 3) ** 2 < (min(width_px, height_px) / 6) ** 2
    pixels[disc] = (240, 220, 60)
    return encoded(Image.fromarray(pixels), kind)


def photo_path(name: str) -> Path:
    """A photograph's file inside the installed scikit-image package."""
    path = Path(skimage.data.__file__).parent / name
    if not path.is_file():
        raise FileNotFoundError(f"scikit-image no longer ships {name}")
    return path


def as_seen(path: Path) -> Image.Image:
    """A photograph as a viewer shows it: upright, and converted from its own colour profile to sRGB."""
    with Image.open(path) as picture:
        profile = picture.info.get("icc_profile")
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    if profile is None:
        return upright
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.profileToProfile(upright, own, ImageCms.createProfile("sRGB"), outputMode="RGB")


def cover_fit(picture: Image.Image, width_px: int, height_px: int) -> Image.Image:
    """The centred crop of the clip's ratio, resized to the clip's size: what a clip's first frame should show."""
    scale = max(width_px / picture.width, height_px / picture.height)
    crop_w, crop_h = width_px / scale, height_px / scale
    left, top = (picture.width - crop_w) / 2, (picture.height - crop_h) / 2
    box = (left, top, left + crop_w, top + crop_h)
    return picture.resize((width_px, height_px), Image.Resampling.LANCZOS, box=box)
