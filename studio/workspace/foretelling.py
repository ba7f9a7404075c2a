"""What a run will take, worked out while it is submitted and kept beside it as estimate.json.

In: a config, and whoever can forecast. Out: the file, in time to be published with the run or a little later. How a
forecast is made isn't known here.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from studio.core.config import RunConfig
from studio.core.job import JobFolder, write_text

_PATIENCE = 0.5  # seconds that a submission waits for its forecast: Start is never slower by more
Predict: TypeAlias = Callable[[RunConfig], "dict[str, Any] | None"]


class Foretelling:
    """One run's forecast; neither its slowness nor a fault of it holds the run up."""

    def __init__(self, predict: Predict | None, config: RunConfig) -> None:
        self._predict = predict
        self._config = config
        self._lock = threading.Lock()
        self._text = ""
        self._job: JobFolder | None = None  # where it is to be written once it is known, if that is late
        self._thread = threading.Thread(target=self._work, name="forecast", daemon=True)
        if predict is not None:
            self._thread.start()

    def files(self) -> dict[str, str]:
        """The forecast as a file of the job's folder, if it is there in time."""
        if self._predict is not None:
            self._thread.join(_PATIENCE)
        with self._lock:
            return {"estimate.json": self._text} if self._text else {}

    def deliver(self, job: JobFolder) -> None:
        """The folder in which it is to lie: written now if it came between, or when it comes."""
        with self._lock:
            self._job = job
            self._write()

    def _work(self) -> None:
        assert self._predict is not None
        try:
            found = self._predict(self._config)
            text = json.dumps(found, ensure_ascii=False, indent=1) if found else ""
        except Exception as error:  # noqa: BLE001 - an estimate that can't be made is no reason not to train
            sys.stderr.write(f"no estimate of this run ({type(error).__name__}: {error})\n")
            return
        with self._lock:
            self._text = text
            self._write()

    def _write(self) -> None:
        if self._job is not None and self._text and not self._job.estimate.exists():
            with contextlib.suppress(OSError):  # the run is gone already, or the disk is full
                write_text(self._job.estimate, self._text)
