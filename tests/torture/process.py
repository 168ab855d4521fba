"""Processes that are broken on purpose: each with a log of its own, under a wall clock that can be moved."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.server import binary, clean_environment

START_LIMIT_S = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port: int, process: subprocess.Popen, limit_s: float = START_LIMIT_S) -> bool:
    """True once something answers there; false when the process ended instead."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            if process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing answers on port {port}") from None
            time.sleep(0.02)


class Clock:
    """The wall clock of all processes that are started with its environment, moved by libfaketime."""

    LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))

    def __init__(self, folder: Path) -> None:
        self.file, self.offset_s = folder / "clock", 0
        self.set(0)

    def set(self, offset_s: int) -> None:
        self.offset_s = offset_s
        part = self.file.with_suffix(".new")
        part.write_text(f"{offset_s:+d}s\n")
        part.rename(self.file)

    def environment(self) -> dict[str, str]:
        if not self.LIBRARIES:
            return {}
        # Leases are measured on a clock that is not moved; so are sleeps.
        return {
            "LD_PRELOAD": str(self.LIBRARIES[-1]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


class Member:
    """A process of the program, which logs JSON into a file of its own."""

    lives = 0

    def __init__(
        self, folder: Path, environment: dict[str, str], *arguments: str | Path, inside: Sequence[str] = ()
    ) -> None:
        """`inside` begins a command that becomes the program, elsewhere."""
        Member.lives += 1
        self.log = folder / f"{Member.lives:05d}-{arguments[0]}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*inside, binary(), *map(str, arguments), "--log-format", "json"],
                env=clean_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def pause(self, length_s: float) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(length_s)
        self.process.send_signal(signal.SIGCONT)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None


def log_lines(log: Path) -> Iterator[dict]:
    """The events of a log; what else stands there, such as a line cut off by a kill, is passed over."""
    with log.open(errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def panics(folder: Path) -> list[str]:
    """Every line of every log that speaks of a panic."""
    found = []
    for log in sorted(folder.glob("*.log")):
        with log.open(errors="replace") as lines:
            found += [f"{log.name}: {line.strip()[:300]}" for line in lines if "panicked at" in line]
    return found


def told(folder: Path, *messages: str) -> Counter:
    """How often the logs say one of these, by request."""
    found = Counter()
    for log in folder.glob("*.log"):
        found.update(event.get("job.id") for event in log_lines(log) if event.get("message") in messages)
    return found
