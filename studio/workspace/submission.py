"""What a job is given before it is queued: inputs that exist, a target that can be written, a folder of its own.

In: a config and its names. Out: Inputs, a checked target, a job folder that is there whole or not at all. Starts
nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from studio.core.config import RunConfig
from studio.core.errors import ConfigError, StudioError, TargetError
from studio.core.inputs import Inputs
from studio.core.job import JobFolder, write_text
from studio.workspace.datasets import check_start, resolve_dataset
from studio.workspace.models import resolve_model
from studio.workspace.runs import Run


def prepare_inputs(config: RunConfig, label: str = "") -> Inputs:
    """What the config's names mean here and now.

    Raises ConfigError for a model, dataset or first rows that won't do.
    """
    model = resolve_model(config.model.name_or_path, config.model.revision)
    dataset = resolve_dataset(config.dataset.path)
    layout = config.dataset.format if config.dataset.format != "auto" else dataset.format
    try:
        check_start(Path(dataset.path), layout, config.dataset.columns or dataset.columns)
    except StudioError as error:
        raise ConfigError("dataset.path", error.message, error.hint) from None
    return Inputs(label, model, dataset)


def check_target(out: Path, run: Run) -> Path:
    """An export's target, absolute: it must not exist, or be an empty folder, and not lie inside the run.

    Raises TargetError.
    """
    try:
        target = out.expanduser().absolute()
        if target.is_symlink():
            raise TargetError(f"{target} is a link.", "Give a folder that is none.")
        if target.exists() and not target.is_dir():
            raise TargetError(f"{target} is a file.", "Give a new folder.")
        if target.is_dir() and any(target.iterdir()):
            raise TargetError(f"{target} exists and isn't empty.", "Give a new or an empty folder.")
        if target.resolve().is_relative_to(run.folder.path.resolve()):
            raise TargetError(f"{target} lies inside the run.", "Give a folder outside it.")
        parent = next(p for p in target.parents if p.exists())
        probe = parent / f".studio-probe-{time.monotonic_ns()}"
        probe.mkdir()
        probe.rmdir()
    except (OSError, ValueError, RuntimeError) as error:  # also a name too long, a NUL in it, `~somebody`
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"{str(out)[:200]} can't be written ({reason}).", "Give another folder.") from None
    return target


def publish(parent: Path, name: str, files: dict[str, str]) -> JobFolder:
    """A new job folder with these files, there whole or not at all, under a name nobody else has."""
    staging = parent / f".new-{name}-{time.monotonic_ns()}"
    try:
        staging.mkdir(parents=True)
        for file, text in files.items():
            write_text(staging / file, text)
        for number in range(1, 1000):
            target = parent / (name if number == 1 else f"{name}-{number}")
            if target.exists():
                continue
            with contextlib.suppress(OSError):  # somebody took the name in between
                staging.rename(target)
                return JobFolder(target)
    except OSError as error:
        raise StudioError(
            f"{parent} can't be written ({error.strerror}).",
            "Free some space or set STUDIO_HOME to another folder.",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    raise StudioError(f"There are too many jobs named {name}.", "Choose another name.")
