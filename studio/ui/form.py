"""RunConfig's fields as controls by name, and what stands in the controls as a RunConfig.

In: the knobs that core describes. Out: the controls' names; the values to put into them; the config that stands in
them, or the ConfigError that core raises. Bounds are core's. Knobs that only one method or adapter has go by a name of
their own (`method.dpo.beta`), keep their value while another is chosen, and come into the config only with it. Two
controls are not knobs: the method, and the adapter (QLoRA is LoRA on a quantized model).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from studio.core.config import RunConfig
from studio.core.configfile import merge, parse_config
from studio.core.knobs import Knob, knobs, sections_of, tag_of
from studio.ui.spelling import read, written
from studio.ui.text_forms import say

METHOD, ADAPTER = "method", "adapter"  # the two controls that are not knobs
ADAPTERS = ("lora", "qlora", "full")  # the ways to train that stand side by side; the other kinds come after them
QUANTIZATION = "model.quantization"
PICKED = ("model.name_or_path", "dataset.path")  # dropdowns that take any text; what can be chosen is not known here
# Ways to train without a quantized base, whatever stands in its control.
UNQUANTIZED = ("lora", "full", "freeze")
_OF_ROWS = tuple(f"dataset.{name}" for name in ("format", "columns", "tags", "exclude", "exclude_rows", "stratify_by"))
_PICKED_WITH = (
    "model.name_or_path",
    "model.revision",
    "dataset.path",
    "dataset.format",
    "dataset.columns",
    "dataset.tags",
)
_FIRST_QUANTIZATION = "nf4"

# By key: what no other knob is called. A knob whose bounds leave one value is none yet.
KNOBS: dict[str, Knob] = {knob.key: knob for knob in knobs() if knob.ge is None or knob.ge != knob.le}
NAMES: tuple[str, ...] = (METHOD, ADAPTER, *KNOBS)
DRAWN: tuple[str, ...] = tuple(name for name in NAMES if name not in PICKED)  # by the page's own script
METHODS: tuple[str, ...] = tuple(map(tag_of, sections_of(RunConfig.model_fields[METHOD])))
KINDS: tuple[str, ...] = (
    *ADAPTERS,
    *(tag for tag in map(tag_of, sections_of(RunConfig.model_fields[ADAPTER])) if tag not in ADAPTERS),
)


def to_values(config: RunConfig) -> dict[str, Any]:
    """What stands in the controls for a config. `to_config` gives the same config back."""
    tree = config.model_dump()
    kind = _adapter_kind(config)
    values = {**_usual(), METHOD: config.method.name, ADAPTER: kind}
    for name, knob in KNOBS.items():
        section, leaf = knob.path.split(".")
        if is_asked(knob, values):
            values[name] = written(knob, tree[section][leaf])
    if kind in UNQUANTIZED:
        values[QUANTIZATION] = _FIRST_QUANTIZATION
    return values


def to_config(values: Mapping[str, Any]) -> RunConfig:
    """The config that stands in the controls. Raises ConfigError at the first field at fault."""
    kind = values[ADAPTER]
    tree: dict[str, Any] = {METHOD: {"name": values[METHOD]}, ADAPTER: {"type": _type(kind)}}
    for name, knob in KNOBS.items():
        if is_asked(knob, values):
            section, leaf = knob.path.split(".")
            tree.setdefault(section, {})[leaf] = read(knob, values[name])
    if kind == "full":
        tree[ADAPTER] = None
    if kind in UNQUANTIZED:
        tree["model"]["quantization"] = "none"
    elif kind == "qlora" and tree["model"]["quantization"] == "none":
        tree["model"]["quantization"] = _FIRST_QUANTIZATION
    return parse_config(tree)


def is_asked(knob: Knob, values: Mapping[str, Any]) -> bool:
    """Whether the chosen method and adapter have this knob."""
    return knob.of in ("", values[METHOD], _type(values[ADAPTER]))


def _type(kind: Any) -> Any:
    return "lora" if kind == "qlora" else kind


@lru_cache(maxsize=1)
def _usual() -> dict[str, Any]:
    return {name: written(knob, knob.default) for name, knob in KNOBS.items()}


def _adapter_kind(config: RunConfig) -> str:
    kind = getattr(config.adapter, "type", "full")
    return "qlora" if kind == "lora" and config.model.quantization != "none" else str(kind)


def laid_over(values: Mapping[str, Any], preset: Mapping[str, Any]) -> RunConfig:
    """A preset's config: what it doesn't set is as by default, but for the model and the dataset that were picked.

    So a preset gives the same run whatever was tried before, and still suits one's own data. Raises ConfigError.
    """
    kept: dict[str, Any] = {}
    for path in _PICKED_WITH if values else ():
        section, leaf = path.split(".")
        picked = PICKED[0] if section == "model" else PICKED[1]
        if picked.split(".")[1] not in preset.get(section, {}):
            kept.setdefault(section, {})[leaf] = read(KNOBS[path], values[path])
    return parse_config(merge(kept, preset))


def read_handed(given: str) -> dict[str, str]:
    """What the Data tab hands over, as values of controls: a dataset, and the length at which its rows are cut."""
    try:
        told = json.loads(given)
    except ValueError:
        return {}
    values = {PICKED[1]: told.get("dataset"), "training.max_length": told.get("max_length")}
    found = {name: str(value) for name, value in values.items() if isinstance(value, (str, int)) and value}
    if PICKED[1] in found:  # what was said of another dataset's columns would be wrong of this one's
        found |= {name: written(KNOBS[name], KNOBS[name].default) for name in _OF_ROWS}
    return found


def read_page(picked: Mapping[str, Any], drawn: Any) -> dict[str, Any]:
    """All values by name: of the dropdowns, and of what the page draws (JSON), where it says anything."""
    try:
        told = json.loads(drawn)
    except (ValueError, TypeError, RecursionError):
        told = {}
    known = {name: told[name] for name in DRAWN if name in told} if isinstance(told, dict) else {}
    for name, kinds in ((METHOD, METHODS), (ADAPTER, KINDS)):
        if known.get(name) not in kinds:
            known.pop(name, None)
    return {**to_values(RunConfig()), **known, **picked}


def written_page(values: Mapping[str, Any]) -> str:
    """The values of what the page draws, as JSON that is no markup wherever it is put."""
    return as_json({name: values[name] for name in DRAWN if name in values})


def as_json(told: Any) -> str:
    """JSON without a `<`: what it quotes can't be taken for markup."""
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def at(field_path: str, values: Mapping[str, Any]) -> str | None:
    """The name of the control at which an error of core's is shown; None if there is none for it."""
    section, _, leaf = field_path.partition(".")
    for chosen in (values[METHOD], _type(values[ADAPTER])):
        own = f"{section}.{chosen}.{leaf.partition('.')[0]}"
        if own in KNOBS:
            return own
    while field_path and field_path not in NAMES:
        field_path = field_path.rpartition(".")[0]
    return field_path or None


def title(name: str) -> str:
    """A control's plain name."""
    return KNOBS[name].title if name in KNOBS else say(f"train.{name}")


def note(name: str, text: str = "") -> str:
    """What stands at a dropdown beside its title: the real name of the argument, and a sentence."""
    argument = f"`{name.rpartition('.')[2]}` " if name in NAMES else ""
    return argument + (text or (KNOBS[name].help if name in KNOBS else ""))


def fault(name: str, message: str) -> str:
    """What is wrong with the value in a control, as a sentence. Core says "should be ...": of what, is said here."""
    if message.startswith("should "):
        return say("train.field.should", title=title(name), message=message)
    return f"{message[:1].upper()}{message[1:]}"


def unmarked(sentence: str) -> str:
    """A sentence for a dropdown's note, where Gradio reads a little Markdown: what it quotes is left without any."""
    return sentence.replace("`", "'").replace("*", "∗").replace("](", "] (").replace("__", "_\u200b_")


def classes(name: str, *, bad: bool = False) -> list[str]:
    """A dropdown's CSS classes."""
    return ["knob", "bad"] if bad else ["knob"]
