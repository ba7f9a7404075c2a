"""Switches of memory and speed, on and off: `python -m bench switches`.

In: nothing; each pair trains the wide model of `live_memory` by the worker's own code, once under torch's profiler for
the bytes that were live at once, once without for the time. Out: a line a switch. What a switch does to the result is
the tests' affair.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.live_memory import WIDE, Case, config_of, live, write_rows
from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml
from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress

_STEPS = 6


@dataclass(frozen=True)
class Switch:
    """A knob off and on, in an otherwise equal run."""

    name: str
    off: dict[str, Any]
    on: dict[str, Any]
    case: Case = field(default_factory=lambda: Case("sft"))


SWITCHES = (
    Switch("gradient_checkpointing", {"gradient_checkpointing": False}, {"gradient_checkpointing": True}),
    Switch("loss on label positions alone", {"loss_implementation": "full"}, {"loss_implementation": "auto"}),
    Switch("adamw_8bit, whole model", {"optim": "adamw_torch"}, {"optim": "adamw_8bit"}, Case("full", adapter=None)),
    Switch(
        "precompute_ref_log_probs", {}, {}, Case("dpo", "pairs", {"name": "dpo", "precompute_ref_log_probs": False})
    ),
    Switch("packing, short rows", {"packing": False}, {"packing": True}, Case("sft", "short")),
)


def _rows(folder: Path, kind: str) -> Path:
    if kind != "short":
        return write_rows(folder, kind)
    path = folder / "short.jsonl"
    said = [(f"say {number}", "the sea " * (1 + number % 4)) for number in range(64)]
    lines = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in said
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _config(case: Case, training: dict[str, Any], model: Path, rows: Path) -> RunConfig:
    config = config_of(case, model, rows)
    data = config.model_dump()
    data["training"] |= {"max_steps": _STEPS, "logging_steps": 1, **training}
    if case.kind == "short":  # the whole of the rows, however many steps that takes
        data["training"] |= {"max_steps": None, "num_train_epochs": 1}
    if case.method.get("name") == "sft":
        data["dataset"]["train_on"] = "assistant"
    return RunConfig.model_validate(data)


def timed(config: RunConfig, folder: Path) -> tuple[float, int]:
    """Seconds that the steps but the first took in all, and how many there were."""
    from studio.worker.job import run_job
    from studio.workspace.submission import resolve_inputs

    job = JobFolder(folder)
    folder.mkdir(parents=True)
    job.run_config.write_text(config_to_yaml(config), encoding="utf-8")
    job.inputs.write_text(resolve_inputs(config, "a run")[1].to_json(), encoding="utf-8")
    code, told = run_job(folder), Progress()
    for event in EventTail(job.events).read():
        told.fold(event)
    if code or told.ended is None:
        raise RuntimeError(told.ended.cause if told.ended else "the run failed")
    return float(told.ended.result["seconds"]), told.step


def main(_names: list[str]) -> int:
    """Print the table."""
    warnings.simplefilter("ignore")
    from tests.tiny import make_tiny_model

    print(f"{'switch':<34}{'off':>22}{'on':>22}")
    with tempfile.TemporaryDirectory(prefix="studio-switches-") as place:
        os.environ["STUDIO_HOME"] = str(Path(place) / "home")
        model = make_tiny_model(Path(place) / "model", "llama", **WIDE)
        for number, switch in enumerate(SWITCHES):
            rows = _rows(Path(place), switch.case.kind)
            told = []
            for state, training in (("off", switch.off), ("on", switch.on)):
                config = _config(switch.case, training, model, rows)
                if config.method.name == "dpo":
                    config.method.precompute_ref_log_probs = state == "on"
                folder = Path(place) / f"{number}-{state}"
                tries = [timed(config, folder.with_name(f"{folder.name}-{n}")) for n in range(3)]
                bytes = live(config, folder)
                told.append(f"{bytes / 1e6:.0f} MB {statistics.median(s for s, _ in tries):.2f} s/{tries[0][1]}")
            print(f"{switch.name:<34}{told[0]:>22}{told[1]:>22}", flush=True)
    return 0
