"""Breaks a whole fleet at random, under submitting clients, and counts what was promised.

Two servers and three workers share PostgreSQL and S3. In each round one thing happens: a server or a worker dies by
SIGKILL, the database crashes and comes back, the S3 server goes away for a while. Promise: as in durability.py, and no
file is left that belongs to no outcome once a server has started again.

The seed is printed: it repeats the schedule and the clients' choices, though not the threads' interleaving.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from durability import Caller, Ledger, check_records, settle
from support.client import Client
from support.server import binary, clean_environment

BUCKET, KEY_ID, SECRET = "clips", "torture-key", "torture-secret"
SERVERS, WORKERS = 2, 3
ATTEMPTS_MAX = 50
# What happens in a round, and how often.
EVENTS = {"kill a worker": 6, "kill a server": 3, "crash the database": 1, "take S3 away": 1}
S3_AWAY_S = 1.5
SWEPT_S = 15


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port: int, limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Fleet:
    """Every process of the fleet, each of which can be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, (folder / "log").open("wb")
        self.s3_folder = folder / "s3"
        (self.s3_folder / BUCKET).mkdir(parents=True)
        self.s3_port, self.ports = free_port(), [free_port() for _ in range(SERVERS)]
        server = os.environ["KINORA_TEST_POSTGRES"]
        database = f"torture_{os.getpid()}"
        subprocess.run(["psql", "-q", f"{server}/postgres", "-c", f"CREATE DATABASE {database}"], check=True)
        self.database_url = f"{server}/{database}"
        self.environment = clean_environment() | {
            "KINORA_DATABASE_URL": self.database_url,
            "KINORA_ARTIFACTS": f"s3://{BUCKET}/files",
            "KINORA_S3_ENDPOINT": f"http://127.0.0.1:{self.s3_port}",
            "KINORA_S3_REGION": "us-east-1",
            "KINORA_S3_ACCESS_KEY_ID": KEY_ID,
            "KINORA_S3_SECRET_ACCESS_KEY": SECRET,
            "KINORA_S3_PATH_STYLE": "true",
            "KINORA_ENGINE": "pattern",
            "KINORA_LEASE_S": "2",
            "KINORA_GRACE_S": "0",
            "KINORA_ATTEMPTS_MAX": str(ATTEMPTS_MAX),
        }
        self.start_s3()
        self.key = self.cli("keys", "create", "--org", "torture")
        self.servers = [self.start_server(number) for number in range(SERVERS)]
        self.workers = [self.start_worker() for _ in range(WORKERS)]

    def cli(self, *arguments: str) -> str:
        done = subprocess.run(
            [binary(), *arguments], env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [binary(), *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )

    def start_server(self, number: int) -> subprocess.Popen:
        port = self.ports[number]
        folder = str(self.folder / f"server-{number}")
        process = self.start("serve", "--no-worker", "--listen", f"127.0.0.1:{port}", "--data-dir", folder)
        await_port(port)
        return process

    def start_worker(self) -> subprocess.Popen:
        return self.start("worker")

    def start_s3(self) -> None:
        command = [os.environ["KINORA_TEST_S3S_FS"], "--access-key", KEY_ID, "--secret-key", SECRET]
        command += ["--host", "127.0.0.1", "--port", str(self.s3_port), str(self.s3_folder)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        self.s3 = subprocess.Popen(command, **quiet)
        await_port(self.s3_port)

    def happen(self, event: str, choice: random.Random) -> None:
        match event:
            case "kill a worker":
                number = choice.randrange(WORKERS)
                killed(self.workers[number])
                self.workers[number] = self.start_worker()
            case "kill a server":
                number = choice.randrange(SERVERS)
                killed(self.servers[number])
                self.servers[number] = self.start_server(number)
            case "crash the database":
                control = shlex.split(os.environ["KINORA_TEST_POSTGRES_CTL"])
                quiet = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
                subprocess.run([*control, "-m", "immediate", "-w", "restart"], check=True, timeout=60, **quiet)
            case "take S3 away":
                killed(self.s3)
                time.sleep(S3_AWAY_S)
                self.start_s3()

    def revive(self) -> None:
        """Starts again what a crash of the database ended: a process that starts meanwhile says so and ends."""
        for number, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[number] = self.start_worker()
        for number, server in enumerate(self.servers):
            if server.poll() is not None:
                self.servers[number] = self.start_server(number)

    def objects(self) -> Counter:
        """Clips in the bucket, by request and attempt."""
        outputs = self.s3_folder / BUCKET / "files" / "outputs"
        return Counter((path.parts[-3], path.parts[-2]) for path in outputs.glob("*/*/video.mp4"))

    def query(self, sql: str) -> list[str]:
        done = subprocess.run(["psql", "-qtA", self.database_url, "-c", sql], capture_output=True, text=True, check=True)
        return done.stdout.split()

    def stop(self) -> None:
        for process in [*self.workers, *self.servers]:
            process.send_signal(signal.SIGTERM)
        for process in [*self.workers, *self.servers]:
            process.wait(30)
        killed(self.s3)
        self.log.close()


def killed(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def break_repeatedly(fleet: Fleet, options: argparse.Namespace, ledger: Ledger) -> Counter:
    choice, happened, stop = random.Random(options.seed), Counter(), threading.Event()
    urls = [f"http://127.0.0.1:{port}" for port in fleet.ports]
    callers = [
        Caller(n, urls[n % SERVERS], fleet.key, ledger, stop, options.seed) for n in range(options.callers)
    ]
    for caller in callers:
        caller.start()
    try:
        for _ in range(options.rounds):
            time.sleep(choice.uniform(0.1, options.pause_s))
            event = choice.choices(list(EVENTS), list(EVENTS.values()))[0]
            fleet.happen(event, choice)
            fleet.revive()
            happened[event] += 1
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    fleet.revive()
    return happened


def check_fleet(fleet: Fleet, records: list[dict], problems: list[str]) -> None:
    """What only the database and the bucket show."""
    over = fleet.query(f"SELECT count(*) FROM jobs WHERE attempts_lost > {ATTEMPTS_MAX}")
    if over != ["0"]:
        problems.append(f"{over[0]} requests lost more attempts than they may")
    counts = fleet.query(
        "SELECT count(*) FROM (SELECT status, SUM(count) AS n FROM job_counts GROUP BY status) AS kept "
        "FULL JOIN (SELECT status, count(*) AS n FROM jobs GROUP BY status) AS real USING (status) "
        "WHERE COALESCE(kept.n, 0) <> COALESCE(real.n, 0)"
    )
    if counts != ["0"]:
        problems.append("the kept counts are not those of the rows")
    # A start sweeps what lost attempts left.
    killed(fleet.servers[0])
    fleet.servers[0] = fleet.start_server(0)
    wanted = {
        (record["request_id"], attempt)
        for record in records
        if record["status"] == "success"
        for attempt in re.findall(r"\d+", fleet.query(f"SELECT attempt FROM jobs WHERE id = '{record['request_id']}'")[0])
    }
    deadline = time.monotonic() + SWEPT_S
    while set(fleet.objects()) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    left, missing = set(fleet.objects()) - wanted, wanted - set(fleet.objects())
    if left or missing:
        problems.append(f"{len(left)} clips belong to no outcome, {len(missing)} are missing: {list(left)[:3]}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--pause-s", type=float, default=0.8, help="at most, between two events")
    parser.add_argument("--settle-s", type=float, default=180)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    return parser.parse_args()


def main() -> int:
    options = arguments()
    print(f"seed {options.seed}, {options.rounds} rounds, {options.callers} callers")
    ledger, began = Ledger(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kinora-torture-") as folder:
        fleet = Fleet(Path(folder))
        happened = break_repeatedly(fleet, options, ledger)
        records = settle(Client(f"http://127.0.0.1:{fleet.ports[0]}", fleet.key), ledger, options.settle_s)
        check_records(records, ledger)
        check_fleet(fleet, records, ledger.problems)
        lost = fleet.query("SELECT COALESCE(SUM(attempts_lost), 0) FROM jobs")[0]
        fleet.stop()
        panics = (Path(folder) / "log").read_text(errors="replace").count("panicked at")
        if panics:
            ledger.problems.append(f"{panics} panics in the log")
    states = Counter(record["status"] for record in records)
    print(", ".join(f"{event}: {count}" for event, count in happened.items()))
    print(f"{len(ledger.accepted)} accepted, {ledger.unanswered} unanswered, {len(records)} found: {dict(states)}")
    print(f"{lost} attempts were lost and made again")
    if not ledger.accepted or not states["success"]:
        ledger.problems.append("nothing was tested: no request was accepted, or none succeeded")
    for problem in ledger.problems[:20]:
        print(f"PROBLEM {problem}", file=sys.stderr)
    print(f"{len(ledger.problems)} problems in {time.monotonic() - began:.0f} s")
    return 1 if ledger.problems else 0


if __name__ == "__main__":
    sys.exit(main())
