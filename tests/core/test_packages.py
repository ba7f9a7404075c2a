"""What a choice needs that isn't installed."""

from __future__ import annotations

import pytest

from studio.core import packages
from studio.core.configfile import parse_config
from studio.core.knobs import knobs


def choices(path: str) -> set[str]:
    return set(next(knob for knob in knobs() if knob.path == path).choices)


def test_every_choice_that_needs_a_package_is_one_that_can_be_made() -> None:
    assert set(packages.OPTIMIZERS) <= choices("training.optim")
    assert set(packages.TRACKERS) == choices("training.report_to")
    assert packages.is_here("torch") and not packages.is_here("no_such_package_at_all")


def test_the_rest_is_transformers_own() -> None:
    """Whatever isn't in the table needs nothing: transformers makes it of torch alone."""
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS  # the table behind its optimizers

    own = choices("training.optim") - set(packages.OPTIMIZERS) - {"muon"}
    assert own and all(name in {str(key.value) for key in _OPTIMIZER_HANDLERS} for name in own)


def test_what_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda module: None)
    training = {"optim": "galore_adamw", "report_to": ["wandb", "mlflow"], "use_liger_kernel": True}
    found = list(packages.missing(parse_config({"training": training, "adapter": None})))
    assert [(each.path, each.name) for each in found] == [
        ("training.optim", "galore-torch"),
        ("training.report_to", "wandb"),
        ("training.report_to", "mlflow"),
        ("training.use_liger_kernel", "liger-kernel"),
    ]
    assert packages.available_optimizers()["lomo"] == "lomo-optim"
    assert packages.available_trackers()["tensorboard"] == "tensorboard"
    monkeypatch.setattr(packages, "find_spec", lambda module: object())
    assert not any(packages.available_optimizers().values())
    assert not list(packages.missing(parse_config({"training": training, "adapter": None})))
