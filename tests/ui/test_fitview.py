"""What the card says is what core has worked out: the same figures, the changes that are needed and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from studio.core.configfile import merge, parse_config
from studio.core.correction import Correction, Last
from studio.core.forecast import Forecast, Surroundings
from studio.core.sections.method import Method
from studio.ui import fitview
from studio.ui.text_fit import ENGLISH
from studio.workspace.estimating import LengthsState
from tests.ui.fake_estimating import GIB, FakeEstimating, card, rows

ROWS = {"dataset": {"path": "x"}, "training": {"max_length": 1024, "per_device_train_batch_size": 4}}
METHODS = [section.model_fields["name"].default for section in get_args(get_args(Method)[0])]


def forecast(fake: FakeEstimating, more: dict[str, Any] | None = None) -> Forecast:
    return fake.forecast(parse_config(merge(ROWS, more or {})))


def told(fake: FakeEstimating, more: dict[str, Any] | None = None) -> dict[str, Any]:
    return fitview.card(forecast(fake, more), fake.lengths)


@pytest.mark.parametrize(
    ("free", "state", "begins"),
    [(80, "fits", "Fits: about "), (8, "over", "Doesn't fit: needs about ")],
)
def test_the_verdict_is_one_sentence_with_a_range(free: float, state: str, begins: str) -> None:
    fake = FakeEstimating(here=card(free))
    found = forecast(fake)
    verdict = fitview.verdict(found)
    assert verdict["state"] == state
    assert verdict["text"].startswith(begins + f"{found.low / GIB:.1f}\u2013{found.high / GIB:.1f}")
    assert f"{free:.1f} GB" in verdict["text"]


def test_on_a_processor_it_is_told_of_ram() -> None:
    here = replace(card(64), kind="cpu")
    found = told(FakeEstimating(here=here))
    assert "RAM" in found["verdict"]["text"]
    assert found["used"] == ""
    assert {"cached", "context"}.isdisjoint(part["key"] for part in found["parts"])


def test_the_parts_are_all_of_what_the_device_shows() -> None:
    fake = FakeEstimating()
    found = forecast(fake)
    parts = fitview.card(found, fake.lengths)["parts"]
    left_out = found.device - sum(part["bytes"] for part in parts)
    assert 0 <= left_out < 0.05 * GIB  # what would be shown as 0.0
    sizes = [part["bytes"] for part in parts if part["key"] != "other"]
    assert sizes == sorted(sizes, reverse=True)
    weights = next(part for part in parts if part["key"] == "weights")
    assert weights["gb"] == f"{8_030_261_248 * 2 / GIB:.1f}"  # the published count of parameters, in 16 bits


def test_every_part_and_moment_of_every_method_has_words() -> None:
    fake = FakeEstimating(here=card(200))
    for method in METHODS:
        estimate = forecast(fake, {"method": {"name": method}}).estimate
        parts = {part.replace(" ", "_").lower() for peak in estimate.moments.values() for part in peak.parts}
        assert all(f"fit.part.{part}" in ENGLISH and f"fit.part.{part}.tip" in ENGLISH for part in parts), method
        assert all(f"fit.moment.{moment}" in ENGLISH for moment in estimate.moments), method


def test_what_others_hold_of_a_card_is_told() -> None:
    assert told(FakeEstimating(here=card(20, total=24)))["used"] == "4.0 of 24.0 GB in use"
    assert told(FakeEstimating(here=card(24, total=24)))["used"] == ""


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (LengthsState(None), "Assumes every row is as long as 1,024 tokens."),
        (LengthsState(None, busy=True), "as long as 1,024 tokens; counting the rows…"),
        (LengthsState(None, busy=True, done=1500, total=9000), "counting the rows: 1,500 of 9,000…"),
        (LengthsState(None, problem="There are no rows."), "1,024 tokens. There are no rows."),
        (rows(*[300] * 3, 700, 650, 640, 20), "The largest batch of your rows: 4 × 700 tokens."),
    ],
)
def test_which_rows_it_assumes_is_said(lengths: LengthsState, words: str) -> None:
    assert words in told(FakeEstimating(lengths=lengths))["lengths"]


def test_the_range_says_where_it_comes_from() -> None:
    assert "published measurements" in told(FakeEstimating())["range"]
    assert "7 runs on this machine" in told(FakeEstimating(correct=Correction(runs=7)))["range"]


def test_the_last_run_is_told_with_its_error() -> None:
    last = Last("20260101-1200-a", predicted=10 * GIB, measured=int(9.8 * GIB))
    found = told(FakeEstimating(correct=Correction(runs=1, last=last)))
    assert found["last"] == {"run": "20260101-1200-a", "text": "Last run here: 9.8 GB (\u22122 %)"}


def test_ram_and_disk_are_told_only_where_they_matter() -> None:
    def texts(**around: int) -> list[str]:
        return [note["text"] for note in told(FakeEstimating(surroundings=Surroundings(**around)))["notes"]]

    assert texts(ram_free=500 * GIB, disk_free=5000 * GIB) == []
    assert texts() == []
    assert any("RAM" in text and "1.0 GB are free" in text for text in texts(ram_free=GIB))
    assert any("Disk" in text for text in texts(disk_free=1))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (61, "1 min"), (3000, "50 min"), (3600 * 3.25, "3.2 h"), (86400 * 3, "3.0 days")],
)
def test_durations_are_told_in_the_unit_one_would_say(seconds: float, words: str) -> None:
    assert fitview.roughly(seconds) == words


@pytest.mark.parametrize(("share", "words"), [(0.021, "+2"), (-0.021, "\u22122"), (0.001, "0"), (-0.001, "0")])
def test_errors_have_a_sign(share: float, words: str) -> None:
    assert fitview.signed(share) == words
