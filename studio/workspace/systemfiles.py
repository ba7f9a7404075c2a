"""Files in which the system tells about itself, such as /proc/cpuinfo.

In: a path. Out: its lines, its number; nothing where it isn't there or may not be read. Knows no file's meaning.
"""

from __future__ import annotations

from pathlib import Path


def lines(path: Path) -> list[str]:
    """A system file's lines, none where it isn't there or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return []


def number(words: list[str]) -> int | None:
    return int(words[0]) if words and words[0].strip().isdecimal() else None
