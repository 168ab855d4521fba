"""Many machines: servers and workers that share PostgreSQL and S3, reached through proxies that misbehave."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from support.server import binary, clean_environment

from .process import Clock, Member, await_port, free_port, log_lines
from .proxy import Proxy

BUCKET, KEY_ID, SECRET = "clips", "torture-key", "torture-secret"
SERVERS, WORKERS = 2, 3
LEASE_S = 2
S3_BAD_S = 1.5
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
            "crash the database": 1,
            "restart the database": 1,
            "kill everything at once": 1,
            "take S3 away": 1,
            "S3 answers 500": 1,
            "S3 answers slowly": 1,
            "cut the workers off": 1,
            "move the clock": 1,
        }
        self.skipped = {}
        if not Clock.LIBRARIES:
            self.skipped["move the clock"] = "libfaketime is not here"
            del self.events["move the clock"]
        self.s3_folder, self.s3_port = folder / "s3", free_port()
        (self.s3_folder / BUCKET).mkdir(parents=True)
        self._start_s3()
        server = urlsplit(os.environ["KINORA_TEST_POSTGRES"])
        database = f"torture_{os.getpid()}_{seed}"
        self.database_url = f"{server.geturl()}/{database}"
        self._psql(f"CREATE DATABASE {database}", f"{server.geturl()}/postgres")
        self.proxies = {
            "servers' S3": Proxy(self.s3_port, seed),
            "workers' S3": Proxy(self.s3_port, seed + 1),
            "workers' database": Proxy(server.port, seed + 2),
        }
        port = self.proxies["workers' database"].port
        through = server._replace(netloc=f"{server.username}@127.0.0.1:{port}")
        self.server_environment = self._environment(self.database_url, "servers' S3")
        self.worker_environment = self._environment(f"{through.geturl()}/{database}", "workers' S3")
        self.ports = [free_port() for _ in range(SERVERS)]
        self.key = self._create_key()
        self._psql(LEDGER)
        self.servers = [self._start_server(number) for number in range(SERVERS)]
        self.workers = [self._start_worker() for _ in range(WORKERS)]

    def _environment(self, database_url: str, s3: str) -> dict[str, str]:
        return self.clock.environment() | {
            "KINORA_DATABASE_URL": database_url,
            "KINORA_ARTIFACTS": f"s3://{BUCKET}/files",
            "KINORA_S3_ENDPOINT": f"http://127.0.0.1:{self.proxies[s3].port}",
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
        command = [binary(), "keys", "create", "--org", "torture"]
        environment = clean_environment() | self.server_environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def _start_s3(self) -> None:
        command = [os.environ["KINORA_TEST_S3S_FS"], "--access-key", KEY_ID, "--secret-key", SECRET]
        command += ["--host", "127.0.0.1", "--port", str(self.s3_port), str(self.s3_folder)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        self.s3 = subprocess.Popen(command, **quiet)
        await_port(self.s3_port, self.s3)

    def _start_server(self, number: int) -> Member:
        port = self.ports[number]
        place = ["--listen", f"127.0.0.1:{port}", "--data-dir", self.folder / f"server-{number}"]
        member = Member(self.folder, self.server_environment, "serve", "--no-worker", *place)
        # One that starts while the database is away says so and ends: `revive` tries again.
        await_port(port, member.process)
        return member

    def _start_worker(self) -> Member:
        return Member(self.folder, self.worker_environment, "worker")

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
            case "crash the database":
                self._restart_database("immediate")
            case "restart the database":
                self._restart_database("fast")
            case "kill everything at once":
                for member in [*self.workers, *self.servers]:
                    member.kill()
                self._restart_database("immediate")
            case "take S3 away":
                self.s3.kill()
                self.s3.wait()
                time.sleep(S3_BAD_S)
                self._start_s3()
            case "S3 answers 500":
                self._misbehave("errors", S3_BAD_S, "servers' S3", "workers' S3")
            case "S3 answers slowly":
                self._misbehave("slow", S3_BAD_S, "servers' S3", "workers' S3")
            case "cut the workers off":
                for worker in self.workers:
                    worker.disturbed = True
                self._misbehave("cut", CUT_S, "workers' database", "workers' S3")
            case "move the clock":
                # S3 refuses whoever's clock is wrong, so this is also a bucket that says no for a while.
                self.clock.set(choice.choice(CLOCKS_S))
                time.sleep(S3_BAD_S)
                self.clock.set(0)

    def _kill_worker(self, number: int) -> None:
        self.workers[number].kill()
        self.workers[number] = self._start_worker()

    def _kill_server(self, number: int) -> None:
        self.servers[number].kill()
        self.servers[number] = self._start_server(number)

    def _restart_database(self, mode: str) -> None:
        control = shlex.split(os.environ["KINORA_TEST_POSTGRES_CTL"])
        quiet = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        subprocess.run([*control, "-m", mode, "-w", "restart"], check=True, timeout=60, cwd="/", **quiet)

    def _misbehave(self, mode: str, length_s: float, *names: str) -> None:
        for name in names:
            self.proxies[name].set(mode)
        time.sleep(length_s)
        for name in names:
            self.proxies[name].set("pass")

    def revive(self) -> None:
        """Starts again what was killed, and what ended because it could not start."""
        for number, worker in enumerate(self.workers):
            if worker.ended:
                self.workers[number] = self._start_worker()
        for number, server in enumerate(self.servers):
            if server.ended:
                self.servers[number] = self._start_server(number)

    def mend(self) -> None:
        self.clock.set(0)
        self.revive()

    def _psql(self, sql: str, url: str | None = None) -> list[list[str]]:
        command = ["psql", "-qtA", "-v", "ON_ERROR_STOP=1", url or self.database_url, "-c", sql]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return [line.split("|") for line in done.stdout.splitlines() if line]

    def rows(self) -> dict[str, tuple[str, int]]:
        found = self._psql("SELECT id, status, attempts_lost FROM jobs")
        return {name: (status, int(lost)) for name, status, lost in found}

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

    def release(self) -> None:
        for member in [*self.workers, *self.servers]:
            if not member.ended:
                member.kill()
        self.s3.kill()
        self.s3.wait()
        for proxy in self.proxies.values():
            proxy.stop()
