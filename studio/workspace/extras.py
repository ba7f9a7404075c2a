"""The models that a method reads beside the one it trains: reward models, a teacher.

In: a RunConfig. Out: an ExtraModel for each name in it. Raises ConfigError at the knob that names it.
"""

from __future__ import annotations

from pathlib import Path

from studio.core.chain import refuse_unnamed
from studio.core.config import RunConfig
from studio.core.configfile import parse_config, read_yaml
from studio.core.errors import ConfigError, StudioError
from studio.core.inputs import ExtraModel, Inputs, ModelInput
from studio.core.job import JobFolder
from studio.workspace.home import is_slug, runs_dir
from studio.workspace.models import resolve_model

_FILE = "file:"
_MODEL = "model:"


def resolve_extras(config: RunConfig) -> dict[str, ExtraModel]:
    """By the name as the config has it (`model:run:<id>`), or `teacher`."""
    found = {}
    for reward in getattr(config.method, "rewards", ()):
        if reward.startswith(_MODEL):
            found[reward] = resolve_extra(reward.removeprefix(_MODEL), "method.rewards", "reward")
    teacher = getattr(config.method, "teacher_model_name_or_path", None)
    if teacher is not None:
        if not teacher:
            raise ConfigError("method.teacher_model_name_or_path", "there is no teacher yet.", "Name a model.")
        found["teacher"] = resolve_extra(teacher, "method.teacher_model_name_or_path", "")
    return found


def reward_files(config: RunConfig) -> dict[str, str]:
    """The Python files among the rewards, by the names they get in the run's folder: what was allowed is what runs."""
    found = {}
    for number, reward in enumerate(getattr(config.method, "rewards", ())):
        if reward.startswith(_FILE):
            path = Path(reward.removeprefix(_FILE)).expanduser()
            try:
                found[f"reward-{number}.py"] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError, ValueError):
                raise ConfigError("method.rewards", f"{path} can't be read.", "Give a Python file.") from None
    return found


def resolve_extra(name: str, field: str, method: str) -> ExtraModel:
    """A run's result, or a model by its name. `method`: what a run must have learnt by ("": anything).

    Raises ConfigError at `field`.
    """
    if not name.startswith("run:"):
        try:
            return ExtraModel(resolve_model(name))
        except StudioError as error:
            raise ConfigError(field, error.message, error.hint) from None
    refuse_unnamed(field, name)
    run_id = name.removeprefix("run:")
    folder = JobFolder(runs_dir() / run_id)
    if not is_slug(run_id) or not folder.run_config.is_file():
        raise ConfigError(field, f"There is no run {run_id[:80]!r}.", "`studio runs list` shows them.")
    config = parse_config(read_yaml(folder.run_config))
    if method and config.method.name != method:
        raise ConfigError(
            field, f"The run {run_id} learnt by {config.method.name}.", f"Name a run of the method {method}."
        )
    if config.saves_model and (folder.model / "config.json").is_file():
        return ExtraModel(ModelInput("folder", run_id, str(folder.model)))
    if not config.saves_model and (folder.adapter / "adapter_config.json").is_file():
        return ExtraModel(Inputs.read(folder.inputs).model, str(folder.adapter))
    raise ConfigError(field, f"The run {run_id} has no result yet.", "Wait until it has finished.")
