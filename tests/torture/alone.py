"""One machine: a server with a worker on SQLite and a data folder, on a small file system of its own where root may."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from support.server import create_key

from .process import Clock, Member, await_port, free_port, is_root, log_lines

DISK_BYTES = 256 << 20
DISK_FULL_S = 1.5
CLOCKS_S = (-3600, 0, 3600)
# Kept behind the program's back: how often each request ended.
LEDGER = """
CREATE TABLE torture_ends (id BLOB NOT NULL);
CREATE TRIGGER torture_ended AFTER UPDATE OF status ON jobs
WHEN NEW.status IN ('success', 'failed', 'cancelled') AND OLD.status <> NEW.status
BEGIN INSERT INTO torture_ends VALUES (NEW.id); END;
"""


class Alone:
    """The installation with one process."""

    name = "SQLite and a folder"
    attempts_max = 50

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        self.events = {"kill the server": 6, "move the clock": 2}
        self.skipped = {}
        self.mounted = is_root() and self._mount()
        if self.mounted:
            self.events["fill the disk"] = 1
        else:
            self.skipped["fill the disk"] = "only root may mount a small file system"
        if not Clock.LIBRARIES:
            self.skipped["move the clock"] = "libfaketime is not here"
            del self.events["move the clock"]
        self.clock, self.port = Clock(folder), free_port()
        self.key = create_key(self.data, "torture")
        with closing(sqlite3.connect(self.data / "kinora.db")) as database:
            database.executescript(LEDGER)
        self.server = self._start()

    def _mount(self) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "kinora-torture", self.data]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _start(self) -> Member:
        more = ["--engine", "pattern", "--lease-s", "2", "--grace-s", "0", "--attempts-max", str(self.attempts_max)]
        listen = ["--listen", f"127.0.0.1:{self.port}", "--data-dir", self.data]
        member = Member(self.folder, self.clock.environment(), "serve", *listen, *more)
        if not await_port(self.port, member.process):
            raise RuntimeError(f"the server does not start: {member.log.read_text()[-1000:]}")
        return member

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self.port}"]

    def happen(self, event: str, choice: random.Random) -> None:
        match event:
            case "kill the server":
                self.server.kill()
                self.server = self._start()
            case "move the clock":
                self.clock.set(choice.choice([offset for offset in CLOCKS_S if offset != self.clock.offset_s]))
            case "fill the disk":
                self._fill_the_disk()

    def _fill_the_disk(self) -> None:
        filler = self.data / "filler"
        with filler.open("wb") as file:
            block = bytes(1 << 20)
            try:
                while True:
                    file.write(block)
                    file.flush()
            except OSError:
                pass
            # What the server frees meanwhile is taken as well.
            until = time.monotonic() + DISK_FULL_S
            while time.monotonic() < until:
                try:
                    file.write(b"\0" * 4096)
                    file.flush()
                except OSError:
                    time.sleep(0.02)
            try:
                file.close()
            except OSError:
                pass
        filler.unlink()

    def revive(self) -> None:
        if self.server.ended:
            raise RuntimeError(f"the server ended by itself: {self.server.log.read_text()[-1000:]}")

    def mend(self) -> None:
        self.clock.set(0)

    def rows(self) -> dict[str, tuple[str, int]]:
        sql = "SELECT lower(hex(id)), status, attempts_lost FROM jobs"
        found = self._query(sql)
        return {dashed(name): (status, lost) for name, status, lost in found}

    def _query(self, sql: str) -> list[tuple]:
        read_only = f"file:{self.data / 'kinora.db'}?mode=ro"
        with closing(sqlite3.connect(read_only, uri=True, timeout=30)) as database:
            return database.execute(sql).fetchall()

    def ended_twice(self) -> list[str]:
        sql = "SELECT lower(hex(id)) FROM torture_ends GROUP BY id HAVING count(*) > 1"
        return [dashed(name) for (name,) in self._query(sql)]

    def stolen(self) -> list[str]:
        """A worker lives as long as its server: whatever a running server takes from it was stolen."""
        found = []
        for log in self.folder.glob("*-serve.log"):
            started = False
            for event in log_lines(log):
                started = started or event.get("message") == "server.started"
                if started and event.get("message") == "job.lease_expired":
                    found.append(f"{event.get('job.id')} attempt {event.get('job.attempt')}")
        return found

    def sweep(self) -> None:
        self.server.kill()
        self.server = self._start()

    def clips(self) -> Counter:
        """Clips by request and attempt."""
        return Counter((path.parts[-3], path.parts[-2]) for path in self.data.glob("outputs/*/*/video.mp4"))

    def wanted(self) -> set[tuple[str, str]]:
        sql = "SELECT lower(hex(id)), json_extract(outcome, '$.attempt') FROM jobs WHERE status = 'success'"
        return {(dashed(name), str(attempt)) for name, attempt in self._query(sql)}

    def close(self, problems: list[str]) -> None:
        code = self.server.terminate()
        if code != 0:
            problems.append(f"the last server ended with {code}")
        with closing(sqlite3.connect(self.data / "kinora.db")) as database:
            verdict = [row[0] for row in database.execute("PRAGMA integrity_check")]
        if verdict != ["ok"]:
            problems.append(f"the database: {verdict[:3]}")

    def release(self) -> None:
        if not self.server.ended:
            self.server.kill()
        if self.mounted:
            subprocess.run(["umount", self.data], check=True)


def dashed(name: str) -> str:
    return "-".join((name[:8], name[8:12], name[12:16], name[16:20], name[20:]))
