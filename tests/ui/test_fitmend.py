"""What would make a run fit: the changes that are needed and no others, and a form that then fits."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import merge, parse_config
from studio.ui import fitmend, form
from tests.ui.fake_estimating import FakeEstimating, card
from tests.ui.test_fitview import ROWS, forecast


def test_the_largest_batch_and_length_set_their_knobs() -> None:
    fake = FakeEstimating(here=card(40))
    batch, length = fitmend.more(forecast(fake))["largest"]
    most = int(batch["changes"]["training.per_device_train_batch_size"])
    assert batch["text"] == f"{most:,}"
    grown = forecast(fake, {"training": {"per_device_train_batch_size": most}})
    assert fitmend.more(grown)["largest"][0]["changes"] == {}  # it stands so already
    assert set(length["changes"]) == {"training.max_length"}


def test_where_nothing_fits_no_largest_is_told() -> None:
    assert fitmend.more(forecast(FakeEstimating(here=card(2))))["largest"] == []


@pytest.mark.parametrize(("free", "more"), [(8, {}), (24, {"adapter": None}), (14, {"training": {"max_length": 4096}})])
def test_make_it_fit_ends_with_a_form_that_fits(free: float, more: dict[str, Any]) -> None:
    fake = FakeEstimating(here=card(free))
    config = parse_config(merge(ROWS, more))
    found = fitmend.mend(fake.forecast(config))
    assert found is not None
    assert found["steps"]
    mended = form.to_config({**form.to_values(config), **found["changes"]})
    assert fake.forecast(mended).verdict == "fits"
    assert fitmend.mend(fake.forecast(mended)) is None
    for step in found["steps"]:  # each is a change of the form by itself
        assert form.to_config({**form.to_values(config), **step["changes"]}) != config
        assert step["saves"].startswith("\u2212")
        assert step["cost"]


def test_a_change_is_told_by_the_words_of_the_form() -> None:
    before = RunConfig()
    after = parse_config(
        {
            "model": {"quantization": "nf4"},
            "training": {"gradient_checkpointing": True, "per_device_train_batch_size": 2},
        }
    )
    words = fitmend.told_change(before, after)
    assert "Adapter: LoRA → QLoRA" in words
    assert "Batch size: 4 → 2" in words
    assert ": auto → on" in words


def test_a_cheap_change_that_a_dear_one_makes_needless_is_not_asked_for() -> None:
    fake = FakeEstimating(here=card(9))
    config = parse_config(merge(ROWS, {"training": {"max_length": 256}}))
    found = fitmend.mend(fake.forecast(config))
    assert found is not None
    assert found["changes"] == {form.ADAPTER: "qlora"}  # 4 rows of 256 tokens are no trouble once the base is small
