"""What an export would be, told before it starts: a card for each target, and a line for each thing that it needs.

In: a run, the choices made. Out: plain dicts for the page's script, which draws them. What things cost is
`workspace.exportplan`'s, whether the target will do `workspace.submission`'s.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from studio.core.config import BNB_TYPES, GGUF_TYPES, ExportConfig, RunConfig
from studio.core.errors import StudioError, TargetError
from studio.ui import shown
from studio.ui.text_export import say
from studio.workspace import exportplan
from studio.workspace.exportplan import Material, Needs
from studio.workspace.home import exports_dir, slug
from studio.workspace.models import resolve_model
from studio.workspace.runs import Run
from studio.workspace.submission import check_target

TARGETS = ("merged", "ollama", "gguf", "adapter", "gguf-lora", "bnb")
_QUANTIZED = {"ollama": GGUF_TYPES, "gguf": GGUF_TYPES, "bnb": BNB_TYPES}
_MARGIN = 1.02  # of the disk, as the worker asks for it
_SPARE = 2**20

Line = dict[str, str]


def told(found: Material, config: ExportConfig, suggested: str, taken: Collection[str]) -> dict[str, Any]:
    """Everything the form shows for these choices. `taken`: targets that live exports write to."""
    needs = exportplan.needs(found, config)
    lines = _lines(found, config, needs, taken)
    blocked = exportplan.obstacle(found, config.format) is not None
    bad = next((line["text"] for line in lines if line["state"] == "bad"), "")
    return {
        "run": found.run.id,
        "format": config.format,
        "suggested": suggested,
        "cards": [card(found, config, format) for format in TARGETS],
        "choices": choices(found, config),
        "lines": [] if blocked else lines,
        "reason": say("export.blocked") if blocked else bad,
    }


def card(found: Material, config: ExportConfig, format: str) -> dict[str, Any]:
    """A target: its words, its size with the choices made (where they are its own), or why it is none for this run."""
    stands = exportplan.obstacle(found, format)
    cannot = say(f"export.cannot.{stands[0]}", **stands[1]) if stands else ""
    size = None
    if not stands:
        own = config if config.format == format else plain(config, format)
        size = exportplan.needs(found, own).size
    return {
        "format": format,
        "title": say(f"export.{format}"),
        "note": say(f"export.{format}.note"),
        "size": say("export.cannot")
        if stands
        else say("export.size.unknown")
        if size is None
        else say("export.size", size=shown.size(size)),
        "cannot": cannot,
    }


def plain(config: ExportConfig, format: str) -> ExportConfig:
    """The same run as another target, with that target's own choices untouched."""
    return ExportConfig.model_validate({"run": config.run, "out": config.out, "format": format})


def choices(found: Material, config: ExportConfig) -> list[dict[str, Any]]:
    """The choices that belong to the chosen target."""
    format, made = config.format, []
    if format == "merged":
        kept = found.shape.dtype if found.shape else ""
        named = say("export.dtype.auto", name=kept) if kept else "auto"
        made.append(_choice("dtype", [(named if name == "auto" else name, name) for name in _dtypes()]))
    if format in _QUANTIZED:
        first = (
            "nf4"
            if format == "bnb"
            else exportplan.gguf_type(found, config.model_copy(update={"quantization": "auto"}))
        )
        options = [
            (say("export.quantization.auto", name=first), "auto"),
            *((name, name) for name in _QUANTIZED[format]),
        ]
        made.append(_choice("quantization", options))
    if format in ("merged", "bnb"):
        made.append(_choice("shard_size", []))
    if found.trained_quantized and format not in ("adapter", "gguf-lora"):
        options = [(say(f"export.quantized_base.{name}"), name) for name in ("original", "dequantized")]
        kind = found.run.config.model.quantization
        made.append({**_choice("quantized_base", options), "note": say("export.quantized_base.note", kind=kind)})
    if format != "gguf-lora":
        made.append(_choice("parity", []))
    return made


def _dtypes() -> tuple[str, ...]:
    return get_args(ExportConfig.model_fields["dtype"].annotation)


def _choice(name: str, options: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "name": name,
        "title": say(f"export.{name}"),
        "note": say(f"export.{name}.note"),
        "options": [{"title": title, "value": value} for title, value in options],
    }


# -- a line for each thing --------------------------------------------------------------------------------------------


def _lines(found: Material, config: ExportConfig, needs: Needs, taken: Collection[str]) -> list[Line]:
    lines = [_base(found, config), _disk(config, needs), *_memory(found, needs), _target(found.run, config, taken)]
    return [line for line in lines if line]


def _line(state: str, text: str, key: str) -> Line:
    return {"state": state, "text": text, "key": key}


def _base(found: Material, config: ExportConfig) -> Line:
    if config.format == "adapter" or not found.adapter or found.run.inputs is None:
        return {}
    name = found.run.inputs.model.name
    here = found.folder is not None
    key = "export.needs.base" if here else "export.needs.base.fetch"
    return _line("ok" if here else "warn", say(key, name=shown.plain(name, 80)), "base")


def _disk(config: ExportConfig, needs: Needs) -> Line:
    free = exportplan.disk_free(Path(config.out).expanduser())
    if needs.disk is None or free is None:
        return _line("warn", say("export.needs.disk.unknown"), "disk")
    short = free < needs.disk * _MARGIN + _SPARE
    key = "export.needs.disk.bad" if short else "export.needs.disk"
    told = say(key, needed=shown.size(needs.disk), free=shown.size(free))
    return _line("bad" if short else "ok", told, "disk")


def _memory(found: Material, needs: Needs) -> list[Line]:
    free = exportplan.memory_free()
    if needs.memory is None or free is None:
        return [_line("warn", say("export.needs.memory.unknown"), "memory")]
    figures = {"needed": shown.size(needs.memory), "free": shown.size(free)}
    if needs.memory > free:
        return [_line("bad", say("export.needs.memory.bad", **figures), "memory")]
    key = "export.needs.memory" if needs.streamed else "export.needs.memory.whole"
    lines = [_line("ok", say(key, **figures, **({} if needs.streamed else {"kind": found.kind})), "memory")]
    if needs.compare is not None:
        short = needs.compare > free
        key = "export.needs.compare.bad" if short else "export.needs.compare"
        told = say(key, needed=shown.size(needs.compare), free=shown.size(free))
        lines.append(_line("warn" if short else "ok", told, "compare"))
    return lines


def _target(run: Run, config: ExportConfig, taken: Collection[str]) -> Line:
    if not config.out.strip():
        return _line("bad", say("export.out.needed"), "target")
    try:
        target = check_target(Path(config.out), run)
    except TargetError as error:
        return _line("bad", say("export.needs.target.bad", why=shown.plain(str(error), 300)), "target")
    if str(target) in taken:
        return _line("bad", say("export.needs.target.taken"), "target")
    state = say("export.needs.target.empty" if target.is_dir() else "export.needs.target.new")
    return _line("ok", say("export.needs.target", state=state), "target")


def later(config: RunConfig) -> str:
    """What merging a run of this config will take, in one line; nothing for one that trains no adapter."""
    if config.adapter is None:
        return ""
    try:
        model = resolve_model(config.model.name_or_path, config.model.revision)
    except StudioError:  # it is told where the model is chosen
        return ""
    memory, disk, stored = exportplan.merge_of(model)
    if stored:
        return say("export.plan.stored", kind=shown.plain(stored, 40))
    if memory is None or disk is None:
        return say("export.plan.fetch")
    key = "here" if config.model.quantization == "none" else "quantized"
    return say(f"export.plan.{key}", memory=shown.size(memory), disk=shown.size(disk))


def suggestion(run: Run, format: str, taken: Collection[str]) -> Path:
    """A folder for an export: one that isn't there, and isn't the target of another."""
    first = exports_dir() / f"{slug(run.label, 'run')}-{format}"
    places = (first, *(first.with_name(f"{first.name}-{number}") for number in range(2, 1000)))
    return next((place for place in places if str(place) not in taken and not place.exists()), first)
