"""A backup taken while callers are at work, as the documentation says to, and started elsewhere at the end.

Promise: what was answered before the backup began is in it, what had ended is unchanged, every request in it ends, and
each success has its clip.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from durability import Ledger, check_records, settle
from support.client import Client

REMOVAL_LIMIT_S = 20


@dataclass
class Backup:
    """Where it lies, and what was known of the requests when it began."""

    copy: Path
    accepted: dict[str, str]
    ended: dict[str, tuple]


def take(store, ledger: Ledger, copy: Path) -> Backup:
    deadline = time.monotonic() + REMOVAL_LIMIT_S
    # What retention removes between the two halves of a backup is the documented exception.
    while store.left_count() and time.monotonic() < deadline:
        time.sleep(0.1)
    removed = {name for name, _, _ in store.removed()}
    with ledger.lock:
        accepted, ended = (
            {name: value for name, value in known.items() if name not in removed}
            for known in (ledger.accepted, ledger.ended)
        )
    copy.mkdir()
    store.back_up(copy)
    return Backup(copy, accepted, ended)


def check(store, backup: Backup, settle_s: float) -> list[str]:
    """Starts what was backed up in a place of its own, and holds it to what was known."""
    ledger = Ledger(accepted=backup.accepted, ended=backup.ended)
    url, members = store.restore(backup.copy)
    try:
        records = settle(Client(url, store.key), ledger, settle_s)
        check_records(records, ledger)
    finally:
        for member in members:
            member.kill()
    return [f"restored from the backup: {problem}" for problem in ledger.problems]


def copy_tree(source: Path, target: Path) -> None:
    """Copies a folder in which others are at work; what goes away meanwhile was being written under another name."""

    def copy(name: str, to: str) -> None:
        try:
            shutil.copy(name, to)
        except FileNotFoundError:
            pass

    shutil.copytree(source, target, copy_function=copy)
