"""The drawn schedule is transformers' own: every kind, with and without its arguments, at every step."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.configfile import parse_config
from studio.core.rates import rate_line, rate_share

RATE, STEPS = 3e-4, 57
CASES: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.5}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {}),
    ("polynomial", {"lr_end": 1e-5, "power": 2.0}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 20}),
    ("cosine_with_min_lr", {"min_lr": 3e-5}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.2}),
    ("cosine_warmup_with_min_lr", {"min_lr": 3e-5, "warmup_lr_rate": 0.1}),
    ("warmup_stable_decay", {}),
    (
        "warmup_stable_decay",
        {"num_decay_steps": 20, "decay_type": "1-sqrt", "warmup_type": "cosine", "min_lr_ratio": 0.1},
    ),
]


@pytest.mark.parametrize("warmup", [0, 1, 9])
@pytest.mark.parametrize(("kind", "given"), CASES)
def test_a_schedule_is_transformers_own(kind: str, given: dict[str, Any], warmup: int) -> None:
    import torch
    from transformers import get_scheduler

    knobs = {"lr_scheduler_type": kind, "lr_scheduler_kwargs": given, "warmup_steps": warmup, "learning_rate": RATE}
    config = parse_config({"training": knobs})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    kwargs = dict(given)
    if kind == "warmup_stable_decay":
        kwargs = {"num_decay_steps": -(-STEPS // 10), **given}
    scheduler = get_scheduler(
        kind, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS, scheduler_specific_kwargs=kwargs
    )
    for step in range(STEPS + 1):
        assert RATE * rate_share(config, step, STEPS) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9, abs=1e-15)
        optimizer.step()
        scheduler.step()


def test_the_line_has_the_corner_where_the_warm_up_ends() -> None:
    config = parse_config({"training": {"warmup_ratio": 0.013}})
    line = rate_line(config, 1000)
    assert max(line, key=lambda point: point[1]) == (13.0, 1.0)
    assert line[0] == (0.0, 0.0)
    assert line[-1][0] == 1000


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_shortest_run_has_a_line(steps: int) -> None:
    for kind, given in CASES:
        knobs = {"lr_scheduler_type": kind, "lr_scheduler_kwargs": given}
        line = rate_line(parse_config({"training": knobs}), steps)
        assert line, kind
        assert all(0 <= share <= 1 + 1e-9 for _, share in line), kind
