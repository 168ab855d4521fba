"""Breaks two installations at random, under submitting clients, and counts what was promised.

One is a server on SQLite and a folder, the other a fleet on PostgreSQL and S3. In each round one thing happens that
operators meet. Promise, looked at after every round: each acknowledged request is there, no request changes once it has
ended, none ends twice, none loses more attempts than it may, and none is removed but those that ended long ago. At the
end: each has ended, each success has exactly one clip that can be read, the pictures are there that rows name, nothing
is left of lost attempts after a sweep nor of what is old, no lease was taken before its time, each lost attempt is in a
log, and no log speaks of a panic. A backup taken half-way, under load, holds the same when it is started elsewhere.

A third program, `power`, cuts the power of one machine instead: see `power.py`.

The seed is printed: it repeats the schedule and the clients' choices, though not the threads' interleaving.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from durability import Caller, Ledger, check_records, settle
from support.client import TERMINAL, Client

from . import old
from .alone import Alone
from .backup import Backup, check, take
from .fleet import Fleet
from .power import cut_power
from .process import panics, told

STORES = {"alone": Alone, "fleet": Fleet}
POWER = "power"
SWEPT_S = 20


class Stranger(Caller):
    """A caller half of whose pictures are sent once, so that pictures are stored, and grow old, all the time."""

    def picture(self) -> bytes:
        picture = super().picture()
        if self.random.random() < 0.5:
            return picture
        text = f"caller {self.number} picture {self.submitted}".encode()
        comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
        return picture[:2] + comment + picture[2:]


def break_repeatedly(
    store: Alone | Fleet, options: argparse.Namespace, ledger: Ledger, copy: Path
) -> tuple[Counter, Backup]:
    """Every round, and half-way a backup into a new folder."""
    choice, happened, stop = random.Random(options.seed), Counter(), threading.Event()
    callers = [
        Stranger(n, store.urls[n % len(store.urls)], store.key, ledger, stop, options.seed)
        for n in range(options.callers)
    ]
    for caller in callers:
        caller.start()
    ends: dict[str, str] = {}
    deadline = time.monotonic() + options.limit_s
    # Everything at least once where there are rounds enough, in an order of the seed's.
    first = choice.sample(list(store.events), len(store.events))
    backup = None
    try:
        for number in range(options.rounds):
            if number >= options.rounds // 2 and backup is None:
                backup = take(store, ledger, copy)
            if time.monotonic() > deadline:
                break
            time.sleep(choice.uniform(0.1, options.pause_s))
            drawn = choice.choices(list(store.events), list(store.events.values()))[0]
            event = first[number] if number < len(first) else drawn
            store.happen(event, choice)
            store.revive()
            happened[event] += 1
            check_rows(store, ledger, ends, f"round {number} ({event})")
        backup = backup or take(store, ledger, copy)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    store.mend()
    return happened, backup


def check_rows(store: Alone | Fleet, ledger: Ledger, ends: dict[str, str], when: str) -> None:
    """What must hold at any moment."""
    with ledger.lock:
        accepted = list(ledger.accepted)
    rows, removed, problems = store.rows(), store.removed(), ledger.problems
    problems += [f"{when}: {problem}" for problem in old.wrongly_removed(removed)]
    gone = {name for name, _, _ in removed}
    lost_names = [name for name in accepted if name not in rows and name not in gone]
    problems += [f"{when}: {name} was accepted and is gone" for name in lost_names]
    problems += [f"{when}: {name} ended twice" for name in store.ended_twice()]
    for name, (status, lost) in rows.items():
        if lost > store.attempts_max:
            problems.append(f"{when}: {name} lost {lost} attempts")
        if ends.get(name, status) != status:
            problems.append(f"{when}: {name} went from {ends[name]} to {status}")
        if status in TERMINAL:
            ends[name] = status


def check_files(store: Alone | Fleet, problems: list[str]) -> None:
    """Exactly the clips of outcomes are left, once a start has swept what lost attempts left."""
    store.sweep()
    wanted, deadline = store.wanted(), time.monotonic() + SWEPT_S
    while set(store.clips()) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    found = set(store.clips())
    if found != wanted:
        left, missing = found - wanted, wanted - found
        some = sorted(left | missing)[:3]
        problems.append(f"{len(left)} clips belong to no outcome, {len(missing)} are missing: {some}")
    named, there = store.pictures()
    if named - there:
        problems.append(f"{len(named - there)} pictures are named and not there: {sorted(named - there)[:3]}")
    if store.left_count():
        problems.append(f"{store.left_count()} requests are old and still there")


def check_logs(folder: Path, losses: dict[str, int], happened: Counter, problems: list[str]) -> None:
    """Each lost attempt is in a log, unless who took it back was killed before writing that."""
    counts = told(folder, "job.lease_expired", "job.attempt_failed")
    untold = {name: lost - counts[name] for name, lost in losses.items() if lost > counts[name]}
    kills_count = sum(count for event, count in happened.items() if "kill" in event)
    if sum(untold.values()) > kills_count:
        problems.append(f"{sum(untold.values())} lost attempts are in no log: {sorted(untold)[:3]}")


def torture(kind: str, options: argparse.Namespace) -> list[str]:
    ledger, began = Ledger(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kinora-torture-") as name:
        folder = Path(name)
        store = STORES[kind](folder, options.seed)
        try:
            for event, reason in store.skipped.items():
                print(f"{kind}: skipped: {event} ({reason})")
            happened, backup = break_repeatedly(store, options, ledger, folder / "backup")
            records = settle(Client(store.urls[0], store.key), ledger, options.settle_s)
            check_rows(store, ledger, {}, "at the end")
            # Whoever was right to be removed is no longer promised.
            accepted_count, removed = len(ledger.accepted), {name for name, _, _ in store.removed()}
            for name in removed & ledger.accepted.keys():
                del ledger.accepted[name]
            check_records(records, ledger)
            # Nothing that was done here is a request's own fault, nor lasts for as many attempts as there are.
            failed = [record for record in records if record["status"] == "failed"]
            ledger.problems += [f"{record['request_id']} failed: {record['error']}" for record in failed]
            check_files(store, ledger.problems)
            losses = {name: lost for name, (_, lost) in store.rows().items()}
            store.close(ledger.problems)
            ledger.problems += check(store, backup, options.settle_s)
            check_logs(folder, losses, happened, ledger.problems)
            refused = told(folder, "job.late_result_refused").total()
            ledger.problems += [f"{loss}: its lease was taken before its time" for loss in store.stolen()]
            ledger.problems += panics(folder)
        finally:
            store.release()
    states = Counter(record["status"] for record in records)
    if not records or not states["success"]:
        ledger.problems.append("nothing was tested: no request was accepted, or none succeeded")
    print(f"{kind} ({store.name}): {sum(happened.values())} rounds in {time.monotonic() - began:.0f} s")
    print("  " + ", ".join(f"{event} {count}" for event, count in happened.most_common()))
    print(f"  {accepted_count} accepted, {ledger.unanswered} unanswered")
    print(f"  {len(removed)} removed because they were old, {len(records)} found: {dict(states)}")
    print(f"  {sum(losses.values())} attempts lost and made again, {refused} late results refused")
    print(f"  {len(backup.accepted)} restored from a backup taken half-way")
    print(f"  {len(ledger.problems)} problems", flush=True)
    return [f"{kind}: {problem}" for problem in ledger.problems]


def broken(kind: str, options: argparse.Namespace) -> list[str]:
    if kind != POWER:
        return torture(kind, options)
    with tempfile.TemporaryDirectory(prefix="kinora-torture-") as name:
        return cut_power(Path(name), options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=[*STORES, POWER], default=[*STORES, POWER])
    parser.add_argument("--rounds", type=int, default=200, help="of each kind")
    parser.add_argument("--limit-s", type=float, default=1200, help="no round begins after this, of each kind")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--pause-s", type=float, default=0.8, help="at most, between two events")
    parser.add_argument("--settle-s", type=float, default=180)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    return parser.parse_args()


def main() -> int:
    options = arguments()
    print(f"seed {options.seed}, {options.rounds} rounds, {options.callers} callers", flush=True)
    # What was mounted, and networks, are given back when somebody asks this program to end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    problems = [problem for kind in options.kinds for problem in broken(kind, options)]
    for problem in problems[:30]:
        print(f"PROBLEM {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
