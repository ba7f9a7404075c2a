"""The commands `studio import` and `studio command`: other programs' settings as run.yaml, and the other way.

In: arguments. Out: YAML or a command on stdout; what couldn't be carried over on stderr, a line each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from studio.say import Json, put, say

File = Annotated[Path, typer.Argument(metavar="FILE", help="A LLaMA-Factory, Axolotl or TRL training YAML.")]
Run = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="A run or a preset.")]


def import_(
    file: File,
    program: Annotated[str, typer.Option("--from", help="llamafactory, axolotl or trl; empty finds out.")] = "",
    method: Annotated[str, typer.Option(help="For TRL, whose files don't say: sft, dpo, kto, reward, grpo.")] = "",
    out: Annotated[Path | None, typer.Option(help="A new file to write instead of stdout.")] = None,
    as_json: Json = False,
) -> None:
    """Turn another program's training YAML into run.yaml, and list what could not be carried over."""
    from studio.core.configfile import config_to_yaml, read_yaml
    from studio.core.errors import TargetError
    from studio.core.interchange.programs import PROGRAMS, take
    from studio.core.job import write_text

    data = read_yaml(file)
    data, info = _dataset_info(file, data)
    taken = take(data, program, method, info)
    text = config_to_yaml(taken.config)
    if out is not None:
        if out.exists():
            raise TargetError(f"{out} exists.", "Give a new file.")
        write_text(out, text)
    told = {"program": taken.program, "config": taken.config.model_dump(mode="json"), "left": _left(taken.left)}
    say(f"Read as a file of {PROGRAMS[taken.program].NAME}.")
    _tell(taken.left)
    put(told, as_json, str(out) if out else text.rstrip())


def command(
    file: Run,
    program: Annotated[str, typer.Option("--as", help="trl, llamafactory or axolotl.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="knob=value, as often as needed.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run as another program has it: its file, and the command that runs it."""
    from studio.core.configfile import load_config
    from studio.core.interchange.programs import give

    given = give(_with_files(load_config(file, overrides or ())), program)
    _tell(given.left)
    told = {"program": given.program, "file": given.text, "command": given.command, "left": _left(given.left)}
    put(told, as_json, f"{given.text}\n# {given.command}" if given.text else given.command)


def _dataset_info(file: Path, data: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """LLaMA-Factory's list of datasets, beside the file or where its paths begin, and the settings with its folder.

    None where there is no such list.
    """
    import json

    folder = Path(str(data.get("dataset_dir") or "data"))
    for root in (Path.cwd(), *file.absolute().parents[:4]):
        try:
            info = json.loads((root / folder / "dataset_info.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return {**data, "dataset_dir": str(root / folder)}, info
    return data, None


def _with_files(config: Any) -> Any:
    """A RunConfig with a registered dataset's name as its file's: nobody else knows our names."""
    from studio.core.errors import StudioError
    from studio.workspace.datasets import resolve_dataset

    if not isinstance(config.dataset.path, str):
        return config
    try:
        found = resolve_dataset(config.dataset)
    except StudioError:
        return config
    if found.kind != "files" or not found.path:
        return config
    return config.model_copy(update={"dataset": config.dataset.model_copy(update={"path": found.path})})


def _left(left: Any) -> list[dict[str, Any]]:
    return [{"key": one.key, "value": one.value, "why": one.why} for one in left]


def _tell(left: Any) -> None:
    for one in left:
        say(f"Not carried over: {one}")
