"""Questions about datasets: answered at once or as tasks, by fake data workers and by the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.errors import ConfigError, StudioError
from studio.workspace.datasets import get_dataset, list_datasets, resolve_dataset
from studio.workspace.desk import DataDesk
from studio.workspace.home import cache_dir, datasets_dir
from studio.workspace.launcher import Launcher
from tests.fake_worker import FakeWorkers, until

NAME = "quickstart-sft"
ROWS = [{"prompt": f"prompt {n}", "completion": f"completion\n{n}"} for n in range(53)]


@pytest.fixture
def desk(workers: FakeWorkers) -> Iterator[DataDesk]:
    found = DataDesk(Launcher(standby=False))
    yield found
    found.close()


@pytest.fixture
def real(desk: DataDesk, workers: FakeWorkers) -> DataDesk:
    workers.real_data = True
    return desk


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_tells_how_far_it_is_and_then_its_result(desk: DataDesk) -> None:
    task = desk.begin("check", NAME, parts=[{"text": "Reading", "done": 5, "total": 10}], babble=True)
    until(lambda: task.text == "bla ")
    assert (task.state, task.result) == ("running", None)
    assert desk.task(task.id) is task and desk.tasks(NAME) == [task] and desk.tasks("other") == []
    task.cancel()
    assert (task.state, task.result) == ("cancelled", None)


def test_the_result_is_the_workers_answer(desk: DataDesk) -> None:
    task = desk.begin("stats", NAME, max_length=77)
    until(lambda: task.state == "done")
    assert task.result is not None
    asked = task.result["asked"]
    assert (asked["op"], asked["max_length"]) == ("stats", 77)
    assert asked["dataset"]["path"] == resolve_dataset(NAME).path
    assert asked["section"]["format"] == "messages"
    assert task.seconds >= 0


def test_F52_the_same_question_twice_is_one_task(desk: DataDesk) -> None:
    first = desk.begin("check", NAME, babble=True)
    assert desk.begin("check", NAME, babble=True) is first
    other = desk.begin("check", NAME, babble=True, max_length=5)
    assert other is not first
    first.cancel()
    again = desk.begin("check", NAME, babble=True)
    assert again is not first and again.state == "running"


@pytest.mark.parametrize(("how", "words"), [({"fail": "It won't."}, "It won't."), ({"die": True}, "process ended")])
def test_a_task_that_fails_says_why(desk: DataDesk, how: dict[str, Any], words: str) -> None:
    task = desk.begin("map", NAME, **how)
    until(lambda: task.state == "failed")
    assert words in task.error
    assert task.hint
    with pytest.raises(StudioError, match="is over"):
        desk.task(task.id + 1)


def test_a_cancelled_task_leaves_no_process(desk: DataDesk, workers: FakeWorkers) -> None:
    task = desk.begin("check", NAME, babble=True)
    until(lambda: task.text)
    task.cancel()
    until(lambda: all(process.poll() is not None for process in workers.readers))


def test_what_waits_for_its_turn_can_be_cancelled_too(desk: DataDesk, workers: FakeWorkers) -> None:
    working = [desk.begin("check", NAME, babble=True, max_length=n) for n in (1, 2)]
    until(lambda: all(task.text for task in working))
    waiting = desk.begin("check", NAME, babble=True, max_length=3)
    waiting.cancel()
    assert waiting.state == "cancelled"
    for task in working:
        task.cancel()
    last = desk.begin("check", NAME, max_length=4)
    until(lambda: last.state == "done")


@pytest.mark.parametrize("op", ["page", "", "__class__"])
def test_only_what_is_a_task_is_begun(desk: DataDesk, op: str) -> None:
    with pytest.raises(ConfigError, match="no task"):
        desk.begin(op, NAME)


@pytest.mark.parametrize("name", ["nothing", "/etc/passwd", "../quickstart-sft", "somebody/rows"])
def test_P6_only_registered_datasets_are_opened(desk: DataDesk, name: str) -> None:
    for ask in (desk.page, desk.columns, lambda name: desk.begin("check", name)):
        with pytest.raises(ConfigError, match="no dataset"):
            ask(name)


def test_P6_a_list_of_rows_lies_in_the_cache_or_is_not_opened(desk: DataDesk, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no list of rows"):
        desk.page(NAME, 0, 20, str(tmp_path / "positions.npy"))
    inside = str(cache_dir() / "positions.npy")
    assert desk.page(NAME, 0, 20, inside)["asked"]["positions"] == str(Path(inside).resolve())


def test_what_a_registration_leaves_out_is_part_of_the_question(desk: DataDesk) -> None:
    desk.change(NAME, exclude=["duplicate"], knobs={"test_split": 0.2, "validation_path": NAME})
    task = desk.begin("check", NAME, section={"train_on": "all"})
    section = task.question["section"]
    assert (section["exclude"], section["test_split"], section["train_on"]) == (["duplicate"], 0.2, "all")
    assert task.question["validation"]["path"] == task.question["dataset"]["path"]


def test_a_row_is_shown_as_trained_on(desk: DataDesk) -> None:
    asked = desk.trained(NAME, 3, "starter", 64, train_on="all")["asked"]
    assert (asked["op"], asked["position"], asked["max_length"]) == ("show", 3, 64)
    assert asked["section"]["train_on"] == "all"
    assert asked["dataset"]["path"].endswith("train.jsonl")
    assert asked["model"]["kind"] == "starter"


@pytest.mark.parametrize(
    ("section", "field"),
    [({"format": "magic"}, "format"), ({"train_on": "nobody"}, "train_on"), ({"colums": {}}, "colums")],
)
def test_S5_a_row_is_shown_by_knobs_that_there_are(desk: DataDesk, section: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        desk.trained(NAME, 0, "starter", 1024, **section)
    assert raised.value.field.endswith(field)


# -- the register -----------------------------------------------------------------------------------------------------


def test_a_mix_is_registered_by_the_names_of_its_parts(desk: DataDesk, tmp_path: Path) -> None:
    entry = desk.mix("Both", [(NAME, 2.0), (NAME, 1.0)])
    assert [(part.path, part.weight) for part in entry.parts] == [(NAME, 2.0), (NAME, 1.0)]
    assert resolve_dataset(entry.name).stopping == "first_exhausted"
    with pytest.raises(ConfigError):
        desk.mix("Bad", [(str(tmp_path), None), (NAME, None)])
    assert [entry.name for entry in list_datasets() if not entry.bundled] == ["both"]


# -- with the real worker ---------------------------------------------------------------------------------------------


def test_a_file_is_added_shown_indexed_and_removed(real: DataDesk, tmp_path: Path) -> None:
    entry = real.add(str(write(tmp_path / "my rows.jsonl", ROWS)))[0]
    assert (entry.name, entry.path, entry.format) == ("my-rows", tmp_path / "my rows.jsonl", "auto")
    page = real.page("my-rows", 50, 20)
    assert [line["row"] for line in page["lines"]] == ROWS[50:]
    assert real.columns("my-rows")["format"] == "prompt_completion"
    assert real.row("my-rows", 7)["row"] == ROWS[7]
    until(lambda: get_dataset("my-rows").rows == 53)
    digest = get_dataset("my-rows").sha256
    assert digest is not None and len(digest) == 64
    real.remove("my-rows")
    assert (tmp_path / "my rows.jsonl").exists()


def test_an_upload_is_a_copy(real: DataDesk, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    entry = real.add(str(path), "Mine", copy=True)[0]
    path.unlink()
    assert (entry.name, entry.path) == ("mine", datasets_dir() / "mine" / "rows.jsonl")
    assert len(real.page("mine")["lines"]) == 20


UNUSABLE: list[tuple[str, bytes, str]] = [
    ("rows.jsonl", b"", "0 rows"),
    ("rows.jsonl", b"\n\n", "0 rows"),
    ("rows.csv", b"text\n", "0 rows"),
    ("rows.json", b"[]", "0 rows"),
    ("rows.jsonl", b"not json\n", "line 1: no valid JSON"),
    ("rows.jsonl", b'["a"]\n["b"]\n', "line 1"),
    ("rows.jsonl", '{"text": "a"}\n'.encode("utf-16"), "UTF-16"),
    ("rows.parquet", b"PAR1", "parquet"),
]


@pytest.mark.parametrize(("name", "content", "words"), UNUSABLE, ids=[f"{n} {w}" for n, _, w in UNUSABLE])
def test_F32_a_file_without_a_row_keeps_nothing(
    real: DataDesk, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StudioError, match=words):
        real.add(str(path), copy=True)
    assert list(datasets_dir().iterdir()) == []
    assert path.read_bytes() == content


def test_a_run_is_refused_what_it_cannot_learn_from(real: DataDesk, tmp_path: Path) -> None:
    from studio.workspace.supervisor import Supervisor

    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    supervisor = Supervisor()
    from studio.core.configfile import parse_config

    with pytest.raises(ConfigError, match="pairs of a better and a worse answer; sft learns from") as raised:
        supervisor.submit(parse_config({"dataset": {"path": str(pairs)}}))
    assert raised.value.field == "dataset.path"
    assert "convert" in raised.value.hint
    supervisor.close()


def test_a_kept_answer_is_given_again_until_the_file_changes(real: DataDesk, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    name = real.add(str(path))[0].name
    assert real.last("check", name, max_length=64) is None
    task = real.begin("check", name, max_length=64)
    until(lambda: task.state != "running")
    assert task.state == "done", task.error
    assert real.last("check", name, max_length=64) == task.result
    assert real.last("check", name, max_length=65) is None
    write(path, ROWS[:7])
    assert real.last("check", name, max_length=64) is None


def test_a_shaped_dataset_is_a_new_one(real: DataDesk, tmp_path: Path) -> None:
    name = real.add(str(write(tmp_path / "rows.jsonl", ROWS)))[0].name
    before = (tmp_path / "rows.jsonl").read_bytes()
    recipe = {"steps": [{"do": "sample", "rows": 5}]}
    task = real.begin("shape", name, title="Five of them", recipe=recipe, format="jsonl")
    until(lambda: task.state != "running")
    assert task.state == "done", task.error
    made = get_dataset("five-of-them")
    assert (made.title, made.path.parent) == ("Five of them", datasets_dir() / "five-of-them")
    assert len(real.page("five-of-them")["lines"]) == 5
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_a_data_worker_starts_without_what_trains(real: DataDesk, tmp_path: Path) -> None:
    """Pages are turned by a process that is ready at once: its libraries are the light ones."""
    import psutil

    name = real.add(str(write(tmp_path / "rows.jsonl", ROWS)))[0].name
    real.page(name)
    process = real._reader._process
    assert process is not None
    mapped = " ".join(part.path for part in psutil.Process(process.pid).memory_maps())
    assert "libtorch" not in mapped
