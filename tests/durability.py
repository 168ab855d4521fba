"""Kills the real server with SIGKILL at random moments under submitting clients, and counts what was promised.

Promise: a request answered with 200 is there after any number of crashes, reaches exactly one terminal state which
never changes again, and has exactly one outcome, whose media can be read when the state is `success`.

The seed is printed: it repeats the schedule of kills and of the clients' choices, though not the threads' interleaving.
"""

from __future__ import annotations

import argparse
import base64
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import requests

from support.client import TERMINAL, Client, raw_base64
from support.pictures import drawn
from support.server import Server, create_key

RECONNECT_S = 0.02
# At the end of a capability: 8 bytes of expiry and 16 of signature.
EXPIRY_AND_SIGNATURE_BYTES = 8 + 16
LIST_PAGE = 100
# Of what a caller does; the rest is polling. Low enough that the worker keeps up with what is not cancelled.
SUBMIT_SHARE = 0.12
CANCEL_SHARE = 0.03
# Pictures that callers send again and again.
SHADES_COUNT = 4


@dataclass
class Ledger:
    """What the server has promised, and what was seen of it since."""

    accepted: dict[str, str] = field(default_factory=dict)
    cancelled_ok: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    ended: dict[str, tuple] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unanswered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, record: dict) -> None:
        """Holds a record against what was seen of it before."""
        request_id, state = record["request_id"], record["status"]
        with self.lock:
            before = self.ended.get(request_id)
            if state not in TERMINAL:
                if before:
                    self.problems.append(f"{request_id} went from {before[0]} back to {state}")
                return
            now = (state, ending(record))
            if before and before != now:
                self.problems.append(f"{request_id} changed after its end: {before} became {now}")
            self.ended.setdefault(request_id, now)


def ending(record: dict) -> tuple:
    """What must never change once a request has ended; when its addresses expire may."""
    outcome = record["outcome"] or {}
    files = tuple(opened(entry["url"]) for entry in outcome.get("media_urls", []))
    return (record["updated_at"], outcome.get("seed"), files, record.get("error"))


def opened(url: str) -> tuple[str, str]:
    """The file that a media address opens: its capability without the expiry and the signature over both."""
    capability, name = url.rsplit("/", 2)[-2:]
    claim = base64.urlsafe_b64decode(capability + "=" * (-len(capability) % 4))[:-EXPIRY_AND_SIGNATURE_BYTES]
    return claim.hex(), name


class Caller(threading.Thread):
    """One client: submits, polls what it knows, cancels some of it, and takes a dead server as a pause."""

    def __init__(self, number: int, url: str, key: str, ledger: Ledger, stop: threading.Event, seed: int) -> None:
        super().__init__(name=f"caller-{number}")
        self.client, self.ledger, self.stop = Client(url, key), ledger, stop
        self.random = random.Random(f"{seed}/{number}")
        self.mine: list[str] = []
        self.number, self.submitted = number, 0

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.step()
            except requests.RequestException:
                self.stop.wait(RECONNECT_S)

    def step(self) -> None:
        choice = self.random.random()
        if choice < SUBMIT_SHARE or not self.mine:
            self.submit()
        elif choice < SUBMIT_SHARE + CANCEL_SHARE:
            self.cancel(self.random.choice(self.mine))
        else:
            self.poll(self.random.choice(self.mine))
        self.stop.wait(self.random.uniform(0, 0.03))

    def poll(self, request_id: str) -> None:
        answer = self.client.call("GET", f"/requests/{request_id}")
        self.judge(answer, {200, 404, 503}, "poll")
        if answer.status_code == 200:
            self.ledger.see(answer.json())
        self.note_missing(answer, request_id)

    def picture(self) -> bytes:
        return drawn(shade=self.random.randrange(SHADES_COUNT))

    def submit(self) -> None:
        self.submitted += 1
        prompt = f"caller {self.number} request {self.submitted}"
        payload = {"image": raw_base64(self.picture()), "prompt": prompt}
        try:
            answer = self.client.submit(payload)
        except requests.RequestException:
            with self.ledger.lock:
                self.ledger.unanswered += 1
            raise
        self.judge(answer, {200, 429, 503}, "submit")
        if answer.status_code == 200:
            request_id = answer.json()["request_id"]
            with self.ledger.lock:
                self.ledger.accepted[request_id] = prompt
            self.mine.append(request_id)

    def cancel(self, request_id: str) -> None:
        answer = self.client.call("DELETE", f"/requests/{request_id}")
        self.judge(answer, {200, 404, 409, 503}, "cancel")
        if answer.status_code == 200:
            with self.ledger.lock:
                self.ledger.cancelled_ok.add(request_id)
        self.note_missing(answer, request_id)

    def note_missing(self, answer: requests.Response, request_id: str) -> None:
        """Whether it was right to be gone is for the end to say."""
        if answer.status_code == 404:
            self.mine.remove(request_id)
            with self.ledger.lock:
                self.ledger.missed.add(request_id)

    def judge(self, answer: requests.Response, allowed: set[int], what: str) -> None:
        if answer.status_code not in allowed:
            with self.ledger.lock:
                self.ledger.problems.append(f"{what} answered {answer.status_code}: {answer.text[:200]}")


def crash_repeatedly(data_dir: Path, options: argparse.Namespace, ledger: Ledger, key: str) -> Server:
    """Starts, loads and kills the server; returns the last one, still running."""
    pauses = random.Random(options.seed)
    server = start(data_dir, "127.0.0.1:0")
    listen = server.url.removeprefix("http://")
    stop = threading.Event()
    callers = [Caller(n, server.url, key, ledger, stop, options.seed) for n in range(options.callers)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(options.kills):
            time.sleep(pauses.uniform(options.min_life_s, options.max_life_s))
            server.kill()
            server = start(data_dir, listen)
            assert server.url
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    return server


def start(data_dir: Path, listen: str) -> Server:
    return Server(data_dir, ["--engine", "pattern"], listen)


def everything(client: Client) -> list[dict]:
    """All records of the organisation, page by page; nothing is submitted any more, so pages do not shift."""
    records: list[dict] = []
    while True:
        page = client.listed(limit=LIST_PAGE, offset=len(records))
        records += page["requests"]
        if not page["requests"]:
            assert len(records) == page["total"], f"{len(records)} listed of {page['total']}"
            return records


def settle(client: Client, ledger: Ledger, limit_s: float) -> list[dict]:
    """Waits until every listed request has ended."""
    deadline = time.monotonic() + limit_s
    while True:
        records = everything(client)
        for record in records:
            ledger.see(record)
        pending = Counter(record["status"] for record in records if record["status"] not in TERMINAL)
        if not pending:
            return records
        if time.monotonic() > deadline:
            ledger.problems.append(f"not ended {limit_s} s after the last crash: {dict(pending)}")
            return records
        time.sleep(0.5)


def check_records(records: list[dict], ledger: Ledger) -> None:
    by_id = {record["request_id"]: record for record in records}
    problems = ledger.problems
    if len(by_id) != len(records):
        problems.append(f"{len(records) - len(by_id)} requests are listed twice")
    for request_id, prompt in ledger.accepted.items():
        record = by_id.get(request_id)
        if record is None:
            problems.append(f"{request_id} was accepted and is gone")
        elif record["payload"]["prompt"] != prompt:
            problems.append(f"{request_id} carries another request's prompt")
    problems += [f"{request_id} was accepted and answered 404" for request_id in ledger.missed & ledger.accepted.keys()]
    for request_id in ledger.cancelled_ok & by_id.keys():
        if by_id[request_id]["status"] != "cancelled":
            problems.append(f"{request_id} was cancelled with 200 and is {by_id[request_id]['status']}")
    for record in records:
        check_outcome(record, problems)


def check_outcome(record: dict, problems: list[str]) -> None:
    name, outcome = f"{record['request_id']} ({record['status']})", record["outcome"]
    if record["status"] != "success":
        if outcome is not None:
            problems.append(f"{name} has an outcome")
        return
    if outcome is None or len(outcome["media_urls"]) != 1:
        problems.append(f"{name} has not exactly one clip")
        return
    clip = requests.get(outcome["media_urls"][0]["url"], timeout=30)
    announced = int(clip.headers.get("Content-Length", -1))
    if clip.status_code != 200 or clip.content[4:8] != b"ftyp" or announced != len(clip.content):
        problems.append(f"{name}: its clip answers {clip.status_code} with {len(clip.content)} bytes")
    if requests.get(outcome["thumbnail_image_url"], timeout=30).content[:2] != b"\xff\xd8":
        problems.append(f"{name}: its thumbnail is no JPEG")


def check_store(data_dir: Path, records: list[dict], problems: list[str]) -> None:
    """The files themselves, after the server has ended: one clip for each success, and a sound database."""
    clips = Counter(path.parent.parent.name for path in data_dir.rglob("video.mp4"))
    for record in records:
        name, wanted = record["request_id"], int(record["status"] == "success")
        if clips.pop(name, 0) != wanted:
            problems.append(f"{name} ({record['status']}) does not have {wanted} clip on disk")
    if clips:
        problems.append(f"{len(clips)} clips on disk belong to no request")
    found = [path for path in data_dir.rglob("*") if path.is_file() and is_sqlite(path)]
    if not found:
        problems.append(f"no database under {data_dir}")
    for path in found:
        with sqlite3.connect(path) as database:
            verdict = [row[0] for row in database.execute("PRAGMA integrity_check")]
        if verdict != ["ok"]:
            problems.append(f"{path.name}: {verdict[:3]}")


def is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument("--min-life-s", type=float, default=0.15)
    parser.add_argument("--max-life-s", type=float, default=1.5)
    parser.add_argument("--settle-s", type=float, default=90)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    return parser.parse_args()


def main() -> int:
    options = arguments()
    print(f"seed {options.seed}, {options.kills} kills, {options.callers} callers")
    ledger, began = Ledger(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kinora-durability-") as folder:
        data_dir = Path(folder)
        key = create_key(data_dir, "durable-films")
        server = crash_repeatedly(data_dir, options, ledger, key)
        try:
            records = settle(Client(server.url, key), ledger, options.settle_s)
            check_records(records, ledger)
        finally:
            exit_code = server.terminate()
        if exit_code != 0:
            ledger.problems.append(f"the last server ended with {exit_code}")
        check_store(data_dir, records, ledger.problems)
    states = Counter(record["status"] for record in records)
    print(f"{len(ledger.accepted)} accepted, {ledger.unanswered} unanswered, {len(records)} found: {dict(states)}")
    if not ledger.accepted or not states["success"]:
        ledger.problems.append("nothing was tested: no request was accepted, or none succeeded")
    for problem in ledger.problems[:20]:
        print(f"PROBLEM {problem}", file=sys.stderr)
    print(f"{len(ledger.problems)} problems in {time.monotonic() - began:.0f} s")
    return 1 if ledger.problems else 0


if __name__ == "__main__":
    sys.exit(main())
