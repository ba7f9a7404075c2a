"""Files of rows: which ones a path means, and each opened by its kind behind one face.

In: a file or folder. Out: paths in order, and FileRows of each. Code that lies beside data is never run or imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from studio.core.errors import DataError
from studio.core.rows import TEXT_SUFFIXES, Line
from studio.core.textfile import TextFile, open_text, recognise
from studio.worker.data.arraycut import fast_records
from studio.worker.data.cache import cache_root, file_key
from studio.worker.data.columnar import COLUMNAR, Columnar
from studio.worker.data.index import Index, build_index, lines_at, load_index, records_from, save_index
from studio.worker.data.unpack import PACKED, open_copy, open_packed, unpack, unpacked_copy

_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "dataset.json"}
_PAPERS = {"readme", "license", "licence", "notice", "changelog", "citation", "contributing", "requirements"}
_HELD_BACK = {"test", "validation", "valid", "val", "dev", "eval"}
Tick = Callable[[int], None]
Passing = Callable[[bytes], bool]


class FileRows(Protocol):
    """The rows of one file; positions count from its own first row."""

    @property
    def total(self) -> int | None: ...

    @property
    def indexed(self) -> bool: ...

    def scan(self, start: int = 0, passing: Passing | None = None) -> Iterator[Line | None]: ...

    def at(self, positions: Sequence[int]) -> Iterator[Line]: ...

    def build(self, tick: Tick) -> None: ...


class ColumnarRows:
    """A parquet or arrow file."""

    indexed = True

    def __init__(self, path: Path) -> None:
        self._file = Columnar(path)
        self.total: int | None = self._file.total
        self.at = self._file.at

    def scan(self, start: int = 0, passing: Passing | None = None) -> Iterator[Line | None]:
        """Every row from `start` on."""
        return self._file.iterate(start)

    def build(self, tick: Tick) -> None:
        """There is nothing to build: such files say themselves where their rows are."""


class TextRows:
    """A text file, packed or not."""

    def __init__(self, path: Path) -> None:
        self._path, self._packed = path, path.suffix.lower() in PACKED
        self._folder = cache_root() / file_key(path)
        self._text = self._recognise(open_packed) if self._packed else open_text(path)
        self._index: Index | None = None
        self._look()

    def _recognise(self, opened: Callable[[Path, int], BinaryIO]) -> TextFile:
        inner = Path(self._path.stem).suffix.lower()
        path = self._path if opened is open_packed else unpacked_copy(self._path)
        return recognise(self._path.name, inner, lambda offset: opened(path, offset))

    def _look(self) -> None:
        """Take up the kept index, where there is one by now."""
        if self._packed and not unpacked_copy(self._path).exists():
            return
        self._index = load_index(self._folder / "index.npy")
        if self._packed and self._index is not None:
            self._text = self._recognise(open_copy)

    @property
    def total(self) -> int | None:
        if self._index is None:
            self._look()
        return None if self._index is None else self._index.total

    @property
    def indexed(self) -> bool:
        return self.total is not None

    def scan(self, start: int = 0, passing: Passing | None = None) -> Iterator[Line | None]:
        """Every row from `start` on; None for those that `passing` refuses."""
        records = records_from(self._text, self._index, start) if start else fast_records(self._text)
        for position, record in enumerate(records, start=start):
            raw = record.raw
            if passing is not None and isinstance(raw, bytes) and not record.problem and not passing(raw):
                yield None
            else:
                yield self._text.line(record, position)

    def at(self, positions: Sequence[int]) -> Iterator[Line]:
        assert self._index is not None
        return lines_at(self._text, self._index, iter(positions))

    def build(self, tick: Tick) -> None:
        if self._packed:
            unpack(self._path, lambda text, done, total: tick(done or 0), lambda: False)
            self._text = self._recognise(open_copy)
        self._index = save_index(self._folder / "index.npy", build_index(self._text, tick))


def open_file(path: Path) -> FileRows:
    """The rows of a file. Raises DataError."""
    try:
        return ColumnarRows(path) if path.suffix.lower() in COLUMNAR else TextRows(path)
    except FileNotFoundError:
        raise DataError(f"{path} is gone.", "Put it back, or choose another dataset.") from None
    except OSError as error:
        text = f"{path} can't be read ({error.strerror or error})."
        raise DataError(text, "Check the path and its permissions.") from None


def holds_rows(path: Path) -> bool:
    """Whether a file is of a kind that is read."""
    suffix = path.suffix.lower()
    if suffix in PACKED:
        return Path(path.stem).suffix.lower() in TEXT_SUFFIXES
    return suffix in TEXT_SUFFIXES or suffix in COLUMNAR


def find_files(path: Path, split: str | None = None) -> list[Path]:
    """The files that a path means, sorted. Raises DataError, with a question where a folder holds several splits."""
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"The dataset's file {path} is gone.", "Put it back, or choose another dataset.")
        if not holds_rows(path):
            kinds = "json, jsonl, csv, tsv, parquet, arrow, txt or md; text kinds also as .gz or .zst"
            raise DataError(f"{path.name} is not a kind of file that holds rows.", f"Give {kinds}.")
        return [path]
    about = _read(path / "dataset_dict.json")
    if isinstance(about.get("splits"), list):
        return find_files(path / _choose(path, [str(name) for name in about["splits"]], split))
    state = _read(path / "state.json")
    if isinstance(state.get("_data_files"), list):
        named = [path / Path(str(entry.get("filename"))).name for entry in state["_data_files"]]
        return _there(path, [file for file in named if file.suffix == ".arrow"])
    files = [file for file in sorted(path.rglob("*")) if _counts(file.relative_to(path)) and file.is_file()]
    return _there(path, _of_split(path, files, split))


def _counts(file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    paper = file.suffix.lower() in {".md", ".txt"} and file.stem.lower() in _PAPERS
    return holds_rows(file) and not hidden and not paper and file.name not in _ABOUT


def _of_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    """The files of one split, where their names tell it; rows meant for testing never slip into training."""
    names = {file: _split_of(file.relative_to(folder)) for file in files}
    if split is not None:
        return [file for file in files if names[file] == split] or (files if not any(names.values()) else [])
    if "train" in names.values() and _HELD_BACK & set(names.values()):
        wanted = _choose(folder, sorted({name for name in names.values() if name}), None)
        return [file for file in files if names[file] == wanted]
    return files


def _split_of(file: Path) -> str:
    for part in reversed(file.parts):
        word = part.lower().replace("_", "-").replace(".", "-").split("-")[0]
        if word == "train" or word in _HELD_BACK:
            return word
    return ""


def _choose(folder: Path, names: list[str], split: str | None) -> str:
    listed = ", ".join(names)
    if split is not None:
        if split not in names:
            raise DataError(f"{folder.name} has no split {split!r}.", f"Choose one of: {listed}.")
        return split
    if len(names) == 1:
        return names[0]
    raise DataError(
        f"{folder.name} holds several splits: {listed}.", "Choose one: give its own path, or name the split."
    )


def _there(folder: Path, files: list[Path]) -> list[Path]:
    if not files:
        kinds = "json, jsonl, csv, tsv, parquet, arrow, txt or md"
        raise DataError(f"The folder {folder.name} holds no file of rows.", f"Put {kinds} there.")
    return files


def _read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
