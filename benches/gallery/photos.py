"""Which photographs the gallery uses, and where installed packages keep them. None is part of this repository."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# What a picture shows decides which prompts make sense for it; the words are those of `prompts.py`.
IN_PYTHON_PACKAGES = {
    "astronaut": ("skimage/data/astronaut.png", {"person", "hair", "fabric"}),
    "cat": ("skimage/data/chelsea.png", {"animal", "hair"}),
    "coffee": ("skimage/data/coffee.png", {"steam"}),
    "rocket": ("skimage/data/rocket.jpg", {"sky", "lights", "night"}),
    "motorcycle": ("skimage/data/motorcycle_left.png", set()),
    "photographer": ("skimage/data/camera.png", {"person", "sky", "grass"}),
    "pagoda": ("sklearn/datasets/images/china.jpg", {"sky", "foliage", "water"}),
    "dahlia": ("sklearn/datasets/images/flower.jpg", {"foliage"}),
}
IN_DEBIAN_PACKAGES = {
    "boats": ("usr/share/wallpapers/EveningGlow/contents/images", {"sky", "water", "sunset"}),
    "pier": ("usr/share/wallpapers/BytheWater/contents/images", {"sky", "water", "sunset"}),
    "forest": ("usr/share/wallpapers/Path/contents/images", {"foliage", "fog"}),
    "leaves": ("usr/share/wallpapers/FallenLeaf/contents/images", {"foliage", "autumn"}),
    "lake": ("usr/share/wallpapers/summer_1am/contents/images", {"sky", "water", "sunset"}),
    "kite": ("usr/share/wallpapers/Kite/contents/images", {"sky"}),
    "dune": ("usr/share/backgrounds/mate/nature/Dune.jpg", {"sky", "grass", "water"}),
    "meadow": ("usr/share/backgrounds/mate/nature/GreenMeadow.jpg", {"grass"}),
    "storm": ("usr/share/backgrounds/mate/nature/Storm.jpg", {"sky", "night"}),
    "marigold": ("usr/share/backgrounds/mate/nature/Garden.jpg", {"foliage"}),
}


def find(debian_root: Path | None) -> dict[str, tuple[Path, set[str]]]:
    """The photographs that are installed here: name, file, what it shows."""
    found = {}
    for name, (inside, shows) in IN_PYTHON_PACKAGES.items():
        package, _, rest = inside.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise FileNotFoundError(f"the Python package {package} is not installed")
        found[name] = (existing(Path(spec.origin).parent / rest), shows)
    for name, (inside, shows) in IN_DEBIAN_PACKAGES.items() if debian_root else ():
        found[name] = (existing(debian_root / inside), shows)
    return found


def existing(path: Path) -> Path:
    """The file itself; of a wallpaper's folder, the size nearest above full HD."""
    if path.is_dir():
        sizes = {int(file.stem.split("x")[0]): file for file in path.glob("[0-9]*x[0-9]*.*")}
        wide = [width for width, file in sizes.items() if width >= int(file.stem.split("x")[1])]
        path = sizes[min((width for width in wide if width >= 1920), default=max(wide))]
    if not path.is_file():
        raise FileNotFoundError(f"the package no longer ships {path}")
    return path
