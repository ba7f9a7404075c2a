"""Registered datasets: what is kept, what a name means, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.core.config import DatasetSection, MixPart
from studio.core.configfile import read_yaml
from studio.core.errors import ConfigError
from studio.core.inputs import DatasetInput
from studio.core.rows import read_rows
from studio.workspace import datasets, registration
from studio.workspace.datasets import change, get_dataset, list_datasets, register, remove_dataset, resolve_dataset
from studio.workspace.home import bundled, datasets_dir
from studio.workspace.registration import DatasetEntry

ROWS = [{"prompt": f"prompt {n}", "completion": f"completion\n{n}"} for n in range(53)]
SHIPPED = sorted(path.name for path in (bundled("assets") / "datasets").iterdir() if path.is_dir())


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def add_dataset(path: Path, title: str = "", **more: Any) -> DatasetEntry:
    """Register a copy, as an upload is."""
    return register(DatasetEntry("", title or path.stem, path, source=str(path), **more), copy=path)


def kept() -> list[str]:
    """Everything in the folder of datasets."""
    return sorted(str(path.relative_to(datasets_dir())) for path in datasets_dir().rglob("*"))


# -- names and files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_dataset_is_complete(name: str) -> None:
    entry = get_dataset(name)
    assert entry.bundled and entry.licence and entry.description and entry.title
    assert entry.bytes > 0
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
    entry = add_dataset(file, "  Größe 2\n", format="prompt_completion")
    assert (entry.name, entry.title, entry.format, entry.bundled) == ("groe-2", "Größe 2", "prompt_completion", False)
    assert entry.path == datasets_dir() / "groe-2" / "rows.jsonl"
    file.unlink()
    assert [line.row for line in read_rows(entry.path)] == ROWS
    assert get_dataset("groe-2") == entry == list_datasets()[0]
    assert resolve_dataset("groe-2") == DatasetInput("groe-2", str(entry.path), format="prompt_completion")


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


def test_F22_a_copy_that_the_disk_has_no_room_for_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registration, "write_text", full)
    with pytest.raises(Exception, match="can't be kept") as raised:
        add_dataset(write(tmp_path / "rows.jsonl", ROWS))
    assert "No space left" in str(raised.value)
    assert kept() == []


def test_S18_what_lies_beside_the_rows_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit", encoding="utf-8")
    add_dataset(write(tmp_path / "rows.jsonl", ROWS), "mine")
    assert kept() == ["mine", "mine/dataset.yaml", "mine/rows.jsonl"]


def test_a_file_that_is_only_named_stays_where_it_is(file: Path) -> None:
    entry = register(DatasetEntry("", "Named", file, source=str(file)))
    assert kept() == ["named", "named/dataset.yaml"]
    assert (entry.path, entry.bytes, entry.there) == (file, file.stat().st_size, True)
    remove_dataset("named")
    assert file.exists()
    with pytest.raises(ConfigError, match="no dataset or file"):
        resolve_dataset("named")


def test_rows_that_are_gone_are_told_at_the_knob(file: Path) -> None:
    register(DatasetEntry("", "Named", file))
    file.unlink()
    assert not get_dataset("named").there
    with pytest.raises(ConfigError, match="the rows of named are gone from") as raised:
        resolve_dataset("named")
    assert raised.value.field == "dataset.path"


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.csv.zst", "rows.txt", "rows.md", "rows.arrow", "rows.TSV"])
def test_a_copy_keeps_the_suffixes_that_say_what_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert add_dataset(tmp_path / name, "mine").path.name == name


def test_a_folder_counts_the_files_that_hold_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "evil.py").write_text("raise SystemExit", encoding="utf-8")
    entry = get_dataset(str(tmp_path))
    assert (entry.files, entry.bytes) == ([tmp_path / "a.jsonl"], (tmp_path / "a.jsonl").stat().st_size)


# -- what is kept of a dataset ----------------------------------------------------------------------------------------


def test_what_is_changed_is_kept_and_the_rest_stays(file: Path) -> None:
    before = add_dataset(file, "mine", licence="MIT", description="About.")
    changes: dict[str, Any] = {
        "format": "alpaca",
        "columns": {"instruction": "prompt"},
        "tags": {"role_tag": "by"},
        "exclude": ["duplicate"],
        "exclude_rows": [3, 5],
        "knobs": {"validation_split": 0.2},
    }
    after = change("mine", **changes)
    assert {key: getattr(after, key) for key in changes} == {
        **changes,
        "exclude": ("duplicate",),
        "exclude_rows": (3, 5),
    }
    assert (after.title, after.licence, after.description, after.path) == ("mine", "MIT", "About.", before.path)
    assert change("mine", title="Other: name").title == "Other: name"
    assert get_dataset("mine").exclude == ("duplicate",)


@pytest.mark.parametrize("fields", [{"exclude": ["nonsense"]}, {"knobs": {"validation_split": 7.5}}, {"path": "/etc"}])
def test_a_change_that_no_run_could_use_is_refused(file: Path, fields: dict[str, Any]) -> None:
    add_dataset(file, "mine")
    before = (datasets_dir() / "mine" / "dataset.yaml").read_bytes()
    with pytest.raises(ConfigError):
        change("mine", **fields)
    assert (datasets_dir() / "mine" / "dataset.yaml").read_bytes() == before


def test_a_change_to_a_shipped_dataset_is_the_users_own() -> None:
    shipped = get_dataset(SHIPPED[0])
    changed = change(SHIPPED[0], exclude=["duplicate"])
    assert (changed.bundled, changed.path, changed.heldout) == (False, shipped.path, shipped.heldout)
    assert shipped.folder is not None and "exclude" not in read_yaml(shipped.folder / "dataset.yaml")
    remove_dataset(SHIPPED[0])
    assert get_dataset(SHIPPED[0]) == shipped


def test_F37_facts_are_known_as_long_as_the_rows_stay_as_they_were(file: Path) -> None:
    entry = register(DatasetEntry("", "Named", file))
    assert (entry.rows, entry.sha256) == (None, None)
    datasets.keep_facts(entry, 53, "abc")
    assert (get_dataset("named").rows, get_dataset("named").sha256) == (53, "abc")
    assert change("named", title="Still").rows == 53
    write(file, ROWS[:5])
    assert (get_dataset("named").rows, get_dataset("named").sha256) == (None, None)


# -- mixes ------------------------------------------------------------------------------------------------------------


def mix(*parts: Any, **more: Any) -> DatasetInput:
    return resolve_dataset(DatasetSection(path=list(parts), **more))


def test_a_mix_with_weights_is_drawn_from_until_it_ends(file: Path) -> None:
    mixed = mix(
        MixPart(path=str(file), weight=3), MixPart(path=SHIPPED[0], weight=1), stopping_strategy="all_exhausted"
    )
    assert (mixed.kind, mixed.stopping) == ("mix", "all_exhausted")
    assert [(part.path, part.weight) for part in mixed.parts] == [
        (str(file), 3),
        (str(get_dataset(SHIPPED[0]).path), 1),
    ]


def test_a_mix_without_weights_is_one_after_the_other(file: Path) -> None:
    mixed = mix(str(file), SHIPPED[0])
    assert (mixed.stopping, [part.weight for part in mixed.parts]) == ("concatenate", [None, None])
    assert mix(str(file)) == resolve_dataset(str(file)), "one part is no mix"


def test_half_weighted_mixes_are_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="some parts of the mix have a weight and some have none"):
        mix(MixPart(path=str(file), weight=3), SHIPPED[0])


def test_a_registered_mix_is_a_part_like_any_other_but_not_of_itself(file: Path) -> None:
    one = add_dataset(file, "one")
    register(DatasetEntry("", "Both", kind="mix", parts=(MixPart(path="one"), MixPart(path=SHIPPED[0]))))
    assert [part.name for part in mix("both", str(file)).parts] == ["one", SHIPPED[0], str(file)]
    remove_dataset(one.name)
    register(DatasetEntry("", "One", kind="mix", parts=(MixPart(path="both"), MixPart(path=SHIPPED[0]))))
    with pytest.raises(ConfigError, match="is a part of itself"):
        resolve_dataset("both")


def test_a_name_with_a_slash_is_the_hubs_unless_it_looks_like_a_file() -> None:
    assert resolve_dataset("somebody/rows") == DatasetInput("somebody/rows", kind="hub")
    with pytest.raises(ConfigError, match="no dataset or file"):
        resolve_dataset("somebody/rows.jsonl")


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


@pytest.mark.parametrize("content", ["[", "columns: 5", "manner: words", "- a", "format: magic", "heldout: [1]"])
def test_F57_a_damaged_registration_does_not_hide_the_others(tmp_path: Path, content: str) -> None:
    add_dataset(write(tmp_path / "rows.jsonl", ROWS), "good")
    folder = datasets_dir() / "damaged"
    folder.mkdir()
    (folder / "dataset.yaml").write_text(content, encoding="utf-8")
    names = {entry.name for entry in list_datasets()}
    assert {"good", *SHIPPED} <= names
