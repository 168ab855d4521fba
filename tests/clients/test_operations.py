"""Every operation of the request queue, called as a client of the hosted service calls it, under each base path."""

from __future__ import annotations

import time
import uuid

import pytest
import requests

from conftest import PictureHost, Service
from support.client import MODEL, Client, data_uri, raw_base64
from support.pictures import drawn

SUBMIT_FIELDS = {"request_id", "model", "status", "created_at", "updated_at", "queued_at"}
RECORD_FIELDS = SUBMIT_FIELDS | {"org_id", "user_id", "is_public", "payload", "outcome", "qworker_id"}
MODEL_FIELDS = {
    "model", "org_id", "brief_description", "detailed_description", "model_type", "host_type", "modalities",
    "parameters", "price_info", "tags", "qworkers", "icon_link", "background_image_url", "created_at", "updated_at",
}  # fmt: skip
CLOCK_SLACK_S = 5


def assert_recent(seconds: object) -> None:
    assert type(seconds) is int and abs(seconds - time.time()) < 3600 + CLOCK_SLACK_S, seconds


def assert_record(record: dict, org: str, user: str) -> None:
    """What holds for a record in any state."""
    assert RECORD_FIELDS <= record.keys(), RECORD_FIELDS - record.keys()
    assert str(uuid.UUID(record["request_id"])) == record["request_id"]
    assert (record["model"], record["org_id"], record["user_id"]) == (MODEL, org, user)
    assert record["is_public"] is False
    for name in ("created_at", "updated_at", "queued_at"):
        assert_recent(record[name])
    assert record["created_at"] <= record["queued_at"] <= record["updated_at"]
    assert (record["outcome"] is not None) == (record["status"] == "success")
    assert ("error" in record) == (record["status"] == "failed")
    assert record["payload"]["image"].startswith("http"), "an inline picture must be answered as a URL"


def assert_outcome(record: dict, duration: str) -> None:
    """Both shapes that clients in use read."""
    outcome = record["outcome"]
    assert [set(entry) >= {"id", "url"} for entry in outcome["media_urls"]] == [True]
    assert outcome["media_urls"][0]["id"] == "0"
    assert outcome["media_urls"][0]["url"] == outcome["video_url"]
    assert outcome["duration"] == duration
    assert outcome["video_url"].startswith("http") and ".mp4" in outcome["video_url"]
    assert outcome["thumbnail_image_url"].startswith("http") and ".jpg" in outcome["thumbnail_image_url"]
    assert type(outcome["seed"]) is int
    assert record["qworker_id"] != ""


def test_submit_and_poll(working: Service, base: str) -> None:
    ada = working.ada(base)
    answer = ada.accepted({"prompt": "slow push in", "image": raw_base64(drawn()), "duration": "5"})
    assert SUBMIT_FIELDS <= answer.keys()
    assert (answer["model"], answer["status"]) == (MODEL, "queued")
    for name in ("created_at", "updated_at", "queued_at"):
        assert_recent(answer[name])

    record = ada.wait(answer["request_id"])
    assert_record(record, "ada-films", "ada")
    assert record["status"] == "success", record
    assert_outcome(record, "5")
    assert record["payload"]["prompt"] == "slow push in"
    assert record["created_at"] == answer["created_at"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_as_data_uri_with_line_breaks(working: Service, kind: str) -> None:
    uri = data_uri(drawn(kind=kind), kind.lower())
    head, body = uri.split(",")
    broken = head + "," + "\r\n".join(body[at : at + 76] for at in range(0, len(body), 76))
    record = working.ada().wait(working.ada().accepted({"image": broken})["request_id"])
    assert record["status"] == "success", record
    assert requests.get(record["payload"]["image"], timeout=30).content == drawn(kind=kind)


def test_a_picture_by_url(working: Service, picture_host: PictureHost) -> None:
    link = f"{picture_host.url}/photo.jpg"
    record = working.ada().wait(working.ada().accepted({"image": link})["request_id"])
    assert record["status"] == "success", record
    assert "/photo.jpg" in picture_host.hits


@pytest.mark.parametrize("path", ["/page.html", "/missing.jpg"])
def test_a_url_without_a_picture_says_so(working: Service, picture_host: PictureHost, path: str) -> None:
    answer = working.ada().submit({"image": picture_host.url + path})
    if answer.status_code == 400:
        assert "image" in answer.json()["error"]
        return
    assert answer.status_code == 200, answer.text
    record = working.ada().wait(answer.json()["request_id"])
    assert record["status"] == "failed" and "image" in record["error"], record
    assert record["reason"] == record["error"]


def test_a_loopback_url_is_not_fetched_unless_allowed(paused: Service, picture_host: PictureHost) -> None:
    before = len(picture_host.hits)
    answer = paused.ada().submit({"image": f"{picture_host.url}/photo.jpg"})
    assert answer.status_code == 400 and "image" in answer.json()["error"], answer.text
    assert len(picture_host.hits) == before


@pytest.mark.parametrize(
    "more",
    [
        {"duration": 5},
        {"duration": 10},
        {"cfg_scale": "0.7"},
        {"cfg_scale": 0},
        {"cfg_scale": 1},
        {"prompt": None, "negative_prompt": None, "duration": None, "cfg_scale": None},
        {"prompt": "é" * 2500, "negative_prompt": "雪" * 2500},
        {"a_field_of_tomorrow": {"is": "ignored"}},
    ],
    ids=lambda more: ",".join(f"{name}={str(value)[:8]}" for name, value in more.items()),
)
def test_lenient_fields(paused: Service, more: dict) -> None:
    answer = paused.ada().submit({"image": raw_base64(drawn()), **more})
    assert answer.status_code == 200, answer.text


def test_the_model_name_is_matched_without_regard_to_case(paused: Service) -> None:
    answer = paused.ada().submit({"image": raw_base64(drawn())}, model=MODEL.lower())
    assert answer.status_code == 200 and answer.json()["model"] == MODEL


def test_a_seed_is_kept_and_gives_the_same_clip(working: Service) -> None:
    ada = working.ada()
    payload = {"image": raw_base64(drawn()), "seed": 4711}
    clips = []
    for _ in range(2):
        outcome = ada.wait(ada.accepted(payload)["request_id"])["outcome"]
        assert outcome["seed"] == 4711
        clips.append(requests.get(outcome["video_url"], timeout=30).content)
    assert clips[0] == clips[1]


def test_list_pages_filters_and_order(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    sent = [ada.accepted({"image": raw_base64(drawn()), "prompt": f"number {n}"})["request_id"] for n in range(3)]

    everything = ada.listed(model_id=MODEL, limit=100)
    assert set(everything) >= {"requests", "total"}
    ids = [record["request_id"] for record in everything["requests"]]
    assert ids[:3] == sent[::-1], "newest first"
    assert everything["total"] >= len(ids)
    assert all(set(record) >= RECORD_FIELDS for record in everything["requests"])

    page = ada.listed(limit=1, offset=1)
    assert [record["request_id"] for record in page["requests"]] == [sent[1]]
    assert page["total"] == ada.listed()["total"]
    assert ada.listed(model=MODEL.lower(), limit=1)["total"] == everything["total"]
    assert ada.listed(model_id="no-such-model")["requests"] == []

    ada.call("DELETE", f"/requests/{sent[0]}")
    cancelled = ada.listed(status="cancelled", limit=100)
    assert sent[0] in [record["request_id"] for record in cancelled["requests"]]
    assert {record["status"] for record in cancelled["requests"]} == {"cancelled"}


def test_list_defaults_to_twenty(paused: Service) -> None:
    ada = paused.ada()
    for _ in range(21 - min(21, ada.listed(limit=1)["total"])):
        ada.accepted({"image": raw_base64(drawn())})
    assert len(ada.listed()["requests"]) == 20


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"limit": "ten"}, {"offset": -1}, {"status": "lost"}])
def test_list_refuses_what_it_cannot_mean(paused: Service, query: dict) -> None:
    answer = paused.ada().call("GET", "/requests", params=query)
    assert answer.status_code == 400 and next(iter(query)) in answer.json()["error"], answer.text


def test_models(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    answer = ada.call("GET", "/models")
    assert answer.status_code == 200
    body = answer.json()
    assert MODEL in body["model_ids"]
    assert [model["model"] for model in body["models"]] == body["model_ids"]

    one = ada.call("GET", f"/models/{MODEL}")
    assert one.status_code == 200
    model = one.json()
    assert MODEL_FIELDS <= model.keys(), MODEL_FIELDS - model.keys()
    assert model["model"] == MODEL and model["host_type"] in ("internal", "external", "")
    assert {"price", "pricing_type", "unit"} <= model["price_info"].keys() and type(model["price_info"]["price"]) is int
    assert isinstance(model["modalities"], dict) and all(isinstance(tag, str) for tag in model["tags"])
    parameters = {parameter["name"]: parameter for parameter in model["parameters"]}
    assert {"prompt", "image", "duration", "negative_prompt", "cfg_scale"} <= parameters.keys()
    for parameter in parameters.values():
        assert {"name", "display_name", "description", "type", "required", "default"} <= parameter.keys()
    assert [name for name, parameter in parameters.items() if parameter["required"]] == ["image"]
    assert ada.call("GET", f"/models/{MODEL.upper()}").json()["model"] == MODEL


def test_the_description_names_the_engine(animating: Service) -> None:
    model = animating.ada().call("GET", f"/models/{MODEL}").json()
    assert "motion" in model["brief_description"] + model["detailed_description"]


def test_cancel_while_queued(paused: Service, base: str) -> None:
    ada = paused.ada(base)
    for method, suffix in (("DELETE", ""), ("POST", "/cancel")):
        request_id = ada.accepted({"image": raw_base64(drawn())})["request_id"]
        answer = ada.call(method, f"/requests/{request_id}{suffix}")
        assert answer.status_code == 200, answer.text
        record = ada.record(request_id)
        assert record["status"] == "cancelled"
        assert_record(record, "ada-films", "ada")
        again = ada.call(method, f"/requests/{request_id}{suffix}")
        assert again.status_code == 409 and "cancelled" in again.json()["error"]


def test_cancel_after_the_end_changes_nothing(working: Service) -> None:
    ada = working.ada()
    request_id = ada.accepted({"image": raw_base64(drawn())})["request_id"]
    before = ada.wait(request_id)
    assert ada.call("DELETE", f"/requests/{request_id}").status_code == 409
    after = ada.record(request_id)
    assert (after["status"], after["updated_at"]) == (before["status"], before["updated_at"])


def test_cancel_while_processing_takes_a_second(animating: Service) -> None:
    ada = animating.ada()
    request_id = ada.accepted({"image": raw_base64(drawn(1280, 720)), "duration": "10"})["request_id"]
    deadline = time.monotonic() + 60
    while (status := ada.record(request_id)["status"]) == "queued" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert status == "processing", f"the clip was {status} before it could be cancelled"
    began = time.monotonic()
    assert ada.call("DELETE", f"/requests/{request_id}").status_code == 200
    assert ada.wait(request_id, limit_s=10)["status"] == "cancelled"
    assert time.monotonic() - began < 2
    time.sleep(1)
    assert ada.record(request_id)["status"] == "cancelled"


def put(url: str, body: bytes, kind: str) -> requests.Response:
    return requests.put(url, data=body, headers={"Content-Type": f"image/{kind}"}, timeout=30)


@pytest.mark.parametrize(("file_type", "kind"), [("png", "png"), ("jpeg", "jpeg"), ("jpg", "jpg")])
def test_upload_then_submit(working: Service, base: str, file_type: str, kind: str) -> None:
    ada = working.ada(base)
    grant = ada.call("POST", "/upload-url", json={"file_type": file_type})
    assert grant.status_code == 200, grant.text
    urls = grant.json()
    assert {"upload_url", "public_url"} <= urls.keys()

    picture = drawn(kind="PNG" if kind == "png" else "JPEG", shade=33)
    assert requests.get(urls["public_url"], timeout=30).status_code == 404, "nothing is there before the upload"
    assert put(urls["upload_url"], picture, kind).status_code in (200, 201, 204)
    stored = requests.get(urls["public_url"], timeout=30)
    assert stored.status_code == 200 and stored.content == picture
    assert stored.headers["Content-Type"] == ("image/png" if kind == "png" else "image/jpeg")

    record = ada.wait(ada.accepted({"image": urls["public_url"]})["request_id"])
    assert record["status"] == "success", record


def test_upload_refusals(working: Service) -> None:
    ada = working.ada()
    for body in ({"file_type": "gif"}, {}, {"file_type": 7}):
        answer = ada.call("POST", "/upload-url", json=body)
        assert answer.status_code == 400 and "file_type" in answer.json()["error"], answer.text
    urls = ada.call("POST", "/upload-url", json={"file_type": "png"}).json()
    too_large = put(urls["upload_url"], b"\0" * (10 * 1024 * 1024 + 1), "png")
    assert too_large.status_code == 413 and too_large.json()["error"]
    tampered = urls["upload_url"][:-1] + ("A" if urls["upload_url"][-1] != "A" else "B")
    assert put(tampered, drawn(kind="PNG"), "png").status_code in (401, 403, 404)


def test_a_media_url_of_this_server_is_a_picture(working: Service) -> None:
    ada = working.ada()
    outcome = ada.wait(ada.accepted({"image": raw_base64(drawn(720, 720))})["request_id"])["outcome"]
    answer = ada.submit({"image": outcome["video_url"]})
    if answer.status_code == 200:
        assert ada.wait(answer.json()["request_id"])["status"] == "failed", "a clip is no picture"
    else:
        assert answer.status_code == 400 and "image" in answer.json()["error"]


def finished(ada: Client) -> dict:
    return ada.wait(ada.accepted({"image": raw_base64(drawn())})["request_id"])["outcome"]


def test_download_needs_no_key_and_honours_ranges(working: Service) -> None:
    outcome = finished(working.ada())
    link = outcome["video_url"]
    whole = requests.get(link, timeout=30)
    assert whole.status_code == 200
    assert whole.headers["Content-Type"] == "video/mp4"
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert int(whole.headers["Content-Length"]) == len(whole.content) > 1000
    size = len(whole.content)

    head = requests.head(link, timeout=30)
    assert head.status_code == 200 and head.content == b""
    assert {head.headers[name] for name in ("Content-Length", "ETag")} == {str(size), whole.headers["ETag"]}

    for asked, start, end in (("0-99", 0, 100), ("100-", 100, size), ("-50", size - 50, size)):
        part = requests.get(link, headers={"Range": f"bytes={asked}"}, timeout=30)
        assert part.status_code == 206, asked
        assert part.content == whole.content[start:end]
        assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
    beyond = requests.get(link, headers={"Range": f"bytes={size}-"}, timeout=30)
    assert beyond.status_code == 416 and beyond.headers["Content-Range"] == f"bytes */{size}"

    unchanged = requests.get(link, headers={"If-None-Match": whole.headers["ETag"]}, timeout=30)
    assert unchanged.status_code == 304 and unchanged.content == b""
    changed = requests.get(link, headers={"If-None-Match": '"another"'}, timeout=30)
    assert changed.status_code == 200

    thumbnail = requests.get(outcome["thumbnail_image_url"], timeout=30)
    assert thumbnail.headers["Content-Type"] == "image/jpeg" and thumbnail.content[:2] == b"\xff\xd8"


def test_a_changed_media_url_opens_nothing(working: Service) -> None:
    link = finished(working.ada())["video_url"]
    head, mark, query = link.partition("?")
    attempts = [head] if mark else []
    place = len(link) - 2
    attempts.append(link[:place] + ("0" if link[place] != "0" else "1") + link[place + 1 :])
    for attempt in attempts:
        answer = requests.get(attempt, timeout=30)
        assert answer.status_code in (401, 403, 404), f"{attempt} answered {answer.status_code}"
