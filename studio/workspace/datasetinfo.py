"""LLaMA-Factory's dataset_info.json, where one lies beside the data.

In: a file or a folder. Out: entries with the columns, tags and layouts that it gives. What its keys mean is
core/datasetinfo's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from studio.core.datasetinfo import Entry, read_dataset_info
from studio.core.errors import DataError
from studio.core.job import read_json
from studio.workspace.registration import DatasetEntry

NAME = "dataset_info.json"


def described(entry: DatasetEntry) -> DatasetEntry:
    """The entry of a file, with the layout that the dataset_info.json beside it gives, if there is one."""
    if entry.kind != "files" or entry.path.is_dir():
        return entry
    for found in _read(entry.path.parent):
        if found.file_name and (entry.path.parent / found.file_name) == entry.path and not found.problem:
            return replace(_entry(found, entry.path.parent), name=entry.name, source=entry.source)
    return entry


def entries_in(folder: Path) -> list[DatasetEntry]:
    """An entry for each dataset that a folder's dataset_info.json lists and that is there (or on the hub).

    Raises DataError where it lists none that can be read.
    """
    listed = _read(folder)
    usable = [_entry(found, folder) for found in listed if not found.problem]
    there = [entry for entry in usable if entry.there]
    if listed and not there:
        told = "; ".join(f"{found.name}: {found.problem or 'its file is not there'}" for found in listed[:5])
        raise DataError(f"{folder / NAME} lists nothing that can be read ({told}).", "Put its files beside it.")
    return there


def _read(folder: Path) -> list[Entry]:
    found = read_dataset_info(read_json(folder / NAME))
    return [_within(folder, entry) for entry in found]


def _within(folder: Path, entry: Entry) -> Entry:
    """The entry, unless it asks for what it can't have: somebody else's list may not reach out of its folder."""
    if entry.file_name and not (folder / entry.file_name).resolve().is_relative_to(folder.resolve()):
        return replace(entry, problem="its file lies outside of the folder")
    if entry.hf_hub_url and entry.folder and not entry.problem:
        return replace(entry, problem=f"it is the folder {entry.folder} of a hub dataset, which can't be chosen here")
    return entry


def _entry(found: Entry, folder: Path) -> DatasetEntry:
    hub = found.hf_hub_url is not None and not (found.file_name and (folder / found.file_name).exists())
    return DatasetEntry(
        found.name,
        found.name,
        Path() if hub else (folder / str(found.file_name)).absolute(),
        kind="hub" if hub else "files",
        source=str(found.hf_hub_url if hub else folder / str(found.file_name)),
        format=found.format,
        columns=dict(found.columns),
        tags=dict(found.tags),
        config=found.subset if hub else None,
        split=found.split if hub else None,
        revision=found.revision if hub else None,
        limit=found.num_samples,
    )
