"""Whether the process a record speaks of is alive, and ending it with all its children.

In: process.json as a dict. Out: yes or no; a signal, never to any process but that very one: a pid alone proves
nothing, since systems reuse them, so the time the process was created must match too.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psutil

_SAME_MOMENT = 1.0  # seconds: psutil reads create_time from clock ticks since boot


def find(record: dict[str, Any] | None) -> psutil.Process | None:
    """The live process that a process.json speaks of; None if it has ended or the record is damaged or forged."""
    if not record:
        return None
    pid, created = record.get("pid"), record.get("create_time")
    if type(pid) is not int or pid <= 1 or not isinstance(created, (int, float)):
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) <= _SAME_MOMENT  # never true of NaN, which JSON may bring
        if not same or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except (psutil.Error, OSError, OverflowError):
        return None
    return process


def is_stopped(process: psutil.Process) -> bool:
    """Whether the process is held still (SIGSTOP, a sleeping laptop): it may wake and go on."""
    with contextlib.suppress(psutil.Error):
        return bool(process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    return False


def end(process: psutil.Process, grace: float = 5.0) -> None:
    """End a process and its children: asked first, killed after `grace` seconds."""
    family = [process]
    with contextlib.suppress(psutil.Error):
        family += process.children(recursive=True)
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.terminate()
    _, left = psutil.wait_procs(family, timeout=grace)
    for member in left:
        with contextlib.suppress(psutil.Error):
            member.kill()
    psutil.wait_procs(left, timeout=grace)
