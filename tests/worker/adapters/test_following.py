"""What adapters need while they train: AdaLoRA's ranks, prompts' networks, states that let a run go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.core.job import JobFolder, read_json
from studio.worker.adapters.following import penalty
from tests.tiny import tiny_rows
from tests.worker.adapters.watched import losses, watch
from tests.worker.conftest import MakeRun

InProcess = Callable[[JobFolder], int]
RESUMED: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora"},
    "pissa": {"type": "lora", "init_lora_weights": "pissa_niter_16"},
    "eva": {"type": "lora", "init_lora_weights": "eva", "r": 4},
    "adalora": {"type": "adalora", "init_r": 6, "target_r": 3},
    "p_tuning": {"type": "p_tuning"},
    "prefix": {"type": "prefix_tuning", "prefix_projection": True},
}


def test_adaloras_penalty_is_pefts_own(tiny_model: Path) -> None:
    """PEFT adds it where a model is given labels: the difference that this makes to the loss."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    config = peft.AdaLoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", total_step=10, orth_reg_weight=0.7)
    laid = peft.get_peft_model(model, config)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        whole = laid(input_ids=ids, labels=ids).loss
        bare = laid.base_model.model(input_ids=ids, labels=ids).loss
        assert penalty(laid).item() == pytest.approx((whole - bare).item(), rel=1e-5)
        assert penalty(laid) > 0.1


def test_adalora_ends_with_the_ranks_that_were_asked_for(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch)
    training = {"max_steps": 20, "save_steps": 100}
    adapter = {"type": "adalora", "init_r": 6, "target_r": 2, "target_modules": ["q_proj", "v_proj"]}
    job = make_run(tiny_rows(8), adapter=adapter, training=training, dataset={"validation_split": 0.0})
    assert in_process(job) == 0
    config = read_json(job.adapter / "adapter_config.json") or {}
    assert (config["total_step"], config["tinit"], config["tfinal"]) == (20, 2, 8)
    assert sum(sum(kept) for kept in config["rank_pattern"].values()) == 2 * 4  # four layers
    saved = load_file(job.adapter / "adapter_model.safetensors")
    assert sum(len(value) for name, value in saved.items() if "lora_E" in name) == 2 * 4
    assert seen.trainer.state.global_step == 20


@pytest.mark.parametrize("name", RESUMED)
def test_F29_a_stopped_run_goes_on_with_what_its_adapter_knew(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped at the seventh of ten steps and resumed: the same losses and the same adapter as in one go.

    Four steps are an epoch: it goes on in the middle of the second one's order.
    """
    from studio.worker import job as jobs

    sections: dict[str, Any] = {
        "adapter": RESUMED[name],
        "training": {"max_steps": 10, "save_steps": 100},
        "dataset": {"validation_split": 0.0},
    }
    whole, stopped = (make_run(tiny_rows(8), **sections) for _ in range(2))
    assert in_process(whole) == 0
    said = jobs.Job.metrics

    def metrics(self: Any, event: Any) -> None:
        said(self, event)
        if event.step == 6 and "loss" in event.values:  # obeyed at the end of the next
            self.folder.stop.touch()

    with monkeypatch.context() as patch:
        patch.setattr(jobs.Job, "metrics", metrics)
        in_process(stopped)
    assert len(losses(stopped)) == 7 and not stopped.adapter.exists()
    stopped.stop.unlink()
    stopped.process.rename(stopped.path / "process-1.json")
    assert in_process(stopped) == 0
    assert losses(stopped) == losses(whole)
    found, wanted = (load_file(job.adapter / "adapter_model.safetensors") for job in (stopped, whole))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    configs = [read_json(job.adapter / "adapter_config.json") or {} for job in (stopped, whole)]
    for config in configs:
        config["target_modules"] = sorted(config.get("target_modules") or [])
    assert configs[0] == configs[1]
