"""A GGUF file, quantized further by llama.cpp's own program.

In: a file in 16 or 32 bits, a number format of llama.cpp's. Out: another file. The program is a child of this process:
what it prints tells how far it is, a stop ends it, and so does the end of this process, whose pipe it writes to.
"""

from __future__ import annotations

import contextlib
import queue
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

from studio.core.errors import ModelError
from studio.core.llamacpp import PROGRAM

_STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")  # one line a tensor: "[   3/ 290] blk.0.attn_k.weight - ..."
_POLL = 0.1  # seconds between two looks whether to stop


def quantize(program: str, source: Path, target: Path, kind: str, report: Callable[[int, int], None]) -> None:
    """`report(done, total)` in bytes of the source, also while nothing is said; it may raise to stop.

    Raises ModelError with the program's last line where it fails or writes nothing.
    """
    total, done = source.stat().st_size, 0
    command = [program, str(source), str(target), kind.upper()]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise ModelError(f"{program} can't be started ({error.strerror}).", _CHECK) from None
    assert child.stdout is not None, "it was started with a pipe"
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    last, more = "", True
    try:
        while more or child.poll() is None:
            line = _next(lines)
            more = more and line is not None
            last = line or last
            if step := _STEP.search(line or ""):
                done = total * int(step[1]) // max(1, int(step[2]))
            report(min(done, total - 1), total)
    finally:
        _end(child)
    if child.returncode or not target.is_file():
        told = last[:300] or f"it ended with code {child.returncode} and said nothing"
        raise ModelError(f"llama.cpp's quantizer failed: {told}", _CHECK)
    report(total, total)


_CHECK = f"Check that {PROGRAM} works by itself, or export it as q8_0, which needs no other program."


def _read(pipe: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    with pipe:
        for line in pipe:
            lines.put(line.decode("utf-8", "replace").strip())
    lines.put(None)


def _next(lines: queue.SimpleQueue[str | None]) -> str | None:
    """The next line; "" where none came for a moment, None after the last."""
    try:
        return lines.get(timeout=_POLL)
    except queue.Empty:
        return ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """With whatever it started itself: the program may be a script around the real one."""
    if child.poll() is None:
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(child.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    each.kill()
        child.kill()
    child.wait()
