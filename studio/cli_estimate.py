"""The command `studio estimate`: what a run would take, told without starting it.

In: a run.yaml, changes to it, a card one might have. Out: a table for people, one JSON object with --json. What it says
is core's forecast; torch is imported only for --exact, and then in a process of its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.say import Json, put, say

_GIB = 2**30
_PATIENCE = 120.0  # seconds that rows may take to be counted
_PARTS = {
    "weights": "the model's weights",
    "quantization": "scales of the quantized weights",
    "buffers": "tables of the model",
    "adapter": "the adapter",
    "gradients": "gradients",
    "optimizer": "the optimizer's state",
    "optimizer_scratch": "the optimizer's working space",
    "activations": "what the backward pass needs",
    "logits": "logits and loss",
    "backward": "the backward pass's working space",
    "workspace": "workspaces of the matrix library",
    "inputs": "the batch",
    "converted": "copies in another number format",
    "dequantized": "weights unpacked for a moment",
}
_MOMENTS = {
    "loaded": "after loading",
    "forward": "in the forward pass",
    "loss": "at the loss",
    "backward": "in the backward pass",
    "optimizer": "in the optimizer's step",
}
_VERDICTS = {
    "fits": "It fits.",
    "tight": "It may just fit, or not.",
    "over": "It doesn't fit.",
    "unknown": "What is free isn't known here; say --gpu-memory GIB.",
}


def estimate(
    config: Annotated[Path, typer.Argument(help="A run.yaml or a preset.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="knob=value, such as training.max_length=512.")
    ] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="What if a card had so many GiB free?", min=0.1)] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Also go through a step of the real code, in seconds.")
    ] = False,
    versions: Annotated[
        str, typer.Option(help="Libraries of another day: transformers=4.48.1,trl=0.13.0,torch=2.4.1.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Tell what a run would take: memory by part, the largest batch and length, disk, time, energy."""
    from studio.core.configfile import load_config
    from studio.core.errors import ConfigError
    from studio.core.estimate import Versions
    from studio.workspace.estimating import Estimating
    from studio.workspace.home import home
    from studio.workspace.supervisor import Supervisor

    run = load_config(config, set_ or ())
    try:
        day = Versions.parse(versions) if versions else None
    except ValueError as error:
        raise ConfigError("", f"--versions: {error}.", "Name them as in transformers=4.48.1,trl=0.13.0.") from None
    memory = None if gpu_memory is None else round(gpu_memory * _GIB)
    supervisor = Supervisor()
    estimating = Estimating(home(), supervisor.desk, supervisor.learning, patient=False)
    try:
        estimating.shape(run.model.name_or_path, run.model.revision)
        note = _count(estimating, run)
        found = estimating.forecast(run, memory, versions=day)
        traced = estimating.exact(run, memory, say, versions=day) if exact else None
        told = found.to_dict()
        if traced is not None:
            told["exact"] = vars(traced)
        if note:
            say(note)
        put(told, as_json, "" if as_json else table(told))
    finally:
        estimating.close()
        supervisor.close()


def _count(estimating: Any, run: Any) -> str:
    """Wait until the rows are counted; why they can't be, in words."""
    if run.dataset.path is None:
        return ""
    began = time.monotonic()
    while (state := estimating.lengths_soon(run)).busy and time.monotonic() - began < _PATIENCE:
        time.sleep(0.05)
    if state.lengths is not None:
        return ""
    why = state.problem or "There are too many to count them now."
    return f"The rows' lengths aren't known, so each is taken to be as long as can be. {why}"


def table(told: dict[str, Any]) -> str:
    """The forecast for people; memory in GB of 2^30 bytes, as cards are sold."""
    lines = [f"{_gb(size):>8} GB  {_PARTS.get(name, name)}" for name, size in told["parts"].items() if size >= 1e7]
    most = f"{_gb(told['allocated']):>8} GB  at most, {_MOMENTS.get(told['peak_moment'], told['peak_moment'])}"
    lines += [most, ""]
    free = "" if told["free"] is None else f" of {_gb(told['free'])} GB free"
    lines.append(
        f"The device will show {_gb(told['low'])} to {_gb(told['high'])} GB{free}. {_VERDICTS[told['verdict']]}"
    )
    if told.get("exact"):
        exact = told["exact"]
        lines.append(f"Traced: {_gb(exact['allocated'])} GB at most, {_gb(exact['device'])} GB on the device.")
    if told["largest_micro_batch"] is not None:
        batch, length = told["largest_micro_batch"], told["largest_max_length"]
        lines.append(f"Largest that fits: a batch of {batch:,}, or rows of {length:,} tokens.")
    lines += ["", *_advice(told), *_beside(told), *_cost(told)]
    return "\n".join(lines)


def _advice(told: dict[str, Any]) -> list[str]:
    if told["verdict"] not in ("tight", "over") or not told["advice"]:
        return []
    lines = ["What would make it less:"]
    for one in told["advice"]:
        change = ", ".join(f"{knob}={_value(value)}" for knob, value in one["change"].items())
        lines.append(f"{_gb(one['saves']):>8} GB  {change}: {one['cost']}")
    return [*lines, ""]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("type", "{...}"))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _beside(told: dict[str, Any]) -> list[str]:
    ram, disk = told["host_ram"], told["disk"]
    return [
        f"RAM         {_gb(ram['peak'])} GB at most{_free(ram)}",
        f"Disk        {_gb(disk['total'])} GB: download {_gb(disk['download'])}, "
        f"checkpoints {_gb(disk['checkpoints'])}, "
        f"result {_gb(disk['final'])}, merged {_gb(disk['merge'])}{_free(disk)}",
    ]


def _free(told: dict[str, int]) -> str:
    return f" ({_gb(told['free'])} GB free)" if "free" in told else ""


def _cost(told: dict[str, Any]) -> list[str]:
    if told["steps"] is None:
        return ["Steps       known once the rows are"]
    lines = [f"Steps       {told['steps']:,}, {told['tokens']:,} tokens, {told['flops']:.2e} operations"]
    if told["seconds"] is None:
        return [*lines, "Time        known once a run of this kind was measured here"]
    kwh = "" if told["kwh"] is None else f", {told['kwh']:.2f} kWh"
    return [*lines, f"Time        {_duration(told['seconds'])}{kwh}"]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _gb(size: float) -> str:
    return f"{size / _GIB:.1f}"
