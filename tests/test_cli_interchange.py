"""`studio import` and `studio command`: files of other programs train as they would there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from studio.core.configfile import load_config
from tests.commands import Command, runner


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `studio ARGS` in this process."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.yaml"
    path.write_text("{base_model: some/model, adapter: lora, lora_r: 4, micro_batch_size: 2, foo: 3}", encoding="utf-8")
    return path


def test_a_file_becomes_a_run_and_what_is_left_is_told(studio: Command, theirs: Path, tmp_path: Path) -> None:
    said = studio("import", theirs, "--out", tmp_path / "run.yaml")
    assert said.code == 0 and said.out == f"{tmp_path / 'run.yaml'}\n"
    assert (
        "Read as a file of Axolotl." in said.err and "Not carried over: foo: there is nothing like it here." in said.err
    )
    config = load_config(tmp_path / "run.yaml")
    assert config.adapter is not None and config.adapter.r == 4 and config.training.per_device_train_batch_size == 2  # type: ignore[union-attr]
    again = studio("import", theirs, "--out", tmp_path / "run.yaml")
    assert again.code == 2 and "exists" in again.err


def test_json_is_one_object(studio: Command, theirs: Path) -> None:
    told = studio("import", theirs, "--json").json
    assert told["program"] == "axolotl" and told["config"]["model"]["name_or_path"] == "some/model"
    assert told["left"] == [{"key": "foo", "value": 3, "why": "there is nothing like it here"}]


def test_a_run_is_written_for_each_program(studio: Command, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    run.write_text("{training: {seed: 7}}", encoding="utf-8")
    trl = studio("command", run, "--as", "trl").out
    assert trl.startswith("trl sft") and "--model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct" in trl
    for program, key in (("llamafactory", "cutoff_len"), ("axolotl", "sequence_len")):
        text = studio("command", run, "--as", program, "--set", "training.max_length=77").out
        settings = yaml.safe_load(text)
        assert settings[key] == 77 and settings["seed"] == 7
    assert studio("command", run, "--as", "unsloth").code == 2


def test_llamafactory_s_datasets_are_found_in_its_own_list(studio: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    info = {"mine": {"file_name": "mine.json"}}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    (tmp_path / "examples").mkdir()
    path = tmp_path / "examples/train.yaml"
    path.write_text("{stage: sft, dataset: mine}", encoding="utf-8")
    assert studio("import", path, "--json").json["config"]["dataset"]["path"] == str(tmp_path / "data/mine.json")
