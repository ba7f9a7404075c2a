"""One registered dataset, and the dataset.yaml it is kept in.

In: a registration's folder. Out: a DatasetEntry, and back. Reads no rows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from studio.core.config import MixPart
from studio.core.configfile import read_yaml, to_yaml
from studio.core.errors import ConfigError
from studio.core.job import write_text
from studio.core.rows import TEXT_SUFFIXES
from studio.workspace.home import is_slug

_MOST_FILES = 10_000  # that are looked for in a folder
SUFFIXES = TEXT_SUFFIXES | {".parquet", ".arrow"}


@dataclass(frozen=True)
class DatasetEntry:
    """A registered dataset, or a file, folder or hub id that was named instead of one.

    `source` is what the person named; `path` the file or folder of rows. `exclude`, `exclude_rows` and `knobs` (of the
    config's dataset section) are what runs on it begin with. `manner` tells how taught answers look, `pattern` checks
    it. `rows` and `sha256` are known once the rows have been counted, and only as long as the files stay as they were.
    """

    name: str
    title: str
    path: Path = Path()
    kind: str = "files"
    source: str = ""
    description: str = ""
    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    limit: int | None = None
    parts: tuple[MixPart, ...] = ()
    stopping: str = "concatenate"
    exclude: tuple[str, ...] = ()
    exclude_rows: tuple[int, ...] = ()
    knobs: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    bundled: bool = False
    heldout: Path | None = None
    manner: str = ""
    pattern: str | None = None
    folder: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files at `path`, as far as they can be seen at once."""
        if self.kind != "files":
            return []
        if self.path.is_dir():
            return sorted(islice(_rows_within(self.path), _MOST_FILES))
        return [self.path] if self.path.is_file() else []

    @property
    def bytes(self) -> int:
        total = 0
        for file in self.files:
            with contextlib.suppress(OSError):  # gone since, or a link to nowhere
                total += file.stat().st_size
        return total

    @property
    def there(self) -> bool:
        """Whether the rows are still where they were. Of a hub's and a mix's nothing is known here."""
        return self.kind != "files" or self.path.exists()

    @property
    def rows(self) -> int | None:
        return self._facts().get("rows")

    @property
    def sha256(self) -> str | None:
        return self._facts().get("sha256")

    def _facts(self) -> dict[str, Any]:
        if self.folder is None:
            return {}
        with contextlib.suppress(ConfigError, OSError):
            facts = read_yaml(self.folder / "dataset.yaml").get("content") or {}
            if isinstance(facts, dict) and facts.get("state") == state_of(self):
                return facts
        return {}


def _rows_within(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):  # passes over folders that may not be read
        yield from (path for name in names if holds_rows(path := Path(place, name)))


def holds_rows(path: Path) -> bool:
    """Whether a file is of a kind that is read: by its suffix, behind .gz or .zst too."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        return len(suffixes) > 1 and suffixes[-2] in TEXT_SUFFIXES
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def state_of(entry: DatasetEntry) -> str:
    """What changes when the rows do, without reading them: sizes and times of the files, or the hub's revision."""
    if entry.kind != "files":
        return f"{entry.kind} {entry.revision}"
    stats = []
    for file in entry.files:
        with contextlib.suppress(OSError):
            stats.append(file.stat())
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a registration."""
    return is_slug(folder.name) and (folder / "dataset.yaml").is_file()


def read_entry(folder: Path, is_bundled: bool) -> DatasetEntry:
    """Raises ConfigError where the registration is damaged."""
    about = read_yaml(folder / "dataset.yaml")
    manner, heldout = about.get("manner") or {}, about.get("heldout")
    maps = {key: about.get(key) or {} for key in ("columns", "tags", "knobs")}
    lists = {key: about.get(key) or [] for key in ("exclude", "exclude_rows", "parts")}
    broken = [key for key, value in {"manner": manner, **maps}.items() if not isinstance(value, dict)]
    broken += [key for key, value in lists.items() if not isinstance(value, list)]
    kind, source = str(about.get("kind") or "files"), str(about.get("source") or "rows.jsonl")
    try:
        parts = tuple(MixPart(**part) for part in lists["parts"])
    except (TypeError, ValueError):
        broken.append("parts")
    if broken or kind not in ("files", "hub", "mix"):
        raise ConfigError(
            "dataset.path",
            f"{folder / 'dataset.yaml'} is damaged ({', '.join(broken) or 'kind'}).",
            "Remove that folder and add the file again.",
        )
    limit = about.get("limit")
    return DatasetEntry(
        name=folder.name,
        title=str(about.get("title") or folder.name),
        path=folder / source if kind == "files" else Path(),
        kind=kind,
        source=str(about.get("given") or (source if kind == "hub" else "")),
        description=str(about.get("description") or ""),
        format=str(about.get("format") or "auto"),
        columns={str(expected): str(yours) for expected, yours in maps["columns"].items()},
        tags={str(tag): str(yours) for tag, yours in maps["tags"].items()},
        config=about.get("config"),
        split=about.get("split"),
        revision=about.get("revision"),
        limit=limit if isinstance(limit, int) else None,
        parts=parts,
        stopping=str(about.get("stopping") or "concatenate"),
        exclude=tuple(map(str, lists["exclude"])),
        exclude_rows=tuple(row for row in lists["exclude_rows"] if isinstance(row, int)),
        knobs=maps["knobs"],
        licence=str(about.get("licence") or ""),
        bundled=is_bundled,
        heldout=folder / str(heldout) if heldout else None,
        manner=str(manner.get("description") or ""),
        pattern=manner.get("pattern"),
        folder=folder,
    )


def write_entry(entry: DatasetEntry) -> None:
    """Write the entry's dataset.yaml; what was noted of the rows' contents stays."""
    assert entry.folder is not None, "only registered datasets are written"
    inside = entry.path.is_relative_to(entry.folder) if entry.kind == "files" else False
    about: dict[str, Any] = {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "source": str(entry.path.relative_to(entry.folder) if inside else entry.path)
        if entry.kind == "files"
        else entry.source,
        "given": entry.source,
        "description": entry.description,
        "format": entry.format,
        "columns": entry.columns,
        "tags": entry.tags,
        "config": entry.config,
        "split": entry.split,
        "revision": entry.revision,
        "limit": entry.limit,
        "parts": [part.model_dump(exclude_none=True) for part in entry.parts],
        "stopping": entry.stopping if entry.kind == "mix" else None,
        "exclude": list(entry.exclude),
        "exclude_rows": list(entry.exclude_rows),
        "knobs": entry.knobs,
        "licence": entry.licence,
        "heldout": str(entry.heldout) if entry.heldout else None,
        "manner": {"description": entry.manner, "pattern": entry.pattern} if entry.manner else None,
    }
    before = read_yaml(entry.folder / "dataset.yaml") if is_dataset(entry.folder) else {}
    if before.get("content"):
        about["content"] = before["content"]
    kept = {key: value for key, value in about.items() if value not in (None, "", [], {})}
    write_text(entry.folder / "dataset.yaml", to_yaml(kept))
