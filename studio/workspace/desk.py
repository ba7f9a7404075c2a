"""Questions about datasets, put to data workers; long ones are tasks.

In: a registered dataset's name and a question. Out: pages and rows at once, from one worker that stays; and `Task`s,
each in a worker of its own. Answers are kept by the worker, so that a task that
died with the studio is only asked again. Reads no rows itself.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection, MixPart
from studio.core.configfile import parse_as
from studio.core.errors import ConfigError, DataError
from studio.core.inputs import ModelInput
from studio.workspace import datasetinfo, datasets
from studio.workspace.datasets import list_datasets, resolve_dataset
from studio.workspace.home import cache_dir, datasets_dir, existing, plain_label, slug
from studio.workspace.launcher import Launcher
from studio.workspace.models import resolve_model
from studio.workspace.pipe import ServePipe
from studio.workspace.registration import DatasetEntry, write_entry
from studio.workspace.tasks import Task, Tasks

# Knobs of a section on which its rows' lengths depend.
_MEASURED = (
    "path", "format", "columns", "tags", "system_prompt", "exclude_rows", "max_samples", "train_on", "stopping_strategy"
)  # fmt: skip
TASKS = ("index", "search", "check", "stats", "map", "shape", "preview", "split", "fetch")


class DataDesk:
    """Everything the window asks about datasets. `shows` is the pipe to a worker that can tokenize."""

    def __init__(self, launcher: Launcher, shows: ServePipe | None = None) -> None:
        self._reader = ServePipe(launcher.data)
        self.shows = shows or ServePipe(launcher.serve)
        self._tasks = Tasks(launcher.data)

    # -- at once ------------------------------------------------------------------------------------------------------

    def entries(self) -> list[DatasetEntry]:
        return list_datasets()

    def entry(self, name: str) -> DatasetEntry:
        """A registered dataset. Paths are no names: what a request holds is nothing that its user chose to open."""
        found = next((entry for entry in list_datasets() if entry.name == name), None)
        if found is None:
            raise ConfigError("dataset.path", f"there is no dataset {name!r}.", "It may have been removed.")
        return found

    def page(self, name: str, start: int = 0, size: int = 20, positions: str | None = None) -> dict[str, Any]:
        """`size` rows from row `start`; of those in `positions`, where a search or a check found them."""
        entry = self.entry(name)
        fields = {"start": start, "size": size, "positions": _inside(positions)}
        answer = self._ask("page", dataset=self._dataset(entry), **fields)
        if not entry.bundled and entry.kind == "files" and entry.sha256 is None and not self._failed_to_index(name):
            self.begin("index", name)  # once for each state of the files: counts the rows and takes their hash
        return answer

    def _failed_to_index(self, name: str) -> bool:
        return any(task.op == "index" and task.state == "failed" for task in self.tasks(name))

    def row(self, name: str, position: int) -> dict[str, Any]:
        return self._ask("row", dataset=self._dataset(self.entry(name)), position=position)

    def columns(self, name: str) -> dict[str, Any]:
        """The columns, and which layouts fit them."""
        return self._ask("columns", dataset=self._dataset(self.entry(name)))

    def hub(self, id: str, config: str | None = None, split: str | None = None) -> dict[str, Any]:
        """Configs, splits and first rows of a dataset on the hub."""
        return self._ask("hub", id=id, revision=None, config=config, split=split)

    def trained(self, name: str, position: int, model: str, max_length: int, **section: Any) -> dict[str, Any]:
        """A row as trained on (see worker/show)."""
        entry = self.entry(name)
        fields = self._question(entry, {"model": model, "max_length": max_length, "section": section})
        return _last(self.shows.request("show", **fields, position=position))

    def look(self, dataset: dict[str, Any], section: DatasetSection, method: str | None = None) -> dict[str, Any]:
        """Whether rows can be used, and learned from by `method`, seen by the first of them. Raises DataError."""
        return self._ask("look", dataset=dataset, section=section.model_dump(mode="json"), method=method)

    def last(self, op: str, name: str, **fields: Any) -> dict[str, Any] | None:
        """The kept answer to the same question about the files as they are now."""
        question = {**self._question(self.entry(name), fields), "op": op}
        result: dict[str, Any] | None = self._ask("kept", of=question)["result"]
        return result

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return _last(self._reader.request(op, **fields))

    # -- tasks --------------------------------------------------------------------------------------------------------

    def begin(self, op: str, name: str, **fields: Any) -> Task:
        """Put a long question; the same one again while it is worked on is the same task."""
        if op not in TASKS:
            raise ConfigError("", f"there is no task {op!r}.", f"There are {', '.join(TASKS)}.")
        entry = self.entry(name)
        after = self._after(op, entry, fields)
        return self._tasks.begin(op, name, self._question(entry, fields), after)

    def lengths(self, section: DatasetSection, model: ModelInput) -> Task:
        """Count the tokens of every row; at once where they are kept from an earlier time. Raises ConfigError."""
        # what else the section says changes no row's length
        knobs = {name: getattr(section, name) for name in _MEASURED}
        question: dict[str, Any] = {
            "dataset": dataclasses.asdict(resolve_dataset(section)),
            "section": DatasetSection(**knobs).model_dump(mode="json"),
            "model": dataclasses.asdict(model),
        }
        return self._tasks.begin("lengths", section.label, question, lambda result: result)

    def task(self, id: int) -> Task:
        return self._tasks.get(id)

    def tasks(self, name: str) -> list[Task]:
        """Those of a dataset, oldest first."""
        return self._tasks.of(name)

    def close(self) -> None:
        """End every worker."""
        self._tasks.close()
        self._reader.close()
        self.shows.close()

    # -- what the worker is asked -------------------------------------------------------------------------------------

    @staticmethod
    def _dataset(entry: DatasetEntry) -> dict[str, Any]:
        return dataclasses.asdict(resolve_dataset(entry.name))

    def _question(self, entry: DatasetEntry, fields: dict[str, Any]) -> dict[str, Any]:
        """The request: `model` by its name, `section` as changes to what the dataset's registration says."""
        fields = dict(fields)
        section: dict[str, Any] = {"path": entry.name, "format": entry.format}
        section |= {
            "columns": entry.columns,
            "tags": entry.tags,
            "exclude": list(entry.exclude),
            "exclude_rows": list(entry.exclude_rows),
            **entry.knobs,
        }
        knobs = parse_as(DatasetSection, {**section, **fields.pop("section", {})})
        question = {"dataset": self._dataset(entry), "section": knobs.model_dump(mode="json")}
        if model := fields.pop("model", None):
            question["model"] = dataclasses.asdict(resolve_model(model))
        if knobs.validation_path:
            question["validation"] = dataclasses.asdict(resolve_dataset(knobs.validation_path))
        for key in ("positions", "findings"):
            if key in fields:
                fields[key] = _inside(fields[key])
        return {**question, **fields}

    def _after(
        self, op: str, entry: DatasetEntry, fields: dict[str, Any]
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """What is done with a task's result; a task that makes a dataset is told its folder here."""
        if op == "index":

            def kept(result: dict[str, Any]) -> dict[str, Any]:
                datasets.keep_facts(entry, result["total"], result["sha256"])
                return result

            return kept
        if op != "shape":
            return lambda result: result
        title = plain_label(fields.pop("title", "")) or f"{entry.title}, shaped"
        stem = slug(title, "dataset")
        number = next(n for n in itertools.count(1) if not (datasets_dir() / _numbered(stem, n)).exists())
        folder = datasets_dir() / _numbered(stem, number)
        fields["out"] = str(folder)

        def registered(result: dict[str, Any]) -> dict[str, Any]:
            about = f"Made from {entry.title}; recipe.yaml beside the rows says how."
            made = DatasetEntry(folder.name, title, Path(result["path"]), description=about, licence=entry.licence)
            read = {key: result[key] for key in ("format", "columns", "tags")}
            write_entry(replace(made, folder=folder, source=entry.name, **read))
            return {**result, "name": folder.name}

        return registered

    # -- the register -------------------------------------------------------------------------------------------------

    def add(
        self,
        source: str,
        title: str = "",
        *,
        copy: bool = False,
        config: str | None = None,
        split: str | None = None,
        **layout: Any,
    ) -> list[DatasetEntry]:
        """Register what a person named: a file, a folder, or a name on the hub.

        With `copy` the file's rows are kept beside the registration. A folder with a LLaMA-Factory dataset_info.json
        gives an entry for each dataset in it. Raises DataError where nothing in it can be read as rows.
        """
        path = existing(source)
        if path is not None and path.is_dir() and (listed := datasetinfo.entries_in(path)):
            return [datasets.register(entry) for entry in listed]
        entry = datasets.get_dataset(source) if path is None else datasets.get_dataset(str(path.absolute()))
        if entry.kind == "hub":
            entry = self._pinned(replace(entry, config=config, split=split))
        else:
            dataset = dataclasses.asdict(datasets.resolve_dataset(str(entry.path)))
            if not self._ask("columns", dataset=dataset)["columns"]:
                self.look(dataset, DatasetSection(path=source))  # says what is wrong with the first row
                raise DataError(f"{entry.path.name} has 0 usable rows.", "Give rows with named columns.")
        entry = replace(entry, source=source, title=title or entry.path.stem or entry.title, folder=None, **layout)
        return [datasets.register(entry, copy=entry.path if copy else None)]

    def _pinned(self, entry: DatasetEntry) -> DatasetEntry:
        """With its config, split and commit chosen; raises DataError that asks where there are several."""
        found = self.hub(entry.source, entry.config, entry.split)
        for key in ("config", "split"):
            names = found[f"{key}s"]
            if getattr(entry, key) is None and len(names) > 1:
                raise DataError(f"{entry.source} has several {key}s.", f"Choose one of {', '.join(names)}.")
            if getattr(entry, key) is None and names:
                entry = replace(entry, **{key: names[0]})
        return replace(entry, revision=found.get("revision"))

    def mix(self, title: str, parts: list[tuple[str, float | None]], stopping: str = "first_exhausted") -> DatasetEntry:
        """Register several datasets as one, by `weight`s, or one after the other where there are none."""
        names = [self.entry(name).name for name, _ in parts]
        mixed = tuple(MixPart(path=name, weight=weight) for name, (_, weight) in zip(names, parts, strict=True))
        section = parse_as(DatasetSection, {"path": [part.model_dump() for part in mixed]})
        resolve_dataset(section)
        return datasets.register(DatasetEntry("", title, kind="mix", parts=mixed, stopping=stopping))

    def change(self, name: str, **fields: Any) -> DatasetEntry:
        return datasets.change(self.entry(name).name, **fields)

    def remove(self, name: str) -> None:
        for task in self.tasks(name):
            if task.state == "running":
                task.cancel()
        datasets.remove_dataset(name)


def _last(answers: Iterator[dict[str, Any]]) -> dict[str, Any]:
    answer = [answer for answer in answers if answer["event"] == "done"][-1]
    return {key: value for key, value in answer.items() if key not in ("id", "event")}


def _inside(positions: str | None) -> str | None:
    """A list of positions that a worker made lies in the cache; nothing else is opened."""
    if positions is None:
        return None
    path = Path(positions).resolve()
    if not path.is_relative_to(cache_dir().resolve()):
        raise ConfigError("", "that is no list of rows.", "Search again.")
    return str(path)


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}-{number}"
