"""What a caller is told when something is wrong: the status, and one sentence of JSON that names the field."""

from __future__ import annotations

import base64
import io
import time

import pytest
import requests
from PIL import Image

from conftest import Service
from support.client import MODEL, Client, raw_base64
from support.pictures import drawn, encoded
from support.server import create_key, run_cli

# A running server looks for revoked keys every second.
REVOKED_WITHIN_S = 2
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def sentence(answer: requests.Response, status: int) -> str:
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:300]}"
    assert answer.headers["Content-Type"].startswith("application/json")
    error = answer.json()["error"]
    assert isinstance(error, str) and 10 <= len(error) <= 400 and "\n" not in error, error
    return error


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "wrong"])
def test_a_missing_or_unknown_key(paused: Service, base: str, header: str | None) -> None:
    stranger = Client(paused.server.url, None, base)
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/requests"), ("GET", "/models"), ("POST", "/requests"), ("POST", "/upload-url")):
        answer = stranger.call(method, path, headers=headers)
        sentence(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_organisation_header(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    assert ada.call("GET", "/requests", headers={"X-Organization-ID": "ada-films"}).status_code == 200
    sentence(ada.call("GET", "/requests", headers={"X-Organization-ID": "bob-films"}), 403)


def test_unknown_things_are_404(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    sentence(ada.call("GET", f"/requests/{UNKNOWN_ID}"), 404)
    sentence(ada.call("DELETE", f"/requests/{UNKNOWN_ID}"), 404)
    sentence(ada.call("GET", "/requests/not-a-uuid"), 404)
    sentence(ada.call("GET", "/models/no-such-model"), 404)
    sentence(ada.call("GET", "/no-such-path"), 404)
    sentence(requests.get(f"{paused.server.url}/no-such-path", timeout=30), 404)


def test_wrong_method_is_405(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    for method, path in (("PUT", "/requests"), ("PATCH", f"/requests/{UNKNOWN_ID}"), ("POST", "/models")):
        answer = ada.call(method, path)
        sentence(answer, 405)
        assert answer.headers["Allow"]


def test_an_empty_payload_tells_whether_a_model_exists(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    before = ada.listed()["total"]
    assert "image" in sentence(ada.submit({}), 400)
    assert "no-such-model" in sentence(ada.submit({}, model="no-such-model"), 404)
    assert ada.listed()["total"] == before, "neither may be queued"


def test_a_body_that_is_no_request(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    for body in (b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000):
        sentence(ada.call("POST", "/requests", data=body, headers={"Content-Type": "application/json"}), 400)
    assert "payload" in sentence(ada.call("POST", "/requests", json={"model": MODEL}), 400)
    assert "model" in sentence(ada.call("POST", "/requests", json={"payload": {"image": "x"}}), 400)


def picture(width_px: int, height_px: int, kind: str = "PNG") -> str:
    return raw_base64(encoded(Image.new("RGB", (width_px, height_px), (90, 120, 60)), kind))


FIELD_CASES = {
    "no image": ("image", {"image": None}),
    "image a number": ("image", {"image": 5}),
    "image an object": ("image", {"image": {}}),
    "image empty": ("image", {"image": ""}),
    "image not Base64": ("image", {"image": "%%%"}),
    "image Base64 of text": ("image", {"image": base64.b64encode(b"plain text").decode()}),
    "image too narrow": ("image", {"image": picture(299, 300)}),
    "image too flat": ("image", {"image": picture(300, 299)}),
    "image too wide": ("image", {"image": picture(800, 300)}),
    "image too tall": ("image", {"image": picture(300, 800)}),
    "image a GIF": ("image", {"image": picture(320, 320, "GIF")}),
    "image a file URL": ("image", {"image": "file:///etc/hostname"}),
    "image an unresolvable URL": ("image", {"image": "http://nowhere.invalid/photo.jpg"}),
    "image at a link-local address": ("image", {"image": "http://169.254.169.254/latest"}),
    "image at a private address": ("image", {"image": "http://10.0.0.1/photo.jpg"}),
    "image at mapped loopback": ("image", {"image": "http://[::ffff:127.0.0.1]/photo.jpg"}),
    "prompt too long": ("prompt", {"prompt": "a" * 2501}),
    "prompt a number": ("prompt", {"prompt": 5}),
    "negative prompt too long": ("negative_prompt", {"negative_prompt": "é" * 2501}),
    "negative prompt a list": ("negative_prompt", {"negative_prompt": []}),
    "duration 7": ("duration", {"duration": "7"}),
    "duration 5.5": ("duration", {"duration": 5.5}),
    "duration words": ("duration", {"duration": "five"}),
    "duration a list": ("duration", {"duration": ["5"]}),
    "cfg below": ("cfg_scale", {"cfg_scale": -0.01}),
    "cfg above": ("cfg_scale", {"cfg_scale": 1.01}),
    "cfg words": ("cfg_scale", {"cfg_scale": "high"}),
    "cfg true": ("cfg_scale", {"cfg_scale": True}),
    "cfg NaN as text": ("cfg_scale", {"cfg_scale": "NaN"}),
    "seed words": ("seed", {"seed": "lucky"}),
    "seed fractional": ("seed", {"seed": 1.5}),
}


@pytest.mark.parametrize("case", FIELD_CASES)
def test_a_wrong_field_is_named(paused: Service, case: str) -> None:
    name, change = FIELD_CASES[case]
    payload = {"image": raw_base64(drawn()), **change}
    assert name in sentence(paused.ada().submit(payload), 400)


def test_limits_are_inclusive(paused: Service) -> None:
    for width_px, height_px in ((300, 300), (750, 300), (300, 750)):
        answer = paused.ada().submit({"image": picture(width_px, height_px)})
        assert answer.status_code == 200, answer.text


def test_a_truncated_picture(paused: Service) -> None:
    for kind in ("JPEG", "PNG"):
        whole = drawn(kind=kind)
        assert "image" in sentence(paused.ada().submit({"image": raw_base64(whole[: len(whole) // 2])}), 400)


def test_a_decompression_bomb_is_refused_quickly(paused: Service) -> None:
    buffer = io.BytesIO()
    Image.new("L", (30_000, 30_000)).save(buffer, "PNG", compress_level=9)
    answer = paused.ada().submit({"image": raw_base64(buffer.getvalue())})
    assert "image" in sentence(answer, 400)
    assert answer.elapsed.total_seconds() < 5


def test_a_picture_over_ten_megabytes(paused: Service) -> None:
    padded = drawn() + b"\0" * (10 * 1024 * 1024)
    assert "image" in sentence(paused.ada().submit({"image": raw_base64(padded)}), 400)


def test_a_body_over_the_limit(paused: Service, base: str) -> None:
    """A caller that sends all of it first, as most do, still hears why it is refused."""
    answer = paused.ada(base).submit({"image": "A" * (40 * 1024 * 1024)})
    assert "at most" in sentence(answer, 413)


def test_a_revoked_key_is_unknown(working: Service, base: str) -> None:
    data_dir = working.server.data_dir
    key = create_key(data_dir, "cy-films")
    caller = Client(working.server.url, key, base)
    assert caller.call("GET", "/requests").status_code == 200, "a key made while the server runs works at once"
    listing = run_cli("keys", "list", "--data-dir", data_dir)
    assert listing.returncode == 0 and key not in listing.stdout, "a key is shown once only"
    row = next(line for line in listing.stdout.splitlines() if "cy-films" in line and "revoked" not in line.lower())
    assert run_cli("keys", "revoke", row.split()[0], "--data-dir", data_dir).returncode == 0
    deadline = time.monotonic() + REVOKED_WITHIN_S
    while (answer := caller.call("GET", "/requests")).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    sentence(answer, 401)
