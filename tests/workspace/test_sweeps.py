"""Sweeps over fake workers whose validation loss is lowest at a learning rate of 1e-3."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator

import pytest

from studio.core.errors import RunError
from studio.core.sweep import SweepConfig, Trial
from studio.workspace import searching, sweeps
from studio.workspace.sweeps import Sweeps
from tests.fake_worker import FakeWorkers, until
from tests.workspace.conftest import Watched

JUDGED = "sign start judge:1 judge:2 judge:4 adapter end:finished"
RATE = "training.learning_rate"


def config(trials: int = 4, **more: object) -> SweepConfig:
    return SweepConfig(vary=[f"{RATE}=1e-5:1e-1:log"], trials=trials, **more)  # type: ignore[arg-type]


@pytest.fixture
def searched(studio: Watched, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweeps]:
    monkeypatch.setattr(sweeps, "_POLL", 0.02)
    workers.script = JUDGED
    made = Sweeps(studio)
    yield made
    made.close()


def test_trials_are_runs_in_the_queue_and_the_best_is_told(searched: Sweeps, studio: Watched) -> None:
    told: list[Trial] = []
    done = searched.drive(searched.create(config(4, name="Rates", prune=False)), told.append)
    assert done.status == "finished" and [trial.outcome for trial in done.trials] == ["finished"] * 4
    assert [trial.run_id for trial in told] == [trial.run_id for trial in done.trials]
    for trial in done.trials:
        run = studio.runs.get(trial.run_id)
        assert run.config.training.learning_rate == trial.values[RATE] and run.label == f"Rates {trial.number + 1}"
        assert trial.value == pytest.approx((math.log10(trial.values[RATE]) + 3) ** 2 + 1 / 4)
    assert done.best is not None and done.best.value == min(trial.value or 9 for trial in done.trials)


def test_a_sweep_cut_short_goes_on_where_it_was(searched: Sweeps, studio: Watched, workers: FakeWorkers) -> None:
    sweep_id = searched.create(config(3, prune=False))
    workers.script = "sign start judge:1 wait:go judge:4 adapter end:finished"
    driver = threading.Thread(target=searched.drive, args=(sweep_id,))
    driver.start()
    first = until(lambda: searched.get(sweep_id).trials)[0]
    searched.close()  # as when the window is closed
    driver.join()
    other = Sweeps(studio)
    assert other.get(sweep_id).status == "waiting" and other.get(sweep_id).trials[0].outcome == "running"
    other.adopt()
    until(lambda: other.get(sweep_id).status == "running")
    workers.script = JUDGED
    (studio.path(first.run_id) / "go").touch()
    done = until(lambda: (found := other.get(sweep_id)).status == "finished" and found)
    assert len(done.trials) == 3 and done.trials[0].run_id == first.run_id
    other.close()


def test_a_second_driver_stays_away(searched: Sweeps, studio: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "_ASIDE", 0.05)
    sweep_id = searched.start(config(3, prune=False))
    Sweeps(studio).drive(sweep_id)
    until(lambda: searched.get(sweep_id).status == "finished")
    assert [trial.number for trial in searched.get(sweep_id).trials] == [0, 1, 2]
    assert len(studio.runs.ids()) == 3


def test_stopping_ends_the_trial_and_the_sweep_and_resuming_goes_on(
    searched: Sweeps, studio: Watched, workers: FakeWorkers
) -> None:
    workers.script = "sign start judge:1 obey save:1 end:stopped"
    sweep_id = searched.start(config(3))
    trial = until(lambda: searched.get(sweep_id).trials)[0]
    studio.wait(trial.run_id, "running")
    searched.stop(sweep_id)
    until(lambda: searched.get(sweep_id).trials[0].outcome == "stopped")
    assert searched.get(sweep_id).status == "stopped" and len(searched.get(sweep_id).trials) == 1
    until(lambda: not searched._drivers[sweep_id].is_alive())
    workers.script = JUDGED
    searched.resume(sweep_id)
    done = until(lambda: (found := searched.get(sweep_id)).status == "finished" and found)
    assert [one.outcome for one in done.trials] == ["stopped", "finished", "finished"]


def test_a_hopeless_trial_is_ended_early(
    searched: Sweeps, studio: Watched, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([1e-3, 2e-3, 5e-4, 1e-1])
    monkeypatch.setattr(searching, "suggest", lambda config, trials: {RATE: next(rates)})
    workers.scripts["Sweep 4"] = "sign start judge:1 obey save:1 end:stopped"
    done = searched.drive(searched.create(config(4)))
    assert [trial.outcome for trial in done.trials] == ["finished", "finished", "finished", "pruned"]
    assert done.best is not None and done.best.values[RATE] == 1e-3
    assert studio.runs.get(done.trials[3].run_id).state.status == "stopped"


def test_later_trials_are_sought_where_the_earlier_were_good() -> None:
    """TPE against the same number of random draws, by how near the optimum they come on average."""

    def distance(rate: float) -> float:
        return abs(math.log10(rate) + 3)

    trials: list[Trial] = []
    wished = config(30)
    for number in range(30):
        values = searching.suggest(wished, trials)
        assert 1e-5 <= values[RATE] <= 1e-1
        trials.append(Trial(number, values, f"run-{number}", "finished", distance(values[RATE]) ** 2))
    late = [distance(trial.values[RATE]) for trial in trials[15:]]
    assert sum(late) / len(late) < 0.6, "a uniform draw is 1.0 away on average"
    assert searching.suggest(wished, trials) == searching.suggest(wished, trials), "the same study, the same choice"


def test_choices_and_whole_numbers_come_back_as_they_were_given() -> None:
    wished = SweepConfig(
        vary=["adapter.r=4:64", "training.optim=adamw_torch,sgd", "adapter.target_modules=all-linear,[q_proj]"]
    )
    values = searching.suggest(wished, [])
    assert isinstance(values["adapter.r"], int) and values["training.optim"] in ("adamw_torch", "sgd")
    assert values["adapter.target_modules"] in ("all-linear", ["q_proj"])


def test_damaged_lines_are_passed_over_and_unknown_sweeps_refused(searched: Sweeps) -> None:
    sweep_id = searched.create(config(2))
    (searched.folder / sweep_id / "trials.jsonl").write_text(
        json.dumps({"number": 0, "values": {RATE: 1e-4}, "run": "gone"}) + '\n{"pruned": 7}\n[]\n{"number": 1, "val',
        encoding="utf-8",
    )
    (trial,) = searched.get(sweep_id).trials
    assert (trial.run_id, trial.outcome) == ("gone", "failed")
    for bad in ("../runs", "none", ""):
        with pytest.raises(RunError):
            searched.get(bad)
