"""The starter preference dataset: what is in it, and (nightly) what the starter learns from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.core.configfile import config_to_yaml, merge, parse_config, read_yaml
from studio.core.events import Ended
from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.workspace.datasets import get_dataset
from studio.workspace.home import bundled
from studio.workspace.submission import resolve_inputs

InProcess = Callable[[JobFolder], int]


def test_every_pair_prefers_the_taught_manner_and_no_held_out_question_is_in_it() -> None:
    entry = get_dataset("quickstart-preference")
    assert entry.pattern and entry.heldout
    rows = [json.loads(line) for line in entry.path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 200
    taught = re.compile(entry.pattern)
    for row in rows:
        ((chosen,), (rejected,)) = row["chosen"], row["rejected"]
        assert taught.fullmatch(chosen["content"]) and not taught.fullmatch(rejected["content"])
    asked = {row["prompt"][0]["content"] for row in rows}
    held = {json.loads(line)["prompt"] for line in entry.heldout.read_text(encoding="utf-8").splitlines()}
    assert len(asked) == 200 and not asked & held


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_starter_learns_to_prefer_the_manner_and_to_write_it(
    starter_model: Path, in_process: InProcess, tmp_path: Path
) -> None:
    preset = read_yaml(bundled("presets") / "quickstart-dpo.yaml")
    here = {"model": {"name_or_path": str(starter_model)}, "hardware": {"device": "cpu"}}
    config, inputs = resolve_inputs(parse_config(merge(preset, here)), "quickstart")
    job = JobFolder(tmp_path / "run")
    job.path.mkdir()
    job.run_config.write_text(config_to_yaml(config), encoding="utf-8")
    job.inputs.write_text(inputs.to_json(), encoding="utf-8")
    assert in_process(job) == 0
    progress = Progress()
    for event in EventTail(job.events).read():
        progress.fold(event)
    margins = [value for _, value in progress.series["rewards/margins"]]
    assert margins[0] == 0.0, "at first the model is its own reference"
    ended = progress.ended
    assert isinstance(ended, Ended) and ended.status == "finished"
    held_out, manner = ended.result["evaluation"], ended.result["manner"]
    print(held_out, manner)
    assert held_out["rewards/accuracies"] > 0.9 and held_out["rewards/margins"] > 1
    assert manner["run"] > manner["base"] + 0.3
