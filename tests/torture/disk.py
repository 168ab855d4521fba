"""A disk that loses its power, rebuilt from what a program was seen to ask of the system.

`strace` writes every call that changes a file, with its bytes, into one log in the order in which they happened.
Replayed up to any line, the log says what each file and folder held for good, and what was still on its way. The rules
are those that POSIX promises, which are harder than what a Linux file system does:

- What a file holds survives once fsync or fdatasync on it has returned: what was written before that call began.
- A name in a folder (new, renamed, removed) survives once fsync on that folder has returned, and only then: syncing the
  file keeps its bytes, not its name. A rename between folders is two names, which survive or not each by itself.
- Anything else may survive or not, in any combination: each 512 bytes of a write by themselves, each name by itself.
- A killed program loses nothing: its files stay in the system's memory, to which the next one adds.

Not known to it: memory-mapped writes (SQLite's `-shm`, which SQLite makes anew after a crash), and disks that lie.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512
SYNCS = frozenset({"fsync", "fdatasync"})
WRITES = frozenset({"write", "pwrite64", "writev", "pwritev"})
CALLS = (
    *("openat", "read", "lseek", *WRITES, "ftruncate", *SYNCS, "rename", "renameat", "renameat2"),
    *("unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "sendto", "sendmsg"),
)
# Seen in order to be refused: nothing here says what they do.
UNKNOWN = ("open", "creat", "truncate", "fallocate", "link", "linkat", "copy_file_range", "splice", "io_uring_setup")
# With every text in hexadecimal, nothing inside one is mistaken for syntax.
STRACE = ["strace", "-f", "-A", "--seccomp-bpf", "-y", "-xx", "-s", str(1 << 22)]
STRACE += ["-e", f"trace={','.join((*CALLS, *UNKNOWN))}"]
LINE = re.compile(r"(\d+) +(<\.\.\. \w+ resumed>)?(.*?)( <unfinished \.\.\.>)?\n")
CALL = re.compile(r"(\w+)\((.*)\)\s+= (\d+)")
TEXT = re.compile(r'"([\\x0-9a-f]*)"')
PATH = re.compile(r"((?:\\x[0-9a-f]{2})+)")
# A descriptor and what it stands for: a path, or the kind of what has none.
DESCRIPTOR = re.compile(r"(\w+)<([^>]*)>(\(deleted\))?")


def plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Call:
    """A call that succeeded: the lines of the log at which it began and ended, what it asked, what it was answered."""

    began: int
    ended: int
    name: str
    arguments: str
    result: int

    @property
    def data(self) -> bytes:
        return b"".join(plain(text) for text in TEXT.findall(self.arguments))

    @property
    def descriptor(self) -> str:
        return self.arguments.split("<", 1)[0]

    @property
    def file(self) -> str | None:
        """Where the file lies that it works on; none for a socket, or a file without a name."""
        found = DESCRIPTOR.match(self.arguments)
        return plain(found[2]).decode() if found and not found[3] and found[2].startswith("\\x2f") else None

    @property
    def paths(self) -> list[str]:
        """The paths that it names, one or two."""
        names = [plain(text).decode() for text in TEXT.findall(self.arguments)]
        folders = [plain(found[1]).decode() for found in DESCRIPTOR.findall(self.arguments)] or [""] * len(names)
        return [os.path.join(*pair) for pair in zip(folders, names, strict=True)]

    @property
    def last_number(self) -> int:
        return int(self.arguments.rsplit(", ", 1)[1])


def calls_in(log: Path) -> list[Call]:
    """Every call that succeeded, by its beginning."""
    calls: list[Call] = []
    begun: dict[str, tuple[int, str]] = {}
    with log.open() as lines:
        for number, line in enumerate(lines):
            process, resumed, text, unfinished = LINE.fullmatch(line).groups()
            began, text = (begun[process][0], begun.pop(process)[1] + text) if resumed else (number, text)
            if unfinished:
                begun[process] = (began, text)
            elif found := CALL.match(text):
                calls.append(Call(began, number, found[1], found[2], int(found[3])))
    return sorted(calls, key=lambda call: call.began)


def change(kept: bytearray | dict, place: int | str, what: bytes | Node | None) -> None:
    """Of a file: bytes at an offset, or none and a new size. Of a folder: a name, and what has it now, if anything."""
    if isinstance(kept, dict):
        kept.pop(place, None)
        if what is not None:
            kept[place] = what
        return
    end = place if what is None else place + len(what)
    kept.extend(bytes(max(0, end - len(kept))))
    if what is None:
        del kept[end:]
    else:
        kept[place:end] = what


@dataclass(eq=False)
class Node:
    """A file or a folder: what survives for certain, and the changes since, of which nobody knows."""

    kept: bytearray | dict[str, Node]
    since: list[tuple] = field(default_factory=list)
    kept_count: int = 0

    @property
    def changes_count(self) -> int:
        return self.kept_count + len(self.since)

    def sync(self, until: int) -> None:
        """Keeps all changes but those that came after the first `until`."""
        count = max(0, until - self.kept_count)
        for done in self.since[:count]:
            change(self.kept, *done)
        del self.since[:count]
        self.kept_count += count

    def left(self, survives: Callable[[], bool]) -> bytearray | dict[str, Node]:
        """What it holds afterwards."""
        left = self.kept.copy()
        for place, what in self.since:
            if not isinstance(what, bytes):
                if survives():
                    change(left, place, what)
                continue
            start = place
            while start < place + len(what):
                end = min(start - start % SECTOR_BYTES + SECTOR_BYTES, place + len(what))
                if survives():
                    change(left, start, what[start - place : end - place])
                start = end
        return left


class Disk:
    """Everything below one folder, which was there and empty before the log begins."""

    def __init__(self, root: Path, ignored: Callable[[str], bool] = lambda path: False) -> None:
        self.root, self.ignored = Node({}), ignored
        self.nodes = {str(root): self.root}
        self.prefix = f"{root}/"
        # Where each descriptor reads and writes next.
        self.offsets: dict[str, int] = {}

    def begin(self, call: Call) -> tuple[Node, int] | None:
        """What a call that syncs will keep: no change that is made while it lasts."""
        node = self.nodes.get(call.file or "") if call.name in SYNCS else None
        return None if node is None or self.ignored(call.file) else (node, node.changes_count)

    def end(self, call: Call, sync: tuple[Node, int] | None) -> None:
        if sync:
            sync[0].sync(sync[1])
        elif call.name in ("openat", "mkdir", "mkdirat"):
            self._open(call, call.paths[0])
        elif call.name in ("rename", "renameat", "renameat2"):
            self._rename(*call.paths)
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            self._name(call.paths[0], None)
        elif call.name in UNKNOWN:
            names = [plain(text).decode(errors="replace") for text in PATH.findall(call.arguments)]
            if any(name.startswith(self.prefix) for name in names):
                raise NotImplementedError(f"a file was changed by {call.name}, which this disk does not know")
        elif call.name not in ("sendto", "sendmsg", *SYNCS):
            self._use(call)

    def _open(self, call: Call, path: str) -> None:
        made = {"mkdir": {}, "mkdirat": {}}.get(call.name, bytearray() if "O_CREAT" in call.arguments else None)
        if path not in self.nodes and made is not None:
            self._name(path, Node(made))
        elif "O_TRUNC" in call.arguments and path in self.nodes:
            self.nodes[path].since.append((0, None))
        if call.name == "openat":
            self.offsets[str(call.result)] = 0

    def _rename(self, old: str, new: str) -> None:
        node = self.nodes.get(old)
        if node:
            self._name(old, None)
            self._name(new, node)

    def _name(self, path: str, node: Node | None) -> None:
        if not path.startswith(self.prefix):
            return
        folder, name = os.path.split(path)
        self.nodes[folder].since.append((name, node))
        self.nodes.pop(path, None)
        if node:
            self.nodes[path] = node

    def _use(self, call: Call) -> None:
        """What reads, writes, resizes, or moves to another place in a file."""
        node, descriptor = self.nodes.get(call.file or ""), call.descriptor
        if node is None:
            return
        if call.name == "lseek":
            self.offsets[descriptor] = call.result
        elif call.name == "ftruncate":
            node.since.append((call.last_number, None))
        elif call.name in ("read", "write", "writev"):
            offset = self.offsets[descriptor]
            self.offsets[descriptor] = offset + call.result
            if call.name != "read":
                node.since.append((offset, call.data[: call.result]))
        else:
            node.since.append((call.last_number, call.data[: call.result]))

    def build(self, folder: Path, survives: Callable[[], bool], node: Node | None = None) -> None:
        """Writes what is left into a folder that is not there yet."""
        folder.mkdir()
        for name, child in (node or self.root).left(survives).items():
            if isinstance(child.kept, dict):
                self.build(folder / name, survives, child)
            else:
                (folder / name).write_bytes(child.left(survives))


def replay(calls: Iterable[Call], disk: Disk, cuts: Iterable[int]) -> Iterable[int]:
    """Brings the disk to each line of the log in turn, in ascending order, and stops there for whoever looks."""
    ends = [(line, is_end, call) for call in calls for is_end, line in enumerate((call.began, call.ended))]
    steps = sorted(ends, key=lambda step: step[:2])
    under_way: dict[int, tuple[Node, int] | None] = {}
    place = 0
    for cut in cuts:
        while place < len(steps) and steps[place][0] < cut:
            _, is_end, call = steps[place]
            if is_end:
                disk.end(call, under_way.pop(id(call)))
            else:
                under_way[id(call)] = disk.begin(call)
            place += 1
        yield cut
