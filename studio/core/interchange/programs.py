"""Which program a file is for, and both ways through one door.

In: the mapping in a YAML file, or a RunConfig and a program's name. Out: a RunConfig with what was not carried over,
or such a program's file and the command that runs it. Raises ConfigError.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from studio.core.config import RunConfig
from studio.core.configfile import parse_config, to_yaml
from studio.core.errors import ConfigError
from studio.core.interchange import axolotl, llamafactory, trl
from studio.core.interchange.carried import Left
from studio.core.interchange.trl.names import COMMANDS

PROGRAMS: dict[str, ModuleType] = {"llamafactory": llamafactory, "axolotl": axolotl, "trl": trl}


@dataclass(frozen=True)
class Taken:
    """A file of another program as a run. `program`: its name as in PROGRAMS."""

    program: str
    config: RunConfig
    left: tuple[Left, ...]


@dataclass(frozen=True)
class Given:
    """A run as another program's `text` (a YAML file; empty where the command says it all) and `command`."""

    program: str
    text: str
    command: str
    left: tuple[Left, ...]


def recognise(data: Mapping[str, Any]) -> str:
    """The program whose own keys a file has most of. Raises ConfigError where it has nobody's."""
    counts = {name: sum(sign in data for sign in module.SIGNS) for name, module in PROGRAMS.items()}
    best = max(counts, key=lambda name: counts[name])
    if not counts[best]:
        raise ConfigError(
            "", "These are no settings of LLaMA-Factory, Axolotl or TRL.", f"Say whose: --from {'|'.join(PROGRAMS)}."
        )
    return best


def take(data: Mapping[str, Any], program: str = "", method: str = "", dataset_info: Any = None) -> Taken:
    """The run that another program's settings describe. `method` overrules what the file says or seems to say."""
    name = known(program) if program else recognise(data)
    module = PROGRAMS[name]
    carried = module.read(data, dataset_info, method)
    if method:
        carried.put("method.name", method)
    return Taken(name, parse_config(carried.settings), tuple(carried.left))


def give(config: RunConfig, program: str) -> Given:
    """A run for another program."""
    name = known(program)
    carried = PROGRAMS[name].write(config)
    if name == "trl":
        command = config.method.name if config.method.name in COMMANDS else "sft"
        options = [f"--{key} {_spelt(value)}" for key, value in carried.settings.items()]
        return Given(name, "", " \\\n  ".join([f"trl {command}", *options]), tuple(carried.left))
    start = "llamafactory-cli train" if name == "llamafactory" else "axolotl train"
    return Given(name, to_yaml(carried.settings), f"{start} {name}.yaml", tuple(carried.left))


def known(program: str) -> str:
    """A program's name as in PROGRAMS. Raises ConfigError."""
    name = program.lower().replace("-", "").replace("_", "")
    if name not in PROGRAMS:
        raise ConfigError("", f"There is no program {program!r}.", f"Choose from {', '.join(PROGRAMS)}.")
    return name


def _spelt(value: Any) -> str:
    """A value as an option of a command has it."""
    if isinstance(value, list):
        return " ".join(shlex.quote(str(part)) for part in value)
    if isinstance(value, dict):
        import json

        return shlex.quote(json.dumps(value))
    return shlex.quote(str(value))
