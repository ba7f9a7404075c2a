"""A stand-in for `workspace.desk.DataDesk`: rows in memory, answers that are given to it, tasks that end when told to.

In: entries, their rows, what is kept. Out: the desk's answers, and what it was asked, in `asked`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.core.errors import ConfigError, StudioError
from studio.workspace.desk import Task
from studio.workspace.registration import DatasetEntry


def entry(name: str = "mine", **fields: Any) -> DatasetEntry:
    """A dataset of the messages layout."""
    return DatasetEntry(name, fields.pop("title", name.title()), Path(f"/nowhere/{name}.jsonl"), **fields)


def line(position: int, row: Any, **fields: Any) -> dict[str, Any]:
    """A row as the data worker answers it."""
    plain = {"number": position + 1, "where": position + 1, "file": "", "part": 0, "cut": False}
    return {"position": position, "row": row, "problem": "", "kind": "", **plain, **fields}


def chat(asked: str, said: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


@dataclass
class FakeDesk:
    """`kept[op]` is the answer that `last` finds, `found[path]` the positions that a list of rows holds."""

    datasets: dict[str, DatasetEntry] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    found: dict[str, list[int]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    on_hub: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    begun: list[Task] = field(default_factory=list)

    def keep(self, added: DatasetEntry, rows: list[Any]) -> DatasetEntry:
        self.datasets[added.name] = added
        self.rows[added.name] = [line(place, row) for place, row in enumerate(rows)]
        return added

    def entries(self) -> list[DatasetEntry]:
        return list(self.datasets.values())

    def page(self, name: str, start: int, size: int, positions: str | None = None) -> dict[str, Any]:
        lines = self.rows[name]
        if positions is not None:
            lines = [lines[position] for position in self.found[positions]]
        return {"lines": lines[start : start + size], "start": start, "total": len(lines), "indexed": True}

    def row(self, name: str, position: int) -> dict[str, Any]:
        if position >= len(self.rows[name]):
            raise StudioError(f"There is no row {position}.")
        return self.rows[name][position]

    def columns(self, name: str) -> dict[str, Any]:
        return {"columns": ["messages"], "sample": [], "format": "messages", "question": None, "fitting": ["messages"]}

    def hub(self, id: str, config: str | None = None, split: str | None = None) -> dict[str, Any]:
        self.asked.append(("hub", id, config, split))
        return self.on_hub

    def trained(self, name: str, position: int, model: str, max_length: int, **section: Any) -> dict[str, Any]:
        self.asked.append(("trained", name, position, model, max_length))
        if isinstance(self.told.get("trained"), Exception):
            raise self.told["trained"]
        return dict(self.told["trained"])

    def last(self, op: str, name: str, **fields: Any) -> dict[str, Any] | None:
        self.asked.append(("last", op, name, fields))
        return self.kept.get(op)

    def begin(self, op: str, name: str, **fields: Any) -> Task:
        self.asked.append(("begin", op, name, fields))
        self.begun.append(Task(len(self.begun) + 1, op, name, fields))
        return self.begun[-1]

    def task(self, id: int) -> Task:
        if not 0 < id <= len(self.begun):
            raise StudioError("That task is over.", "Start it again.")
        return self.begun[id - 1]

    def tasks(self, name: str) -> list[Task]:
        return [task for task in self.begun if task.name == name]

    def add(self, source: str, **fields: Any) -> list[DatasetEntry]:
        held = Path(source).read_bytes() if Path(source).is_file() else b""
        self.asked.append(("add", Path(source).name, held, fields))
        if "refused" in source:
            raise StudioError("It is refused.", "Give another.")
        return [self.keep(entry(Path(source).stem), [])]

    def mix(self, title: str, parts: list[tuple[str, float | None]], stopping: str) -> DatasetEntry:
        self.asked.append(("mix", title, parts, stopping))
        return self.keep(entry("mix", title=title), [])

    def change(self, name: str, **fields: Any) -> DatasetEntry:
        self.asked.append(("change", name, fields))
        self.datasets[name] = dataclasses.replace(self.datasets[name], **fields)
        return self.datasets[name]

    def remove(self, name: str) -> None:
        if self.datasets[name].bundled:
            raise ConfigError("", "shipped datasets can't be removed.")
        del self.datasets[name]


@dataclass
class FakeStudio:
    """What the routes of the Data tab need of a `Studio`."""

    desk: FakeDesk
    home: Path
