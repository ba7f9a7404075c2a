"""The near end of the pipe: parts, answers, errors, a worker that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from studio.core.errors import StudioError, WorkerError
from studio.workspace.launcher import Launcher
from studio.workspace.pipe import ServePipe
from tests.fake_worker import FakeWorkers, until


@pytest.fixture
def pipe(workers: FakeWorkers) -> Iterator[ServePipe]:
    pipe = ServePipe(Launcher(standby=False).serve)
    yield pipe
    pipe.close()


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def told(answers: Iterator[dict[str, Any]]) -> list[str]:
    """The texts of the parts, then how it ended."""
    return [answer["text"] if answer["event"] == "part" else answer["event"] for answer in answers]


def test_parts_come_one_by_one_and_then_the_answer(pipe: ServePipe) -> None:
    assert not pipe.alive
    answers = list(pipe.request("echo", parts=parts("one", "zwei", "🦙"), number=7))
    assert [answer["event"] for answer in answers] == ["part", "part", "part", "done"]
    assert [answer["text"] for answer in answers[:3]] == ["one", "zwei", "🦙"]
    assert answers[-1]["asked"]["number"] == 7
    assert pipe.alive


def test_one_worker_answers_many_requests(pipe: ServePipe, workers: FakeWorkers) -> None:
    for text in ("a", "b", "c"):
        assert told(pipe.request("echo", parts=parts(text))) == [text, "done"]
    assert [command[-1] for command in workers.commands] == ["--serve"]


def test_requests_at_the_same_time_get_their_own_answers(pipe: ServePipe) -> None:
    results: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        results[number] = told(pipe.request("echo", parts=parts(*[str(number)] * 5)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [*[str(number)] * 5, "done"] for number in range(8)}


def test_an_error_is_told_in_the_workers_words_and_the_worker_goes_on(pipe: ServePipe) -> None:
    with pytest.raises(StudioError) as raised:
        list(pipe.request("echo", parts=parts("a"), fail="The memory wasn't enough."))
    assert (raised.value.message, raised.value.hint) == ("The memory wasn't enough.", "A hint.")
    assert told(pipe.request("echo", parts=parts("b"))) == ["b", "done"]


def test_a_worker_that_dies_is_told_and_the_next_question_gets_another(pipe: ServePipe, workers: FakeWorkers) -> None:
    answers = pipe.request("echo", parts=parts("half"), die=True)
    assert next(answers)["text"] == "half"
    with pytest.raises(WorkerError, match="ended"):
        list(answers)
    until(lambda: not pipe.alive)
    assert told(pipe.request("echo", parts=parts("b"))) == ["b", "done"]
    assert len(workers.commands) == 2


def test_everyone_who_waits_hears_of_the_death(pipe: ServePipe) -> None:
    answers = pipe.request("echo", parts=parts("a"), babble=True)
    next(answers)
    ends: list[str] = []

    def ask() -> None:
        try:
            list(pipe.request("echo", parts=parts("b")))
        except WorkerError as error:
            ends.append(error.message)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(pipe._answers) == 4)
    pipe.close()
    for thread in threads:
        thread.join(timeout=10)
    with pytest.raises(WorkerError):
        list(answers)
    assert len(ends) == 3


def test_a_stop_ends_the_answer_that_is_being_given(pipe: ServePipe) -> None:
    pipe.stop()  # nothing is being given: nothing happens
    answers = pipe.request("echo", parts=parts("a"), babble=True)
    for _ in range(3):
        next(answers)
    pipe.stop()
    assert told(answers)[-1] == "done"


def test_closing_frees_the_memory_and_what_follows_is_answered_anew(pipe: ServePipe) -> None:
    for _ in range(5):
        *_, done = pipe.request("echo", parts=parts("a"))
        process = psutil.Process(done["pid"])
        pipe.close()
        assert not process.is_running()
        # The old worker's end is heard on another thread, and must not be taken for the new one's.
        assert told(pipe.request("echo", parts=parts("b"))) == ["b", "done"]
    pipe.close()
    pipe.close()
    assert not pipe.alive


def test_the_end_of_an_old_worker_is_not_the_new_ones(pipe: ServePipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, with the old worker's listener held up for as long as it takes."""
    listen, held = pipe._listen, threading.Event()

    def late(process: Any, *more: Any) -> None:
        listen_to = process.stdout

        class Late:
            closed = True

            def __enter__(self) -> Any:
                return iter(self)

            def __exit__(self, *_: object) -> None:
                listen_to.close()

            def __iter__(self) -> Iterator[bytes]:
                yield from listen_to
                held.wait(10)

        process.stdout = Late()
        listen(process, *more)

    monkeypatch.setattr(pipe, "_listen", late)
    list(pipe.request("echo", parts=parts("a")))
    pipe.close()
    monkeypatch.setattr(pipe, "_listen", listen)
    answers = pipe.request("echo", parts=parts("b"), babble=True)
    assert next(answers)["text"] == "b"
    held.set()
    time.sleep(0.2)
    pipe.stop()
    assert told(answers)[-1] == "done"


def test_an_answer_that_nobody_reads_on_is_dropped(pipe: ServePipe) -> None:
    answers = pipe.request("echo", parts=parts("a", "b", "c"))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert told(pipe.request("echo", parts=parts("d"))) == ["d", "done"]
    assert pipe._answers == {}


def test_a_standby_becomes_the_serve_worker(workers: FakeWorkers) -> None:
    launcher = Launcher(standby=True)
    launcher.prepare()
    pipe = ServePipe(launcher.serve)
    assert told(pipe.request("echo", parts=parts("a"))) == ["a", "done"]
    assert [command[-1] for command in workers.commands] == ["--standby"]
    pipe.close()
    launcher.close()
