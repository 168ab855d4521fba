"""One machine: a server with a worker on SQLite and a data folder, on a small file system of its own where root may."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from support.server import create_key

from . import full, old
from .backup import copy_tree
from .process import Clock, Member, await_port, free_port, log_lines

DISK_BYTES = 256 << 20
# Far longer than the disk is full, when no lease can be renewed: whichever ends while its server lives was stolen.
LEASE_S = 10
CLOCKS_S = (-3600, 0, 3600)
# Kept behind the program's back: how often each request ended.
LEDGER = """
CREATE TABLE torture_ends (id BLOB NOT NULL);
CREATE TRIGGER torture_ended AFTER UPDATE OF status ON jobs
WHEN NEW.status IN ('success', 'failed', 'cancelled') AND OLD.status <> NEW.status
BEGIN INSERT INTO torture_ends VALUES (NEW.id); END;
CREATE TRIGGER torture_missed AFTER DELETE ON jobs
BEGIN INSERT INTO torture_removed VALUES (OLD.id, OLD.status, OLD.finished_at_ms); END;
"""


class Alone:
    """The installation with one process."""

    name = "SQLite and a folder"
    attempts_max = 50

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        self.events = {"kill the server": 6, "move the clock": 2, "remove what is old": 1}
        self.skipped = {}
        self.mounted = full.mount(self.data, DISK_BYTES)
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
            database.executescript(old.LEDGER_TABLE.format(id="BLOB") + LEDGER)
        self.server = self._start()

    def _start(self) -> Member:
        more = ["--engine", "pattern", "--lease-s", str(LEASE_S), "--grace-s", "0"]
        more += ["--attempts-max", str(self.attempts_max), "--keep-days", str(old.KEEP_DAYS)]
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
                full.fill(self.data)
            case "remove what is old":
                self._grow_old()

    def _grow_old(self) -> None:
        """A server looks for what is old when it starts, and goes on serving meanwhile."""
        self.server.kill()
        with closing(sqlite3.connect(self.data / "kinora.db")) as database, database:
            for statement in old.dated_back(lambda value: f"X'{value.hex()}'"):
                database.execute(statement)
        self.server = self._start()

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

    def removed(self) -> list[tuple[str, str, int | None]]:
        found = self._query(old.REMOVED.format(id="lower(hex(id))"))
        return [(dashed(name), status, ended) for name, status, ended in found]

    def left_count(self) -> int:
        return self._query(old.LEFT.format(before=old.before_ms()))[0][0]

    def pictures(self) -> tuple[set[str], set[str]]:
        """The files of pictures that the rows name, and those that are there."""
        named = {name for (name,) in self._query("SELECT printf('%s-%016x', lower(hex(sha256)), version) FROM inputs")}
        return named, {path.name for path in (self.data / "inputs").iterdir()}

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
                    found.append(f"{event.get('job.id')} attempt {event.get('job.attempt')} ({log.name})")
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

    def back_up(self, copy: Path) -> None:
        """The database first, by SQLite's own online backup, and then the files."""
        ours, other = self.data / "kinora.db", copy / "kinora.db"
        with closing(sqlite3.connect(ours)) as source, closing(sqlite3.connect(other)) as target:
            source.backup(target)
        shutil.copy(self.data / "secret", copy)
        for name in ("inputs", "outputs"):
            copy_tree(self.data / name, copy / name)

    def restore(self, copy: Path) -> tuple[str, list[Member]]:
        port = free_port()
        place = ["--listen", f"127.0.0.1:{port}", "--data-dir", copy]
        more = ["--engine", "pattern", "--attempts-max", str(self.attempts_max)]
        member = Member(self.folder, {}, "serve", *place, *more)
        await_port(port, member.process)
        return f"http://127.0.0.1:{port}", [member]

    def release(self) -> None:
        if not self.server.ended:
            self.server.kill()
        if self.mounted:
            full.unmount(self.data)


def dashed(name: str) -> str:
    return "-".join((name[:8], name[8:12], name[12:16], name[16:20], name[20:]))
