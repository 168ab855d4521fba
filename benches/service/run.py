"""Starts the Python services on loopback, hands them to `kinora bench service` as peers, and ends them.

Everything it starts lives under one temporary directory and is ended by process id, whatever happens.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKERS = 2
START_LIMIT_S = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(command: list[str], log: Path, **more: object) -> Iterator[subprocess.Popen]:
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **more)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_until(ready, what: str, started: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and started.poll() is None:
        with contextlib.suppress(OSError):
            ready()
            return
        time.sleep(0.05)
    sys.exit(f"{what} did not start:\n{log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    port, log = free_port(), folder / "redis.log"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "always"]
    with process(["redis-server", *options], log) as started:
        wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), "redis-server", started, log)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def service(name: str, module: str, key: str, folder: Path, **settings: str) -> Iterator[str]:
    port, log, data = free_port(), folder / f"{name}.log", folder / name
    data.mkdir()
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(WORKERS), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    environment = {**os.environ, "BASELINE_KEY": key, "BASELINE_DIR": str(data), **settings}
    with process(command, log, cwd=HERE, env=environment) as started:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: urllib.request.urlopen(f"{url}/healthz", timeout=2).close(), name, started, log)
        yield url


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinora", type=Path, help="the program; without it the services wait for Enter")
    parser.add_argument("bench", nargs="*", help="further arguments for `kinora bench service`")
    options = parser.parse_args()
    key = f"bench-{secrets.token_hex(16)}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kinora-bench-")))
        peers = {"fastapi-sqlite": stack.enter_context(service("fastapi-sqlite", "fastapi_sqlite", key, folder))}
        if shutil.which("redis-server"):
            redis = stack.enter_context(redis_server(folder))
            celery = service("celery-redis", "celery_redis", key, folder, BASELINE_REDIS=redis)
            peers["celery-redis"] = stack.enter_context(celery)
        else:
            print("celery-redis: skipped, redis-server is not installed", file=sys.stderr)
        arguments = [f"--peer={name}={url},{key}" for name, url in peers.items()]
        if options.kinora is None:
            print("\n".join(arguments))
            sys.stdin.readline()
            return 0
        return subprocess.run([options.kinora, "bench", "service", *options.bench, *arguments]).returncode


if __name__ == "__main__":
    sys.exit(main())
