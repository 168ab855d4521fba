"""Servers and callers for the tests outside the binary. What a machine lacks is skipped by name, with the reason."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from support.client import BASES, Client
from support.pictures import drawn
from support.server import Server, create_key

LOOPBACK_ALLOWED = ("--allow-fetch-from", "127.0.0.0/8")


@dataclass
class Service:
    """A running server with a key for each of two organisations."""

    server: Server
    ada_key: str
    bob_key: str

    def ada(self, base: str = BASES[0]) -> Client:
        return Client(self.server.url, self.ada_key, base)

    def bob(self, base: str = BASES[0]) -> Client:
        return Client(self.server.url, self.bob_key, base)


def _service(factory: pytest.TempPathFactory, name: str, *arguments: str) -> Iterator[Service]:
    data_dir = factory.mktemp(name)
    ada, bob = create_key(data_dir, "ada-films", "ada"), create_key(data_dir, "bob-films", "bob")
    with Server(data_dir, arguments) as server:
        assert server.url.startswith("http://127.0.0.1:")
        yield Service(server, ada, bob)
        exit_code = server.terminate()
        assert exit_code == 0, f"exit code {exit_code} after SIGTERM:\n{server.log}"


@pytest.fixture(scope="session")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose worker draws small test cards: every request ends soon."""
    yield from _service(tmp_path_factory, "working", "--engine", "pattern", *LOOPBACK_ALLOWED)


@pytest.fixture(scope="session")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server without a worker: every request stays queued."""
    yield from _service(tmp_path_factory, "paused", "--no-worker")


@pytest.fixture(scope="session")
def animating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with the default engine: the real thing, and slow enough to be caught at work."""
    yield from _service(tmp_path_factory, "animating")


@pytest.fixture(params=BASES, ids=["canonical", "short", "sdk"])
def base(request: pytest.FixtureRequest) -> str:
    """Each of the three base paths in turn."""
    return request.param


@dataclass
class PictureHost:
    """A web server with pictures; `hits` are the paths that were asked for."""

    url: str
    files: dict[str, tuple[str, bytes]]
    hits: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def picture_host() -> Iterator[PictureHost]:
    files = {"/photo.jpg": ("image/jpeg", drawn()), "/page.html": ("text/html", b"<p>not a picture</p>")}
    host = PictureHost("", files)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.hits.append(self.path)
            kind, body = files.get(self.path, ("text/plain", b"nothing here"))
            self.send_response(200 if self.path in files else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing: pytest's output is for results."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        host.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield host
        server.shutdown()
