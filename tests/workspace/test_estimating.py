"""Forecasts of this machine, and the exact trace as a task of a worker's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.correction import Correction
from studio.core.errors import ModelError
from studio.core.estimate import estimate
from studio.workspace.desk import DataDesk
from studio.workspace.estimating import Estimating
from studio.workspace.launcher import Launcher
from tests.core.published import LLAMA_8B
from tests.fake_worker import until

GIB = 2**30
SMALL = {**LLAMA_8B, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 4, "vocab_size": 512}  # fmt: skip


class Taught:
    """What was learnt of whichever device."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def correction(self, device: str) -> Correction:
        self.asked.append(device)
        return Correction(low=-0.5, high=0.5, runs=9)


@pytest.fixture
def estimating(studio_home: Path) -> Iterator[Estimating]:
    desk = DataDesk(Launcher(standby=False))
    found = Estimating(studio_home, desk, Taught(), patient=False)
    yield found
    found.close()
    desk.close()


def config_of(place: Path, model: dict[str, Any], **more: Any) -> RunConfig:
    (place / "config.json").write_text(json.dumps(model), encoding="utf-8")
    return RunConfig.model_validate({"model": {"name_or_path": str(place)}, "dataset": {"path": None}, **more})


def test_a_forecast_is_of_this_machine_or_of_a_card_that_one_might_have(estimating: Estimating, tmp_path: Path) -> None:
    config = config_of(tmp_path, LLAMA_8B, hardware={"device": "cpu"})
    here, card = estimating.forecast(config), estimating.forecast(config, 24 * GIB)
    assert here.estimate.device_used.kind == "cpu" and here.correction.runs == 9
    assert here.host_ram["free"] == here.free and here.disk["free"] > 0
    assert card.estimate.device_used.kind == "cuda" and card.free == 24 * GIB
    assert card.correction.runs == 0  # nothing was learnt on a card that isn't here
    assert estimating.predict(config)["device"] == here.device


def test_a_model_that_isnt_known_yet_is_no_forecast(estimating: Estimating) -> None:
    config = RunConfig.model_validate({"model": {"name_or_path": "nobody/nothing"}, "dataset": {"path": None}})
    with pytest.raises(ModelError):
        estimating.forecast(config)
    until(lambda: not estimating.shape_soon("nobody/nothing").busy)
    with pytest.raises(ModelError, match="can't be reached"):
        estimating.forecast(config)


def test_the_exact_estimate_is_traced_by_a_worker_and_kept(estimating: Estimating, tmp_path: Path) -> None:
    config = config_of(tmp_path, SMALL, training={"max_length": 64}, hardware={"device": "cuda"})
    told: list[str] = []
    found = estimating.exact(config, 8 * GIB, told.append)
    instant = estimate(config, estimating.shape(str(tmp_path)), device=estimating.device(config, 8 * GIB))
    assert found.allocated == pytest.approx(instant.allocated, rel=0.05)
    assert sum(found.parts.values()) == found.allocated and "Going through a step" in told
    again = estimating.exact_soon(config.model_copy(deep=True), 8 * GIB)
    assert again.state == "done" and again.result is not None and again.result["allocated"] == found.allocated
    longer = config_of(tmp_path, SMALL, training={"max_length": 65}, hardware={"device": "cuda"})
    other = estimating.exact_soon(longer, 8 * GIB)
    assert other.state == "running"
    other.cancel()
    assert other.state == "cancelled" and other.result is None


def test_an_architecture_of_no_table_is_built_by_a_worker_and_kept(estimating: Estimating, tmp_path: Path) -> None:
    odd = {"model_type": "opt", "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
           "vocab_size": 300, "max_position_embeddings": 128, "word_embed_proj_dim": 64}  # fmt: skip
    config = config_of(tmp_path, odd)
    state = estimating.shape_soon(str(tmp_path))
    assert state.busy or state.shape is not None
    until(lambda: not estimating.shape_soon(str(tmp_path)).busy, 60)
    shape = estimating.shape(config.model.name_or_path)
    # OPT: two layers of 4 square matrices and 2 of the feed-forward part, with biases, and norms; embeddings of
    # tokens and of positions, which are two more than said
    layer = 4 * (64 * 64 + 64) + 2 * 64 * 128 + 128 + 64 + 4 * 64
    assert shape.numel == 300 * 64 + 130 * 64 + 2 * layer + 2 * 64
