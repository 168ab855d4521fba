"""FastAPI with Celery and Redis as the queue; Redis runs with `appendfsync always`, so its answer means on disk.

The record lies in Redis under the request's identifier, and the task that would make the clip goes to Celery's queue.
Celery's client blocks, so it runs in a few threads of its own, which take connections from Celery's pool.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import redis.asyncio
from celery import Celery

from baseline import application

REDIS_URL = os.environ["BASELINE_REDIS"]
PUBLISHERS = 2
CONNECTIONS = 32

celery = Celery("baseline", broker=REDIS_URL)
celery.conf.update(task_ignore_result=True, broker_pool_limit=PUBLISHERS, task_serializer="json")


@celery.task(name="animate")
def animate(request_id: str) -> None:
    """Never run here: the measurement is of accepting and polling."""
    raise NotImplementedError(request_id)


class CeleryQueue:
    """A record and a task for each request."""

    def __init__(self) -> None:
        self._publishers = ThreadPoolExecutor(PUBLISHERS)

    async def start(self) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(REDIS_URL, max_connections=CONNECTIONS, timeout=30)
        self._redis = redis.asyncio.Redis(connection_pool=pool)
        await self._redis.ping()

    async def put(self, request_id: str, org: str, record: bytes) -> None:
        # The record first: a task that finds no record could not be answered for.
        await self._redis.set(f"{org}/{request_id}", record)
        await asyncio.get_running_loop().run_in_executor(self._publishers, animate.delay, request_id)

    async def get(self, request_id: str, org: str) -> bytes | None:
        return await self._redis.get(f"{org}/{request_id}")


app = application(CeleryQueue())
