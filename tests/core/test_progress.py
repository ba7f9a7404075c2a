"""Where a job stands: events folded, and the one true status of every state that a folder can be in."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.events import CheckpointSaved, Ended, Event, Metrics, Note, Stage
from studio.core.progress import LIVE, Progress, State, derive


def start(attempt: int = 1, from_step: int = 0, t: float = 100.0) -> Stage:
    return Stage("starting", "Starting", attempt=attempt, from_step=from_step, t=t)


def at(step: int, elapsed: float | None = None, max_steps: int = 100, **values: float) -> Metrics:
    elapsed = 2.0 * step if elapsed is None else elapsed
    return Metrics(step, max_steps, step / 10, elapsed, values or {"loss": 1.0 / step}, t=100.0 + step)


def folded(*events: Event) -> Progress:
    progress = Progress()
    for event in events:
        progress.fold(event)
    return progress


# -- folding ----------------------------------------------------------------------------------------------------------


def test_the_series_hold_each_measured_step_once_in_order() -> None:
    progress = folded(start(), at(1), at(2, loss=0.5, eval_loss=0.7), at(2, eval_loss=0.6), at(3))
    assert progress.series["loss"] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert progress.series["eval_loss"] == [(2, 0.6)], "what is measured again replaces"
    assert (progress.step, progress.max_steps, progress.epoch, progress.elapsed) == (3, 100, 0.3, 6.0)
    assert progress.latest("loss") == 1 / 3
    assert progress.latest("nothing") is None


def test_F29_resuming_takes_back_what_came_after_the_checkpoint() -> None:
    progress = folded(start(), *map(at, range(1, 8)), start(2, from_step=5), at(6, loss=9.0), at(7, loss=9.0), at(8))
    assert [step for step, _ in progress.series["loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert progress.series["loss"][4:7] == [(5, 1 / 5), (6, 9.0), (7, 9.0)]
    assert progress.attempt == 2


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 30)), min_size=1, max_size=5))
def test_F29_no_metric_is_lost_or_doubled_over_any_attempts(attempts: list[tuple[int, int]]) -> None:
    """Each attempt goes on from a checkpoint (any step up to the present one) for some steps."""
    progress, step = Progress(), 0
    truth: dict[int, float] = {}
    for number, (steps, back) in enumerate(attempts, start=1):
        step = max(0, step - back)
        progress.fold(start(number, step))
        truth = {s: value for s, value in truth.items() if s <= step}
        assert progress.step == step
        assert progress.series.get("loss", []) == sorted(truth.items())
        for _ in range(steps):
            step += 1
            truth[step] = 100.0 * number + step
            progress.fold(at(step, loss=truth[step]))
    assert progress.series["loss"] == sorted(truth.items())


def test_a_resumed_run_has_not_ended_and_has_no_old_notes() -> None:
    first = [start(), Note("info", "3 rows were cut."), at(1), Ended("stopped")]
    progress = folded(*first, start(2, 1, t=500.0))
    assert progress.ended is None
    assert progress.notes == []
    assert progress.started == 100.0, "a run has started once"
    assert folded(*first).notes[0].text == "3 rows were cut."


def test_a_checkpoint_saved_again_is_listed_once() -> None:
    progress = folded(CheckpointSaved(5, "a"), CheckpointSaved(10, "b"), CheckpointSaved(5, "c"))
    assert [(c.step, c.path) for c in progress.checkpoints] == [(10, "b"), (5, "c")]


def test_work_done_never_becomes_less() -> None:
    assert folded(at(1, elapsed=50.0), at(2, elapsed=10.0)).elapsed == 50.0


def test_F41_the_best_value_is_the_lowest_and_never_none() -> None:
    values = [math.nan, 0.5, -math.inf, 0.25, math.inf, 0.75, math.nan]
    progress = folded(*(at(i, eval_loss=value) for i, value in enumerate(values, start=1)))
    assert progress.best("eval_loss") == (4, 0.25)
    assert len(progress.series["eval_loss"]) == len(values), "they are in the curve all the same"
    assert folded(at(1, loss=math.nan)).best("loss") is None
    assert Progress().best("loss") is None


# -- time to go -------------------------------------------------------------------------------------------------------


def test_the_time_to_go_follows_the_pace() -> None:
    assert folded(start()).eta is None
    assert folded(start(), at(10, 30.0)).eta == pytest.approx(90 * 3.0)
    # Loading took 20 s before the first of them; the pace is 2 s a step since.
    assert folded(start(), at(10, 40.0), at(30, 80.0)).eta == pytest.approx(70 * 2.0)
    assert folded(start(), at(10, 40.0), at(100, 80.0)).eta == 0


def test_the_pace_is_that_of_this_attempt() -> None:
    slow = [start(), at(1, 100.0), at(10, 1000.0)]
    resumed = [*slow, start(2, 10), at(11, 1010.0), at(21, 1020.0)]
    assert folded(*slow).eta == pytest.approx(90 * 100.0)
    assert folded(*resumed).eta == pytest.approx(79 * 1.0)


def test_nothing_is_to_go_where_nothing_runs() -> None:
    assert folded(start(), at(5), Ended("stopped")).eta is None
    assert folded(start(), Metrics(0, 0, 0.0, 1.0, {})).eta is None
    assert folded(start(), Metrics(0, 10, 0.0, 1.0, {})).eta is None


# -- the one true status ----------------------------------------------------------------------------------------------

SIGNED = {"pid": 4711, "create_time": 1.0, "attempt": 1}
DONE = Ended("finished")
FAILED = Ended("failed", "The disk is full.", "Free some space.")
KILLED = {"code": -9, "forced": False}

TABLE: dict[str, tuple[list[Event], dict[str, Any] | None, bool, bool, dict[str, Any] | None, str, str]] = {
    # name: events, process.json, alive, stop asked for, exit.json -> status, words in its cause
    "nobody has taken it": ([], None, False, False, None, "queued", ""),
    "taken back in the queue": ([], None, False, True, None, "stopped", "before it started"),
    "died before signing": ([], None, False, False, {"code": 1, "last_line": "no disk"}, "failed", "no disk"),
    "killed before signing": ([], None, False, False, {"code": -9}, "failed", "killed (9)"),
    "signed": ([], SIGNED, True, False, None, "running", ""),
    "at work": ([start(), at(1)], SIGNED, True, False, None, "running", ""),
    "asked to stop": ([start(), at(1)], SIGNED, True, True, None, "stopping", ""),
    "F11 finished": ([start(), DONE], SIGNED, False, False, {"code": 0}, "finished", ""),
    "F11 finished, then a stop": ([start(), DONE], SIGNED, False, True, {"code": 0}, "finished", ""),
    "F13 finished and still alive": ([start(), DONE], SIGNED, True, False, None, "finished", ""),
    "F13 finished, killed at its exit": ([start(), DONE], SIGNED, False, False, KILLED, "finished", ""),
    "F7 finished with nobody there": ([start(), DONE], SIGNED, False, False, None, "finished", ""),
    "stopped": ([start(), Ended("stopped")], SIGNED, False, True, {"code": 0}, "stopped", ""),
    "failed": ([start(), FAILED], SIGNED, False, False, {"code": 1}, "failed", "disk is full"),
    "F1 killed": ([start(), at(1)], SIGNED, False, False, KILLED, "failed", "killed (9)"),
    "F16 killed in a container": ([start()], SIGNED, False, False, {"code": 137}, "failed", "memory"),
    "F1 killed while stopping": ([start()], SIGNED, False, True, KILLED, "failed", "killed (9)"),
    "F8 both killed": ([start(), at(1)], SIGNED, False, False, None, "interrupted", "without a word"),
    "F8 both killed while stopping": ([start(), at(1)], SIGNED, False, True, None, "interrupted", "without a word"),
    "F12 forced": ([start()], SIGNED, False, True, {"code": -15, "forced": True}, "stopped", "by force"),
    "F12 forced hard": ([start()], SIGNED, False, True, {"code": -9, "forced": True}, "stopped", "by force"),
    "ended by a signal": ([start()], SIGNED, False, False, {"code": -11}, "failed", "signal 11"),
    "ended by the stop's signal": ([start()], SIGNED, False, True, {"code": -15}, "stopped", "signal 15"),
    "left without a word": ([start()], SIGNED, False, False, {"code": 3, "last_line": "boom"}, "failed", "3: boom"),
    "left well without a word": ([start()], SIGNED, False, False, {"code": 0}, "failed", "code 0"),
    "exit.json of nonsense": ([start()], SIGNED, False, False, {}, "failed", "None"),
    "resumed, not yet taken": ([start(), Ended("stopped")], None, False, False, None, "queued", ""),
    "resumed, signed": ([start(), Ended("stopped")], {**SIGNED, "attempt": 2}, True, False, None, "running", ""),
    "resumed, at work": ([start(), FAILED, start(2)], {**SIGNED, "attempt": 2}, True, False, None, "running", ""),
    "resumed, killed": ([start(), FAILED, start(2)], {**SIGNED, "attempt": 2}, False, False, KILLED, "failed", "(9)"),
    "resumed, killed at once": ([start(), DONE], {**SIGNED, "attempt": 2}, False, False, None, "interrupted", ""),
    "resumed, finished": ([FAILED, start(2), DONE], {**SIGNED, "attempt": 2}, False, False, None, "finished", ""),
    "process.json of nonsense": ([start(), at(1)], {}, False, False, None, "interrupted", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_job_is_in_one_true_state(name: str) -> None:
    events, process, alive, stop_asked, exit, status, words = TABLE[name]
    state = derive(folded(*events), process=process, alive=alive, stop_asked=stop_asked, exit=exit)
    assert state.status == status
    assert words in state.cause
    if status in ("queued", "running", "stopping", "finished"):
        assert state == State(status)  # type: ignore[arg-type]
    elif name not in ("stopped", "taken back in the queue"):
        assert state.cause.endswith("."), "a cause is a sentence"
        assert state.hint.endswith("."), "what to do next is missing"


def test_the_live_states_are_those_that_end() -> None:
    assert sorted(LIVE) == ["queued", "running", "stopping"]


def test_the_workers_own_words_are_the_cause() -> None:
    state = derive(folded(start(), FAILED), process=SIGNED, alive=False, stop_asked=False)
    assert state == State("failed", "The disk is full.", "Free some space.")
