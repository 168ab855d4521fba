"""A TCP proxy that can misbehave: slow, cut, or answering HTTP requests with 500."""

from __future__ import annotations

import asyncio
import random
import threading

LOOPBACK = "127.0.0.1"
CHUNK = 64 << 10
PAUSE_S = (0.02, 0.15)
ERROR_SHARE = 0.5
ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Passes connections on to a port of loopback. `mode`, one of MODES, takes effect at once, on open ones too."""

    MODES = ("pass", "slow", "cut", "errors")

    def __init__(self, upstream_port: int, seed: int, host: str = LOOPBACK) -> None:
        self.host, self.upstream_port, self.random = host, upstream_port, random.Random(seed)
        self.mode = "pass"
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self.open: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task] = set()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), name="proxy", daemon=True)
        self.thread.start()
        started.wait()

    def set(self, mode: str) -> None:
        assert mode in self.MODES, mode
        self.mode = mode
        if mode == "errors":
            # Connections that are kept alive would not notice.
            self.loop.call_soon_threadsafe(lambda: [writer.close() for writer in self.open])

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._accept, self.host, 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            await self._gate()
            if self.mode == "errors" and self.random.random() < ERROR_SHARE:
                await reader.read(CHUNK)
                writer.write(ERROR)
                await writer.drain()
                return
            there, onward = await asyncio.open_connection(LOOPBACK, self.upstream_port)
            try:
                # Whichever side ends first ends both.
                pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, onward), (there, writer))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
            finally:
                onward.close()
        except OSError:
            # Nobody is there to pass it on to, which the caller sees as a connection that closes.
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                await self._gate()
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass

    async def _gate(self) -> None:
        if self.mode == "slow":
            await asyncio.sleep(self.random.uniform(*PAUSE_S))
        while self.mode == "cut":
            await asyncio.sleep(0.02)
