"""The vocabulary the gallery shows: camera moves for every photograph, movement in the scene where it belongs."""

from __future__ import annotations

CAMERA = {
    "push-in": "slow push in",
    "pull-out": "the camera pulls back",
    "pan-left": "pan left",
    "pan-right": "pan right",
    "tilt-up": "tilt up",
    "tilt-down": "tilt down",
    "orbit": "orbit around the subject",
    "crane": "crane shot rising up",
    "dolly-zoom": "dolly zoom",
    "handheld": "handheld camera",
    "static": "static camera, locked off shot",
    "combined": "pan left while zooming in",
    "sequence": "zoom in, then pan right",
    "fast": "fast dramatic zoom in",
    "silent": "",
    "chinese": "镜头缓慢推近",
}
# Each is shown on the photographs that show one of the words before it.
SCENE = {
    "waves": ({"water"}, "gentle waves on the water"),
    "clouds": ({"sky"}, "clouds drift across the sky"),
    "steam": ({"steam"}, "steam rises from the cup"),
    "fog": ({"fog", "foliage", "night"}, "fog drifts through the scene"),
    "foliage": ({"foliage"}, "leaves sway in the breeze"),
    "grass": ({"grass"}, "grass waves in the wind"),
    "hair": ({"hair"}, "hair moves in the wind"),
    "fabric": ({"fabric"}, "the flag ripples"),
    "breathing": ({"person", "animal"}, "breathing gently"),
    "snow": ({"sky", "fog", "night"}, "snow falls"),
    "rain": ({"night", "fog"}, "heavy rain"),
    "dust": ({"sunset", "fog"}, "dust floats in the light"),
    "fireflies": ({"night", "fog"}, "fireflies"),
    "petals": ({"autumn", "foliage"}, "petals fall"),
    "lights": ({"lights"}, "the lights flicker"),
    "rays": ({"sunset", "fog"}, "rays of sunlight"),
}


def prompts_for(shows: set[str]) -> dict[str, str]:
    """What to ask of a photograph that shows these things."""
    return CAMERA | {name: prompt for name, (belongs, prompt) in SCENE.items() if belongs & shows}
