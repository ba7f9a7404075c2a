"""What was carried over from one program's settings to another's, and what was not.

In: pairs of names that mean the same. Out: a `Carried`. Knows no program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Left:
    """A setting that could not be carried over, and why, as a clause."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {self.why}."


@dataclass
class Carried:
    """`settings`: nested for run.yaml, flat for the other programs."""

    settings: dict[str, Any] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def put(self, path: str, value: Any) -> None:
        """Set a dotted path."""
        section, _, name = path.rpartition(".")
        place = self.settings
        for part in section.split(".") if section else ():
            place = place.setdefault(part, {})
        place[name] = value

    def leave(self, key: str, value: Any, why: str) -> None:
        self.left.append(Left(key, value, why))


@dataclass(frozen=True)
class Pair:
    """Two names for one thing. `values` maps theirs to ours where they differ; `read` and `write` change a value."""

    theirs: str
    ours: str
    values: Mapping[Any, Any] | None = None
    read: Change | None = None
    write: Change | None = None


class Reader:
    """The settings of another program, taken one by one; what nobody took is left over."""

    def __init__(self, data: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.data = {key: value for key, value in data.items() if value is not None}
        self.defaults = defaults
        self.carried = Carried()
        self._taken: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """A setting's value, or what its absence means to that program."""
        self._taken.add(key)
        return self.data.get(key, self.defaults.get(key, default))

    def has(self, key: str) -> bool:
        return key in self.data

    def put(self, path: str, value: Any) -> None:
        self.carried.put(path, value)

    def leave(self, key: str, why: str) -> None:
        """Say of a setting that is there why it isn't carried over."""
        self._taken.add(key)
        if key in self.data:
            self.carried.leave(key, self.data[key], why)

    def pairs(self, pairs: Iterable[Pair]) -> None:
        """Take every setting that has a name here."""
        for pair in pairs:
            value = self.take(pair.theirs)
            if value is None:
                continue
            if pair.values is not None:
                if value not in pair.values:
                    self.leave(pair.theirs, f"there is nothing like {value!r} here")
                    continue
                value = pair.values[value]
            self.put(pair.ours, pair.read(value) if pair.read else value)

    def finish(self, pointless: Mapping[str, str], unknown: str) -> Carried:
        """Everything that is left: `pointless` says why some keys have no counterpart, `unknown` is for the rest."""
        for key, value in self.data.items():
            if key not in self._taken and value not in (False, "", [], {}):
                self.carried.leave(key, value, pointless.get(key, unknown))
        return self.carried


def write_pairs(config: Mapping[str, Any], pairs: Iterable[Pair]) -> dict[str, Any]:
    """The values of a dumped RunConfig under another program's names; null ones are left out."""
    found = {}
    for pair in pairs:
        value = at(config, pair.ours)
        if pair.values is not None:
            back = {ours: theirs for theirs, ours in reversed(list(pair.values.items()))}
            if value not in back:
                continue
            value = back[value]
        value = pair.write(value) if pair.write and value is not None else value
        if value is not None:
            found[pair.theirs] = value
    return found


# Values that transformers takes by itself, so that nobody has to write them.
_USUAL = {
    "max_grad_norm": 1.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "seed": 42,
    "packing_strategy": "bfd",
    "metric_for_best_model": "eval_loss",
}
STARTER = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what others call the model that is `starter` here


def spare(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that say what the program would do anyway."""

    def said(key: str, value: Any) -> bool:
        usual = defaults.get(key, _USUAL.get(key))
        return value != usual if usual is not None else value not in (False, 0, "", [], {})

    return {key: value for key, value in settings.items() if said(key, value)}


def at(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def model_name(name: str) -> str:
    """A model as other programs find it."""
    return STARTER if name == "starter" else name


def whole(value: Any) -> Any:
    """16.0 as 16: some of these programs take whole numbers only."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(value: Any) -> Any:
    """YAML 1.1 reads 2e-4 as text; so do these programs' users write it."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def listed(value: Any) -> list[str]:
    """A list, or a text with commas between."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [str(part) for part in value or []]


# What programs share that rest on transformers' Trainer.
TRAINER = (
    Pair("num_train_epochs", "training.num_train_epochs", read=number),
    Pair("per_device_train_batch_size", "training.per_device_train_batch_size"),
    Pair("gradient_accumulation_steps", "training.gradient_accumulation_steps"),
    Pair("lr_scheduler_type", "training.lr_scheduler_type"),
    Pair("lr_scheduler_kwargs", "training.lr_scheduler_kwargs", write=lambda given: given or None),
    Pair("weight_decay", "training.weight_decay", read=number),
    Pair("max_grad_norm", "training.max_grad_norm", read=number),
    Pair("neftune_noise_alpha", "training.neftune_noise_alpha", read=number),
    Pair("optim", "training.optim"),
    Pair("seed", "training.seed"),
    Pair("save_total_limit", "training.save_total_limit"),
    Pair("dataloader_num_workers", "training.dataloader_num_workers"),
    Pair("max_steps", "training.max_steps", read=lambda steps: steps if int(steps) > 0 else None),
)
