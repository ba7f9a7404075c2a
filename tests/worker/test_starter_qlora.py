"""QLoRA on the starter: 4 bits in memory as the format promises, a run that learns, a chat, a merge into 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.core.job import JobFolder
from studio.worker.export.merge import write_merged
from studio.worker.export.source import Source
from studio.worker.manner import answer
from tests.worker.adapters.watched import losses, watch
from tests.worker.conftest import MakeRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ASKED, TOLD = "What is the colour of the sky?", "Blue, says the tiny studio."


def test_a_4_bit_starter_learns_chats_and_merges(
    starter_model: Path,
    make_run: MakeRun,
    in_process: Callable[[JobFolder], int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    rows = [{"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": TOLD}]}] * 2
    seen = watch(monkeypatch)
    training = {"max_steps": 8, "learning_rate": 2e-3, "save_steps": 100, "warmup_ratio": 0.0}
    job = make_run(
        rows,
        model=starter_model,
        loading={"quantization": "nf4"},
        training={**training, "lr_scheduler_type": "constant"},
        dataset={"validation_split": 0.0},
    )
    assert in_process(job) == 0
    found = losses(job)
    assert found[-1] < 0.2 * found[0], found
    assert not seen.changed and not seen.still

    model = seen.trainer.model
    states = [(p, p.quant_state) for p in model.parameters() if getattr(p, "quant_state", None) is not None]
    held = sum(p.numel() + s.absmax.numel() + 4 * s.state2.absmax.numel() for p, s in states)
    assert held / sum(s.shape.numel() for _, s in states) == pytest.approx(0.5159, abs=1e-3)  # bytes a weight

    tokenizer = AutoTokenizer.from_pretrained(starter_model)
    assert answer(model, tokenizer, [ASKED], 12) == [TOLD]

    write_merged(
        Source(starter_model, job.adapter, "float32", lambda text, done, total: None), made(tmp_path / "merged")
    )
    ids = tokenizer(ASKED, return_tensors="pt").input_ids
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()(ids).logits
        base = AutoModelForCausalLM.from_pretrained(starter_model, dtype=torch.float32)
        apart: Any = PeftModel.from_pretrained(base, job.adapter).eval()(ids).logits
    torch.testing.assert_close(merged, apart, rtol=1e-3, atol=1e-3)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder
