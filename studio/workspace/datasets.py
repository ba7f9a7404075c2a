"""Registered datasets: which there are, and what a name means.

In: names, files, folders, hub ids. Out: entries for the list, a DatasetInput for a run. A registration is a folder
with a dataset.yaml, and a copy of the rows where they were uploaded. No row is read here: that is the data worker's.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection, MixPart
from studio.core.configfile import parse_as, read_yaml, to_yaml
from studio.core.errors import ConfigError, StudioError
from studio.core.inputs import DatasetInput
from studio.core.job import write_text
from studio.workspace.datasetinfo import described
from studio.workspace.home import bundled, datasets_dir, existing, is_slug, plain_label, slug
from studio.workspace.registration import DatasetEntry, holds_rows, is_dataset, read_entry, state_of, write_entry

_FIELD = "dataset.path"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_KINDS = "json, jsonl, csv, tsv, parquet, arrow, txt or md (text kinds also as .gz or .zst)"
# What of a registration may be changed afterwards, and by which key it stands in dataset.yaml.
CHANGEABLE = ("title", "format", "columns", "tags", "exclude", "exclude_rows", "knobs")


def list_datasets() -> list[DatasetEntry]:
    """Every registered dataset: the user's own, then the shipped ones; damaged registrations are passed over."""
    own = _entries(datasets_dir(), False)
    names = {entry.name for entry in own}
    shipped = _entries(bundled("assets") / "datasets", True)
    return own + [entry for entry in shipped if entry.name not in names]


def get_dataset(name: str) -> DatasetEntry:
    """A registered dataset by name, or what stands at a path, or a name on the hub. Raises ConfigError."""
    for folder in (datasets_dir() / name, bundled("assets") / "datasets" / name):
        if is_slug(name) and is_dataset(folder):
            return read_entry(folder, folder.parent != datasets_dir())
    path = existing(name)
    if path is not None and (path.is_dir() or holds_rows(path)):
        return described(DatasetEntry(name, path.name, path.absolute(), source=name))
    if path is not None:
        raise ConfigError(_FIELD, f"{path.name} is not a file of rows.", f"Give {_KINDS}.")
    if _HUB_ID.fullmatch(name) and not holds_rows(Path(name)):
        return DatasetEntry(name, name, kind="hub", source=name)
    names = ", ".join(entry.name for entry in list_datasets())
    raise ConfigError(_FIELD, f"there is no dataset or file {name!r}.", f"Registered are: {names}.")


def resolve_dataset(section: DatasetSection | str) -> DatasetInput:
    """What `dataset.path` means here and now. Raises ConfigError."""
    if not isinstance(section, str) and section.path is None:
        raise ConfigError(_FIELD, "the run names no dataset, so it can only be estimated.", "Name one to train on.")
    if isinstance(section, str) or isinstance(section.path, str):
        return _input(get_dataset(section if isinstance(section, str) else str(section.path)), ())
    parts = [part if isinstance(part, MixPart) else MixPart(path=part, weight=None) for part in section.path or ()]
    return _mix(section.label, parts, section.stopping_strategy, ())


def _input(entry: DatasetEntry, within: tuple[str, ...]) -> DatasetInput:
    if entry.kind == "mix":
        if entry.name in within:
            raise ConfigError(_FIELD, f"the mix {entry.name} is a part of itself.", "Choose other parts.")
        return _mix(entry.name, entry.parts, entry.stopping, (*within, entry.name))
    if not entry.there:
        raise ConfigError(_FIELD, f"the rows of {entry.name} are gone from {entry.path}.", "Put them back there.")
    return DatasetInput(
        entry.source if entry.kind == "hub" else entry.name,
        str(entry.path) if entry.kind == "files" else "",
        "hub" if entry.kind == "hub" else "files",
        entry.format,
        entry.columns,
        entry.tags,
        entry.config,
        entry.split,
        entry.revision,
        entry.limit,
        heldout=str(entry.heldout) if entry.heldout else None,
        manner=entry.pattern,
    )


def _mix(name: str, parts: Sequence[MixPart], stopping: str, within: tuple[str, ...]) -> DatasetInput:
    weighted = [part.weight is not None for part in parts]
    if any(weighted) and not all(weighted):
        raise ConfigError(_FIELD, "some parts of the mix have a weight and some have none.", "Give all of them one.")
    inputs = [replace(_input(get_dataset(part.path), within), weight=part.weight) for part in parts]
    if len(inputs) == 1:
        return inputs[0]
    flat = [inner for part in inputs for inner in (part.parts if part.kind == "mix" else (part,))]
    if len(flat) != len(inputs) and any(weighted):
        raise ConfigError(_FIELD, "a mix can't be a weighted part of another mix.", "Name its own parts instead.")
    # Without weights the parts stand one after the other, whatever the strategy says.
    how = ("all_exhausted" if stopping == "all_exhausted" else "first_exhausted") if all(weighted) else "concatenate"
    return DatasetInput(name, kind="mix", parts=tuple(flat), stopping=how)  # type: ignore[arg-type]


# -- registering ------------------------------------------------------------------------------------------------------


def register(entry: DatasetEntry, *, copy: Path | None = None) -> DatasetEntry:
    """Keep a dataset under a name made from its title; `copy` is a file whose rows are copied beside it.

    Nothing is kept where that fails. Raises StudioError.
    """
    title = plain_label(entry.title) or "Dataset"
    folder = _free_folder(slug(title, "dataset"))
    entry = replace(entry, name=folder.name, title=title, folder=folder, bundled=False)
    try:
        if copy is not None:
            rows = folder / f"rows{''.join(copy.suffixes[-2:] if copy.suffix in ('.gz', '.zst') else [copy.suffix])}"
            shutil.copyfile(copy, rows)
            entry = replace(entry, path=rows)
        write_entry(entry)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StudioError(f"The dataset can't be kept ({error.strerror}).", "Free some space and try again.") from None
    return read_entry(folder, False)


def change(name: str, **fields: Any) -> DatasetEntry:
    """Change what is kept of a dataset (see CHANGEABLE).

    A shipped one becomes the user's own in this, under its name; its rows stay where they are. Raises ConfigError.
    """
    entry = get_dataset(name)
    if entry.folder is None:
        raise ConfigError(_FIELD, f"{name} isn't registered.", "Add it on the Data tab first.")
    unknown = set(fields) - set(CHANGEABLE)
    if unknown:
        raise ConfigError(_FIELD, f"{', '.join(sorted(unknown))} can't be changed.", f"Can: {', '.join(CHANGEABLE)}.")
    knobs = {"path": entry.source or name, **entry.knobs, **fields.get("knobs", {})}
    given = {key: value for key, value in fields.items() if key in DatasetSection.model_fields}
    parse_as(DatasetSection, {**knobs, **given})
    if entry.bundled:
        folder = datasets_dir() / name
        folder.mkdir(exist_ok=True)
        entry = replace(entry, folder=folder, bundled=False)
    for key in ("exclude", "exclude_rows"):
        if key in fields:
            fields[key] = tuple(fields[key])
    if "title" in fields:
        fields["title"] = plain_label(fields["title"]) or entry.title
    write_entry(replace(entry, **fields))
    assert entry.folder is not None
    return read_entry(entry.folder, False)


def keep_facts(entry: DatasetEntry, rows: int, sha256: str) -> None:
    """Note how many rows there are and the hash of their contents, for the files as they are now."""
    if entry.folder is None or entry.bundled:
        return
    about = read_yaml(entry.folder / "dataset.yaml")
    about["content"] = {"rows": rows, "sha256": sha256, "state": state_of(entry)}
    write_text(entry.folder / "dataset.yaml", to_yaml(about))


def remove_dataset(name: str) -> None:
    """Forget a registered dataset and its copy of the rows. Shipped ones stay, and so do files that were only named."""
    folder = datasets_dir() / name
    if not is_slug(name) or folder.is_symlink() or not is_dataset(folder):
        raise ConfigError(_FIELD, f"there is no dataset of yours named {name!r}.", "Shipped datasets can't be removed.")
    grave = folder.with_name(f".removed-{name}")
    shutil.rmtree(grave, ignore_errors=True)
    folder.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)


def _entries(parent: Path, is_bundled: bool) -> list[DatasetEntry]:
    found = []
    for folder in sorted(parent.iterdir()):
        if is_dataset(folder):
            with contextlib.suppress(ConfigError):
                found.append(read_entry(folder, is_bundled))
    return found


def _free_folder(name: str) -> Path:
    for number in range(1, 1000):
        folder = datasets_dir() / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise StudioError(f"There are too many datasets named {name}.", "Choose another name.")
