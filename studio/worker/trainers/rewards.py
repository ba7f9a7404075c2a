"""What makes an answer good: functions that give it a number, chosen from a list.

In: rewards as run.yaml names them. Out: functions as TRL calls them. Each judges an answer by itself; a reward model's
score is `scoring`'s. Knows no trainer.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import regex

from studio.core.errors import ConfigError

# Answers, one a completion -> numbers; TRL adds `prompts`, `completion_ids` and the dataset's columns by name.
Reward = Callable[..., "list[float | None]"]

_PATIENCE = 1.0  # seconds for one answer and one regular expression


def format_reward(pattern: str) -> Reward:
    """1 where the whole answer matches, else 0; an expression that runs away counts as no match."""
    compiled = regex.compile(pattern, regex.DOTALL)

    def format(completions: Sequence[str], **_: Any) -> list[float | None]:
        return [float(_matches(compiled, text.strip())) for text in completions]

    return format


def _matches(compiled: Any, text: str) -> bool:
    try:
        return compiled.fullmatch(text, timeout=_PATIENCE) is not None
    except TimeoutError:
        return False


def exact_match(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float | None]:
    """1 where an answer comes to the dataset's, else 0.

    What counts of an answer is what stands in a \\boxed{}, behind "####" or "Answer:", else all of it; numbers are
    compared as numbers, all else word by word.
    """
    return [float(_same(final(text), final(wanted))) for text, wanted in zip(completions, answer, strict=True)]


_MARKS = (regex.compile(r"\\boxed\{([^{}]*)\}"), regex.compile(r"####\s*(.+)"), regex.compile(r"(?i)answer:\s*(.+)"))


def final(text: str) -> str:
    """What an answer comes to."""
    for mark in _MARKS:
        if found := mark.findall(text):
            return str(found[-1]).strip()
    return text.strip()


def _same(one: str, other: str) -> bool:
    numbers = _number(one), _number(other)
    if None not in numbers:
        return math.isclose(numbers[0], numbers[1], rel_tol=1e-9)  # type: ignore[arg-type]
    return one.casefold().split() == other.casefold().split()


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").strip("$€£ ").rstrip("."))
    except ValueError:
        return None


def contains(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float | None]:
    """1 where an answer holds the dataset's, whatever the case and the spaces, else 0."""
    pairs = zip(completions, answer, strict=True)
    return [float(" ".join(want.casefold().split()) in " ".join(text.casefold().split())) for text, want in pairs]


def length_reward(target: int) -> Reward:
    """1 at `target` tokens, falling evenly to 0 at none and at twice as many."""

    def length(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
        return [max(0.0, 1 - abs(len(ids) - target) / target) for ids in completion_ids]

    return length


def is_json(completions: Sequence[str], **_: Any) -> list[float | None]:
    """1 where an answer is a JSON object or array, bare or in a fence of three backticks, else 0."""
    return [float(_is_json(text)) for text in completions]


_FENCE = regex.compile(r"^```(?:json)?\s*(.*?)\s*```$", regex.DOTALL)


def _is_json(text: str) -> bool:
    bare = text.strip()
    fenced = _FENCE.match(bare)
    try:
        return isinstance(json.loads(fenced[1] if fenced else bare), (dict, list))
    except (ValueError, RecursionError):
        return False


def file_reward(path: Path) -> Reward:
    """The function `reward(completions, prompts, answers)` of a Python file: a list of numbers, one an answer.

    The file is code that runs: whoever calls this was allowed to. Raises ConfigError.
    """
    reward = getattr(_loaded(path), "reward", None)
    if not callable(reward):
        raise ConfigError("method.rewards", f"{path.name} has no function `reward`.", _SIGNATURE)

    def file(completions: Sequence[str], prompts: Sequence[str], answer: Sequence[str], **_: Any) -> list[float | None]:
        try:
            found = [None if value is None else float(value) for value in reward(completions, prompts, answer)]
        except Exception as error:
            raise ConfigError("method.rewards", f"The reward's file failed ({error!r}).", _SIGNATURE) from error
        if len(found) != len(completions):
            words = f"The reward's file gave {len(found)} numbers for {len(completions)} answers."
            raise ConfigError("method.rewards", words, _SIGNATURE)
        return found

    return file


_SIGNATURE = "Define reward(completions, prompts, answers), which gives a list with a number for each completion."


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError("method.rewards", f"The reward's file can't be loaded ({error!r}).", _SIGNATURE) from error
    return module


_PLAIN: dict[str, Reward] = {"exact_match": exact_match, "contains": contains, "json": is_json}


def reward_functions(rewards: Sequence[str], folder: Path, scored: Callable[[str], Reward]) -> list[Reward]:
    """A function for each reward of `method.rewards`, with the name that its curve gets.

    `folder`: the run's, where the files that were allowed lie; `scored` makes the function of a reward model.
    """
    found = []
    names = [reward.partition(":")[0] for reward in rewards]
    for number, reward in enumerate(rewards):
        name, _, argument = reward.partition(":")
        if name == "format":
            function = format_reward(argument)
        elif name == "length":
            function = length_reward(int(argument))
        elif name == "file":
            function = file_reward(folder / f"reward-{number}.py")
        elif name == "model":
            function = scored(reward)
        else:
            function = _PLAIN[name]
        found.append(_named(function, name if names.count(name) == 1 else f"{name}_{number}"))
    return found


def _named(function: Reward, name: str) -> Reward:
    def reward(**given: Any) -> list[float | None]:
        return function(**given)

    reward.__name__ = name
    return reward
