"""A call that ends within its time, in any thread and on any platform, even if it is somebody else's endless loop.

In: seconds and a function. Out: what it returns, or TooLong. One watching thread raises an exception inside the thread
that is late; that costs a call some two microseconds. It can't end a single operation of C code: whoever calls
foreign code bounds the sizes that such operations get (see `render`).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LOOKS = 0.1  # seconds between two looks at the clock
_IDLE = 100  # looks without a call after which the watching thread ends


class TooLong(Exception):
    """The call didn't end in its time."""


class _Late(BaseException):
    """Raised from outside; no handler of foreign code for `Exception` holds it up."""


class _Call:
    def __init__(self, seconds: float) -> None:
        self.thread = threading.get_ident()
        # Late by both clocks: a machine that was asleep, or busy with something else, is no fault of the call's.
        self.until = time.monotonic() + seconds
        self.until_cpu = time.process_time() + seconds
        self.told = False


class _Watch:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._thread: threading.Thread | None = None

    def begin(self, call: _Call) -> None:
        with self._lock:
            self._calls.add(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="deadline", daemon=True)
                self._thread.start()

    def end(self, call: _Call) -> None:
        """From here on nothing is raised for this call any more."""
        with self._lock:
            self._calls.discard(call)
            if call.told:
                _raise_in(call.thread, None)

    def _look(self) -> None:
        idle = 0
        while True:
            time.sleep(_LOOKS)
            with self._lock:
                now, cpu = time.monotonic(), time.process_time()
                for call in self._calls:
                    if now > call.until and cpu > call.until_cpu:
                        call.told = True
                        call.until = now + 1  # told again, should the first time be lost in a finalizer
                        _raise_in(call.thread, _Late)
                idle = 0 if self._calls else idle + 1
                if idle > _IDLE:
                    self._thread = None
                    return


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


_watch = _Watch()


def _anew() -> None:
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):  # a forked child has no watching thread, and perhaps a lock that nobody holds
    os.register_at_fork(after_in_child=_anew)


def within(seconds: float, function: Callable[[], T]) -> T:
    """`function()`. Raises TooLong once it has taken that many seconds, of the clock and of the processor."""
    call, watch = _Call(seconds), _watch
    try:
        try:
            watch.begin(call)
            result = function()
        finally:
            watch.end(call)
    except _Late:
        while True:  # raised perhaps in the midst of `end`
            try:
                watch.end(call)
                break
            except _Late:
                continue
        raise TooLong from None
    return result
