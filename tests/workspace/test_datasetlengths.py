"""Lengths are counted once, by the real data worker, and told when they are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.workspace.datasetlengths import DatasetLengths, LengthsState
from studio.workspace.desk import DataDesk
from studio.workspace.launcher import Launcher
from tests.fake_worker import FakeWorkers, until
from tests.tiny import make_tiny_llama, tiny_rows, tiny_tokenizer, write_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def desk(workers: FakeWorkers) -> Iterator[DataDesk]:
    workers.real_data = True
    found = DataDesk(Launcher(standby=False))
    yield found
    found.close()


def config_of(model: Path, rows: Path, **more: Any) -> RunConfig:
    dataset = {"path": str(rows), **more.pop("dataset", {})}
    return RunConfig.model_validate({"model": {"name_or_path": str(model)}, "dataset": dataset, **more})


def counted(lengths: DatasetLengths, config: RunConfig) -> LengthsState:
    until(lambda: not lengths.soon(config).busy, 60)
    return lengths.soon(config)


def test_real_lengths_come_in_the_background_and_are_kept(desk: DataDesk, model: Path, tmp_path: Path) -> None:
    rows = tiny_rows(30, longest=30)
    config = config_of(model, write_rows(tmp_path / "rows.jsonl", rows))
    first = DatasetLengths(desk, patient=False)
    assert first.soon(config).busy and first.soon(config).lengths is None
    found = counted(first, config)
    tokenizer = tiny_tokenizer()
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
    assert found.lengths is not None and found.rows == 30 and 0 < found.lengths.learnt < 1
    assert found.lengths.longest == max(len(tokenizer(text)["input_ids"]) for text in texts)
    # knobs that change no length are the same question; another limit on length is answered from what is known
    other = config_of(model, tmp_path / "rows.jsonl", training={"learning_rate": 1e-3},
                      dataset={"validation_split": 0.5})  # fmt: skip
    assert first.soon(other).lengths == found.lengths
    short = config_of(model, tmp_path / "rows.jsonl", training={"max_length": 90}, dataset={"exclude": ["too_long"]})
    left = first.soon(short).lengths
    assert left is not None and 0 < left.longest <= 90 and 0 < len(left) == 30 - found.lengths.above(90) < 30
    # a restarted studio finds the answer, and a changed file is another question
    again = DatasetLengths(desk, patient=False)
    assert counted(again, config).lengths == found.lengths
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(rows[0]) + "\n")
    assert again.soon(config).busy
    assert counted(again, config).rows == 31


def test_what_cant_be_counted_is_said_once(desk: DataDesk, model: Path, tmp_path: Path) -> None:
    lengths = DatasetLengths(desk, patient=False)
    config = config_of(tmp_path / "none", write_rows(tmp_path / "rows.jsonl", tiny_rows(2)))
    state = lengths.soon(config)
    assert state.problem and not state.busy and state.lengths is None
    assert lengths.soon(config_of(model, tmp_path / "gone.jsonl")).problem
    assert lengths.soon(RunConfig.model_validate({"dataset": {"path": None}})) == LengthsState(None)


def test_while_a_person_types_nothing_is_counted(desk: DataDesk, workers: FakeWorkers, model: Path,
                                                 tmp_path: Path) -> None:  # fmt: skip
    lengths = DatasetLengths(desk)
    rows = write_rows(tmp_path / "rows.jsonl", tiny_rows(5))
    before = len(workers.readers)
    for typed in ("a", "ab", "abc"):
        assert lengths.soon(config_of(model, rows, dataset={"system_prompt": typed})).busy
    assert len(workers.readers) == before
