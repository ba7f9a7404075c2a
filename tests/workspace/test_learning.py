"""What runs teach: made-up folders of runs, with figures whose answer is known beforehand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studio.core.correction import PUBLISHED_HIGH, PUBLISHED_LOW, Correction
from studio.workspace.learning import KEEP, LATEST, SCHEMA, Learning, read_lesson
from studio.workspace.runs import Runs
from tests.fake_worker import FakeWorkers, until
from tests.workspace.conftest import Watched

PROJECT = Path(__file__).parents[2]
CARD = "NVIDIA GeForce RTX 4090"
GB = 10**9


def a_run(
    home: Path,
    number: int,
    *,
    reserved: int = 10 * GB,
    ratio: float = 1.0,
    outside: int = GB // 2,
    device: str = CARD,
    predicted: int | None = None,
    **figures: Any,
) -> str:
    """A run's folder: it was predicted to reserve `reserved`, held `ratio` of that, and `outside` beside it."""
    run_id = f"20261122-{number:04}-made"
    folder = home / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text("method: {name: sft}\n", encoding="utf-8")
    held = int(reserved * ratio)
    on_cpu = device == "cpu"
    memory = {
        "device_name": device,
        "device_kind": "cpu" if on_cpu else "cuda",
        "time": 1e9 + number,
        "start": {"rss": outside} if on_cpu else {},
        "peak": {"rss": held + outside}
        if on_cpu
        else {"allocated": held // 2, "reserved": held, "device": held + outside, "rss": GB},
        **figures,
    }
    estimate = {
        "allocated": reserved // 2,
        "reserved": reserved,
        "device": predicted or reserved + 600_000_000,
        "tokens": 1000,
        "flops": 5e12,
    }
    (folder / "memory.json").write_text(json.dumps(memory), encoding="utf-8")
    (folder / "estimate.json").write_text(json.dumps(estimate), encoding="utf-8")
    return run_id


def learning(home: Path) -> Learning:
    return Learning(home, Runs(home / "runs"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path


# -- what is learnt ---------------------------------------------------------------------------------------------------


def test_without_runs_nothing_is_corrected(home: Path) -> None:
    assert learning(home).correction(CARD) == Correction()
    assert not (home / "learning.json").exists()


def test_one_run_tells_what_lies_outside_the_allocator(home: Path) -> None:
    a_run(home, 1, outside=432_000_000, ratio=1.3)
    found = learning(home).correction(CARD)
    assert found.overhead == 432_000_000
    assert (found.reserved_ratio, found.low, found.high) == (1.0, PUBLISHED_LOW, PUBLISHED_HIGH)
    assert found.last is not None
    assert (found.last.predicted, found.last.measured) == (10_600_000_000, 13_432_000_000)


def test_what_the_allocator_holds_is_learnt_from_three_runs_on(home: Path) -> None:
    for number, ratio in enumerate((1.10, 1.12, 1.14)):
        a_run(home, number, ratio=ratio, outside=500_000_000 + number)
    found = learning(home).correction(CARD)
    assert found.reserved_ratio == pytest.approx(1.12)
    assert found.overhead == 500_000_001
    assert found.runs == 3


def test_the_band_is_around_what_is_left_after_the_correction(home: Path) -> None:
    """Every run held 20 % more than was said: with that corrected, no error is left but the band's least width."""
    for number in range(12):
        a_run(home, number, ratio=1.2)
    found = learning(home).correction(CARD)
    assert found.low < 0 < found.high
    assert found.high - found.low < PUBLISHED_HIGH - PUBLISHED_LOW


def test_a_wide_spread_makes_a_wide_band_that_holds_the_runs(home: Path) -> None:
    ratios = [0.9, 0.95, 1.0, 1.0, 1.05, 1.1, 1.2, 1.3]
    for number, ratio in enumerate(ratios):
        a_run(home, number, ratio=ratio)
    found = learning(home).correction(CARD)
    expected = 10 * GB * found.reserved_ratio + (found.overhead or 0)
    for ratio in ratios:
        measured = 10 * GB * ratio + GB // 2
        assert found.low <= (measured - expected) / expected <= found.high


def test_outliers_hardly_move_anything(home: Path) -> None:
    for number in range(10):
        a_run(home, number, ratio=1.1, outside=500_000_000)
    before = learning(home).correction(CARD)
    for number in range(10, 13):
        a_run(home, number, ratio=9.0, outside=40 * GB, mean_watts=1)
    after = learning(home).correction(CARD)
    assert after.runs == 13
    assert (after.overhead, after.reserved_ratio) == (before.overhead, pytest.approx(before.reserved_ratio))
    assert after.high - after.low == pytest.approx(before.high - before.low, abs=0.02)


def test_a_ratio_beyond_reason_is_held_back(home: Path) -> None:
    for number in range(4):
        a_run(home, number, ratio=9.0)
    assert learning(home).correction(CARD).reserved_ratio == 3.0


def test_what_is_allocated_is_shown_and_never_scaled(home: Path) -> None:
    a_run(home, 1, ratio=1.3)
    (lesson,) = learning(home).history()
    assert (lesson.allocated_predicted, lesson.allocated) == (5 * GB, 6_500_000_000)
    assert not [name for name in vars(Correction()) if "allocated" in name]


def test_the_latest_runs_count(home: Path) -> None:
    for number in range(3 * LATEST):
        a_run(home, number, outside=GB if number < 2 * LATEST else 2 * GB)
    assert learning(home).correction(CARD).overhead == 2 * GB


def test_a_device_learns_from_its_own_runs_alone(home: Path) -> None:
    a_run(home, 1, outside=GB)
    a_run(home, 2, outside=700_000_000, device="cpu")
    taught = learning(home)
    assert taught.correction(CARD).overhead == GB
    assert taught.correction("cpu").overhead == 700_000_000
    assert taught.correction("another card") == Correction()
    assert [lesson.device for lesson in taught.history()] == ["cpu", CARD]
    assert [lesson.device for lesson in taught.history(CARD)] == [CARD]


def test_on_a_processor_the_resident_set_is_what_is_measured(home: Path) -> None:
    for number, predicted in enumerate((3_000_000_000, 3_100_000_000, 3_200_000_000)):
        a_run(home, number, device="cpu", reserved=2 * GB, ratio=1.25, outside=600_000_000, predicted=predicted)
    found = learning(home).correction("cpu")
    assert found.last is not None
    assert (found.last.predicted, found.last.measured) == (3_200_000_000, 3_100_000_000)
    assert (found.overhead, found.runs) == (600_000_000, 3)
    # There is no allocator of torch's there: nothing is scaled, and the range is that of the errors.
    assert found.reserved_ratio == 1.0
    assert found.low < 3.1 / 3.2 - 1 < 3.1 / 3.0 - 1 < found.high


def test_estimates_of_rows_that_nobody_counted_are_shown_and_teach_no_error(home: Path) -> None:
    for number in range(4):
        run_id = a_run(home, number, ratio=0.4, kind="cuda/auto/lora", tokens_per_second=10)
        path = home / "runs" / run_id / "estimate.json"
        kept = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**kept, "lengths_known": False}), encoding="utf-8")
    taught = learning(home)
    found = taught.correction(CARD)
    assert (found.reserved_ratio, found.runs, found.rates) == (1.0, 0, {})
    assert found.overhead == GB // 2
    assert [lesson.assumed for lesson in taught.history()] == [True] * 4
    assert learning(home).history() == taught.history()  # as they are kept, too


def test_speed_and_draw_come_from_the_runs_and_speed_from_the_calibration_until_then(home: Path) -> None:
    calibrated = {"cuda/auto/lora": 9e12, "cuda/auto/full": 8e12}
    answer = {"schema": SCHEMA, "device_name": CARD, "rates": {**calibrated, "cuda/auto/qlora": -1, "odd": "fast"}}
    (home / "calibration.json").write_text(json.dumps(answer), encoding="utf-8")
    taught = learning(home)
    assert taught.correction(CARD).rates == calibrated
    assert taught.correction("cpu").rates == {}
    for number, speed in enumerate((900.0, 1000.0, 5.0, 1010.0, 1100.0)):
        run_id = a_run(home, number, kind="cuda/auto/lora", tokens_per_second=speed, mean_watts=300 + number)
        taught.note(run_id)
    found = taught.correction(CARD)
    # 5e12 operations for 1000 tokens, 1000 tokens a second
    assert found.rates == {"cuda/auto/lora": pytest.approx(5e12), "cuda/auto/full": 8e12}
    assert found.draw == 302


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_deleted_runs_are_not_unlearnt(home: Path) -> None:
    a_run(home, 1, outside=GB)
    learning(home).correction(CARD)
    shutil.rmtree(home / "runs" / "20261122-0001-made")
    assert learning(home).correction(CARD).overhead == GB


def test_a_run_that_ended_while_nobody_looked_is_learnt_from_later(home: Path) -> None:
    a_run(home, 1, outside=GB)
    learning(home).correction(CARD)
    a_run(home, 2, outside=3 * GB)
    assert learning(home).correction(CARD).overhead == 2 * GB


def test_a_run_is_learnt_from_as_it_ends(home: Path) -> None:
    taught = learning(home)
    assert taught.correction(CARD).overhead is None
    taught.note(a_run(home, 1, outside=GB))
    assert taught.correction(CARD).overhead == GB
    taught.note(a_run(home, 1, outside=2 * GB))  # resumed: what it says last counts
    assert taught.correction(CARD).overhead == 2 * GB


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 1, "runs": [1, 2]}', '{"schema": "x"}', "\x00" * 50])
def test_a_damaged_file_is_made_anew_from_the_runs(home: Path, damage: str) -> None:
    a_run(home, 1, outside=GB)
    (home / "learning.json").write_text(damage, encoding="utf-8")
    assert learning(home).correction(CARD).overhead == GB
    kept = json.loads((home / "learning.json").read_text(encoding="utf-8"))
    assert (kept["schema"], list(kept["runs"])) == (SCHEMA, ["20261122-0001-made"])


def test_damaged_lessons_are_passed_over_and_the_others_stay(home: Path) -> None:
    runs = {
        "good": {"device": CARD, "outside": GB, "time": 1.0},
        "no-device": {"outside": 5 * GB},
        "nonsense": {"device": CARD, "outside": "much", "rate": float("nan"), "time": [], "reserved": -4},
        "no-object": 7,
    }
    (home / "learning.json").write_text(json.dumps({"schema": SCHEMA, "runs": runs}), encoding="utf-8")
    assert learning(home).correction(CARD).overhead == GB


def test_F65_a_newer_studios_file_is_left_alone(home: Path) -> None:
    run_id = a_run(home, 1)
    text = json.dumps({"schema": SCHEMA + 1, "lessons": "of another kind"})
    (home / "learning.json").write_text(text, encoding="utf-8")
    taught = learning(home)
    assert taught.correction(CARD) == Correction()
    taught.note(run_id)
    assert (home / "learning.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("memory.json", None),
        ("memory.json", "{"),
        ("memory.json", '{"device_name": 5, "peak": {"rss": 1}}'),
        ("memory.json", '{"device_name": "cpu", "peak": null}'),
        ("memory.json", '{"device_name": "cpu", "loaded": {"rss": 5}}'),  # it never came to its end
    ],
)
def test_a_run_without_figures_teaches_nothing(home: Path, file: str, text: str | None) -> None:
    folder = home / "runs" / a_run(home, 1)
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text, encoding="utf-8")
    assert read_lesson(folder) is None
    taught = learning(home)
    taught.note(folder.name)
    assert taught.correction(CARD) == Correction()


def test_a_run_that_nobody_predicted_still_tells_of_the_machine(home: Path) -> None:
    folder = home / "runs" / a_run(home, 1, outside=GB, mean_watts=250)
    (folder / "estimate.json").write_text('{"device": "?", "reserved": Infinity}', encoding="utf-8")
    found = learning(home).correction(CARD)
    assert (found.overhead, found.draw, found.last, found.runs) == (GB, 250, None, 0)


def test_it_keeps_the_latest_and_no_more(home: Path) -> None:
    runs = {f"old-{n}": {"device": CARD, "outside": GB, "time": float(n + 1)} for n in range(KEEP)}
    (home / "learning.json").write_text(json.dumps({"schema": SCHEMA, "runs": runs}), encoding="utf-8")
    learning(home).note(a_run(home, 1))
    kept = json.loads((home / "learning.json").read_text(encoding="utf-8"))["runs"]
    assert len(kept) == KEEP
    assert "old-0" not in kept
    assert "20261122-0001-made" in kept


def test_a_home_that_cant_be_written_stops_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run_id = a_run(home, 1)
    monkeypatch.setattr("studio.workspace.learning.write_text", full)
    taught = learning(home)
    taught.note(run_id)
    assert taught.correction(CARD) == Correction()


NOTES = """
import sys
from pathlib import Path
from studio.workspace.learning import Learning
from studio.workspace.runs import Runs
home = Path(sys.argv[1])
learning = Learning(home, Runs(home / "runs"))
sys.stdin.readline()
for run_id in sys.argv[2:]:
    learning.note(run_id)
"""


def test_of_two_processes_that_write_neither_loses_anything(home: Path) -> None:
    ids = [a_run(home, number) for number in range(30)]
    environment = {**os.environ, "STUDIO_HOME": str(home)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", NOTES, str(home), *half], stdin=subprocess.PIPE, cwd=PROJECT, env=environment
        )
        for half in (ids[::2], ids[1::2])
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    kept = json.loads((home / "learning.json").read_text(encoding="utf-8"))["runs"]
    assert sorted(kept) == sorted(ids)
    assert not [path for path in home.iterdir() if path.suffix == ".tmp"]


def test_F62_a_run_that_was_predicted_and_measured_is_learnt_from_at_its_end(
    studio: Watched, workers: FakeWorkers
) -> None:
    workers.script = "sign start step:1 wait:go adapter end:finished"
    studio.predict = lambda config: {"device": GB, "reserved": GB // 2, "name": config.method.name}
    run_id = studio.start()
    folder = studio.path(run_id)
    assert json.loads((folder / "estimate.json").read_text(encoding="utf-8"))["name"] == "sft"
    assert studio.learning.history() == []
    memory = {"device_name": "cpu", "device_kind": "cpu", "time": 5.0, "start": {"rss": 9}, "peak": {"rss": 2 * GB}}
    (folder / "memory.json").write_text(json.dumps(memory), encoding="utf-8")
    studio.go_on(run_id, "go")
    until(studio.learning.history)
    (lesson,) = studio.learning.history()
    assert (lesson.run_id, lesson.predicted, lesson.measured, lesson.error) == (run_id, GB, 2 * GB, 1.0)
