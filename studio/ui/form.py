"""RunConfig's fields as controls, and controls as a RunConfig.

In: the knobs that core describes. Out: a `Form`: one Gradio control a knob, each with its plain name, its real one,
its unit and its help; the values to put into them; the config that stands in them, or the ConfigError that core
raises. Bounds are core's: no control has any. Two things are not knobs one by one: the method, and the adapter, which
is a choice of three (QLoRA is LoRA on a quantized model).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.core.config import LoraAdapter, RunConfig
from studio.core.configfile import merge, parse_config
from studio.core.knobs import Knob, knobs
from studio.ui.gradio_import import gr
from studio.ui.spelling import read, written
from studio.ui.text_forms import say

METHOD, ADAPTER = "method", "adapter"  # the two controls that are not knobs
ADAPTERS = ("lora", "qlora", "full")
QUANTIZATION = "model.quantization"
PICKED = ("model.name_or_path", "dataset.path")  # dropdowns that take any text; what can be chosen is not known here
_OF_ROWS = tuple(f"dataset.{name}" for name in ("format", "columns", "tags", "exclude", "exclude_rows", "stratify_by"))
ONLY_QUANTIZED = (QUANTIZATION, "model.double_quant")
_PICKED_WITH = (
    "model.name_or_path",
    "model.revision",
    "dataset.path",
    "dataset.format",
    "dataset.columns",
    "dataset.tags",
)
_FIRST_QUANTIZATION = "nf4"
_LONG = {"dataset.system_prompt"}

# A knob whose bounds leave one value is none yet.
KNOBS: dict[str, Knob] = {knob.path: knob for knob in knobs() if knob.ge is None or knob.ge != knob.le}
NAMES: tuple[str, ...] = (METHOD, ADAPTER, *KNOBS)


def to_values(config: RunConfig) -> dict[str, Any]:
    """What stands in the controls for a config. `to_config` gives the same config back."""
    tree = {**config.model_dump(), "adapter": (config.adapter or LoraAdapter()).model_dump()}
    values = {METHOD: config.method.name, ADAPTER: _adapter_kind(config)}
    for path, knob in KNOBS.items():
        section, leaf = path.split(".")
        values[path] = written(knob, tree[section][leaf])
    if config.model.quantization == "none":
        values[QUANTIZATION] = _FIRST_QUANTIZATION
    return values


def to_config(values: Mapping[str, Any]) -> RunConfig:
    """The config that stands in the controls. Raises ConfigError at the first field at fault."""
    kind = values[ADAPTER]
    tree: dict[str, Any] = {"method": {"name": values[METHOD]}, "adapter": {}}
    for path, knob in KNOBS.items():
        section, leaf = path.split(".")
        tree.setdefault(section, {})[leaf] = read(knob, values[path])
    if kind == "full":
        tree["adapter"] = None
    if kind != "qlora":
        tree["model"]["quantization"] = "none"
    return parse_config(tree)


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


def _adapter_kind(config: RunConfig) -> str:
    if config.adapter is None:
        return "full"
    return "lora" if config.model.quantization == "none" else "qlora"


def at(field_path: str) -> str | None:
    """The name of the control at which an error of core's is shown; None if there is none for it."""
    while field_path and field_path not in NAMES:
        field_path = field_path.rpartition(".")[0]
    return field_path or None


def title(name: str) -> str:
    """A control's plain name."""
    return KNOBS[name].title if name in KNOBS else say(f"train.{name}")


def note(name: str, text: str = "") -> str:
    """What stands at a control beside its title: the real name of the argument, and a sentence."""
    argument = f"`{name.rpartition('.')[2]}` " if name in NAMES else ""
    return argument + (text or (KNOBS[name].help if name in KNOBS else ""))


def fault(name: str, message: str) -> str:
    """What is wrong with the value in a control, as a sentence. Core says "should be ...": of what, is said here."""
    if message.startswith("should "):
        return say("train.field.should", title=title(name), message=message)
    return f"{message[:1].upper()}{message[1:]}"


def unmarked(sentence: str) -> str:
    """A sentence for a control's note, where Gradio reads a little Markdown: what it quotes is left without any."""
    return sentence.replace("`", "'").replace("*", "∗").replace("](", "] (").replace("__", "_\u200b_")


def classes(name: str, *, bad: bool = False) -> list[str]:
    """A control's CSS classes."""
    found = ["knob", *(["segments"] if name == ADAPTER else []), *(["wide"] if name in _LONG else [])]
    return [*found, "bad"] if bad else found


@dataclass
class Form:
    """The controls by name, in the order of `NAMES`, and the folds they lie in by group."""

    controls: dict[str, Any] = field(default_factory=dict)
    folds: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Any]:
        """The controls in the order in which `read` expects their values."""
        return [self.controls[name] for name in NAMES]

    def read(self, shown: Sequence[Any]) -> dict[str, Any]:
        """What an event handler was given for `inputs`, by name."""
        return dict(zip(NAMES, shown, strict=True))

    def add(self, name: str, value: Any, **more: Any) -> Any:
        """Make the control of a knob here."""
        self.controls[name] = control(name, value, **more)
        return self.controls[name]

    def add_folds(self, values: Mapping[str, Any]) -> None:
        """All knobs that are not basic, folded by subject."""
        groups: dict[str, list[str]] = {}
        for path, knob in KNOBS.items():
            if not knob.basic:
                groups.setdefault(knob.group, []).append(path)
        for group, paths in groups.items():
            shown = group != ADAPTER or values[ADAPTER] != "full"
            with (
                gr.Accordion(
                    say(f"train.group.{group}"),
                    open=False,
                    visible=shown,
                    elem_id=f"fold-{group}",
                    elem_classes=["fold"],
                ) as self.folds[group],
                gr.Row(elem_classes=["knobs"]),
            ):
                for path in paths:
                    quantized = path not in ONLY_QUANTIZED or values[ADAPTER] == "qlora"
                    self.add(path, values[path], visible=quantized)


def control(name: str, value: Any, **more: Any) -> Any:
    """A knob's control, holding `value` as `written`."""
    knob = KNOBS[name]
    label = say("train.unit", title=knob.title, unit=knob.unit) if knob.unit else knob.title
    told: dict[str, Any] = {
        "label": label,
        "info": note(name),
        "value": value,
        "elem_id": f"knob-{name.replace('.', '-')}",
        "elem_classes": classes(name),
        "interactive": True,
        **more,
    }
    if name in PICKED:
        return gr.Dropdown(allow_custom_value=True, **{"choices": [value], **told})
    if knob.kind == "bool":
        return gr.Checkbox(**told)
    if knob.kind == "choice":
        return gr.Dropdown([c for c in knob.choices if name != QUANTIZATION or c != "none"], filterable=False, **told)
    if knob.kind == "list":
        return gr.CheckboxGroup(list(knob.choices), **told)
    lines = 3 if name in _LONG else 1
    if lines > 1:
        told["elem_classes"] = ["knob", "wide"]
    return gr.Textbox(
        lines=lines,
        max_lines=10 if lines > 1 else 1,
        placeholder=say("train.optional") if knob.optional else "",
        **told,
    )
