"""FastAPI with SQLite as the queue: WAL, `synchronous=FULL`, one transaction for each submit.

Each process has one connection for writing, used by one thread so that the event loop never waits for the disk,
and one for reading.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from baseline import application

SCHEMA = "CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, org TEXT NOT NULL, status TEXT NOT NULL, record BLOB NOT NULL) WITHOUT ROWID"
BUSY_LIMIT_S = 30


def connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_LIMIT_S, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    return database


class SqliteQueue:
    """One row for each request."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer_thread = ThreadPoolExecutor(1)

    async def start(self) -> None:
        self._writer, self._reader = connect(self._path), connect(self._path)
        self._writer.execute(SCHEMA)

    async def put(self, request_id: str, org: str, record: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer_thread, self._insert, request_id, org, record)

    def _insert(self, request_id: str, org: str, record: bytes) -> None:
        self._writer.execute("INSERT INTO requests VALUES (?, ?, 'queued', ?)", (request_id, org, record))

    async def get(self, request_id: str, org: str) -> bytes | None:
        # A primary key look-up in a mapped page is microseconds: cheaper here than a hop to another thread.
        row = self._reader.execute("SELECT record FROM requests WHERE id = ? AND org = ?", (request_id, org)).fetchone()
        return row[0] if row else None


app = application(SqliteQueue(Path(os.environ["BASELINE_DIR"]) / "queue.sqlite"))
