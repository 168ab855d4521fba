"""Callers who mean harm, all at once, against the real server, while an honest one is being served.

Promise: idle connections, heads sent byte by byte, heads without end, garbage in a pipeline, wrong keys by the
thousand and pictures that unpack into gigabytes get nothing but errors; the server's memory stays bounded; every
honest call in between is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from support.client import BASES, Client, raw_base64
from support.pictures import drawn
from support.server import Server, create_key

# Descriptors for everything but idle connections, in this process and in the server.
DESCRIPTORS_RESERVED = 1024
HONEST_LIMIT_S = 10.0
MEMORY_LIMIT_MB = 400
WRONG_KEY_CALLERS = 20
BOMB_SIDE_PX = 30_000


@dataclass
class Seen:
    """What every caller was answered, and what should not have been."""

    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    honest_slowest_s: float = 0.0
    memory_peak_mb: float = 0.0

    def expect(self, who: str, status: int | None, allowed: set[int | None]) -> None:
        self.answers[f"{who}: {status or 'closed'}"] += 1
        if status not in allowed:
            self.problems.append(f"{who} was answered {status}")


class Place:
    """Where the server listens."""

    def __init__(self, url: str) -> None:
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def ask(self, request: bytes) -> int | None:
        """Sends bytes as they are; the status of the first answer, or None for a connection closed without one."""
        reader, writer = await self.open()
        try:
            writer.write(request)
            await writer.drain()
            line = await reader.readline()
            return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else None
        except ConnectionError:
            return None
        finally:
            writer.close()


def request(method: str, path: str, key: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {BASES[0]}{path} HTTP/1.1", "host: abuse", f"authorization: Bearer {key}", *headers]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


async def idle(place: Place, count: int, stop: asyncio.Event, seen: Seen) -> None:
    """Connections that say nothing, opened again whenever the server has had enough of them."""
    open_now: list[asyncio.StreamWriter] = []
    try:
        for _ in range(count):
            try:
                open_now.append((await place.open())[1])
            except OSError as error:
                seen.problems.append(f"connection {len(open_now)} was not taken: {error}")
                break
        seen.answers["idle connections opened"] = len(open_now)
        await stop.wait()
    finally:
        for writer in open_now:
            writer.close()


async def dribble(place: Place, stop: asyncio.Event) -> None:
    """A head that never ends, a byte at a time."""
    while not stop.is_set():
        try:
            _, writer = await place.open()
            writer.write(f"GET {BASES[0]}/requests HTTP/1.1\r\nx: ".encode())
            while not stop.is_set():
                writer.write(b"y")
                await writer.drain()
                await asyncio.sleep(0.05)
        except OSError:
            continue


async def again_and_again(stop: asyncio.Event, pause_s: float, attack) -> None:
    while not stop.is_set():
        await attack()
        await asyncio.sleep(pause_s)


async def endless_head(place: Place, seen: Seen) -> None:
    status = await place.ask(b"GET / HTTP/1.1\r\nhost: abuse\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n")
    # None: the server closed while we were still sending.
    seen.expect("a head of a megabyte", status, {431, None})
    many = "".join(f"x{number}: y\r\n" for number in range(5_000))
    status = await place.ask(f"GET / HTTP/1.1\r\nhost: abuse\r\n{many}\r\n".encode())
    seen.expect("five thousand headers", status, {431, None})


async def garbage(place: Place, seen: Seen) -> None:
    status = await place.ask(b"GET /healthz HTTP/1.1\r\nhost: abuse\r\n\r\n" + bytes(range(256)) * 400)
    seen.expect("garbage behind a request", status, {200, None})
    seen.expect("garbage", await place.ask(b"\x16\x03\x01\x02\x00" * 2_000), {400, 431, None})
    both = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /"
    seen.expect("two lengths", await place.ask(both), {400, 404, 405, None})


async def wrong_key(place: Place, seen: Seen, number: list[int]) -> None:
    number[0] += 1
    seen.expect("a wrong key", await place.ask(request("GET", "/requests", f"kinora-wrong-{number[0]}")), {401})


def png_bomb() -> bytes:
    """A real PNG whose pixels unpack to gigabytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(BOMB_SIDE_PX * 3 + 1)) for _ in range(2_000)) + pack.flush()
    head = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_bomb() -> bytes:
    """A JPEG that claims the largest size its format can say."""
    body = bytearray(drawn())
    at = body.index(b"\xff\xc0") + 5
    body[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(body)


def text_bomb() -> bytes:
    """A small PNG with a compressed text and a colour profile of hundreds of megabytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pack = zlib.compressobj(9)
    zeros = b"".join(pack.compress(bytes(1 << 20)) for _ in range(300)) + pack.flush()
    png = drawn(kind="PNG")
    behind_header = 8 + 25
    extra = chunk(b"zTXt", b"Comment\0\0" + zeros) + chunk(b"iCCP", b"profile\0\0" + zeros)
    return png[:behind_header] + extra + png[behind_header:]


async def bombs(place: Place, key: str, seen: Seen, pictures: dict[str, tuple[bytes, set[int | None]]]) -> None:
    for name, (picture, allowed) in pictures.items():
        body = b'{"model":"Kling-Image2Video-V2.1-Standard","payload":{"image":"%s"}}' % raw_base64(picture).encode()
        seen.expect(name, await place.ask(request("POST", "/requests", key, body)), allowed)


async def honest(client: Client, stop: asyncio.Event, seen: Seen) -> None:
    """Submits, polls and cancels like anybody; each call must be answered as if nobody else were there."""
    shade = 0
    while not stop.is_set():
        began = time.monotonic()
        shade = (shade + 1) % 200
        payload = {"image": raw_base64(drawn(shade=shade)), "prompt": "honest"}
        submitted = await asyncio.to_thread(client.submit, payload)
        seen.expect("an honest submit", submitted.status_code, {200})
        if submitted.status_code == 200:
            path = f"/requests/{submitted.json()['request_id']}"
            seen.expect("an honest poll", (await asyncio.to_thread(client.call, "GET", path)).status_code, {200})
            seen.expect("an honest cancel", (await asyncio.to_thread(client.call, "DELETE", path)).status_code, {200})
        took_s = time.monotonic() - began
        seen.honest_slowest_s = max(seen.honest_slowest_s, took_s)
        if took_s > HONEST_LIMIT_S:
            seen.problems.append(f"an honest caller waited {took_s:.1f} s")
        await asyncio.sleep(0.05)


async def watch_memory(pid: int, stop: asyncio.Event, seen: Seen) -> None:
    status = Path(f"/proc/{pid}/status")
    while not stop.is_set() and status.exists():
        kib = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        seen.memory_peak_mb = max(seen.memory_peak_mb, kib * 1024 / 1e6)
        await asyncio.sleep(0.2)
    if seen.memory_peak_mb > MEMORY_LIMIT_MB:
        seen.problems.append(f"the server took {seen.memory_peak_mb:.0f} MB, over {MEMORY_LIMIT_MB}")


async def attack(server: Server, key: str, options: argparse.Namespace, seen: Seen) -> None:
    place, stop, number = Place(server.url), asyncio.Event(), [0]
    pictures: dict[str, tuple[bytes, set[int | None]]] = {
        "a PNG of gigabytes": (png_bomb(), {400}),
        "a JPEG of gigabytes": (jpeg_bomb(), {400}),
        # The picture itself is sound; what is wrapped around it is thrown away.
        "a PNG with a text and a profile of gigabytes": (text_bomb(), {200, 400}),
    }
    async with asyncio.TaskGroup() as callers:
        callers.create_task(idle(place, options.idle, stop, seen))
        for _ in range(50):
            callers.create_task(dribble(place, stop))
        callers.create_task(again_and_again(stop, 0.1, lambda: endless_head(place, seen)))
        callers.create_task(again_and_again(stop, 0.1, lambda: garbage(place, seen)))
        for _ in range(WRONG_KEY_CALLERS):
            wait_s = WRONG_KEY_CALLERS / options.wrong_keys
            callers.create_task(again_and_again(stop, wait_s, lambda: wrong_key(place, seen, number)))
        callers.create_task(again_and_again(stop, 0.5, lambda: bombs(place, key, seen, pictures)))
        callers.create_task(honest(Client(server.url, key), stop, seen))
        callers.create_task(watch_memory(server.process.pid, stop, seen))
        await asyncio.sleep(options.seconds)
        stop.set()


def raise_descriptors(wanted: int) -> int:
    """How many descriptors this process, and the server it starts, may open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15, help="how long the attack lasts")
    parser.add_argument("--idle", type=int, default=10_000, help="connections that say nothing")
    parser.add_argument("--wrong-keys", type=int, default=1_000, help="wrong keys tried per second")
    return parser.parse_args()


def main() -> int:
    options, seen = arguments(), Seen()
    allowed = raise_descriptors(options.idle + DESCRIPTORS_RESERVED)
    if allowed < options.idle + DESCRIPTORS_RESERVED:
        options.idle = max(allowed - DESCRIPTORS_RESERVED, 100)
        print(f"this system allows {allowed} descriptors: only {options.idle} idle connections")
    with tempfile.TemporaryDirectory(prefix="kinora-abuse-") as folder:
        data_dir = Path(folder)
        key = create_key(data_dir, "honest")
        with Server(data_dir, ("--no-worker", "--log", "error")) as server:
            began = time.monotonic()
            asyncio.run(attack(server, key, options, seen))
            took_s = time.monotonic() - began
            if server.process.poll() is not None:
                seen.problems.append(f"the server ended:\n{server.log}")
    for name, count in sorted(seen.answers.items()):
        print(f"{count:8} {name}")
    if not seen.answers["an honest submit: 200"]:
        seen.problems.append("nobody honest was served")
    print(f"slowest honest submit, poll and cancel {seen.honest_slowest_s:.2f} s, memory {seen.memory_peak_mb:.0f} MB")
    for problem, count in Counter(seen.problems).items():
        print(f"PROBLEM ({count} times) {problem}", file=sys.stderr)
    print(f"{len(seen.problems)} problems in {took_s:.0f} s")
    return 1 if seen.problems else 0


if __name__ == "__main__":
    sys.exit(main())
