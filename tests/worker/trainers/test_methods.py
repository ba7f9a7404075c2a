"""Every method, through the worker, from run.yaml to files that plain transformers and PEFT load."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from studio.core.events import Metrics
from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.worker import train
from studio.worker.job import Job
from tests.tiny import tiny_rows
from tests.worker.conftest import MakeRun
from tests.worker.forks import Zygote
from tests.worker.trainers.building import labelled_rows, pair_rows, text_rows

InProcess = Callable[[JobFolder], int]
ROWS: dict[str, list[dict[str, Any]]] = {
    "sft": tiny_rows(8),
    "pretrain": text_rows(8),
    "kto": labelled_rows(8),
    **dict.fromkeys(("dpo", "orpo", "cpo", "simpo", "reward"), pair_rows(8)),
}
SIMPO = {"name": "cpo", "loss_type": "simpo", "cpo_alpha": 0, "beta": 2.0}
CASES = [(method, lora) for method in ROWS for lora in (True, False)]
STEPS, STOPPED_AT = 8, 2
IDS = [5, 9, 17, 40, 41, 100, 7, 2]
# What is told of each method beside its loss.
FIGURES = {
    **dict.fromkeys(("dpo", "orpo", "cpo", "simpo"), ("rewards/accuracies", "rewards/margins")),
    "kto": ("rewards/chosen", "kl"),
    "reward": ("accuracy", "margin"),
}


@pytest.fixture(scope="module")
def finished() -> dict[str, dict[str, Any]]:
    """What every run came to: where it lies, and what its own model says of IDS."""
    return {}


def folded(job: JobFolder) -> Any:
    progress = Progress()
    for event in EventTail(job.events).read():
        progress.fold(event)
    return progress


def series(job: JobFolder) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = folded(job).series
    return found


@pytest.mark.parametrize(("method", "lora"), CASES)
def test_every_method_learns_stops_and_goes_on(
    make_run: MakeRun,
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    finished: dict[str, dict[str, Any]],
    tiny_model: Path,
    method: str,
    lora: bool,
) -> None:
    trainers: list[Any] = []
    build, tell = train.build_trainer, Job.metrics

    def kept(*parts: Any, **more: Any) -> Any:
        trainers.append(build(*parts, **more))
        return trainers[-1]

    def until(self: Job, event: Metrics) -> None:
        tell(self, event)
        if event.step == STOPPED_AT and len(trainers) == 1:
            self.folder.stop.touch()

    monkeypatch.setattr(train, "build_trainer", kept)
    monkeypatch.setattr(Job, "metrics", until)
    job = make_run(
        ROWS[method],
        method=SIMPO if method == "simpo" else {"name": method},
        adapter={"r": 4} if lora else None,
        dataset={"validation_split": 0.25},
        training={"max_steps": STEPS, "learning_rate": 1e-2 if lora else 2e-3, "warmup_ratio": 0.0, "eval_steps": 4},
    )
    assert in_process(job) == 0
    assert [point[0] for point in series(job)["loss"]] == [1, 2, 3]
    job.process.rename(job.path / "process-1.json")
    job.stop.unlink()
    assert in_process(job) == 0

    seen = series(job)
    losses = [value for _, value in seen["loss"]]
    assert [step for step, _ in seen["loss"]] == list(range(1, STEPS + 1))
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    for name in (*FIGURES.get(method, ()), "tokens_per_second"):
        assert len(seen[name]) == STEPS, name
    for name in ("loss", *FIGURES.get(method, ())):
        assert [step for step, _ in seen[f"eval_{name}"]] == [4, 8], name
    trainer = trainers[-1]
    assert trainer.tokens_seen > 0
    told = folded(job).ended.result["evaluation"]
    assert {name: told[name] for name in ("loss", *FIGURES.get(method, ()))} == {
        name: seen[f"eval_{name}"][-1][1] for name in ("loss", *FIGURES.get(method, ()))
    }
    model = trainer.model.eval()
    if lora:
        assert {name for name, p in model.named_parameters() if p.requires_grad} == {
            name for name, _ in model.named_parameters() if "lora_" in name or "modules_to_save" in name
        }
    with torch.no_grad():
        finished[f"{method} {lora}"] = {
            "base": str(tiny_model if lora else job.model),
            "adapter": str(job.adapter) if lora else "",
            "scores": method == "reward",
            "ids": IDS,
            "says": model(input_ids=torch.tensor([IDS])).logits.clone(),
        }


def test_what_was_learnt_is_what_plain_libraries_load(
    finished: dict[str, dict[str, Any]], zygote: Zygote, tiny_model: Path, tmp_path: Path
) -> None:
    """In one fresh process. A base that training had touched would show: adapters are laid over the untouched one."""
    if not finished:
        pytest.skip("no run was made")
    table = {name: {key: case[key] for key in case if key != "says"} for name, case in finished.items()}
    table["base"] = {"base": str(tiny_model), "adapter": "", "scores": False, "ids": IDS}
    (tmp_path / "table.json").write_text(json.dumps(table), encoding="utf-8")
    call, out = "tests.worker.trainers.reloading:logits", tmp_path / "logits.safetensors"
    assert zygote.start(call, tmp_path / "table.json", out, log=tmp_path / "log").wait() == 0
    found = load_file(out)
    for name, case in finished.items():
        torch.testing.assert_close(found[name], case["says"], rtol=1e-5, atol=1e-5)
        if not case["scores"]:
            assert (found[name] - found["base"]).abs().max() > 0.05, f"{name} learnt nothing"
