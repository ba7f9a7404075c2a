"""Everything an estimate asks of this machine: a model's shape, rows' lengths, the device, and the exact trace.

In: names as run.yaml has them. Out: Forecasts. What takes long (the hub, counting tokens, tracing) happens in
threads and worker processes and is kept in the cache; `..._soon` never waits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from studio import __version__
from studio.core.config import RunConfig
from studio.core.correction import Correction
from studio.core.errors import ModelError, StudioError
from studio.core.estimate import Device, Practice, Versions
from studio.core.forecast import Forecast, Surroundings, forecast
from studio.core.job import read_json, write_text
from studio.core.rowlengths import RowLengths
from studio.core.shapes import ModelShape
from studio.workspace.datasetlengths import DatasetLengths, LengthsState
from studio.workspace.desk import DataDesk
from studio.workspace.device import chosen_gpu, device_of, power_limit
from studio.workspace.hardware import read_machine, versions
from studio.workspace.launcher import Launcher
from studio.workspace.modelshapes import ModelShapes, ShapeState
from studio.workspace.pipe import ServePipe
from studio.workspace.tasks import Task, Tasks

__all__ = ["Corrections", "Estimating", "Exact", "LengthsState", "ShapeState"]

_LONGEST = 4096  # rows whose lengths a trace is told: no batch has more


class Corrections(Protocol):
    """What the studio has learnt of its own estimates: `workspace.learning.Learning`."""

    def correction(self, device: str) -> Correction: ...


@dataclass(frozen=True)
class Exact:
    """What the traced step took, in bytes; `seconds` of tracing."""

    allocated: int
    reserved: int
    device: int
    parts: dict[str, int]
    peak_moment: str
    seconds: float


class Estimating:
    """See the module. `learning` says what this machine's own runs have taught; None: nothing.

    `patient` False: rows are counted at the first question, as for a command that asks but once.
    """

    def __init__(
        self, home: Path, desk: DataDesk, learning: Corrections | None = None, *, patient: bool = True
    ) -> None:
        self._home = home
        self._learning = learning
        self._launcher = Launcher(standby=False)
        self._shapes = ModelShapes(home / "cache" / "shapes", self._built)
        self._lengths = DatasetLengths(desk, patient=patient)
        self._tasks = Tasks(self._launcher.trace)
        self._kept = itertools.count(-1, -1)  # numbers of tasks that were answered before

    # -- models and rows ----------------------------------------------------------------------------------------------

    def shape(self, model: str, revision: str | None = None) -> ModelShape:
        """A model's shape, waiting for the hub if need be. Raises ConfigError, ModelError."""
        return self._shapes.shape(model, revision)

    def shape_soon(self, model: str, revision: str | None = None) -> ShapeState:
        """What is known of a model's shape now; what isn't is asked for in the background. Some milliseconds."""
        return self._shapes.soon(model, revision)

    def lengths_soon(self, config: RunConfig) -> LengthsState:
        """What is known of the dataset's row lengths now, under the model's tokenizer; else they are being counted."""
        return self._lengths.soon(config)

    # -- the device ---------------------------------------------------------------------------------------------------

    def device(self, config: RunConfig, memory: int | None = None) -> Device:
        """The device that the config would run on. `memory`: bytes free on a card of the current generation instead."""
        return device_of(read_machine(self._home), config.hardware.device, memory)

    def correction(self, config: RunConfig, memory: int | None = None) -> Correction:
        """What was learnt on the device; of a card that isn't here nothing is known."""
        machine = read_machine(self._home)
        if self._learning is None or memory is not None:
            return Correction()
        gpu = chosen_gpu(machine, config.hardware.device)
        return self._learning.correction(gpu.name if gpu else "cpu")

    # -- forecasts ----------------------------------------------------------------------------------------------------

    def forecast(
        self,
        config: RunConfig,
        memory: int | None = None,
        *,
        versions: Versions | None = None,
        practice: Practice | None = None,
    ) -> Forecast:
        """Raises ConfigError or ModelError where the model's shape isn't known (`shape_soon` says whether it will)."""
        state = self.shape_soon(config.model.name_or_path, config.model.revision)
        if state.shape is None:
            raise ModelError(state.problem or "The model's shape is still being asked for.", "")
        known = self.lengths_soon(config)
        return forecast(
            config,
            state.shape,
            lengths=known.lengths,
            rows=known.rows,
            device=self.device(config, memory),
            correction=self.correction(config, memory),
            surroundings=self._surroundings(config, state.shape, memory),
            versions=versions,
            practice=practice,
        )

    def predict(self, config: RunConfig) -> dict[str, Any]:
        """A forecast as it is kept beside a run that is submitted. Raises StudioError."""
        self.shape(config.model.name_or_path, config.model.revision)
        found = self.forecast(config)
        # the advice too: should the run end for want of memory, it is told what the card said
        return {**found.quick(), "advice": [one.to_dict() for one in found.advice]}

    def _surroundings(self, config: RunConfig, shape: ModelShape, memory: int | None) -> Surroundings:
        machine = read_machine(self._home)
        files = self._shapes.files(config.model.name_or_path, config.model.revision)
        return Surroundings(
            ram_free=machine.ram_available,
            ram_total=machine.ram_total,
            disk_free=machine.disk_free,
            download=shape.bytes if files is None else 0,
            largest_file=max(files or (), default=None),
            power_limit=power_limit(machine, config.hardware.device) if memory is None else None,
        )

    # -- the exact estimate -------------------------------------------------------------------------------------------

    def exact_soon(
        self,
        config: RunConfig,
        memory: int | None = None,
        *,
        versions: Versions | None = None,
        practice: Practice | None = None,
    ) -> Task:
        """The exact estimate as a worker's task, cached: its `result` has an `Exact`'s fields. Raises StudioError."""
        shape = self.shape(config.model.name_or_path, config.model.revision)
        lengths = self.lengths_soon(config).lengths
        question = _question(config, shape, lengths, self.device(config, memory), versions, practice)
        path = self._home / "cache" / "traces" / f"{_digest(question)}.json"
        kept = read_json(path)
        if kept is not None:
            task = Task(next(self._kept), "trace", config.model.name_or_path, question, state="done", result=kept)
            task.ended = task.began
            return task

        def keep(result: dict[str, Any]) -> dict[str, Any]:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(result))
            return result

        return self._tasks.begin("trace", config.model.name_or_path, question, keep)

    def exact(
        self,
        config: RunConfig,
        memory: int | None = None,
        report: Callable[[str], None] | None = None,
        *,
        versions: Versions | None = None,
        practice: Practice | None = None,
    ) -> Exact:
        """The same, waited for; `report` is told what is being done. Raises StudioError."""
        task = self.exact_soon(config, memory, versions=versions, practice=practice)
        told = ""
        while task.state == "running":
            if report is not None and task.text != told:
                told = task.text
                report(told)
            time.sleep(0.05)
        if task.result is None:
            raise StudioError(task.error or "The trace was stopped.", task.hint)
        return Exact(**{field.name: task.result[field.name] for field in dataclasses.fields(Exact)})

    def _built(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The skeleton of a model whose architecture no table knows, built without numbers by a worker."""
        pipe = ServePipe(self._launcher.trace)
        try:
            answers = list(pipe.request("skeleton", config=dict(config)))
        finally:
            pipe.close()
        return answers[-1]

    def close(self) -> None:
        """End what is being traced."""
        self._tasks.close()
        self._launcher.close()


def _question(
    config: RunConfig,
    shape: ModelShape,
    lengths: RowLengths | None,
    device: Device,
    versions: Versions | None,
    practice: Practice | None,
) -> dict[str, Any]:
    stored = {"quantization_config": dict(shape.quantization)} if shape.quantization else {}
    knobs = config.model_dump(mode="json")
    knobs["dataset"] = {"path": None}  # of the rows only the lengths matter
    return {
        "config": knobs,
        "model_config": {**shape.config, **stored},
        "lengths": lengths[: config.training.per_device_train_batch_size] if lengths else None,
        # what is free decides nothing in a trace
        "device": dataclasses.asdict(replace(device, free=None)),
        "versions": dataclasses.asdict(versions) if versions else None,
        "practice": dataclasses.asdict(practice) if practice else None,
    }


def _digest(question: dict[str, Any]) -> str:
    """Tells traces apart that may come out differently: by the question, and by what is installed."""
    text = json.dumps([question, versions(), __version__], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
