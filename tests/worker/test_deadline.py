"""A call that ends in time, in any thread; and none that is hit by another's end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from studio.worker.deadline import TooLong, within


def endless() -> None:
    while True:
        pass


def test_what_a_call_returns_or_raises_comes_through() -> None:
    assert within(1, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(1, lambda: 1 / 0)


def test_an_endless_loop_ends_and_leaves_nothing_behind() -> None:
    for _ in range(3):
        with pytest.raises(TooLong):
            within(0.2, endless)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # nothing is raised here any more
        pass
    assert within(1, lambda: "fine") == "fine"


def test_a_loop_that_catches_every_error_ends_all_the_same() -> None:
    def stubborn() -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: BLE001 - that is what is tested
                continue

    with pytest.raises(TooLong):
        within(0.2, stubborn)


def test_each_thread_has_its_own_time() -> None:
    found: dict[str, str] = {}

    def run(name: str, seconds: float, function: Callable[[], object]) -> None:
        try:
            within(seconds, function)
            found[name] = "done"
        except TooLong:
            found[name] = "late"

    def busy() -> None:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            pass

    threads = [
        threading.Thread(target=run, args=("endless", 0.2, endless)),
        threading.Thread(target=run, args=("busy", 60, busy)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {"endless": "late", "busy": "done"}


def test_waiting_costs_no_processor_time_and_isnt_late() -> None:
    """A machine that was asleep, or busy elsewhere, is no fault of the call's."""
    assert within(0.2, lambda: (time.sleep(0.6), "awake")) == (None, "awake")
