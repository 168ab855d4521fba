"""Many machines: servers and workers that share PostgreSQL and S3, reached through proxies that misbehave.

One worker has a network of its own, where the system permits it, on a cable that can be pulled.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

from support.server import binary, clean_environment

from . import old
from .backup import copy_tree
from .cable import Cable, cable
from .database import Postgres
from .process import Clock, Member, await_port, free_port, log_lines
from .proxy import LOOPBACK, Proxy

BUCKET, KEY_ID, SECRET = "clips", "torture-key", "torture-secret"
SERVERS, WORKERS = 2, 3
LEASE_S = 2
S3_BAD_S = 1.5
AWAY_S = 3
GC_LIMIT_S = 120
CUT_S = LEASE_S + 1.5
CLOCKS_S = (-3600, 3600)
# Kept behind the program's back: how often each request ended, and what was left of each lease that was lost.
LEDGER = """
CREATE TABLE torture_ends (id UUID NOT NULL);
CREATE TABLE torture_losses (id UUID NOT NULL, attempt BIGINT NOT NULL, lease_left_ms BIGINT NOT NULL);
CREATE FUNCTION torture_note() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.status IN ('success', 'failed', 'cancelled') AND OLD.status <> NEW.status THEN
        INSERT INTO torture_ends VALUES (NEW.id);
    END IF;
    IF NEW.attempts_lost > OLD.attempts_lost THEN
        INSERT INTO torture_losses VALUES (NEW.id, OLD.attempt,
            OLD.lease_until_ms - CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER torture_noted AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION torture_note();
CREATE FUNCTION torture_miss() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO torture_removed VALUES (OLD.id, OLD.status, OLD.finished_at_ms);
    RETURN NULL;
END $$;
CREATE TRIGGER torture_missed AFTER DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION torture_miss();
"""


class Fleet:
    """Every process of the fleet, each of which can be ended and started again."""

    name = "PostgreSQL and S3"
    attempts_max = 50

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.clock = folder, Clock(folder)
        self.events = {
            "kill a worker": 6,
            "kill a server": 3,
            "stop a worker past its lease": 1,
            "kill the database": 1,
            "restart the database": 1,
            "stop the database for a while": 1,
            "fill the database's disk": 1,
            "kill everything at once": 1,
            "take S3 away": 1,
            "S3 answers 500": 1,
            "S3 answers slowly": 1,
            "cut the workers off": 1,
            "cut the servers off the database": 1,
            "pull a worker's cable": 2,
            "move the clock": 1,
            "remove what is old": 2,
        }
        self.skipped = {}
        self.postgres = Postgres()
        if not Clock.LIBRARIES:
            self._skip("move the clock", "libfaketime is not here")
        if not self.postgres.has_own_disk:
            self._skip("fill the database's disk", "only root may mount a small file system")
        self.cable = cable()
        if isinstance(self.cable, str):
            self._skip("pull a worker's cable", f"{self.cable}; cut in a proxy alone")
        self.s3_folder, self.s3_port = folder / "s3", free_port()
        (self.s3_folder / BUCKET).mkdir(parents=True)
        self.s3 = start_s3(self.s3_folder, self.s3_port)
        self.database = f"torture_{os.getpid()}_{seed}"
        self.postgres.query(f"CREATE DATABASE {self.database}", "postgres")
        self.proxies: dict[str, Proxy] = {}
        far = self.cable.here if isinstance(self.cable, Cable) else LOOPBACK
        self.server_environment = self._environment("servers", LOOPBACK, seed)
        self.worker_environment = self._environment("workers", LOOPBACK, seed + 2)
        self.far_environment = self._environment("far worker", far, seed + 4)
        self.ports = [free_port() for _ in range(SERVERS)]
        self.key = self._create_key()
        self._psql(old.LEDGER_TABLE.format(id="UUID") + LEDGER)
        self.servers = [self._start_server(number) for number in range(SERVERS)]
        self.workers = [self._start_worker(number) for number in range(WORKERS)]

    def _skip(self, event: str, reason: str) -> None:
        self.skipped[event] = reason
        del self.events[event]

    def _environment(self, name: str, host: str, seed: int) -> dict[str, str]:
        """Settings of processes that reach the database and S3 through two proxies of theirs."""
        server = self.postgres.url
        database = self.proxies[f"{name}: database"] = Proxy(server.port, seed, host)
        s3 = self.proxies[f"{name}: S3"] = Proxy(self.s3_port, seed + 1, host)
        return self.clock.environment() | {
            "KINORA_DATABASE_URL": f"postgres://{server.username}@{host}:{database.port}/{self.database}",
            "KINORA_ARTIFACTS": f"s3://{BUCKET}/files",
            "KINORA_S3_ENDPOINT": f"http://{host}:{s3.port}",
            "KINORA_S3_REGION": "us-east-1",
            "KINORA_S3_ACCESS_KEY_ID": KEY_ID,
            "KINORA_S3_SECRET_ACCESS_KEY": SECRET,
            "KINORA_S3_PATH_STYLE": "true",
            "KINORA_ENGINE": "pattern",
            "KINORA_LEASE_S": str(LEASE_S),
            "KINORA_GRACE_S": "0",
            "KINORA_ATTEMPTS_MAX": str(self.attempts_max),
        }

    def _create_key(self) -> str:
        return self._command("keys", "create", "--org", "torture").strip()

    def _command(self, *arguments: str) -> str:
        """Runs a short command of the program to its end."""
        environment = clean_environment() | self.server_environment
        command = [binary(), *arguments, "--data-dir", self.folder / "commands"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GC_LIMIT_S)
        if done.returncode != 0:
            raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stderr[-500:]}")
        return done.stdout

    def _start_server(self, number: int) -> Member:
        port = self.ports[number]
        place = ["--listen", f"127.0.0.1:{port}", "--data-dir", self.folder / f"server-{number}"]
        keep = ["--keep-days", str(old.KEEP_DAYS)]
        member = Member(self.folder, self.server_environment, "serve", "--no-worker", *place, *keep)
        # One that starts while the database is away says so and ends: `revive` tries again.
        await_port(port, member.process)
        return member

    def _start_worker(self, number: int) -> Member:
        """The first one is far away."""
        if number > 0:
            return Member(self.folder, self.worker_environment, "worker")
        inside = self.cable.inside if isinstance(self.cable, Cable) else []
        return Member(self.folder, self.far_environment, "worker", inside=inside)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def happen(self, event: str, choice: random.Random) -> None:
        match event:
            case "kill a worker":
                self._kill_worker(choice.randrange(WORKERS))
            case "kill a server":
                self._kill_server(choice.randrange(SERVERS))
            case "stop a worker past its lease":
                choice.choice(self.workers).pause(CUT_S)
            case "kill the database":
                self.postgres.kill()
            case "restart the database":
                self.postgres.restart()
            case "stop the database for a while":
                self.postgres.stop(AWAY_S)
            case "fill the database's disk":
                self.postgres.fill_disk()
            case "kill everything at once":
                for member in [*self.workers, *self.servers]:
                    member.kill()
                self.postgres.kill()
            case "take S3 away":
                self.s3.kill()
                self.s3.wait()
                time.sleep(S3_BAD_S)
                self.s3 = start_s3(self.s3_folder, self.s3_port)
            case "S3 answers 500":
                self._misbehave("errors", S3_BAD_S, "S3")
            case "S3 answers slowly":
                self._misbehave("slow", S3_BAD_S, "S3")
            case "cut the workers off":
                self._misbehave("cut", CUT_S, "worker")
            case "cut the servers off the database":
                self._misbehave("cut", CUT_S, "servers: database")
            case "pull a worker's cable":
                self.cable.pull()
                time.sleep(CUT_S)
                self.cable.plug()
            case "move the clock":
                # S3 refuses whoever's clock is wrong, so this is also a bucket that says no for a while.
                self.clock.set(choice.choice(CLOCKS_S))
                time.sleep(S3_BAD_S)
                self.clock.set(0)
            case "remove what is old":
                for statement in old.dated_back(lambda value: f"'\\x{value.hex()}'"):
                    self._psql(statement)
                self._collect()

    def _collect(self) -> None:
        self._command("gc", "--keep-days", str(old.KEEP_DAYS))

    def _kill_worker(self, number: int) -> None:
        self.workers[number].kill()
        self.workers[number] = self._start_worker(number)

    def _kill_server(self, number: int) -> None:
        self.servers[number].kill()
        self.servers[number] = self._start_server(number)

    def _misbehave(self, mode: str, length_s: float, where: str) -> None:
        """What all proxies do for a while that have this in their names."""
        chosen = [proxy for name, proxy in self.proxies.items() if where in name]
        for proxy in chosen:
            proxy.set(mode)
        time.sleep(length_s)
        for proxy in chosen:
            proxy.set("pass")

    def revive(self) -> None:
        """Starts again what was killed, and what ended because it could not start."""
        for number, worker in enumerate(self.workers):
            if worker.ended:
                self.workers[number] = self._start_worker(number)
        for number, server in enumerate(self.servers):
            if server.ended:
                self.servers[number] = self._start_server(number)

    def mend(self) -> None:
        self.clock.set(0)
        self.revive()
        self._collect()

    def _psql(self, sql: str) -> list[list[str]]:
        return self.postgres.query(sql, self.database)

    def rows(self) -> dict[str, tuple[str, int]]:
        found = self._psql("SELECT id, status, attempts_lost FROM jobs")
        return {name: (status, int(lost)) for name, status, lost in found}

    def removed(self) -> list[tuple[str, str, int | None]]:
        found = self._psql(old.REMOVED.format(id="id"))
        return [(name, status, int(ended) if ended else None) for name, status, ended in found]

    def left_count(self) -> int:
        return int(self._psql(old.LEFT.format(before=old.before_ms()))[0][0])

    def pictures(self) -> tuple[set[str], set[str]]:
        """The files of pictures that the rows name, and those that are there."""
        sql = "SELECT encode(sha256, 'hex') || '-' || lpad(to_hex(version), 16, '0') FROM inputs"
        named = {name for (name,) in self._psql(sql)}
        return named, {path.name for path in (self.s3_folder / BUCKET / "files" / "inputs").iterdir()}

    def ended_twice(self) -> list[str]:
        return [name for (name,) in self._psql("SELECT id FROM torture_ends GROUP BY id HAVING count(*) > 1")]

    def stolen(self) -> list[str]:
        """Leases that somebody took back before their time, by the database's clock."""
        sql = "SELECT id, attempt FROM torture_losses WHERE lease_left_ms > 0"
        early = {(name, attempt) for name, attempt in self._psql(sql)}
        found = []
        for log in self.folder.glob("*.log"):
            for event in log_lines(log):
                loss = (event.get("job.id"), str(event.get("job.attempt")))
                if event.get("message") == "job.lease_expired" and loss in early:
                    found.append(f"{loss[0]} attempt {loss[1]}")
        return found

    def sweep(self) -> None:
        self._kill_server(0)

    def clips(self) -> Counter:
        """Clips by request and attempt."""
        outputs = self.s3_folder / BUCKET / "files" / "outputs"
        return Counter((path.parts[-3], path.parts[-2]) for path in outputs.glob("*/*/video.mp4"))

    def wanted(self) -> set[tuple[str, str]]:
        sql = "SELECT id, CAST(outcome AS JSONB) ->> 'attempt' FROM jobs WHERE status = 'success'"
        return {(name, attempt) for name, attempt in self._psql(sql)}

    def close(self, problems: list[str]) -> None:
        for member in [*self.workers, *self.servers]:
            code = member.terminate()
            if code != 0:
                problems.append(f"{member.log.name} ended with {code}")
        sql = (
            "SELECT count(*) FROM (SELECT status, SUM(count) AS n FROM job_counts GROUP BY status) AS kept "
            "FULL JOIN (SELECT status, count(*) AS n FROM jobs GROUP BY status) AS real USING (status) "
            "WHERE COALESCE(kept.n, 0) <> COALESCE(real.n, 0)"
        )
        if self._psql(sql) != [["0"]]:
            problems.append("the kept counts are not those of the rows")

    def back_up(self, copy: Path) -> None:
        """The database first, by PostgreSQL's own tool, and then the bucket."""
        command = ["pg_dump", "--format=custom", f"--file={copy / 'dump'}", self._database_url(self.database)]
        subprocess.run(command, check=True, timeout=GC_LIMIT_S)
        copy_tree(self.s3_folder, copy / "s3")

    def restore(self, copy: Path) -> tuple[str, list[Member | subprocess.Popen]]:
        """A database, a bucket, and one server with a worker."""
        database, port, s3_port = f"{self.database}_restored", free_port(), free_port()
        url = self._database_url(database)
        self.postgres.query(f"CREATE DATABASE {database}", "postgres")
        command = ["pg_restore", "--exit-on-error", f"--dbname={url}", copy / "dump"]
        subprocess.run(command, check=True, timeout=GC_LIMIT_S)
        bucket = start_s3(copy / "s3", s3_port)
        places = {"KINORA_DATABASE_URL": url, "KINORA_S3_ENDPOINT": f"http://127.0.0.1:{s3_port}"}
        place = ["--listen", f"127.0.0.1:{port}", "--data-dir", copy / "staging"]
        member = Member(self.folder, self.server_environment | places, "serve", *place)
        await_port(port, member.process)
        return f"http://127.0.0.1:{port}", [member, bucket]

    def _database_url(self, name: str) -> str:
        return f"{self.postgres.url.geturl()}/{name}"

    def release(self) -> None:
        for member in [*self.workers, *self.servers]:
            if not member.ended:
                member.kill()
        self.s3.kill()
        self.s3.wait()
        for proxy in self.proxies.values():
            proxy.stop()
        if isinstance(self.cable, Cable):
            self.cable.remove()


def start_s3(folder: Path, port: int) -> subprocess.Popen:
    command = [os.environ["KINORA_TEST_S3S_FS"], "--access-key", KEY_ID, "--secret-key", SECRET]
    command += ["--host", "127.0.0.1", "--port", str(port), str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    await_port(port, process)
    return process
