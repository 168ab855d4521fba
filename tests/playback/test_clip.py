"""A finished clip, read by programs that share no code with its writer: ffprobe, ffmpeg and a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from conftest import Service
from support.client import raw_base64
from support.media import boxes, frame, have_ffmpeg, probe, psnr_db
from support.pictures import as_seen, cover_fit, photo_path

HERE = Path(__file__).parent
FPS = 24
FIRST_FRAME_PSNR_DB = 33.0
AREA_720P_PX = 1280 * 720
ANIMATE_LIMIT_S = 240
# The rocket carries a colour profile other than sRGB; the coffee carries none.
PHOTOS = [("rocket.jpg", 5), ("coffee.png", 10)]

needs_ffmpeg = pytest.mark.skipif(not have_ffmpeg(), reason="ffmpeg and ffprobe are not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("node") and (HERE / "node_modules").is_dir()),
    reason="needs chromium, node and tests/playback/node_modules (npm ci)",
)


@dataclass(frozen=True)
class Clip:
    """A clip that the default engine made of a photograph through the API."""

    photo: Path
    duration_s: int
    seed: int
    outcome: dict
    path: Path


@pytest.fixture(scope="module", params=PHOTOS, ids=lambda case: f"{case[0]}-{case[1]}s")
def clip(request: pytest.FixtureRequest, animating: Service, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    name, duration_s = request.param
    photo, ada, seed = photo_path(name), animating.ada(), 2024
    payload = {
        "image": raw_base64(photo.read_bytes()),
        "prompt": "slow push in",
        "duration": str(duration_s),
        "seed": seed,
    }
    record = ada.wait(ada.accepted(payload)["request_id"], limit_s=ANIMATE_LIMIT_S)
    assert record["status"] == "success", record
    path = tmp_path_factory.mktemp("clips") / f"{photo.stem}.mp4"
    path.write_bytes(requests.get(record["outcome"]["video_url"], timeout=60).content)
    return Clip(photo, duration_s, seed, record["outcome"], path)


@needs_ffmpeg
def test_stream(clip: Clip) -> None:
    facts = probe(clip.path)
    assert [stream["codec_type"] for stream in facts["streams"]] == ["video"]
    video = facts["streams"][0]
    assert (video["codec_name"], video["pix_fmt"]) == ("h264", "yuv420p")
    tags = {name: video.get(name) for name in ("color_range", "color_space", "color_transfer", "color_primaries")}
    assert tags == {"color_range": "tv", "color_space": "bt709", "color_transfer": "bt709", "color_primaries": "bt709"}
    assert (video["r_frame_rate"], video["avg_frame_rate"]) == (f"{FPS}/1", f"{FPS}/1")
    assert int(video["nb_frames"]) == int(video["nb_read_frames"]) == FPS * clip.duration_s
    for length in (video["duration"], facts["format"]["duration"]):
        assert float(length) == pytest.approx(clip.duration_s, abs=0.0005)
    assert float(video["start_time"]) == 0.0
    assert clip.outcome["duration"] == str(clip.duration_s)


@needs_ffmpeg
def test_size_is_even_and_keeps_the_ratio(clip: Clip) -> None:
    video = probe(clip.path)["streams"][0]
    width, height = video["width"], video["height"]
    assert width % 2 == 0 and height % 2 == 0
    assert width * height == pytest.approx(AREA_720P_PX, rel=0.05)
    with Image.open(clip.photo) as photo:
        assert width / height == pytest.approx(photo.width / photo.height, rel=0.02)
    assert video.get("sample_aspect_ratio", "1:1") in ("1:1", "0:1")


@needs_ffmpeg
def test_first_frame_is_the_photograph(clip: Clip) -> None:
    video = probe(clip.path)["streams"][0]
    shown = frame(clip.path, video["width"], video["height"])
    wanted = np.asarray(cover_fit(as_seen(clip.photo), video["width"], video["height"]))
    measured = psnr_db(shown, wanted)
    assert measured >= FIRST_FRAME_PSNR_DB, f"{measured:.1f} dB"


@needs_ffmpeg
def test_something_moves(clip: Clip) -> None:
    """The last frame is another picture than the first, and every picture fills its frame to the edges."""
    video = probe(clip.path)["streams"][0]
    first, last = (
        frame(clip.path, video["width"], video["height"], index) for index in (0, FPS * clip.duration_s - 1)
    )
    assert psnr_db(first, last) < 30
    for picture in (first, last):
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert edge.mean() > 2 or first.mean() < 10, "a black border"


def test_container_streams_from_the_start(clip: Clip) -> None:
    kinds = boxes(clip.path.read_bytes())
    assert kinds[0] == "ftyp"
    assert kinds.index("moov") < kinds.index("mdat"), kinds


@needs_ffmpeg
def test_container_says_what_made_it(clip: Clip) -> None:
    tags = " ".join(str(value) for value in probe(clip.path)["format"].get("tags", {}).values())
    assert "AI-generated" in tags and "motion" in tags and str(clip.seed) in tags, tags


def test_thumbnail(clip: Clip, tmp_path: Path) -> None:
    body = requests.get(clip.outcome["thumbnail_image_url"], timeout=30).content
    picture = tmp_path / "thumbnail.jpg"
    picture.write_bytes(body)
    with Image.open(picture) as thumbnail, Image.open(clip.photo) as photo:
        thumbnail.load()
        assert thumbnail.format == "JPEG"
        assert thumbnail.width / thumbnail.height == pytest.approx(photo.width / photo.height, rel=0.03)


@needs_browser
def test_a_browser_plays_it(clip: Clip, tmp_path: Path) -> None:
    screenshot = tmp_path / "middle.png"
    command = ["node", HERE / "play.mjs", CHROMIUM, clip.outcome["video_url"], screenshot, tmp_path / "profile"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    video = probe(clip.path)["streams"][0] if have_ffmpeg() else None
    if video:
        assert (seen["width_px"], seen["height_px"]) == (video["width"], video["height"])
    assert seen["duration_s"] == pytest.approx(clip.duration_s, abs=0.05)
    assert seen["played_s"] > 0.5
    assert seen["sought_s"] == pytest.approx(clip.duration_s / 2, abs=0.1)
    assert seen["ended"] is True
    with Image.open(screenshot) as shot:
        pixels = np.asarray(shot.convert("L"))
    assert pixels.std() > 10, "the browser painted a blank picture"
