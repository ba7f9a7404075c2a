"""Exports as a worker leaves them, made without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.core.config import ExportConfig
from studio.core.configfile import config_to_yaml
from studio.core.events import Ended, Event, Stage
from studio.core.inputs import DatasetInput, Inputs, ModelInput
from studio.workspace.home import exports_dir
from tests.ui.made_runs import STARTED, add

SAME = {
    "max_logit_diff": 0.25,
    "greedy_match": 1.0,
    "explained": 0.26,
    "moved": 8.5,
    "same": True,
    "problems": [],
    "replies": [{"prompt": "Who?", "before": "I", "after": "me"}],
    "skipped": "",
}


def make_export(
    out: Path, *events: Event, format: str = "merged", job_id: str = "20260102-1530-a-run", label: str = "A run"
) -> Path:
    """The folder of an export job with these events; it isn't live."""
    folder = exports_dir() / job_id
    folder.mkdir(parents=True)
    config = ExportConfig.model_validate({"run": "a-run", "format": format, "out": str(out)})
    (folder / "export.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    inputs = Inputs(label, ModelInput("folder", "base", "/models/base"), DatasetInput("rows", "rows.jsonl"))
    (folder / "inputs.json").write_text(inputs.to_json(), encoding="utf-8")
    record = {"pid": 2**22 + 1, "create_time": 1.0, "attempt": 1}
    (folder / "process.json").write_text(json.dumps(record), encoding="utf-8")
    add(folder, Stage("starting", "Starting", attempt=1, t=STARTED), *events)
    return folder


def done(out: Path, parity: dict[str, Any] | None = None) -> Ended:
    """The end of an export that wrote `out`, which is made here with two files."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(b"w" * 1000)
    (out / "README.md").write_text("# A card", encoding="utf-8")
    result: dict[str, Any] = {"path": str(out), "bytes": 1008, "seconds": 12.5, "peak_rss": 480_000_000}
    if parity is not None:
        result["parity"] = parity
    return Ended("finished", result=result, t=STARTED + 20)
