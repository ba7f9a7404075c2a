"""The adapter that a run goes on from: which folder, and whether it is of the kind and the base that are asked for.

In: a config, the model it names. Out: the adapter's folder, or a ConfigError. The weights are the worker's to look at.
"""

from __future__ import annotations

from pathlib import Path

from studio.core.config import RunConfig
from studio.core.errors import ConfigError
from studio.core.inputs import Inputs, ModelInput
from studio.core.job import JobFolder, read_json
from studio.core.sections.adapter import Continued
from studio.workspace.home import existing, is_slug, runs_dir

_FIELD = "adapter.continue_from"


def resolve_adapter(config: RunConfig, model: ModelInput) -> str | None:
    """The folder that `adapter.continue_from` means; None where a new adapter is begun. Raises ConfigError."""
    section = config.adapter
    if not isinstance(section, Continued) or not section.continue_from:
        return None
    name = section.continue_from.strip()
    run = JobFolder(runs_dir() / name.removeprefix("run:"))
    is_run = is_slug(run.id) and run.path.parent == runs_dir() and run.run_config.is_file()
    folder = run.adapter if is_run else existing(name)
    found = read_json(folder / "adapter_config.json") if folder is not None else None
    if folder is None or found is None:
        raise ConfigError(_FIELD, f"{name[:200]} holds no adapter.", "Give run:<id> or the folder of a PEFT adapter.")
    kind = str(found.get("peft_type", "")).lower()
    wanted: str = section.type
    if kind != wanted:
        raise ConfigError(
            _FIELD, f"{name} holds an adapter of kind {kind}, not {wanted}.", f"Set adapter.type to {kind}."
        )
    if is_run:
        _check_base(run, name, model)
    return str(Path(folder).absolute())


def _check_base(run: JobFolder, name: str, model: ModelInput) -> None:
    try:
        base = Inputs.read(run.inputs).model
    except (OSError, ValueError, KeyError, TypeError):
        return  # the worker still sees whether its shapes fit
    same = (base.kind, base.name, base.path, base.revision) == (model.kind, model.name, model.path, model.revision)
    if not same and (base.path is None or base.path != model.path):
        raise ConfigError(
            _FIELD,
            f"{name} was trained on {base.name}, not on {model.name}.",
            f"Set model.name_or_path to {base.name}, or begin a new adapter.",
        )
