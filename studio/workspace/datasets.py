"""Registered datasets, and any page of their rows.

In: names, files, uploads. Out: entries for the list, pages of raw rows, a DatasetInput for a run. Files are read by
line offsets (jsonl) or row groups (parquet), so that a page costs the same wherever it lies; what a row means is
core/formats'.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from studio.core.configfile import read_yaml, to_yaml
from studio.core.errors import ConfigError, DataError, StudioError
from studio.core.formats import Format, RowProblem, recognise, to_example
from studio.core.inputs import DatasetInput
from studio.core.job import write_text
from studio.core.rows import TEXT_SUFFIXES, Line, parse_line, read_rows
from studio.workspace.home import bundled, datasets_dir, existing, is_slug, plain_label, slug

SUFFIXES = TEXT_SUFFIXES | {".parquet"}
_FIELD = "dataset.path"


@dataclass(frozen=True)
class DatasetEntry:
    """A registered dataset.

    `path` is its file of rows; `manner` tells how taught answers look, and `pattern` checks it.
    """

    name: str
    title: str
    path: Path
    description: str = ""
    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    bundled: bool = False
    heldout: Path | None = None
    manner: str = ""
    pattern: str | None = None

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0


@dataclass(frozen=True)
class Page:
    """Rows `start` to `start + len(lines)` (from 0) of `total`."""

    lines: list[Line]
    start: int
    total: int


def list_datasets() -> list[DatasetEntry]:
    """Every registered dataset: the user's own, then the shipped ones; damaged registrations are passed over."""
    own = _entries(datasets_dir(), False)
    names = {entry.name for entry in own}
    shipped = _entries(bundled("assets") / "datasets", True)
    return own + [entry for entry in shipped if entry.name not in names]


def get_dataset(name: str) -> DatasetEntry:
    """A registered dataset by name, or a file by path. Raises ConfigError at `dataset.path`."""
    for folder in (datasets_dir() / name, bundled("assets") / "datasets" / name):
        if is_slug(name) and _is_dataset(folder):
            return _entry(folder, folder.parent != datasets_dir())
    path = existing(name)
    if path is not None and path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(_FIELD, f"{path.name} is not a file of rows.", "Give jsonl, json, csv, tsv or parquet.")
        return DatasetEntry(name, path.name, path.absolute())
    if path is not None and path.is_dir():
        raise ConfigError(_FIELD, f"{name} is a folder.", "Give the file of rows in it.")
    names = ", ".join(entry.name for entry in list_datasets())
    raise ConfigError(_FIELD, f"there is no dataset or file {name!r}.", f"Registered are: {names}.")


def resolve_dataset(name: str) -> DatasetInput:
    """What `dataset.path` means here and now. Raises ConfigError."""
    entry = get_dataset(name)
    heldout = str(entry.heldout) if entry.heldout else None
    return DatasetInput(name, str(entry.path), entry.format, entry.columns, heldout, entry.pattern)


def add_dataset(source: Path, title: str = "") -> DatasetEntry:
    """Register a copy of a file under a name made from `title` (or the file's own). The original is not touched.

    Raises DataError where the file holds no row that any known layout fits; then nothing is kept.
    """
    suffix = source.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{source.name} is not a file of rows.", "Give jsonl, json, csv, tsv or parquet.")
    format_name = check_start(source).name
    title = plain_label(title) or plain_label(source.stem)
    folder = _free_folder(slug(title, "dataset"))
    try:
        shutil.copyfile(source, folder / f"rows{suffix}")
        about = {"name": folder.name, "title": title, "source": f"rows{suffix}", "format": format_name}
        write_text(folder / "dataset.yaml", to_yaml(about))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StudioError(f"The dataset can't be kept ({error.strerror}).", "Free some space and try again.") from None
    return _entry(folder, False)


def remove_dataset(name: str) -> None:
    """Forget a registered dataset and its copy of the rows. Shipped ones stay."""
    folder = datasets_dir() / name
    if not is_slug(name) or folder.is_symlink() or not _is_dataset(folder):
        raise ConfigError(_FIELD, f"there is no dataset of yours named {name!r}.", "Shipped datasets can't be removed.")
    grave = folder.with_name(f".removed-{name}")
    shutil.rmtree(grave, ignore_errors=True)
    folder.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)


def check_start(path: Path, format: str = "auto", columns: dict[str, str] | None = None, most: int = 200) -> Format:
    """Look at the first rows: which layout they have, and that at least one of them can be used.

    Raises DataError naming the first problem's line. The whole file is looked at when the run reads it.
    """
    from studio.core.formats import FORMATS

    lines = list(islice(iterate(path), most))
    rows = [line for line in lines if isinstance(line.row, dict)]
    if not rows:
        problem = f" Line {lines[0].number}: {lines[0].problem or 'the row is not an object'}." if lines else ""
        raise DataError(f"{path.name} has 0 usable rows.{problem}", "Give at least one row with named columns.", 1)
    if format != "auto" and format not in FORMATS:
        raise DataError(f"There is no layout {format!r}.", f"There are auto, {', '.join(FORMATS)}.")
    chosen = FORMATS[format] if format != "auto" else recognise(list(rows[0].row), columns)
    problems = []
    for line in rows:
        try:
            to_example(line.row, chosen, columns)
            return chosen
        except RowProblem as problem:
            problems.append((line.number, str(problem)))
    number, text = problems[0]
    raise DataError(
        f"None of the first {len(rows)} rows of {path.name} can be used as {chosen.name}; line {number}: {text}.",
        "Mend the rows, choose another layout (dataset.format) or map its columns (dataset.columns).",
        number,
    )


def iterate(path: Path) -> Any:
    """Every row of a file as `Line`s."""
    return _iterate_parquet(path) if path.suffix.lower() == ".parquet" else read_rows(path)


def read_page(path: Path, start: int = 0, size: int = 20) -> Page:
    """`size` rows from row `start` (from 0)."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_page(path, start, size)
    if suffix in {".jsonl", ".ndjson"}:
        offsets = _offsets(path)
        with path.open("rb") as file:
            lines = []
            for number, offset in offsets[start : start + size]:
                file.seek(offset)
                line = parse_line(number, file.readline())
                if line is not None:
                    lines.append(line)
        return Page(lines, start, len(offsets))
    lines = _whole(path)
    return Page(lines[start : start + size], start, len(lines))


class _Offsets:
    """Line numbers and byte offsets of the non-blank lines of a file, 16 bytes a row."""

    def __init__(self, path: Path) -> None:
        self.numbers, self.offsets = array("Q"), array("Q")
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self.numbers.append(number)
                    self.offsets.append(offset)
                offset += len(line)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, part: slice) -> list[tuple[int, int]]:
        return list(zip(self.numbers[part], self.offsets[part], strict=True))


_cache: dict[tuple[str, int, int], Any] = {}
_cache_lock = threading.Lock()


def _cached(path: Path, make: Any) -> Any:
    """What `make(path)` gave for this very state of the file; the last few files are remembered."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    with _cache_lock:
        if key not in _cache:
            while len(_cache) >= 4:
                _cache.pop(next(iter(_cache)))
            _cache[key] = make(path)
        return _cache[key]


def _offsets(path: Path) -> _Offsets:
    found: _Offsets = _cached(path, _Offsets)
    return found


def _whole(path: Path) -> list[Line]:
    rows: list[Line] = _cached(path, lambda p: list(read_rows(p)))
    return rows


def _iterate_parquet(path: Path) -> Any:
    number = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield Line(number, row)


def _parquet_page(path: Path, start: int, size: int) -> Page:
    lines: list[Line] = []
    before = 0
    with _parquet(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if before + rows > start and len(lines) < size:
                first = max(start - before, 0)
                table = file.read_row_group(group).slice(first, size - len(lines))
                lines += [Line(before + first + i + 1, row) for i, row in enumerate(table.to_pylist())]
            before += rows
    return Page(lines, start, before)


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """The open file; damage is told wherever in it the reading comes upon it."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path.name} can't be read as parquet ({error}).", "Save it again, or give jsonl.") from None


def _is_dataset(folder: Path) -> bool:
    return is_slug(folder.name) and (folder / "dataset.yaml").is_file()


def _entries(parent: Path, is_bundled: bool) -> list[DatasetEntry]:
    found = []
    for folder in sorted(parent.iterdir()):
        if _is_dataset(folder):
            with contextlib.suppress(ConfigError):
                found.append(_entry(folder, is_bundled))
    return found


def _entry(folder: Path, is_bundled: bool) -> DatasetEntry:
    about = read_yaml(folder / "dataset.yaml")
    manner, columns, heldout = about.get("manner") or {}, about.get("columns") or {}, about.get("heldout")
    if not isinstance(manner, dict) or not isinstance(columns, dict):
        raise ConfigError(
            _FIELD, f"{folder / 'dataset.yaml'} is damaged.", "Remove that folder and add the file again."
        )
    return DatasetEntry(
        folder.name,
        str(about.get("title") or folder.name),
        folder / str(about.get("source") or "rows.jsonl"),
        str(about.get("description") or ""),
        str(about.get("format") or "auto"),
        {str(expected): str(yours) for expected, yours in columns.items()},
        str(about.get("licence") or ""),
        is_bundled,
        folder / str(heldout) if heldout else None,
        str(manner.get("description") or ""),
        manner.get("pattern"),
    )


def _free_folder(name: str) -> Path:
    for number in range(1, 1000):
        folder = datasets_dir() / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise StudioError(f"There are too many datasets named {name}.", "Choose another name.")
