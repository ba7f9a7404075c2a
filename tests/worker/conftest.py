"""A tiny model for every test that wants one, folders of rows, runs on both, and fresh processes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.configfile import config_to_yaml, parse_config
from studio.core.inputs import DatasetInput
from studio.core.job import JobFolder
from studio.workspace.submission import resolve_inputs
from tests.tiny import make_tiny_llama, tiny_rows, write_rows
from tests.worker.forks import Fork, Zygote

# What the libraries say of each other; nothing of it is the studio's to change.
OF_OTHERS = (
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks transformers by the old name
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for warning in OF_OTHERS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer Llama. Shared: nobody may change it."""
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., DatasetInput]:
    """Rows -> the input of a dataset that holds them."""

    def make(rows: list[dict[str, Any]], name: str = "rows.jsonl", **fields: Any) -> DatasetInput:
        return DatasetInput(name, str(write_rows(tmp_path / name, rows)), **fields)

    return make


MakeRun = Callable[..., JobFolder]


@pytest.fixture(scope="session")
def make_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Sections of a config -> the folder of a run that nobody has taken yet.

    Ten steps on the tiny model, two rows each, logged one by one; `rows`, `model` and any knob may be given.
    """
    numbers = itertools.count(1)

    def make(rows: list[dict[str, Any]] | None = None, model: Path = tiny_model, **sections: Any) -> JobFolder:
        folder = tmp_path_factory.mktemp("run", numbered=True) / f"run-{next(numbers)}"
        data = write_rows(folder / "rows.jsonl", rows or tiny_rows(24, turns=2))
        training = {
            "max_steps": 10,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
            "eval_steps": 4,
            "save_steps": 4,
            "learning_rate": 1e-2,
            **sections.pop("training", {}),
        }
        wishes = {
            "training": training,
            "model": {"name_or_path": str(model), "dtype": "float32", **sections.pop("loading", {})},
            "dataset": {"path": str(data), **sections.pop("dataset", {})},
            "hardware": {"device": "cpu"},
            **sections,
        }
        config = parse_config(wishes)
        job = JobFolder(folder)
        job.run_config.write_text(config_to_yaml(config), encoding="utf-8")
        job.inputs.write_text(resolve_inputs(config, "a run")[1].to_json(), encoding="utf-8")
        return job

    return make


@pytest.fixture
def in_process() -> Iterator[Callable[[JobFolder], int]]:
    """`run_job`, called here, with the process's signals put back afterwards."""
    from studio.worker.job import run_job

    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield lambda job: run_job(job.path)
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    found = Zygote()
    yield found
    found.close()


@pytest.fixture
def fork(zygote: Zygote, tmp_path: Path) -> Iterator[Callable[..., Fork]]:
    """`module:function` and its arguments -> a fresh process that calls it; none outlives the test."""
    forks: list[Fork] = []

    def start(call: str, *arguments: Any) -> Fork:
        forks.append(zygote.start(call, *arguments, log=tmp_path / f"fork-{len(forks)}.log"))
        return forks[-1]

    yield start
    for each in forks:
        if each.poll() is None:
            each.signal(signal.SIGKILL)
            each.wait()
