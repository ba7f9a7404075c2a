"""What a job is given before it is queued: inputs that exist, a target that can be written, a folder of its own.

In: a config and its names. Out: Inputs, a checked target, a job folder that is there whole or not at all. Starts
nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from pathlib import Path

from studio.core.config import MergeConfig, RunConfig
from studio.core.errors import ConfigError, StudioError, TargetError
from studio.core.inputs import Inputs, ModelInput
from studio.core.job import JobFolder, write_text
from studio.workspace.continued import resolve_adapter
from studio.workspace.datasets import get_dataset, resolve_dataset
from studio.workspace.desk import DataDesk
from studio.workspace.extras import resolve_extras
from studio.workspace.home import existing, is_slug, runs_dir
from studio.workspace.models import resolve_model
from studio.workspace.runs import Run


def resolve_inputs(config: RunConfig, label: str = "") -> tuple[RunConfig, Inputs]:
    """What the config's names mean here and now, and the config with what the dataset's registration leaves out.

    Raises ConfigError for a model or dataset that isn't there.
    """
    _check_loss(config)
    model = resolve_model(config.model.name_or_path, config.model.revision)
    if config.dataset.exclude is None and isinstance(config.dataset.path, str):
        entry = get_dataset(config.dataset.path)
        rows = config.dataset.exclude_rows or list(entry.exclude_rows)
        section = config.dataset.model_copy(update={"exclude": list(entry.exclude), "exclude_rows": rows})
        config = config.model_copy(update={"dataset": section})
    held = config.dataset.validation_path
    validation = resolve_dataset(held) if held else None
    dataset = resolve_dataset(config.dataset)
    adapter = resolve_adapter(config, model)
    return config, Inputs(label, model, dataset, validation, resolve_extras(config), adapter)


def _check_loss(config: RunConfig) -> None:
    """Some knobs tell how other programs train, so that their runs can be estimated. Raises ConfigError."""
    way = config.training.loss_implementation
    if way not in ("auto", "full"):
        text = f"the loss {way!r} is other programs'; this studio can only estimate what it takes."
        raise ConfigError("training.loss_implementation", text, "Use auto, which needs the least.")
    if config.training.keep_logits:
        text = "logits are kept by other programs' loops; this studio can only estimate what that takes."
        raise ConfigError("training.keep_logits", text, "Leave it at false.")


def check_rows(config: RunConfig, inputs: Inputs, desk: DataDesk) -> None:
    """Look at the first rows. Raises ConfigError where the method can't learn from them."""
    for field, given in (("path", inputs.dataset), ("validation_path", inputs.validation)):
        if given is not None:
            try:
                desk.look(dataclasses.asdict(given), config.dataset, config.method.name)
            except StudioError as error:
                raise ConfigError(f"dataset.{field}", error.message, error.hint) from None


def prepare_merge(config: MergeConfig) -> tuple[ModelInput, list[Path]]:
    """The base and the folders of the adapters: each a folder, or a run (its id) that has one. Raises ConfigError."""
    return resolve_model(config.base), [_adapter(number, name) for number, name in enumerate(config.adapters)]


def _adapter(number: int, name: str) -> Path:
    run = runs_dir() / name.removeprefix("run:")
    folder = run / "adapter" if is_slug(run.name) and run.parent == runs_dir() and run.is_dir() else existing(name)
    if folder is None or not (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"adapters.{number}",
            f"{name[:200]} holds no adapter (no adapter_config.json).",
            "Give the folder of a PEFT adapter, or a run's id.",
        )
    return folder.absolute()


def check_target(out: Path, run: Run | None) -> Path:
    """An export's target, absolute: it must not exist, or be an empty folder, and not lie inside the run (if any).

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
        if run is not None and target.resolve().is_relative_to(run.folder.path.resolve()):
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
