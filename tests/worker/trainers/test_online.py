"""Online DPO: its loss on a fixed batch against the formula in float64, and rewards that are reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from tests.worker.conftest import MakeRun
from tests.worker.trainers.building import build, config
from tests.worker.trainers.test_losses import in_double, log_sigma, moved

BETA = 0.3
ROWS = [{"prompt": f"say {word}", "completion": word} for word in ("one two", "the sea", "a fox", "seven")]
METHOD = {"beta": BETA, "rewards": ["format:.*[tr].*", "length:3"], "max_completion_length": 4}


def likelihood(model: Any, prompt: Tensor, answer: Tensor) -> Tensor:
    """Of a whole answer behind its prompt, by a model of one sequence at a time."""
    ids = torch.cat([prompt, answer])
    every = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    return every.gather(1, ids[1:, None])[len(prompt) - 1 :].sum()


@pytest.mark.parametrize(("loss", "lora"), [("sigmoid", True), ("ipo", True), ("sigmoid", False)])
def test_its_loss_is_that_of_the_better_and_the_worse_answer(
    tiny_model: Path, tmp_path: Path, loss: str, lora: bool
) -> None:
    training = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    method = {**METHOD, "loss_type": loss, "missing_eos_penalty": 2.0}
    trainer, _ = build(tiny_model, ROWS, config("online_dpo", lora, method=method, training=training), tmp_path)
    moved(trainer)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    double = in_double(trainer, tiny_model)
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def worth(answer: Tensor) -> float:
        text = tokenizer.decode(answer, skip_special_tokens=True)
        near = max(0.0, 1 - abs(len(answer) - 3) / 3)
        return any(letter in "tr" for letter in text) + near - 2.0 * (answer[-1] != tokenizer.eos_token_id)

    losses = []
    for pair in range(4):
        prompt = batch["prompt_ids"][pair, 0][batch["prompt_mask"][pair, 0].bool()]
        both = [batch["completion_ids"][pair, i][batch["completion_mask"][pair, i].bool()] for i in (0, 1)]
        assert worth(both[0]) >= worth(both[1])
        assert bool(batch["differ"][pair]) == (worth(both[0]) != worth(both[1]))
        if worth(both[0]) == worth(both[1]):
            losses.append(torch.zeros((), dtype=torch.float64))
            continue
        with torch.no_grad():
            before = [likelihood(reference, prompt, answer) for answer in both]
        better, worse = (likelihood(double, prompt, answer) - b for answer, b in zip(both, before, strict=True))
        x = better - worse
        losses.append(-log_sigma(BETA * x) if loss == "sigmoid" else (x - 1 / (2 * BETA)) ** 2)
    assert batch["differ"].any(), "no pair differed"
    expected = torch.stack(losses).mean()
    expected.backward()
    trainer.model.zero_grad()
    found = trainer.compute_loss(trainer.model, batch)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    right = {name: p.grad for name, p in double.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            assert float((parameter.grad - right[name]).abs().max()) <= 1e-5 * largest + 1e-6, name


def test_answers_become_what_the_reward_asks_for(make_run: MakeRun, in_process: Callable[[JobFolder], int]) -> None:
    job = make_run(
        rows=ROWS * 6,
        method={"name": "online_dpo", "beta": 0.05, "rewards": ["format:.*(th|z).*"], "max_completion_length": 6},
        training={"max_steps": 20, "per_device_train_batch_size": 16, "learning_rate": 2e-2, "save_steps": 20},
        dataset={"validation_split": 0},
    )
    assert in_process(job) == 0
    progress = Progress()
    for event in EventTail(job.events).read():
        progress.fold(event)
    rewards = [value for _, value in progress.series["reward"]]
    assert sum(rewards[-4:]) / 4 > min(0.95, sum(rewards[:3]) / 3 + 0.25)


def test_answers_that_all_please_alike_teach_nothing(make_run: MakeRun, in_process: Callable[[JobFolder], int]) -> None:
    """No spread, no direction, and no NaN: what was to be learnt stays where it began."""
    for method in ({"name": "online_dpo"}, {"name": "grpo", "num_generations": 4}, {"name": "rloo", "beta": 0.0}):
        job = make_run(
            rows=ROWS * 2,
            method={**method, "rewards": ["format:(?s).*"], "max_completion_length": 3},
            training={"max_steps": 2, "per_device_train_batch_size": 4},
            dataset={"validation_split": 0},
        )
        assert in_process(job) == 0
        progress = Progress()
        for event in EventTail(job.events).read():
            progress.fold(event)
        assert [value for _, value in progress.series["loss"]] == [0.0, 0.0]
        assert [value for _, value in progress.series["grad_norm"]] == [0.0, 0.0]
