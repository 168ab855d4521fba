"""A `kinora serve` process on loopback, started for a test and ended by its process id.

The binary is the one that KINORA_BIN names, else target/debug/kinora. Every server gets its own data directory,
and the environment it sees holds no KINORA_ setting of the person who runs the tests.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 30
STOP_LIMIT_S = 30
LISTENING = re.compile(r"listening on (http://\S+)")


def binary() -> Path:
    """The program under test."""
    named = os.environ.get("KINORA_BIN")
    path = Path(named) if named else ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "kinora"
    if not path.is_file():
        raise FileNotFoundError(f"no program at {path}: run `cargo build`, or set KINORA_BIN")
    return path.resolve()


def clean_environment() -> dict[str, str]:
    """Our environment without any KINORA_ setting, so that defaults are what is tested."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KINORA_")}


def run_cli(*arguments: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs one short command to its end; the caller judges the exit code."""
    return subprocess.run(
        [binary(), *map(str, arguments)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def create_key(data_dir: Path, org: str, user: str | None = None) -> str:
    """Makes an API key; `keys create` prints nothing else on stdout."""
    arguments = ["keys", "create", "--org", org, "--data-dir", str(data_dir)]
    done = run_cli(*arguments, *(["--user", user] if user else []))
    if done.returncode != 0:
        raise RuntimeError(f"`kinora keys create` ended with {done.returncode}: {done.stderr.strip()}")
    key = done.stdout.strip()
    if not key or len(key.split()) != 1:
        raise RuntimeError(f"`kinora keys create` should print the key alone, and printed {done.stdout!r}")
    return key


class Server:
    """One running server. `url` is the address it said it listens on."""

    def __init__(self, data_dir: Path, arguments: Sequence[str] = (), listen: str = "127.0.0.1:0") -> None:
        self.data_dir = data_dir
        self._log: deque[str] = deque(maxlen=400)
        self._bound = threading.Event()
        self._url: str | None = None
        command = [binary(), "serve", "--listen", listen, "--data-dir", data_dir, *arguments]
        self.process = subprocess.Popen(
            list(map(str, command)),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream) -> None:
        for line in stream:
            self._log.append(line.rstrip("\n"))
            found = LISTENING.search(line)
            if found and stream is self.process.stdout:
                self._url = found[1].rstrip("/")
                self._bound.set()
        stream.close()

    @property
    def log(self) -> str:
        """The last lines of both output streams."""
        return "\n".join(self._log)

    @property
    def url(self) -> str:
        """Waits until the server has said its address."""
        deadline = time.monotonic() + START_LIMIT_S
        while not self._bound.wait(0.02):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode} before it listened:\n{self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"the server did not listen within {START_LIMIT_S} s:\n{self.log}")
        assert self._url
        return self._url

    def terminate(self) -> int:
        """Asks for a graceful end and returns the exit code; a server that does not end is a failure."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"the server did not end within {STOP_LIMIT_S} s of SIGTERM:\n{self.log}") from None
        finally:
            self._join()

    def kill(self) -> None:
        """Ends the process as a power cut would end it: without a word."""
        self.process.kill()
        self.process.wait()
        self._join()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(5)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.terminate()
