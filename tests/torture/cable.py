"""A network of its own for one process, on a cable that can be pulled: a network namespace and a veth pair.

Pulled, every packet is lost in silence, as between machines: nobody is told, connections stay open, and what is sent
then arrives late or never. The namespace lives as long as the process that holds it, which dies with this program,
however that ends, and takes the pair with it.
"""

from __future__ import annotations

import os
import subprocess
import time

START_LIMIT_S = 5
# For tests between networks, where nothing else is (RFC 2544).
NETWORK = "198.18"


class Cable:
    """The address `here` is ours, as seen from inside; `inside` begins a command that runs there."""

    def __init__(self) -> None:
        number = os.getpid() % (1 << 14)
        place = f"{NETWORK}.{number >> 6}.{(number & 63) << 2}".rpartition(".")
        self.here, there = (f"{place[0]}.{int(place[2]) + end}" for end in (1, 2))
        self.outer, inner = f"kt{os.getpid()}a", f"kt{os.getpid()}b"
        # Its own death is tied to ours, and the namespace's to its own.
        self.holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
        self.inside = ["nsenter", "--net", "--target", str(self.holder.pid)]
        try:
            self._await_namespace()
            ip("link", "add", self.outer, "type", "veth", "peer", "name", inner, "netns", str(self.holder.pid))
            ip("address", "add", f"{self.here}/30", "dev", self.outer)
            ip("link", "set", self.outer, "up")
            ip("address", "add", f"{there}/30", "dev", inner, inside=self.inside)
            ip("link", "set", inner, "up", inside=self.inside)
            ip("link", "set", "lo", "up", inside=self.inside)
        except (OSError, subprocess.SubprocessError, TimeoutError):
            self.remove()
            raise

    def _await_namespace(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while self._namespace() in (None, os.readlink("/proc/self/ns/net")):
            if self.holder.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("it is not permitted here")
            time.sleep(0.02)

    def _namespace(self) -> str | None:
        try:
            return os.readlink(f"/proc/{self.holder.pid}/ns/net")
        except OSError:
            # One that was refused has ended.
            return None

    def pull(self) -> None:
        ip("link", "set", self.outer, "down")

    def plug(self) -> None:
        ip("link", "set", self.outer, "up")

    def remove(self) -> None:
        self.holder.kill()
        self.holder.wait()


def ip(*arguments: str, inside: list[str] | None = None) -> None:
    subprocess.run([*(inside or []), "ip", *arguments], check=True, capture_output=True, text=True, timeout=10)


def cable() -> Cable | str:
    """A cable, or why there is none here."""
    try:
        return Cable()
    except (OSError, subprocess.SubprocessError, TimeoutError) as error:
        return f"no network namespace: {getattr(error, 'stderr', None) or error}".strip()
