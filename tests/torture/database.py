"""The PostgreSQL server of the tests, ended in all the ways in which one ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from .full import fill

START_LIMIT_S = 60


class Postgres:
    """The server that KINORA_TEST_POSTGRES and KINORA_TEST_POSTGRES_CTL name."""

    def __init__(self) -> None:
        self.url = urlsplit(os.environ["KINORA_TEST_POSTGRES"])
        self.control = shlex.split(os.environ["KINORA_TEST_POSTGRES_CTL"])
        self.data = Path(self.control[self.control.index("-D") + 1])
        # Set where its files have a small disk of their own.
        self.has_own_disk = bool(os.environ.get("KINORA_TEST_POSTGRES_DISK"))

    def _control(self, *arguments: str, check: bool = True) -> bool:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        command = [*self.control, "-w", *arguments]
        return subprocess.run(command, check=check, timeout=START_LIMIT_S, cwd="/", **quiet).returncode == 0

    def start(self) -> None:
        """Starts it, as soon as nothing of the one before is left."""
        deadline = time.monotonic() + START_LIMIT_S
        # `restart` knows how it was started the first time; `start` does not.
        while not self._control("restart", check=False):
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL does not start: see {self.data.parent / 'log'}")
            time.sleep(0.1)

    def restart(self) -> None:
        self._control("-m", "fast", "restart")

    def stop(self, away_s: float) -> None:
        self._control("-m", "fast", "stop")
        time.sleep(away_s)
        self.start()

    def kill(self) -> None:
        """SIGKILL to every process of it."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in [postmaster, *map(int, children)]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                # Whoever saw the postmaster die ended by itself.
                pass
        self.start()

    def fill_disk(self) -> None:
        """A full disk may end it for good, until somebody starts it again."""
        fill(self.data.parent)
        if not self._control("status", check=False):
            self.start()

    def query(self, sql: str, database: str) -> list[list[str]]:
        url = f"{self.url.geturl()}/{database}"
        command = ["psql", "-qtA", "-v", "ON_ERROR_STOP=1", url, "-c", sql]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return [line.split("|") for line in done.stdout.splitlines() if line]
