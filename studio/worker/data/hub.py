"""Datasets of the Hugging Face hub: what one holds, its first rows, and its fetching into the hub's own cache.

In: an id, and perhaps a revision, a config and a split. Out: names, rows, or a Source over the arrow files that
`datasets` wrote. The token is the one that huggingface_hub finds. Code that comes with a dataset is never run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.core.rows import Line
from studio.worker.data.cache import cache_root, key_of
from studio.worker.data.columnar import plain
from studio.worker.data.source import FilesSource, Passing, Progress, Source, Stopped, never, quiet

_FIRST = 20
_PATIENCE = 20.0  # seconds for an answer of the hub
Part = Callable[[dict[str, Any]], None]


class HubSource(Source):
    """A hub dataset's rows: fetched when they are first asked for, then read from the hub's cache."""

    def __init__(self, dataset: DatasetInput) -> None:
        self.name, self.parts = dataset.name, [dataset]
        self._dataset = dataset
        self._files: FilesSource | None = self._known()
        self._streamed: list[Line] | None = None

    @property
    def fetched(self) -> bool:
        """Whether the rows are on this machine."""
        return self._files is not None

    def fetch(self, progress: Progress = quiet) -> FilesSource:
        """Download the rows, where they aren't here. Raises DataError."""
        if self._files is None:
            progress(f"Downloading {self.name}", None, None)
            about = _fetch(self._dataset)
            note = self._note()
            note.parent.mkdir(parents=True, exist_ok=True)
            part = note.with_name(f"{note.name}.{os.getpid()}.part")
            part.write_text(json.dumps(about), encoding="utf-8")
            part.replace(note)
            self._files = FilesSource(self._dataset, [Path(path) for path in about["files"]])
            self._files.revision = about["revision"]
        return self._files

    def _note(self) -> Path:
        wanted = self._dataset
        return cache_root() / "hub" / f"{key_of([wanted.name, wanted.config, wanted.split, wanted.revision])}.json"

    def _known(self) -> FilesSource | None:
        try:
            about = json.loads(self._note().read_text(encoding="utf-8"))
            paths = [Path(path) for path in about["files"]]
            revision = str(about["revision"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not paths or not all(path.is_file() for path in paths):
            return None
        files = FilesSource(self._dataset, paths)
        files.revision = revision
        return files

    @property
    def files(self) -> list[Path]:  # type: ignore[override]
        return self.fetch().files

    @property
    def total(self) -> int | None:
        return self._files.total if self._files is not None else None

    @property
    def indexed(self) -> bool:
        return self._files is not None and self._files.indexed

    @property
    def bytes(self) -> int:
        return self._files.bytes if self._files is not None else 0

    @property
    def revision(self) -> str | None:
        """The commit that the rows are from, once they are here."""
        return self._files.revision if self._files is not None else None

    def scan(self, start: int = 0, passing: Passing | None = None) -> Iterator[Line | None]:
        return self.fetch().scan(start, passing)

    def first(self, count: int) -> list[Line]:
        if self._files is not None:
            return self._files.first(count)
        if self._streamed is None:
            wanted = self._dataset
            with _in_plain_words(self.name):
                self._streamed = _first_rows(wanted.name, wanted.config, wanted.split, wanted.revision)
        return self._streamed[:count]

    def page(self, start: int, size: int) -> list[Line]:
        if self._files is not None:
            return self._files.page(start, size)
        return self.first(start + size)[start:]

    def rows(self, positions: Sequence[int]) -> Iterator[Line]:
        return self.fetch().rows(positions)

    def build_index(self, progress: Progress = quiet, stopped: Stopped = never) -> None:
        self.fetch(progress).build_index(progress, stopped)

    def fingerprint(self) -> str:
        if self._files is not None:
            return self._files.fingerprint()
        wanted = self._dataset
        return key_of(["hub", wanted.name, wanted.config, wanted.split, wanted.revision, wanted.limit])


def hub_op(request: dict[str, Any], part: Part) -> dict[str, Any]:
    """What a hub dataset holds, and its first rows, streamed."""
    from studio.worker.data.pages import as_dict

    name, config, split = str(request["id"]), request.get("config") or None, request.get("split") or None
    part({"text": f"Asking the hub about {name}", "done": None, "total": None})
    with _in_plain_words(name):
        import datasets

        sha, size = _about(name, request.get("revision") or None)
        configs = datasets.get_dataset_config_names(name, revision=sha)
        answer: dict[str, Any] = {"configs": configs, "splits": [], "rows": None, "bytes": size, "lines": []}
        answer["revision"] = sha
        config = config or _default(configs)
        if config is None:
            return answer
        answer["splits"] = datasets.get_dataset_split_names(name, config, revision=sha)
        split = split or _default_split(answer["splits"])
        if split is None:
            return answer
        about = (datasets.load_dataset_builder(name, config, revision=sha).info.splits or {}).get(split)
        answer["rows"] = about.num_examples or None if about is not None else None
        part({"text": f"Reading the first rows of {name}", "done": None, "total": None})
        lines = _first_rows(name, config, split, sha)
    answer["lines"] = [as_dict(line, 2000, 20_000) for line in lines]
    return answer


def _first_rows(name: str, config: str | None, split: str | None, revision: str | None) -> list[Line]:
    """Streamed: no more than the beginning of the first file is read."""
    import datasets

    rows = datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
    if split is None:
        rows = rows[_chosen(name, "splits", list(rows))]
    return [Line(place + 1, plain(row), position=place) for place, row in enumerate(islice(rows, _FIRST))]


def fetch_op(request: dict[str, Any], part: Part) -> dict[str, Any]:
    """Download a hub dataset's rows. Answers how many there are and the commit they are from."""
    source = HubSource(DatasetInput.from_dict(request["dataset"]))

    def progress(text: str, done: int | None, total: int | None) -> None:
        part({"text": text, "done": done, "total": total})

    source.fetch(progress)
    return {"total": source.total, "bytes": source.bytes, "revision": source.revision}


def _fetch(wanted: DatasetInput) -> dict[str, Any]:
    with _in_plain_words(wanted.name):
        import datasets
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            sha: str | None = _about(wanted.name, wanted.revision)[0]
        except (OfflineModeIsEnabled, ConnectionError):
            sha = wanted.revision  # the hub can't be asked; what is in its cache will do
        config, split = wanted.config, wanted.split
        if config is None and sha is not None:
            config = _chosen(wanted.name, "configs", datasets.get_dataset_config_names(wanted.name, revision=sha))
        loaded = datasets.load_dataset(wanted.name, config, split=split, revision=sha)
        if split is None:
            loaded = loaded[_chosen(wanted.name, "splits", list(loaded))]
    return {"files": [str(entry["filename"]) for entry in loaded.cache_files], "revision": sha or "main"}


def _about(name: str, revision: str | None) -> tuple[str, int | None]:
    """The commit that a revision means now, and the size of all files at it."""
    from huggingface_hub import HfApi, get_session

    # By itself the hub's client would wait for ever for a server that takes a question and never answers.
    get_session().timeout = _PATIENCE
    info = HfApi().dataset_info(name, revision=revision, timeout=_PATIENCE, files_metadata=True)
    sizes = [file.size for file in info.siblings or [] if file.size is not None]
    return str(info.sha), sum(sizes) if sizes else None


def _default(configs: list[str]) -> str | None:
    if len(configs) == 1:
        return configs[0]
    return "default" if "default" in configs else None


def _default_split(splits: list[str]) -> str | None:
    if len(splits) == 1:
        return splits[0]
    return "train" if "train" in splits else None


def _chosen(name: str, what: str, names: list[str]) -> str:
    """The only one, or the one that is meant by default. Raises DataError as a question else."""
    found = (_default if what == "configs" else _default_split)(names)
    if found is None:
        raise DataError(f"{name} has several {what}: {', '.join(names)}.", f"Choose one of the {what}.")
    return found


@contextmanager
def _in_plain_words(name: str) -> Iterator[None]:
    """What the hub or its libraries raise, as a DataError with the next step."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        known = _refusal(name, error)
        if known is None:
            raise
        raise known from None


def _refusal(name: str, error: Exception) -> DataError | None:
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, GatedRepoError) for cause in causes) or "is a gated" in str(error):
        return DataError(
            f"{name} asks you to accept its terms first.",
            "Open its page on the Hugging Face hub, accept, and set a token with `hf auth login`.",
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return DataError(f"{name} has no such revision.", "Check the revision.")
    if any(isinstance(cause, (OfflineModeIsEnabled, ConnectionError, TimeoutError)) for cause in causes):
        return _out_of_reach(name)
    if any(isinstance(cause, (RepositoryNotFoundError, HFValidationError, DatasetNotFoundError)) for cause in causes):
        return DataError(
            f"The Hugging Face hub has no dataset {name!r}, or it is private.",
            "Check the spelling; for a private dataset set a token with `hf auth login`.",
        )
    for cause in causes:
        if isinstance(cause, HfHubHTTPError) and getattr(cause, "response", None) is not None:
            status = cause.response.status_code
            hint = "Check your token with `hf auth whoami`." if status in (401, 403) else "Try again later."
            return DataError(f"The Hugging Face hub refused {name} (status {status}).", hint)
    if type(error).__module__.startswith(("httpx", "httpcore", "aiohttp", "requests")):
        return _out_of_reach(name)
    if isinstance(error, RuntimeError) and "scripts" in str(error):
        return DataError(
            f"{name} is read by a program of its own, which is never run here.",
            "Choose a dataset that holds files of rows, or this one's converted files.",
        )
    if isinstance(error, (DatasetsError, ValueError, FileNotFoundError)):
        said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        return DataError(f"{name} can't be read: {said}", "Choose another config, split or revision.")
    return None


def _out_of_reach(name: str) -> DataError:
    return DataError(
        f"{name} isn't on this machine and the Hugging Face hub can't be reached.",
        "Connect to the internet, or choose a dataset that is here.",
    )
