"""LLaMA-Factory's dataset_info.json beside the data: its entries are datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.core.errors import DataError
from studio.workspace.datasetinfo import entries_in
from studio.workspace.datasets import get_dataset, resolve_dataset


def folder_with(folder: Path, info: dict[str, Any], *files: str) -> Path:
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    for name in files:
        (folder / name).write_text('{"q": "a", "a": "b"}\n', encoding="utf-8")
    return folder


QA = {"file_name": "qa.jsonl", "columns": {"prompt": "q", "response": "a"}, "num_samples": 7}


def test_each_entry_whose_file_is_there_is_a_dataset(tmp_path: Path) -> None:
    info = {
        "qa": QA,
        "gone": {"file_name": "gone.jsonl"},
        "hub": {"hf_hub_url": "somebody/rows", "subset": "en", "split": "test", "formatting": "sharegpt"},
        "script": {"script_url": "evil"},
        "part": {"hf_hub_url": "somebody/rows", "folder": "part"},
    }
    found = {entry.name: entry for entry in entries_in(folder_with(tmp_path, info, "qa.jsonl"))}
    assert set(found) == {"qa", "hub"}
    qa, hub = found["qa"], found["hub"]
    assert (qa.path, qa.format, qa.limit, qa.split) == (tmp_path / "qa.jsonl", "alpaca", 7, None)
    assert (qa.columns["instruction"], qa.columns["output"]) == ("q", "a")
    assert (hub.kind, hub.source, hub.config, hub.split, hub.format) == (
        "hub",
        "somebody/rows",
        "en",
        "test",
        "sharegpt",
    )


def test_a_file_named_by_its_path_is_read_as_its_entry_says(tmp_path: Path) -> None:
    folder_with(tmp_path, {"qa": QA}, "qa.jsonl", "other.jsonl")
    meant = resolve_dataset(str(tmp_path / "qa.jsonl"))
    assert (meant.format, meant.columns["instruction"], meant.limit) == ("alpaca", "q", 7)
    assert resolve_dataset(str(tmp_path / "other.jsonl")).format == "auto"
    assert get_dataset(str(tmp_path / "qa.jsonl")).name == str(tmp_path / "qa.jsonl")


def test_a_listing_without_anything_to_read_says_why(tmp_path: Path) -> None:
    info = {"script": {"script_url": "evil"}, "gone": {"file_name": "gone.jsonl"}}
    with pytest.raises(DataError, match=r"script: it is loaded by a script.*; gone: its file is not there"):
        entries_in(folder_with(tmp_path, info))


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/secret.jsonl", "link.jsonl"])
def test_P6_a_listing_does_not_reach_out_of_its_folder(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "data"
    inner.mkdir()
    folder_with(tmp_path, {}, "secret.jsonl")
    (inner / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(DataError, match="lies outside of the folder"):
        entries_in(folder_with(inner, {"secret": {"file_name": name}}))


@pytest.mark.parametrize("content", ["", "[]", "{", "5", "{}"])
def test_F57_a_damaged_listing_is_as_none(tmp_path: Path, content: str) -> None:
    folder_with(tmp_path, {}, "qa.jsonl")
    (tmp_path / "dataset_info.json").write_text(content, encoding="utf-8")
    assert entries_in(tmp_path) == []
    assert resolve_dataset(str(tmp_path / "qa.jsonl")).format == "auto"
