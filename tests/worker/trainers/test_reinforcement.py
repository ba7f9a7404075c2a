"""GRPO and RLOO through the whole worker: rewards that can be reached are reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.core.schedule import optimizer_steps
from tests.worker.conftest import MakeRun

ROWS = [
    {"prompt": f"say {word}", "completion": word} for word in ("one two", "the sea", "a fox", "seven", "a boat", "ten")
]


def progress(job: JobFolder) -> Progress:
    found = Progress()
    for event in EventTail(job.events).read():
        found.fold(event)
    return found


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_answers_become_what_the_reward_asks_for(
    method: str, make_run: MakeRun, in_process: Callable[[JobFolder], int]
) -> None:
    """Answers with certain letters are rewarded; a random model writes them by chance, then on purpose."""
    job = make_run(
        rows=ROWS * 4,
        method={
            "name": method,
            "num_generations": 8,
            "max_completion_length": 6,
            "rewards": ["format:.*(th|z).*"],
            "beta": 0.0,
        },
        training={
            "max_steps": 25,
            "per_device_train_batch_size": 16,
            "learning_rate": 3e-2,
            "eval_steps": 25,
            "save_steps": 25,
            "max_grad_norm": 1.0,
        },
        dataset={"validation_split": 4},
    )
    assert in_process(job) == 0
    seen = progress(job).series
    rewards = [value for _, value in seen["reward"]]
    assert sum(rewards[-5:]) / 5 > min(0.95, sum(rewards[:3]) / 3 + 0.25)
    assert {"rewards/format/mean", "completions/mean_length", "eval_reward"} <= set(seen)
    assert all(value == value for _, value in seen["loss"])


def test_the_steps_told_before_are_the_steps_done(make_run: MakeRun, in_process: Callable[[JobFolder], int]) -> None:
    method: dict[str, Any] = {"name": "grpo", "num_generations": 4, "max_completion_length": 4, "num_iterations": 2}
    job = make_run(
        rows=ROWS,
        method={**method, "rewards": ["contains", "format:.*"]},
        training={
            "max_steps": None,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
        },
        dataset={"validation_split": 0},
    )
    from studio.core.configfile import load_config

    assert in_process(job) == 0
    done = progress(job)
    assert done.step == optimizer_steps(load_config(job.run_config), 6) == 12
    assert {"rewards/contains/mean", "rewards/format/mean"} <= set(done.series)
