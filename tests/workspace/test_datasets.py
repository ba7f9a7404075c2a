"""Registered datasets: what is kept, what is refused, and any page of their rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.core.errors import ConfigError, DataError
from studio.core.formats import FORMATS
from studio.core.inputs import DatasetInput
from studio.core.rows import Line, read_rows
from studio.workspace import datasets
from studio.workspace.datasets import (
    add_dataset,
    check_start,
    get_dataset,
    iterate,
    list_datasets,
    read_page,
    remove_dataset,
    resolve_dataset,
)
from studio.workspace.home import bundled, datasets_dir

ROWS = [{"prompt": f"prompt {n}", "completion": f"completion\n{n}"} for n in range(53)]
SHIPPED = sorted(path.name for path in (bundled("assets") / "datasets").iterdir() if path.is_dir())


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as the kind of file that the suffix says; parquet in small row groups."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        fields = [list(rows[0]), *(row.values() for row in rows)]
        path.write_text("\n".join(mark.join(f'"{f}"' for f in row) for row in fields) + "\n", encoding="utf-8")
    else:
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(params=sorted(datasets.SUFFIXES))
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The rows, in each kind of file."""
    return write(tmp_path / f"rows{request.param}", ROWS)


def kept() -> list[str]:
    """Everything in the folder of datasets."""
    return sorted(str(path.relative_to(datasets_dir())) for path in datasets_dir().rglob("*"))


# -- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "size"), [(0, 20), (20, 20), (40, 20), (9, 2), (0, 1), (52, 5), (0, 53), (5, 30)])
def test_any_page_holds_its_rows(file: Path, start: int, size: int) -> None:
    page = read_page(file, start, size)
    assert [line.row for line in page.lines] == ROWS[start : start + size]
    assert (page.start, page.total) == (start, 53)
    assert [line.problem for line in page.lines if line.problem] == []


def test_a_page_beyond_the_end_is_empty(file: Path) -> None:
    page = read_page(file, 53, 20)
    assert (page.lines, page.total) == ([], 53)


def test_pages_and_whole_reading_tell_the_same_lines(file: Path) -> None:
    whole = list(iterate(file))
    paged = [line for start in range(0, 53, 7) for line in read_page(file, start, 7).lines]
    assert paged == whole
    assert [line.row for line in whole] == ROWS


def test_F30_a_page_tells_bad_lines_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"a": 1}\n\n{bad\n{"a": 2}\n', encoding="utf-8")
    page = read_page(path, 0, 10)
    assert [(line.number, line.row, bool(line.problem)) for line in page.lines] == [
        (2, {"a": 1}, False),
        (4, None, True),
        (5, {"a": 2}, False),
    ]
    assert read_page(path, 1, 1).lines == page.lines[1:2]


def test_F37_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".json"):
        path = write(tmp_path / f"rows{suffix}", ROWS[:3])
        assert read_page(path).total == 3
        write(path, ROWS[:5])
        assert read_page(path).total == 5


def test_a_page_reads_nothing_but_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a page doesn't grow with where it lies: rows before it are not parsed."""
    parsed: list[int] = []
    real = datasets.parse_line

    def counting(number: int, raw: bytes) -> Line | None:
        parsed.append(number)
        return real(number, raw)

    monkeypatch.setattr(datasets, "parse_line", counting)
    path = write(tmp_path / "rows.jsonl", ROWS)
    read_page(path, 50, 3)
    assert len(parsed) == 3
    group: list[int] = []
    real_group = pq.ParquetFile.read_row_group

    def counting_group(self: Any, number: int, *more: Any) -> Any:
        group.append(number)
        return real_group(self, number, *more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting_group)
    read_page(write(tmp_path / "rows.parquet", ROWS), 45, 3)
    assert group == [4]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"no parquet at all"])
def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    for act in (read_page, lambda p: list(iterate(p)), check_start):
        with pytest.raises(DataError, match="parquet"):
            act(path)


@settings(suppress_health_check=list(HealthCheck), max_examples=60, derandomize=True)
@given(st.data())
def test_F25_a_damaged_parquet_file_raises_nothing_but_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "rows.parquet", ROWS)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    acts: list[Callable[[], Any]] = [lambda: read_page(path, 20, 20), lambda: list(iterate(path))]
    for act in acts:
        try:
            act()
        except DataError as error:
            assert "parquet" in str(error)


# -- names and files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_dataset_is_complete(name: str) -> None:
    entry = get_dataset(name)
    assert entry.bundled and entry.licence and entry.description and entry.title
    assert entry.bytes > 0
    assert check_start(entry.path, entry.format, entry.columns).name == entry.format
    assert all(not line.problem for line in read_rows(entry.path))
    assert resolve_dataset(name).path == str(entry.path)


def test_a_file_is_a_dataset_by_its_path(file: Path) -> None:
    assert resolve_dataset(str(file)) == DatasetInput(str(file), str(file))
    assert not get_dataset(str(file)).bundled


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "no dataset or file 'nothing'"),
        ("", "no dataset or file"),
        ("../quickstart-sft", "no dataset or file"),
        ("a\0b", "no dataset or file"),
        ("x" * 5000, "no dataset or file"),
        ("~nobody-of-this-name/rows.jsonl", "no dataset or file"),
        (str(Path(__file__)), "not a file of rows"),
        (str(Path(__file__).parent), "is a folder"),
    ],
)
def test_F51_a_name_that_means_nothing_is_refused_at_its_knob(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        resolve_dataset(name)
    assert raised.value.field == "dataset.path"
    if "no dataset" in words:
        assert "quickstart-sft" in raised.value.hint


# -- registering ------------------------------------------------------------------------------------------------------


def test_a_file_is_registered_as_a_copy_under_a_readable_name(file: Path) -> None:
    entry = add_dataset(file, "  Größe 2\n")
    assert (entry.name, entry.title, entry.format, entry.bundled) == ("groe-2", "Größe 2", "prompt_completion", False)
    assert entry.path.parent == datasets_dir() / "groe-2"
    file.unlink()
    assert [line.row for line in read_page(entry.path, 50, 5).lines] == ROWS[50:]
    assert get_dataset("groe-2") == entry == list_datasets()[0]
    assert resolve_dataset("groe-2").format == "prompt_completion"


@pytest.mark.parametrize("title", ["2e-4", "null", "a: b # c", "🦙", "yes"])
def test_F51_a_title_is_kept_as_it_was_written(tmp_path: Path, title: str) -> None:
    add_dataset(write(tmp_path / "rows.jsonl", ROWS), title)
    assert [entry.title for entry in list_datasets() if not entry.bundled] == [title]


def test_F52_the_same_name_twice_makes_two_datasets(tmp_path: Path) -> None:
    path = write(tmp_path / "my rows.jsonl", ROWS)
    assert [add_dataset(path).name for _ in range(3)] == ["my-rows", "my-rows-2", "my-rows-3"]
    assert add_dataset(path, "???").name == "dataset"


def test_an_own_dataset_wins_over_a_shipped_one_of_its_name(tmp_path: Path) -> None:
    entry = add_dataset(write(tmp_path / "rows.jsonl", ROWS), SHIPPED[0])
    assert entry.name == SHIPPED[0]
    assert [e.bundled for e in list_datasets() if e.name == SHIPPED[0]] == [False]
    assert not get_dataset(SHIPPED[0]).bundled
    remove_dataset(SHIPPED[0])
    assert get_dataset(SHIPPED[0]).bundled


UNUSABLE: list[tuple[str, bytes, str]] = [
    ("rows.txt", b'{"text": "a"}\n', "not a file of rows"),
    ("rows.jsonl", b"", "0 usable rows"),
    ("rows.jsonl", b"\n\n", "0 usable rows"),
    ("rows.csv", b"text\n", "0 usable rows"),
    ("rows.json", b"[]", "0 usable rows"),
    ("rows.jsonl", b"not json\n", "0 usable rows. Line 1: no valid JSON"),
    ("rows.jsonl", b'["a"]\n["b"]\n', "0 usable rows. Line 1: the row is not an object"),
    ("rows.json", b"[1, 2]", "0 usable rows"),
    ("rows.json", b'[{"text": "a"}', "line 1"),
    ("rows.json", b'[{"text": "\xe9"}]', "not UTF-8"),
    ("rows.jsonl", b'{"question": "a", "answer": "b"}\n', "No known layout"),
    ("rows.jsonl", b'{"text": "a", "messages": []}\n', "as messages or text"),
    ("rows.jsonl", b'{"text": ""}\n{"text": null}\n', "None of the first 2 rows .* line 1: text is empty"),
    ("rows.jsonl", '{"text": "a"}\n'.encode("utf-16"), "UTF-16"),
    ("rows.parquet", b"PAR1", "parquet"),
]


@pytest.mark.parametrize(("name", "content", "words"), UNUSABLE, ids=[f"{n} {w}" for n, _, w in UNUSABLE])
def test_F32_an_upload_without_a_usable_row_keeps_nothing(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        add_dataset(path, "mine")
    assert raised.value.exit_code == 2
    assert kept() == []
    assert path.read_bytes() == content


def test_F22_a_copy_that_the_disk_has_no_room_for_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "write_text", full)
    with pytest.raises(Exception, match="can't be kept") as raised:
        add_dataset(write(tmp_path / "rows.jsonl", ROWS))
    assert "No space left" in str(raised.value)
    assert kept() == []


def test_S18_what_lies_beside_the_rows_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit", encoding="utf-8")
    add_dataset(write(tmp_path / "rows.jsonl", ROWS), "mine")
    assert kept() == ["mine", "mine/dataset.yaml", "mine/rows.jsonl"]


# -- what the first rows tell -----------------------------------------------------------------------------------------


def test_one_usable_row_is_enough_and_the_layout_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('bad\n{"text": ""}\n{"text": "a"}\n', encoding="utf-8")
    assert check_start(path) is FORMATS["text"]


def test_columns_of_other_names_are_mapped_here_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"question": "a", "answer": "b"}])
    assert check_start(path, "auto", {"instruction": "question", "output": "answer"}).name == "alpaca"
    with pytest.raises(DataError, match="line 1: instruction is missing"):
        check_start(path, "alpaca")


def test_only_the_first_rows_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Line] = []

    def counting(path: Path) -> Iterator[Line]:
        for line in read_rows(path):
            taken.append(line)
            yield line

    monkeypatch.setattr(datasets, "read_rows", counting)
    path = write(tmp_path / "rows.jsonl", ROWS * 10)
    check_start(path)
    assert len(taken) == 200


# -- removing ---------------------------------------------------------------------------------------------------------


def test_a_dataset_is_removed_with_its_copy(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    add_dataset(path, "mine")
    remove_dataset("mine")
    assert kept() == []
    assert path.exists()
    with pytest.raises(ConfigError, match="no dataset of yours"):
        remove_dataset("mine")


def test_what_a_killed_removal_left_is_not_in_the_way(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    left = datasets_dir() / ".removed-mine"
    left.mkdir()
    (left / "rows.jsonl").write_text("", encoding="utf-8")
    add_dataset(path, "mine")
    assert [entry.name for entry in list_datasets() if not entry.bundled] == ["mine"]
    remove_dataset("mine")
    assert kept() == []


@pytest.mark.parametrize("name", [*SHIPPED, "", "..", "../runs", ".", "a\0b", "x" * 300])
def test_S16_nothing_else_can_be_removed(name: str, studio_home: Path) -> None:
    (studio_home / "runs").mkdir()
    (studio_home / "runs" / "dataset.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="no dataset of yours"):
        remove_dataset(name)
    assert (studio_home / "runs" / "dataset.yaml").exists()


def test_S16_a_link_is_not_followed_when_it_is_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "dataset.yaml").write_text("title: mine", encoding="utf-8")
    (datasets_dir() / "linked").symlink_to(elsewhere)
    with pytest.raises(ConfigError):
        remove_dataset("linked")
    assert (elsewhere / "dataset.yaml").exists()


def test_F57_a_registration_of_an_unknown_layout_is_told_when_it_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError, match="no layout 'magic'"):
        check_start(path, "magic")


@pytest.mark.parametrize("content", ["[", "columns: 5", "manner: words", "- a", "format: magic", "heldout: [1]"])
def test_F57_a_damaged_registration_does_not_hide_the_others(tmp_path: Path, content: str) -> None:
    add_dataset(write(tmp_path / "rows.jsonl", ROWS), "good")
    folder = datasets_dir() / "damaged"
    folder.mkdir()
    (folder / "dataset.yaml").write_text(content, encoding="utf-8")
    names = {entry.name for entry in list_datasets()}
    assert {"good", *SHIPPED} <= names
