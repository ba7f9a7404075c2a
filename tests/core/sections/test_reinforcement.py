"""Methods whose model answers: what they may ask for, and what is refused at its knob."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.schedule import optimizer_steps
from studio.core.sections.reinforcement import rows_a_question

STEP = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}


def config(method: dict[str, Any], **training: Any) -> RunConfig:
    return parse_config({"method": method, "training": {**STEP, **training}})


@pytest.mark.parametrize(
    ("method", "field", "words"),
    [
        ({"name": "grpo", "rewards": ["file:reward.py"]}, "method.allow_code", "look into it"),
        ({"name": "ppo", "rewards": ["json", "file:reward.py"]}, "method.allow_code", "look into it"),
        ({"name": "grpo", "num_generations": 1}, "method.num_generations", "greater than or equal to 2"),
        ({"name": "rloo", "num_generations": 1}, "method.num_generations", "greater than or equal to 2"),
        ({"name": "grpo", "num_generations": 3}, "method.num_generations", "don't divide"),
        ({"name": "online_dpo", "num_generations": 4}, "method.num_generations", "should be 2"),
        ({"name": "grpo", "rewards": ["jsn"]}, "method.rewards", "no reward 'jsn'"),
        ({"name": "grpo", "rewards": ["format:("]}, "method.rewards", "no regular expression"),
        ({"name": "grpo", "rewards": ["length:long"]}, "method.rewards", "number of tokens"),
        ({"name": "grpo", "rewards": ["model:"]}, "method.rewards", "needs a run"),
        ({"name": "grpo", "rewards": ["json:x"]}, "method.rewards", "nothing behind it"),
        ({"name": "grpo", "rewards": []}, "method.rewards", "at least 1"),
        ({"name": "grpo", "rewards": ["json"], "reward_weights": [1, 2]}, "method.reward_weights", "2 weights for 1"),
    ],
)
def test_what_cant_work_is_refused_at_its_knob(method: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        config(method)
    assert told.value.field == field


def test_a_file_goes_through_once_it_is_allowed() -> None:
    config({"name": "grpo", "rewards": ["file:reward.py"], "allow_code": True})


@pytest.mark.parametrize(
    ("method", "questions"),
    [({"name": "grpo", "num_generations": 4}, 4), ({"name": "ppo"}, 16), ({"name": "online_dpo"}, 16)],
)
def test_a_step_takes_as_many_questions_as_it_has_room_for(method: dict[str, Any], questions: int) -> None:
    """Sixteen rows a step; in online DPO a row is a question with both its answers."""
    made = config({**method, **({"num_ppo_epochs": 1} if method["name"] == "ppo" else {})}, num_train_epochs=1)
    assert 16 // rows_a_question(made.method) == questions
    assert optimizer_steps(made, 50) == -(-(50 // questions) // 1)
