"""Rows that fit what a person looks for.

In: a text, a role, lengths, a language or script, a kind of problem. Out: the positions of the rows, in a file in the
cache. Streams over the rows; most that don't fit are passed over by their bytes, without being parsed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.rows import Line
from studio.worker.data.cache import key_of
from studio.worker.data.pages import Part, read_positions, source_of
from studio.worker.data.source import Source

_ROLE_KEYS = ("role", "from")
_TELL_EVERY = 2000
_FIELDS = ("text", "role", "shorter", "longer", "language", "kind", "findings")


@dataclass(frozen=True)
class Wanted:
    """What a row must have; None and "" ask nothing. Lengths are in characters of the row's text, both included."""

    text: str = ""
    role: str = ""
    shorter: int | None = None
    longer: int | None = None
    language: str = ""

    @property
    def anything(self) -> bool:
        """Whether every row fits."""
        return self == Wanted()

    def fits(self, line: Line) -> bool:
        if line.problem:
            return self.anything
        if self.role and self.role.lower() not in roles_of(line.row):
            return False
        text = text_of(line.row)
        if self.shorter is not None and len(text) > self.shorter:
            return False
        if self.longer is not None and len(text) < self.longer:
            return False
        if self.text and self.text.lower() not in text.lower():
            return False
        return not self.language or _is_in(text, self.language)

    def passing(self) -> Callable[[bytes], bool] | None:
        """What can be said of a row by its bytes alone: False where it can't hold the text. None: nothing can."""
        text = self.text.lower()
        # JSON may spell these in another way, and so it may any character by \\u.
        if not text.isascii() or not text.isprintable() or set(text) & set('"\\/') or not text:
            return None
        needle = text.encode()
        # The Kelvin sign and the dotted I become ASCII letters when they are made small.
        odd = [character.encode() for character, plain in (("\u212a", "k"), ("\u0130", "i")) if plain in text]
        return lambda raw: needle in raw.lower() or b"\\u" in raw or any(letter in raw for letter in odd)


def search_op(request: dict[str, Any], part: Part) -> dict[str, Any]:
    """The positions of all rows that fit: how many there are, and the file they are kept in."""
    source = source_of(request["dataset"])
    target = source.cache / "search" / f"{key_of([request.get(name) for name in _FIELDS])}.npy"
    if target.exists():
        return {"count": len(read_positions(str(target))), "positions": str(target), "complete": True}
    wanted = Wanted(
        str(request.get("text") or "").strip(),
        str(request.get("role") or ""),
        _number(request.get("shorter")),
        _number(request.get("longer")),
        str(request.get("language") or ""),
    )
    among = None
    if request.get("kind") and request.get("findings"):
        path = Path(request["findings"]) / f"{Path(request['kind']).name}.npy"
        among = read_positions(str(path)) if path.exists() else np.empty(0, np.uint64)

    def tell(done: int, total: int | None) -> None:
        part({"text": "Searching", "done": done, "total": total})

    found = np.fromiter(_search(source, wanted, among, tell), np.uint64)
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f"{target.name}.{os.getpid()}.part")
    with half.open("wb") as file:
        np.save(file, found)
    half.replace(target)
    return {"count": len(found), "positions": str(target), "complete": True}


def _search(source: Source, wanted: Wanted, among: Any, tell: Callable[[int, int | None], None]) -> Iterator[int]:
    if among is not None:
        positions = [int(position) for position in among]
        if wanted.anything:
            yield from positions
            return
        for done, line in enumerate(source.rows(positions)):
            if done % _TELL_EVERY == 0:
                tell(done, len(positions))
            if wanted.fits(line):
                yield line.position
        return
    total = source.total
    for done, found in enumerate(source.scan(0, wanted.passing())):
        if done % _TELL_EVERY == 0:
            tell(done, total)
        if found is not None and wanted.fits(found):
            yield found.position


def text_of(row: Any) -> str:
    """Every text in a row, in its order, a line each; names of roles are not its text."""
    if isinstance(row, str):
        return row
    found: list[str] = []
    waiting: list[Any] = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            inner = [entry for key, entry in value.items() if not (key in _ROLE_KEYS and isinstance(entry, str))]
            waiting.extend(reversed(inner))
        elif isinstance(value, (list, tuple)):
            waiting.extend(reversed(value))
    return "\n".join(found)


def roles_of(row: Any) -> set[str]:
    """The roles that a row's messages are by, in small letters."""
    found: set[str] = set()
    waiting: list[Any] = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found |= {str(value[key]).lower() for key in _ROLE_KEYS if isinstance(value.get(key), str)}
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
    return found


def _is_in(text: str, language: str) -> bool:
    from studio.worker.data.languages import language_of, main_script

    return language.lower() in (main_script(text).lower(), language_of(text).lower())


def _number(value: Any) -> int | None:
    return None if value in (None, "") else int(value)
