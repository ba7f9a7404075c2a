"""Lines in, Verdicts out, in the same order: in this process, or on every core where there is much to do.

In: a Judge and the Lines of a source. Out: its Verdicts. Processes are started afresh (a fork would copy the locks of
running threads), which costs seconds, so small sources are judged here. They end with the pass, with whoever started
it, and when the one who reads the verdicts stops reading.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from studio.core.errors import WorkerError
from studio.core.rows import Line
from studio.worker.data.judge import Judge, Verdict

_CHUNK = 100  # lines handed over at once
# Bytes of a source from which on other processes pay, with tokens and without: some 15 seconds of one.
_MUCH, _MUCH_PLAIN = 16 * 2**20, 128 * 2**20


def workers_for(judge: Judge, size: int) -> int:
    """How many processes should judge a source of this size in bytes; 1 is this one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8) if size >= (_MUCH_PLAIN if judge.encoder is None else _MUCH) else 1


def judged(
    lines: Iterable[Line], judge: Judge, workers: int = 1, waiting: Callable[[], None] = lambda: None
) -> Generator[Verdict, None, None]:
    """The verdict on every line, in order. Bounded memory: at most a few hundred lines are on their way.

    `waiting` is called twice a second while there is nothing to yield; it may raise to end the pass. Raises
    WorkerError where one of the processes was killed.
    """
    if workers <= 1:
        yield from map(judge.verdict, lines)
        return
    rest = iter(lines)
    with _started(workers) as helpers:
        told = pickle.dumps(judge)
        for helper in helpers:
            helper.receive(waiting)  # it is there, so that what is sent is read at once
            helper.send(told)
        # Each has one chunk at a time: with more on their way, both sides might wait for the other to read.
        busy: deque[_Helper] = deque()
        for helper in helpers:
            if chunk := list(islice(rest, _CHUNK)):
                helper.send(chunk)
                busy.append(helper)
        while busy:
            helper = busy.popleft()
            verdicts = helper.receive(waiting)
            if chunk := list(islice(rest, _CHUNK)):
                helper.send(chunk)
                busy.append(helper)
            yield from verdicts


@contextlib.contextmanager
def _started(count: int) -> Iterator[list[_Helper]]:
    """Helpers that are gone afterwards. They are started with tokenizers that use one core each."""
    helpers: list[_Helper] = []
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    try:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        helpers.extend(_Helper() for _ in range(count))
        yield helpers
    finally:
        if before is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
        for helper in helpers:
            helper.end()


class _Helper:
    """A process that judges chunks of lines, and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_help, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, what: Any) -> None:
        with _alive():
            self._pipe.send(what)

    def receive(self, waiting: Callable[[], None]) -> Any:
        """The next answer; raises what went wrong there."""
        while not self._answered():
            waiting()
        with _alive():
            answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answered(self) -> bool:
        with _alive():
            return self._pipe.poll(0.5)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextlib.contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError):
        raise WorkerError(
            "A process that was reading rows was ended from outside.", "Perhaps memory ran out: close other programs."
        ) from None


def _help(pipe: Connection) -> None:
    """The helper's side. It ends when the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is interrupted is the one who asked; it ends this process
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.send(None)
        judge: Judge = pickle.loads(pipe.recv())
        while True:
            lines: list[Line] = pipe.recv()
            try:
                answer: Any = [judge.verdict(line) for line in lines]
            except Exception as error:  # noqa: BLE001 - it is raised again where the pass is made
                answer = error
            pipe.send(answer)
