"""How much memory this process may use: the machine's, or less where a control group limits it.

In: where /proc and /sys begin. Out: bytes, None where the system doesn't say; and who holds the most. Knows no cards.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil

from studio.workspace.systemfiles import lines, number

_UNTOLD = (psutil.Error, OSError, RuntimeError, ValueError, LookupError)


def ram(root: Path) -> tuple[int | None, int | None, int | None]:
    """Total, used and available bytes for this process; used is all that isn't available."""
    try:
        memory = psutil.virtual_memory()
    except _UNTOLD:
        return None, None, None
    group = _cgroup_memory(root)
    if group is None or group.limit >= memory.total:
        return memory.total, memory.total - memory.available, memory.available
    # The host may have less left than the group is allowed.
    return group.limit, group.limit - group.available, min(group.available, memory.available)


class Holder(NamedTuple):
    """A process, and the bytes of RAM that it holds (its resident set)."""

    pid: int
    name: str
    memory_bytes: int


def holders(most: int) -> tuple[Holder, ...]:
    """The processes that can be seen from here and hold the most RAM; a look at all of them takes some milliseconds."""
    found = []
    try:
        for process in psutil.process_iter(["name", "memory_info"]):
            memory = process.info["memory_info"]
            if memory is not None and memory.rss > 0:
                found.append(Holder(process.pid, process.info["name"] or "unknown", int(memory.rss)))
    except _UNTOLD:
        pass  # a system that hides its processes: those seen so far
    return tuple(sorted(found, key=lambda holder: -holder.memory_bytes)[:most])


class _GroupMemory(NamedTuple):
    limit: int  # bytes
    available: int  # bytes


class _GroupFiles(NamedTuple):
    """What the kernel calls a group's memory files; cache that it would give up at once doesn't count as used."""

    limit: str
    used: str
    reclaimable: str


_GROUP_V1 = _GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_GROUP_V2 = _GroupFiles("memory.max", "memory.current", "inactive_file")


def _cgroup_memory(root: Path) -> _GroupMemory | None:
    """The tightest memory limit among the control groups around this process, and the least that is left in one."""
    groups = [
        _GroupMemory(limit, max(0, limit - used))
        for files, folders in ((_GROUP_V1, _group_folders(root, v2=False)), (_GROUP_V2, _group_folders(root, v2=True)))
        for folder in folders
        for limit, used in [_group_figures(folder, files)]
        if limit is not None
    ]
    if not groups:
        return None
    return _GroupMemory(min(group.limit for group in groups), min(group.available for group in groups))


def _group_figures(folder: Path, files: _GroupFiles) -> tuple[int | None, int]:
    """A group's limit (None without one, written "max" in version 2) and what it uses, in bytes."""
    limit, used = number(lines(folder / files.limit)), number(lines(folder / files.used)) or 0
    counts = dict(line.partition(" ")[::2] for line in lines(folder / "memory.stat"))
    return limit, max(0, used - (number([counts.get(files.reclaimable, "")]) or 0))


def _group_folders(root: Path, v2: bool) -> list[Path]:
    """The folders of this process's memory group and of all around it, as far as they can be seen from here."""
    member = None
    for line in lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and not controllers) if v2 else "memory" in controllers.split(","):
            member = path
    if member is None:
        return []
    for line in lines(root / "proc/self/mountinfo"):
        place, _, kind = line.partition(" - ")
        where, what = place.split(), kind.split()
        if len(where) < 5 or not what:
            continue
        if what[0] == "cgroup2" if v2 else what[0] == "cgroup" and "memory" in what[-1].split(","):
            mount = root / where[4].replace("\\040", " ").lstrip("/")
            try:
                inside = PurePosixPath(member).relative_to(where[3])
            except ValueError:  # a container that sees its own group alone, and the host's name for it
                inside = PurePosixPath()
            parts = () if ".." in inside.parts else inside.parts
            return [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return []
