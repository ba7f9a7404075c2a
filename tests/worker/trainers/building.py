"""Trainers as a run builds them, and what goes on in them: for tests that compare them with something else.

In: a model's folder, rows, a config. Out: a trainer and a recorder of its steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.fitting import longest_row
from studio.core.inputs import DatasetInput, Inputs
from studio.worker.data.prepare import prepare
from studio.worker.data.source import Progress, quiet
from studio.worker.device import resolve
from studio.worker.models import load_model, load_tokenizer
from studio.worker.train import encoder_for
from studio.worker.trainers.build import build_trainer
from tests.tiny import sentence, write_rows

STEPS = 4
SEED = 7


@dataclass
class Recorder(TrainerCallback):  # type: ignore[misc]
    """What the log said of each optimizer step, and of each evaluation."""

    losses: list[float] = field(default_factory=list)
    logs: list[dict[str, float]] = field(default_factory=list)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs or {}))
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def config(name: str, adapter: bool = True, **sections: Any) -> RunConfig:
    """A few steps on the processor, in the order of the rows; the optimizer blows up no rounding errors."""
    training = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "optim": "sgd",
        "learning_rate": 0.1,
        "logging_steps": 1,
        "max_length": 256,
        "train_sampling_strategy": "sequential",
        "seed": SEED,
        **sections.pop("training", {}),
    }
    return parse_config(
        {
            "method": {"name": name, **sections.pop("method", {})},
            "adapter": {"r": 4, "lora_alpha": 8} if adapter else None,
            "training": training,
            "dataset": {"validation_split": 0.0, **sections.pop("dataset", {})},
            "model": {"dtype": "float32", **sections.pop("model", {})},
            "hardware": {"device": "cpu"},
            **sections,
        }
    )


def build(
    folder: Path,
    rows: list[dict[str, Any]],
    wishes: RunConfig,
    output: Path,
    progress: Progress = quiet,
    inputs: Inputs | None = None,
) -> tuple[Any, Recorder]:
    """A trainer as a run builds it."""
    setup, tokenizer = resolve(wishes), load_tokenizer(folder)
    source = DatasetInput("rows", str(write_rows(output / "rows.jsonl", rows)))
    data = prepare(
        wishes.dataset,
        source,
        encoder_for(wishes, tokenizer),
        max_length=longest_row(wishes),
        seed=wishes.training.seed,
        method=wishes.method.name,
    )
    set_seed(SEED)
    model = load_model(folder, wishes.model, setup, scores=wishes.method.name == "reward")
    set_seed(SEED)
    trainer = build_trainer(wishes, setup, model, tokenizer, data, output / "checkpoints", inputs, progress)
    recorder = Recorder()
    trainer.add_callback(recorder)
    return trainer, recorder


def pair_rows(count: int, seed: int = 0, longest: int = 8) -> list[dict[str, Any]]:
    """Prompts with a better and a worse answer, as text. Answers open with a space: they are tokens of their own."""
    chance = random.Random(seed)
    return [
        {
            "prompt": sentence(chance, 2, longest),
            "chosen": f" {sentence(chance, 1, longest)} yes{number}",
            "rejected": f" {sentence(chance, 1, longest)} no{number}",
        }
        for number in range(count)
    ]


def labelled_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The same as single answers, good and bad ones in turn."""
    rows = []
    for number, row in enumerate(pair_rows(count, seed)):
        good = number % 2 == 0
        rows.append({"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good})
    return rows


def text_rows(count: int, seed: int = 0, longest: int = 30) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [{"text": sentence(chance, 3, longest)} for _ in range(count)]


def named(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
