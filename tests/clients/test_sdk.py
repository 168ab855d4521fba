"""The published Python SDK, unmodified, given only another base URL and a key.

Its address is a module constant that its other modules copy when they are first imported, so it is set before them.
"""

from __future__ import annotations

import importlib

import pytest

from conftest import Service
from support.client import MODEL, raw_base64
from support.pictures import drawn


class KeyHolder:
    """Stands in for the SDK's login: an API key needs none. The queue's calls ask it for nothing but headers."""

    def __init__(self, key: str) -> None:
        self.key = key

    def get_custom_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def refresh_token(self) -> bool:
        return False


@pytest.fixture(scope="module")
def sdk(working: Service):
    config = importlib.import_module("gmicloud._internal._config")
    client_modules = ("_client._iam_client", "_client._video_client", "_manager._video_manager")
    # Importing the package itself pulls every client in with the hosted address; reload those of the queue.
    config.IAM_SERVICE_BASE_URL = f"{working.server.url}/api/v1"
    for name in client_modules:
        importlib.reload(importlib.import_module(f"gmicloud._internal.{name}"))
    return importlib.import_module("gmicloud._internal._manager._video_manager")


@pytest.fixture(scope="module")
def videos(sdk, working: Service):
    return sdk.VideoManager(KeyHolder(working.ada_key))


def test_submit_poll_list(sdk, videos, working: Service) -> None:
    payload = {"prompt": "gentle waves", "image": raw_base64(drawn()), "duration": "5", "cfg_scale": 0.5}
    answer = videos.create_request(sdk.SubmitRequestRequest(model=MODEL, payload=payload))
    assert isinstance(answer, sdk.SubmitRequestResponse), answer
    assert answer.status.value == "queued" and answer.model == MODEL

    working.ada().wait(answer.request_id)
    detail = videos.get_request_detail(answer.request_id)
    assert isinstance(detail, sdk.GetRequestResponse), detail
    assert (detail.status.value, detail.org_id) == ("success", "ada-films")
    assert detail.outcome["media_urls"][0]["url"].startswith(working.server.url)

    listed = videos.get_requests(MODEL)
    assert answer.request_id in [entry.request_id for entry in listed]


def test_models(sdk, videos) -> None:
    models = videos.get_models()
    assert [model.model for model in models] == [MODEL]
    detail = videos.get_model_detail(MODEL)
    assert isinstance(detail, sdk.GetModelResponse) and detail.model == MODEL
    assert "image" in [parameter["name"] for parameter in detail.parameters]


def test_errors_reach_the_caller(sdk, videos, working: Service) -> None:
    unknown = videos.get_request_detail("00000000-0000-4000-8000-000000000000")
    assert isinstance(unknown, dict) and unknown["code"].strip() == "404" and unknown["error"]
    wrong = videos.create_request(sdk.SubmitRequestRequest(model=MODEL, payload={"prompt": "no picture"}))
    assert isinstance(wrong, dict) and wrong["code"].strip() == "400" and "image" in wrong["error"]
    stranger = sdk.VideoManager(KeyHolder("wrong")).get_requests(MODEL)
    assert isinstance(stranger, dict) and "401" in stranger["error"] + stranger["code"]
