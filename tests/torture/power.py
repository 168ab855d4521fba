"""The power goes: a server on SQLite and a folder finds what a disk keeps that had only the synced bytes for certain.

A real server works under `strace` while callers submit, poll and cancel; it is killed and started again meanwhile. Its
log is cut at random: the disk as it was then is written into a folder (`disk.py`), and the program is started on that.
Each answer with 200 that began to leave the server before the cut is a promise: the request is there, what had ended
stays as it was, every request ends, none fails, each success has one clip that can be read, and the database is sound.

The proof is tried as well: where some syncs are left out of the replay, promises must be found broken.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests

from durability import Caller, Ledger, check_records, check_store, everything, settle
from support.client import TERMINAL, Client
from support.server import Server, binary, clean_environment, create_key

from .disk import STRACE, Call, Disk, calls_in, replay
from .process import await_port, free_port

ORG = "torture"
DATA = "data"
ARGUMENTS = ["--engine", "pattern", "--attempts-max", "50"]
LIVES = 3
# Each life lasts as long as it takes for so many answers for each cut, within these.
LIFE_S = (3.0, 12.0)
LIFE_S_PER_CUT = 0.1
# Calls that are under way end within this after SIGSTOP, so that none is cut in two by the kill.
STILL_S = 0.3
ANSWER = b"HTTP/1.1 200 "
# Of what waits after a cut, so much is worked off; the rest is cancelled, since more clips say no more of the disk.
WORKED_OFF_COUNT = 12
# How much of what was not synced survives: nothing, and two mixtures.
SHARES = (0.0, 0.5, 0.9)
# Whose syncs are left out, to see that it is noticed.
WITHOUT: dict[str, Callable[[str], bool]] = {
    "the database's log": lambda path: path.endswith("-wal"),
    "the files in staging": lambda path: "/staging/" in path,
    "the folders of clips": lambda path: "/outputs" in path,
    "the data folder": lambda path: path.endswith(f"/{DATA}"),
}


@dataclass
class Story:
    """What was seen of the program, and what it had promised by which line of the log."""

    root: Path
    calls: list[Call]
    key: str
    key_line: int
    answers: list[tuple[int, dict]]
    prompts: dict[str, str]

    @property
    def end(self) -> int:
        return max(call.ended for call in self.calls) + 1


def refusal() -> str | None:
    """Why nothing can be tried here."""
    if not shutil.which("strace"):
        return "strace is not here"
    done = subprocess.run(["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"strace may not be used here: {done.stderr.strip()[-100:]}"


def traced(log: Path, *arguments: str | Path, **more) -> subprocess.Popen:
    command = [*STRACE, "-o", log, binary(), *arguments]
    return subprocess.Popen(list(map(str, command)), env=clean_environment(), stdin=subprocess.DEVNULL, **more)


def cut_short(strace: subprocess.Popen) -> None:
    """Kills the program that strace watches, and waits until strace has written its log."""
    children = Path(f"/proc/{strace.pid}/task/{strace.pid}/children").read_text().split()
    signals = [(signal.SIGSTOP, STILL_S), (signal.SIGKILL, 0)]
    for number, pause_s in signals:
        for child in children:
            subprocess.run(["kill", f"-{int(number)}", child], check=True)
        time.sleep(pause_s)
    strace.wait(60)


def live(root: Path, log: Path, callers: Callable[[str, str, threading.Event], list[Caller]], life_s: float) -> str:
    """Lets a server work, die and work again under load; returns the key."""
    data = ["--data-dir", root / DATA]
    made = traced(log, "keys", "create", "--org", ORG, *data, stdout=subprocess.PIPE, text=True)
    key = made.communicate(timeout=120)[0].strip()
    port, stop, working = free_port(), threading.Event(), []
    try:
        for life in range(LIVES):
            with (log.parent / f"power-{life}.log").open("wb") as said:
                place = ["--listen", f"127.0.0.1:{port}", *data]
                server = traced(log, "serve", *place, *ARGUMENTS, stdout=said, stderr=said)
            try:
                if not await_port(port, server):
                    raise RuntimeError(f"the server does not start under strace: {Path(said.name).read_text()[-500:]}")
                if not working:
                    working = callers(f"http://127.0.0.1:{port}", key, stop)
                    for caller in working:
                        caller.start()
                time.sleep(life_s)
            finally:
                cut_short(server)
    finally:
        stop.set()
        for caller in working:
            caller.join()
    return key


def answers_in(calls: list[Call]) -> list[tuple[int, dict]]:
    """What the answers with 200 said of requests, each with the line at which it began to leave."""
    found = []
    for call in calls:
        if call.name in ("sendto", "sendmsg", "write", "writev") and call.file is None:
            head, _, body = call.data.partition(b"\r\n\r\n")
            if head.startswith(ANSWER) and body.startswith(b"{"):
                record = json.loads(body)
                found += [(call.began, record)] if "request_id" in record else []
    return found


def observe(folder: Path, options: argparse.Namespace) -> Story:
    # Without links in it, as strace shows paths.
    root = folder.resolve() / "disk"
    root.mkdir()
    ledger, log = Ledger(), folder / "strace.log"
    life_s = min(max(LIFE_S[0], LIFE_S_PER_CUT * options.rounds), LIFE_S[1])

    def callers(url: str, key: str, stop: threading.Event) -> list[Caller]:
        return [Caller(number, url, key, ledger, stop, options.seed) for number in range(options.callers)]

    key = live(root, log, callers, life_s)
    calls = calls_in(log)
    key_line = next(call.began for call in calls if call.name == "write" and call.data.startswith(key.encode()))
    story = Story(root, calls, key, key_line, answers_in(calls), ledger.accepted)
    check_replay(story, folder / "whole")
    unseen = ledger.accepted.keys() - {record["request_id"] for _, record in story.answers}
    if ledger.problems or unseen:
        raise RuntimeError(f"{len(unseen)} answers are not in strace's log; {ledger.problems[:3]}")
    return story


def check_replay(story: Story, copy: Path) -> None:
    """Replayed to its end with nothing lost, the log must give the very files that lie there."""
    disk = Disk(story.root)
    list(replay(story.calls, disk, [story.end]))
    disk.build(copy, lambda: True)
    there, rebuilt = ({path.relative_to(top): path for path in top.rglob("*")} for top in (story.root, copy))
    differing = [name for name in there.keys() & rebuilt.keys() if not is_same(there[name], rebuilt[name])]
    if there.keys() != rebuilt.keys() or differing:
        odd = sorted(map(str, [*(there.keys() ^ rebuilt.keys()), *differing]))
        raise RuntimeError(f"strace's log does not account for {odd[:5]}")


def is_same(one: Path, other: Path) -> bool:
    if one.is_dir() or one.name.endswith("-shm"):
        return one.is_dir() == other.is_dir()
    return one.read_bytes() == other.read_bytes()


def judge(story: Story, cut: int, data: Path, settle_s: float) -> list[str]:
    """Starts the program on what is left, and holds it to what it had promised by then."""
    ledger = Ledger()
    for line, record in story.answers:
        request_id = record["request_id"]
        if line < cut:
            # What was answered to one who was killed before reading it is promised all the same.
            ledger.accepted[request_id] = story.prompts.get(request_id, record.get("payload", {}).get("prompt"))
            if record["status"] in TERMINAL:
                ledger.see(record)
    try:
        key = story.key if story.key_line < cut else create_key(data, ORG)
        with Server(data, ARGUMENTS) as server:
            client = Client(server.url, key)
            lighten(client, ledger)
            records = settle(client, ledger, settle_s)
            check_records(records, ledger)
        check_store(data, records, ledger.problems)
        failed = [record for record in records if record["status"] == "failed"]
        ledger.problems += [f"{record['request_id']} failed: {record['error']}" for record in failed]
    except (RuntimeError, AssertionError, TimeoutError, requests.RequestException) as error:
        ledger.problems.append(str(error)[:500])
    return ledger.problems


def lighten(client: Client, ledger: Ledger) -> None:
    """Cancels most of what waits, the newest first."""
    waiting = [record["request_id"] for record in everything(client) if record["status"] == "queued"]
    for request_id in waiting[:-WORKED_OFF_COUNT]:
        answer = client.call("DELETE", f"/requests/{request_id}")
        if answer.status_code == 200:
            ledger.cancelled_ok.add(request_id)
        # 409: it has ended meanwhile.
        elif answer.status_code != 409:
            ledger.problems.append(f"{request_id} waits, and its cancel is answered {answer.status_code}")


def cuts_of(story: Story, count: int, choice: random.Random) -> list[int]:
    """Half of them anywhere, half right after a promise."""
    anywhere = [choice.randrange(1, story.end) for _ in range(count - count // 2)]
    after = [choice.choice(story.answers)[0] + choice.randrange(1, 4) for _ in range(count // 2)]
    return sorted(anywhere + after)


def try_cut(story: Story, disk: Disk, cut: int, share: float, options: argparse.Namespace) -> list[str]:
    choice = random.Random(f"{options.seed}/{cut}")
    with tempfile.TemporaryDirectory(prefix="kinora-power-") as name:
        folder = Path(name) / "disk"
        disk.build(folder, lambda: choice.random() < share)
        problems = judge(story, cut, folder / DATA, options.settle_s)
    return [f"cut at line {cut}, {share:.0%} of the rest left: {problem}" for problem in problems]


def cut_power(folder: Path, options: argparse.Namespace) -> list[str]:
    began, reason = time.monotonic(), refusal()
    if reason:
        print(f"power: skipped: {reason}", flush=True)
        return []
    story, choice = observe(folder, options), random.Random(options.seed)
    print(
        f"power (SQLite and a folder): {len(story.calls)} calls in {LIVES} lives, "
        f"{len(story.prompts)} requests accepted, {len(story.answers)} answers",
        flush=True,
    )
    problems, tried, deadline = [], 0, began + options.limit_s
    disk = Disk(story.root)
    for cut in replay(story.calls, disk, cuts_of(story, options.rounds, choice)):
        if time.monotonic() > deadline:
            break
        problems += try_cut(story, disk, cut, SHARES[tried % len(SHARES)], options)
        tried += 1
    print(f"  {tried} cuts in {time.monotonic() - began:.0f} s, {len(problems)} problems", flush=True)
    for name, ignored in WITHOUT.items():
        disk = Disk(story.root, ignored)
        list(replay(story.calls, disk, [story.end]))
        broken = try_cut(story, disk, story.end, 0, options)
        print(f"  without the syncs of {name}: {len(broken)} promises broken, as must be", flush=True)
        if not broken:
            problems.append(f"without the syncs of {name} nothing is lost, so this proves nothing")
    return [f"power: {problem}" for problem in problems]
