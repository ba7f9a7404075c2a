"""What an export would be, told before it starts: a card for each target, and a line for each thing that it needs.

In: a run, the choices made. Out: plain dicts for the page's script, which draws them. What things cost is
`workspace.exportplan`'s, whether the target will do `workspace.submission`'s.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol, get_args

from studio.core.config import BNB_TYPES, GGUF_TYPES, ExportConfig, RunConfig
from studio.core.errors import StudioError, TargetError
from studio.core.llamacpp import PROGRAM, QUANTIZED, VARIABLE, quantizer
from studio.ui import shown
from studio.ui.text_export import say
from studio.workspace import exportplan, lmstudio
from studio.workspace.exportplan import Material, Needs
from studio.workspace.exportsize import gguf_type
from studio.workspace.home import exports_dir, slug
from studio.workspace.models import resolve_model
from studio.workspace.modelshapes import ShapeState
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
        "place": _place(found.run, config),
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


def _place(run: Run, config: ExportConfig) -> dict[str, str] | None:
    """A target at one click, where there is one that the program looks into by itself."""
    if config.format != "gguf" or lmstudio.is_layout(Path(config.out).expanduser()):
        return None
    place = lmstudio.place_for(slug(run.label, "run"))
    return {"title": say("export.out.lmstudio"), "path": str(place)} if place is not None else None


def choices(found: Material, config: ExportConfig) -> list[dict[str, Any]]:
    """The choices that belong to the chosen target."""
    format, made = config.format, []
    if format == "merged":
        kept = found.shape.dtype if found.shape else ""
        named = say("export.dtype.auto", name=kept) if kept else "auto"
        made.append(_choice("dtype", [(named if name == "auto" else name, name) for name in _dtypes()]))
    if format in _QUANTIZED:
        first = "nf4" if format == "bnb" else gguf_type(found.shape, config.model_copy(update={"quantization": "auto"}))
        more, here = tuple(QUANTIZED) if format != "bnb" else (), quantizer() is not None
        options = [
            (say("export.quantization.auto", name=first), "auto"),
            *((name, name) for name in (*_QUANTIZED[format], *(more if here else ()))),
        ]
        choice = _choice("quantization", options)
        if more and not here:
            told = say("export.quantization.without", names=", ".join(more), program=PROGRAM, variable=VARIABLE)
            choice["note"] = f"{choice['note']} {told}"
        made.append(choice)
    if format in ("merged", "bnb"):
        made.append(_choice("shard_size", []))
    if found.trained_quantized and format not in ("adapter", "gguf-lora"):
        options = [(say(f"export.quantized_base.{name}"), name) for name in ("original", "dequantized")]
        kind = found.run.config.model.quantization
        made.append({**_choice("quantized_base", options), "note": say("export.quantized_base.note", kind=kind)})
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
    needed = [_base(found, config), _quantizer(config), _disk(config, needs), *_memory(found, needs)]
    return [line for line in (*needed, _target(found.run, config, taken)) if line]


def _line(state: str, text: str, key: str) -> Line:
    return {"state": state, "text": text, "key": key}


def _base(found: Material, config: ExportConfig) -> Line:
    if config.format == "adapter" or not found.adapter or found.run.inputs is None:
        return {}
    name = found.run.inputs.model.name
    here = found.folder is not None
    key = "export.needs.base" if here else "export.needs.base.fetch"
    return _line("ok" if here else "warn", say(key, name=shown.plain(name, 80)), "base")


def _quantizer(config: ExportConfig) -> Line:
    """What llama.cpp makes needs llama.cpp; an earlier export's choices may ask for it where it has gone."""
    if config.quantization not in QUANTIZED:
        return {}
    program = quantizer()
    if program is None:
        why = {"name": config.quantization, "program": PROGRAM, "variable": VARIABLE}
        return _line("bad", say("export.needs.quantizer.bad", **why), "quantizer")
    return _line("ok", say("export.needs.quantizer", program=shown.plain(program, 200)), "quantizer")


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
    found = config.format == "gguf" and lmstudio.is_layout(target)
    return _line("ok", say(f"export.needs.target{'.lmstudio' if found else ''}", state=state), "target")


class Shapes(Protocol):
    """Who knows a model's shape before its files are here: `workspace.estimating.Estimating`."""

    def shape_soon(self, model: str, revision: str | None = None) -> ShapeState: ...


def later(config: RunConfig, shapes: Shapes | None = None) -> str:
    """What merging a run of this config will take, in one line; nothing for one whose result is a whole model."""
    section = config.adapter
    if section is None or not section.is_peft:
        return ""
    if not section.merges:
        return say("export.plan.prompt")
    named = config.model.name_or_path, config.model.revision
    try:
        model = resolve_model(*named)
    except StudioError:  # it is told where the model is chosen
        return ""
    state = shapes.shape_soon(*named) if shapes is not None else ShapeState(None)
    found = exportplan.merge_of(model, section, state.shape)
    if found is None:
        return say("export.plan.asking" if state.busy else "export.plan.fetch")
    if found.stored:
        return say("export.plan.stored", kind=shown.plain(found.stored, 40))
    key = "here" if config.model.quantization == "none" else "quantized"
    fetched = (
        say("export.plan.download", size=shown.size(found.download)) if found.download else say("export.plan.none")
    )
    return say(f"export.plan.{key}", memory=shown.size(found.memory), disk=shown.size(found.disk), download=fetched)


def suggestion(run: Run, format: str, taken: Collection[str]) -> Path:
    """A folder for an export: one that isn't there, and isn't the target of another."""
    first = exports_dir() / f"{slug(run.label, 'run')}-{format}"
    places = (first, *(first.with_name(f"{first.name}-{number}") for number in range(2, 1000)))
    return next((place for place in places if str(place) not in taken and not place.exists()), first)
