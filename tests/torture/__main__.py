"""Breaks two installations at random, under submitting clients, and counts what was promised.

One is a server on SQLite and a folder, the other a fleet on PostgreSQL and S3. In each round one thing happens that
operators meet. Promise, looked at after every round: each acknowledged request is there, no request changes once it has
ended, none ends twice, none loses more attempts than it may. At the end: each has ended, each success has exactly one
clip that can be read, nothing is left of lost attempts after a sweep, no lease was taken before its time, and no log
speaks of a panic.

The seed is printed: it repeats the schedule and the clients' choices, though not the threads' interleaving.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from durability import Caller, Ledger, check_records, settle
from support.client import TERMINAL, Client

from .alone import Alone
from .fleet import Fleet
from .process import panics

STORES = {"alone": Alone, "fleet": Fleet}
SWEPT_S = 20


class Stranger(Caller):
    """A caller who rarely sends the same picture twice, so that pictures are stored all the time."""

    shades_count = 256


def break_repeatedly(store: Alone | Fleet, options: argparse.Namespace, ledger: Ledger) -> Counter:
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
    try:
        for number in range(options.rounds):
            if time.monotonic() > deadline:
                break
            time.sleep(choice.uniform(0.1, options.pause_s))
            drawn = choice.choices(list(store.events), list(store.events.values()))[0]
            event = first[number] if number < len(first) else drawn
            store.happen(event, choice)
            store.revive()
            happened[event] += 1
            check_rows(store, ledger, ends, f"round {number} ({event})")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    store.mend()
    return happened


def check_rows(store: Alone | Fleet, ledger: Ledger, ends: dict[str, str], when: str) -> None:
    """What must hold at any moment."""
    with ledger.lock:
        accepted = list(ledger.accepted)
    rows, problems = store.rows(), ledger.problems
    problems += [f"{when}: {name} was accepted and is gone" for name in accepted if name not in rows]
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
        problems.append(f"{len(left)} clips belong to no outcome, {len(missing)} are missing: {sorted(left | missing)[:3]}")


def torture(kind: str, options: argparse.Namespace) -> list[str]:
    ledger, began = Ledger(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kinora-torture-") as name:
        folder = Path(name)
        store = STORES[kind](folder, options.seed)
        try:
            for event, reason in store.skipped.items():
                print(f"{kind}: skipped: {event} ({reason})")
            happened = break_repeatedly(store, options, ledger)
            records = settle(Client(store.urls[0], store.key), ledger, options.settle_s)
            check_rows(store, ledger, {}, "at the end")
            check_records(records, ledger)
            # Nothing that was done here is a request's own fault, nor lasts for as many attempts as there are.
            failed = [record for record in records if record["status"] == "failed"]
            ledger.problems += [f"{record['request_id']} failed: {record['error']}" for record in failed]
            check_files(store, ledger.problems)
            lost = sum(lost for _, lost in store.rows().values())
            store.close(ledger.problems)
            ledger.problems += [f"{loss}: its lease was taken before its time" for loss in store.stolen()]
            ledger.problems += panics(folder)
        finally:
            store.release()
    states = Counter(record["status"] for record in records)
    if not ledger.accepted or not states["success"]:
        ledger.problems.append("nothing was tested: no request was accepted, or none succeeded")
    print(f"{kind} ({store.name}): {sum(happened.values())} rounds in {time.monotonic() - began:.0f} s")
    print("  " + ", ".join(f"{event} {count}" for event, count in happened.most_common()))
    print(f"  {len(ledger.accepted)} accepted, {ledger.unanswered} unanswered, {len(records)} found: {dict(states)}")
    print(f"  {lost} attempts lost and made again, {len(ledger.problems)} problems", flush=True)
    return [f"{kind}: {problem}" for problem in ledger.problems]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__.splitlines()[0])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--rounds", type=int, default=200, help="on each store")
    parser.add_argument("--limit-s", type=float, default=1200, help="no round begins after this, on each store")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--pause-s", type=float, default=0.8, help="at most, between two events")
    parser.add_argument("--settle-s", type=float, default=180)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    return parser.parse_args()


def main() -> int:
    options = arguments()
    print(f"seed {options.seed}, {options.rounds} rounds, {options.callers} callers", flush=True)
    problems = [problem for kind in options.stores for problem in torture(kind, options)]
    for problem in problems[:30]:
        print(f"PROBLEM {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
