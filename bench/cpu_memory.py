"""Estimates on a processor beside what runs took: `python -m bench cpu_memory [blind]`.

In: nothing; each run is a real one of the tiny or the starter model, of a few steps, in a worker of its own. Out: a
line for each with the peak of its resident set, the estimate and its error; the median and the worst.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rows import fresh_home
from studio.core.config import RunConfig
from studio.core.estimate import Device, estimate
from studio.core.events import Ended
from studio.core.job import EventTail, JobFolder
from studio.core.shapes import from_folder

_WORDS = "the light of early morning comes over the water and seven small boats cross it while a quick fox looks on "
_ROWS = 64


@dataclass(frozen=True)
class Case:
    """`how`: full, lora, nf4 or int8, with LoRA where it is quantized; `more`: dotted knobs of the run.

    `seen`: its error was looked at while the estimate was built; the others were first run when that was done.
    """

    model: str
    how: str
    rows: int
    length: int
    more: dict[str, Any]
    seen: bool = True

    @property
    def label(self) -> str:
        more = " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in self.more.items())
        return f"{self.model} {self.how} {self.rows} x {self.length} {more}".rstrip()


GRID = (
    Case("tiny", "lora", 2, 64, {}),
    Case("tiny", "full", 16, 512, {}),
    Case("starter", "lora", 2, 128, {}),
    Case("starter", "lora", 8, 128, {"dataset.validation_split": 0.2}),
    Case("starter", "lora", 4, 512, {}),
    Case("starter", "lora", 4, 512, {"training.gradient_checkpointing": True}),
    Case("starter", "lora", 2, 256, {"model.dtype": "bfloat16"}),
    Case("starter", "full", 2, 256, {}),
    Case("starter", "nf4", 2, 256, {}),
    Case("starter", "int8", 2, 128, {}),
    Case("tiny", "full", 8, 300, {"method.name": "dpo"}, seen=False),
    Case("tiny", "lora", 32, 200, {"adapter.r": 4, "training.gradient_accumulation_steps": 2}, seen=False),
    Case("starter", "lora", 3, 384, {"adapter.r": 64}, seen=False),
    Case("starter", "lora", 6, 96, {"method.name": "dpo", "adapter.r": 8}, seen=False),
    Case("starter", "lora", 1, 640, {"adapter.lora_dropout": 0.1, "adapter.target_modules": "attention"}, seen=False),
    Case("starter", "lora", 6, 200, {"model.dtype": "bfloat16", "adapter.r": 32}, seen=False),
    Case("starter", "full", 5, 160, {"training.optim": "adafactor"}, seen=False),
    Case("starter", "nf4", 5, 144, {"model.double_quant": False, "adapter.r": 8}, seen=False),
    Case("starter", "int8", 4, 200, {"training.gradient_checkpointing": True}, seen=False),
)


def config_of(case: Case, model: str, rows: Path, steps: int = 3) -> RunConfig:
    """The run of a case: every row is cut at its length, and all of it but the question carries loss."""
    knobs: dict[str, Any] = {
        "method": {"name": "sft"},
        "model": {"name_or_path": model, "quantization": case.how if case.how in ("nf4", "int8") else "none"},
        "dataset": {"path": str(rows), "validation_split": 0.0},
        "adapter": None if case.how == "full" else {"type": "lora"},
        "training": {
            "max_steps": steps,
            "per_device_train_batch_size": case.rows,
            "gradient_accumulation_steps": 1,
            "max_length": case.length,
            "save_steps": 1000,
        },
        "hardware": {"device": "cpu"},
    }
    for path, value in case.more.items():
        section, _, name = path.partition(".")
        knobs[section][name] = value
    return RunConfig.model_validate(knobs)


def write_rows(folder: Path, case: Case) -> Path:
    """Rows that are all longer than the case's length; pairs of answers where its method learns from them."""
    pairs = case.more.get("method.name") == "dpo"
    path = folder / f"rows-{case.length}{'-pairs' if pairs else ''}.jsonl"
    said = _WORDS * (case.length // 12 + 2)
    lines = []
    for number in range(_ROWS):
        asked = {"role": "user", "content": f"say {number}"}
        first, second = ({"role": "assistant", "content": start + said} for start in ("", "never "))
        row = {"prompt": [asked], "chosen": [first], "rejected": [second]} if pairs else {"messages": [asked, first]}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def measured(config: RunConfig) -> int:
    """Bytes of the largest resident set that the run's worker had, by `studio train`. Raises RuntimeError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")  # JSON is YAML
        done = subprocess.run([sys.executable, "-m", "studio", "train", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the run failed")
    run = JobFolder(Path(done.stdout.strip().splitlines()[-1]))
    ended = [event for event in EventTail(run.events).read() if isinstance(event, Ended)]
    return int(ended[-1].result["peak_rss"])


def predicted(config: RunConfig, folder: Path) -> int:
    """Bytes of the estimate for it."""
    length = config.training.max_length
    return estimate(config, from_folder(folder), lengths=[length] * _ROWS, device=Device(kind="cpu")).device


def main(arguments: list[str]) -> int:
    """Print the grid, or with `blind` those rows alone. Exit code 1 where the median error is above 10 %."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    print(f"{'run':<66}{'measured':>10}{'estimate':>10}{'error':>8}")
    with fresh_home() as home:
        tiny = home / "tiny"
        _make_tiny(tiny)
        for case in GRID:
            if case.seen and "blind" in arguments:
                continue
            folder = tiny if case.model == "tiny" else home / "models" / "starter"
            config = config_of(case, str(folder), write_rows(home, case))
            took, told = measured(config), predicted(config, folder)
            error = 100 * (told / took - 1)
            errors[case.seen].append(error)
            seen = "" if case.seen else "  blind"
            print(f"{case.label:<66}{took / 1e6:>8.0f}MB{told / 1e6:>8.0f}MB{error:>+7.1f}%{seen}", flush=True)
    for name, group in (
        ("seen while building", errors[True]),
        ("blind", errors[False]),
        ("all", [*errors[True], *errors[False]]),
    ):
        if group:
            worst = max(group, key=abs)
            print(f"{name}: {len(group)} runs, median |error| {_median(group):.1f} %, worst {worst:+.1f} %")
    return 0 if _median([*errors[True], *errors[False]]) <= 10 else 1


def _median(errors: list[float]) -> float:
    return statistics.median(abs(error) for error in errors)


def _make_tiny(folder: Path) -> None:
    """In a process of its own: this one stays without torch."""
    code = "import sys, pathlib, tests.tiny; tests.tiny.make_tiny_llama(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
