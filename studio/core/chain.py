"""Runs that build on each other, written before any of them has a name: `run:@1` is the run of the first file.

In: what several files say, and the ids of the runs that were begun. Out: the same, with the runs' ids in it. Knows no
runs and starts none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from studio.core.errors import ConfigError

_LATER = re.compile(r"(^|:)run:@(\d+)$")


def check_chain(files: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigError where a file names the run of one that isn't before it."""
    for number, data in enumerate(files, start=1):
        for path, text in _texts(data, ""):
            found = _LATER.search(text)
            if found and not 1 <= int(found[2]) < number:
                before = f"there are {number - 1} files before it" if number > 1 else "there is no file before it"
                hint = "Give the files in the order in which they build on each other, or name a run: run:<id>."
                raise ConfigError(path, f"{text} stands for the run of file {found[2]}, and {before}.", hint)


def with_runs(data: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """A copy in which run:@N is the N-th of the ids."""

    def named(text: str) -> str:
        return _LATER.sub(lambda found: f"{found[1]}run:{ids[int(found[2]) - 1]}", text)

    return {key: _copied(value, named) for key, value in data.items()}


def _texts(value: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(path, value)]
    if isinstance(value, Mapping):
        return [pair for key, one in value.items() for pair in _texts(one, f"{path}.{key}" if path else str(key))]
    return [pair for one in value for pair in _texts(one, path)] if isinstance(value, list) else []


def _copied(value: Any, named: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return named(value)
    if isinstance(value, Mapping):
        return {key: _copied(one, named) for key, one in value.items()}
    return [_copied(one, named) for one in value] if isinstance(value, list) else value


def refuse_unnamed(field: str, name: str) -> None:
    """Raises ConfigError for a run:@N outside a chain."""
    if found := _LATER.search(name):
        hint = "Name a run: run:<id>; or train the files together: `studio train FIRST.yaml SECOND.yaml`."
        raise ConfigError(field, f"{name} stands for the run of file {found[2]} of several.", hint)
