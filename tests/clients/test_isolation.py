"""Two organisations share one server and must never notice each other: requests, counts, media, pictures."""

from __future__ import annotations

import pytest

from conftest import Service
from support.client import raw_base64
from support.pictures import drawn


def test_requests_and_counts_are_apart(paused: Service, base: str) -> None:
    ada, bob = paused.ada(base), paused.bob(base)
    before = bob.listed()["total"]
    request_id = ada.accepted({"image": raw_base64(drawn()), "prompt": "a secret"})["request_id"]

    assert bob.listed()["total"] == before
    theirs = bob.listed(limit=100)["requests"]
    assert request_id not in [record["request_id"] for record in theirs]
    assert {record["org_id"] for record in theirs} <= {"bob-films"}


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel")])
def test_another_organisations_request_is_as_unknown_as_none(paused: Service, method: str, suffix: str) -> None:
    request_id = paused.ada().accepted({"image": raw_base64(drawn())})["request_id"]
    theirs = paused.bob().call(method, f"/requests/{request_id}{suffix}")
    unknown = paused.bob().call(method, f"/requests/00000000-0000-4000-8000-000000000000{suffix}")
    assert theirs.status_code == unknown.status_code == 404
    assert theirs.json()["error"].replace(request_id, "ID") == unknown.json()["error"].replace(
        "00000000-0000-4000-8000-000000000000", "ID"
    )
    assert paused.ada().record(request_id)["status"] == "queued"


def test_the_same_submission_gives_each_organisation_its_own_clip(working: Service) -> None:
    payload = {"image": raw_base64(drawn(shade=201)), "seed": 1}
    records = [who.wait(who.accepted(payload)["request_id"]) for who in (working.ada(), working.bob())]
    assert records[0]["request_id"] != records[1]["request_id"]
    for name in ("video_url", "thumbnail_image_url"):
        assert records[0]["outcome"][name] != records[1]["outcome"][name]


def test_a_key_sent_with_a_media_url_changes_nothing(working: Service) -> None:
    """The capability in the URL is what opens it: no key is needed, and another's key does not close it."""
    outcome = working.ada().wait(working.ada().accepted({"image": raw_base64(drawn())})["request_id"])["outcome"]
    answer = working.bob().session.get(
        outcome["video_url"], headers={"Authorization": f"Bearer {working.bob_key}"}, timeout=30
    )
    assert answer.status_code == 200
