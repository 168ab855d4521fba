"""Requests that grow old at once, so that what `--keep-days` says goes while callers are at work.

Half of those that ended are dated back, and the pictures that belong to them. Pictures that callers send again and
again keep their age: a server remembers for an hour that it stored one, and to date it back meanwhile would break a
promise of ours, not of the program's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from durability import SHADES_COUNT
from support.pictures import drawn

KEEP_DAYS = 7
BACK_MS = 30 * 24 * 3600 * 1000
# Kept behind the program's back: what went. {id} is the database's type of an identifier.
LEDGER_TABLE = "CREATE TABLE torture_removed (id {id} NOT NULL, status TEXT NOT NULL, finished_at_ms BIGINT);"
REMOVED = "SELECT {id}, status, finished_at_ms FROM torture_removed"
LEFT = "SELECT count(*) FROM jobs WHERE finished_at_ms < {before}"


def before_ms() -> int:
    """Whatever ended before is old; nothing is near it."""
    return int(time.time() * 1000) - BACK_MS // 2


def dated_back(literal: Callable[[bytes], str]) -> list[str]:
    """The statements; `literal` writes bytes as the database reads them."""
    shared = ", ".join(literal(hashlib.sha256(drawn(shade=shade)).digest()) for shade in range(SHADES_COUNT))
    before = before_ms()
    return [
        f"UPDATE jobs SET finished_at_ms = finished_at_ms - {BACK_MS} WHERE finished_at_ms > {before} AND seq % 2 = 0",
        f"UPDATE inputs SET used_at_ms = used_at_ms - {BACK_MS} WHERE used_at_ms > {before} "
        f"AND sha256 NOT IN ({shared}) AND sha256 IN (SELECT input_sha256 FROM jobs WHERE finished_at_ms < {before})",
    ]


def wrongly_removed(removed: list[tuple[str, str, int | None]]) -> list[str]:
    """What went that had not ended, or not long ago."""
    before = before_ms()
    return [
        f"{name} was removed while {status}, {'not old' if ended else 'not ended'}"
        for name, status, ended in removed
        if ended is None or int(ended) > before
    ]
