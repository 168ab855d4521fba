"""The request queue's API as a caller of the hosted service writes it: plain `requests`, a base URL and a key."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import Any

import requests

MODEL = "Kling-Image2Video-V2.1-Standard"
BASES = ("/api/v1/ie/requestqueue/apikey", "/api/v1/apikey", "/api/v1/ie/requestqueue")
TERMINAL = frozenset({"success", "failed", "cancelled"})
STATUSES = TERMINAL | {"queued", "processing"}
HTTP_LIMIT_S = 30


@dataclass
class Client:
    """One caller: a server, one of the three base paths, a key."""

    server_url: str
    key: str | None
    base: str = BASES[0]
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = dict(more.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        url = f"{self.server_url}{self.base}{path}"
        return self.session.request(method, url, headers=headers, timeout=HTTP_LIMIT_S, **more)

    def submit(self, payload: dict[str, Any], model: str = MODEL) -> requests.Response:
        return self.call("POST", "/requests", json={"model": model, "payload": payload})

    def accepted(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Submits what must be accepted and returns the answer."""
        answer = self.submit(payload)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def record(self, request_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/requests/{request_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, request_id: str, limit_s: float = 120) -> dict[str, Any]:
        """Polls until the request has ended."""
        deadline = time.monotonic() + limit_s
        while True:
            record = self.record(request_id)
            assert record["status"] in STATUSES, record
            if record["status"] in TERMINAL:
                return record
            if time.monotonic() > deadline:
                raise TimeoutError(f"{request_id} is still {record['status']} after {limit_s} s")
            time.sleep(0.05)

    def listed(self, **query: Any) -> dict[str, Any]:
        answer = self.call("GET", "/requests", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def raw_base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def data_uri(picture: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{raw_base64(picture)}"
