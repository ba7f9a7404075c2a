"""The three runs of RLHF, each on what the one before has made, by the command and with real workers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from studio.core.configfile import to_yaml
from studio.core.inputs import Inputs
from studio.workspace.runs import Runs
from tests.tiny import sentence, tiny_rows, write_rows

IDS = torch.tensor([[5, 9, 17, 40, 41, 100, 7, 2]])


def file(folder: Path, name: str, rows: list[dict[str, Any]], method: dict[str, Any], model: str, **more: Any) -> Path:
    data = write_rows(folder / f"{name}.jsonl", rows)
    training = {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "logging_steps": 1}
    config = {
        "method": method,
        "model": {"name_or_path": model, "dtype": "float32"},
        "dataset": {"path": str(data), "validation_split": 0},
        "adapter": {"type": "lora", "r": 4},
        "training": {**training, "learning_rate": 1e-2, **more},
        "hardware": {"device": "cpu"},
    }
    path = folder / f"{name}.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    return path


def preferences(count: int) -> list[dict[str, Any]]:
    chance = random.Random(3)

    def said(role: str, words: str) -> list[dict[str, str]]:
        return [{"role": role, "content": words}]

    return [
        {
            "prompt": said("user", sentence(chance, 1, 5)),
            "chosen": said("assistant", "yes " + sentence(chance, 1, 4)),
            "rejected": said("assistant", "no " + sentence(chance, 1, 4)),
        }
        for _ in range(count)
    ]


def test_answers_are_learnt_then_judged_then_sought(tiny_model: Path, tmp_path: Path) -> None:
    grpo = {"name": "grpo", "rewards": ["model:run:@2"], "num_generations": 4, "max_completion_length": 6, "beta": 0.04}
    files = [
        file(tmp_path, "one", tiny_rows(8), {"name": "sft"}, str(tiny_model)),
        file(tmp_path, "two", preferences(8), {"name": "reward"}, "run:@1"),
        file(tmp_path, "three", tiny_rows(8), grpo, "run:@1"),
    ]
    command = [sys.executable, "-m", "studio", "train", *map(str, files)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert said.returncode == 0, said.stderr
    first, second, third = (Runs().get(Path(line).name) for line in said.stdout.splitlines())
    assert [run.state.status for run in (first, second, third)] == ["finished"] * 3
    made = Inputs.read(third.folder.inputs)
    assert made.model == Inputs.read(second.folder.inputs).model
    merged = AutoModelForCausalLM.from_pretrained(made.model.path, dtype=torch.float32).eval()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    plain = PeftModel.from_pretrained(plain, first.folder.adapter).eval()
    with torch.no_grad():
        base = merged(input_ids=IDS).logits
        torch.testing.assert_close(base, plain(input_ids=IDS).logits, rtol=1e-4, atol=1e-4)
        learnt = PeftModel.from_pretrained(merged, third.folder.adapter).eval()(input_ids=IDS).logits
    assert float((learnt - base).abs().max()) > 1e-4
    assert {"rewards/model/mean", "reward_std", "kl"} <= set(third.progress.series)
    assert json.loads((second.folder.adapter / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
