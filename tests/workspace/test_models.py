"""What a model's name means, and which models are there to pick from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from studio.core.errors import ConfigError
from studio.core.inputs import ModelInput
from studio.workspace.home import models_dir, runs_dir
from studio.workspace.models import list_models, resolve_model


def make_model(folder: Path, *files: str, architecture: str = "LlamaForCausalLM") -> Path:
    folder.mkdir(parents=True)
    for name in files or ("config.json", "model.safetensors"):
        (folder / name).write_text("x" * 100, encoding="utf-8")
    if (folder / "config.json").exists():
        (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}), encoding="utf-8")
    return folder


def make_run(run_id: str, *files: str) -> Path:
    folder = runs_dir() / run_id
    for name in ("run.yaml", *files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


# -- what a name means ------------------------------------------------------------------------------------------------


def test_the_starter_is_where_it_is_or_will_be() -> None:
    assert resolve_model(" starter ") == ModelInput("starter", "starter", str(models_dir() / "starter"))


def test_a_folder_is_taken_by_its_path_or_its_name_under_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = make_model(tmp_path / "my model")
    own = make_model(models_dir() / "own")
    assert resolve_model(str(elsewhere)) == ModelInput("folder", str(elsewhere), str(elsewhere))
    assert resolve_model("own") == ModelInput("folder", "own", str(own))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("./my model") == ModelInput("folder", "./my model", str(elsewhere))


def test_a_folder_under_models_wins_over_one_where_the_person_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "own")
    own = make_model(models_dir() / "own")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("own").path == str(own)


def test_a_hub_name_keeps_its_revision() -> None:
    assert resolve_model("owner/model-1.5_b", "main") == ModelInput("hub", "owner/model-1.5_b", None, "main")


def test_a_fully_trained_run_is_a_model() -> None:
    folder = make_run("20261122-1412-a", "model/config.json", "model/model.safetensors")
    name = "run:20261122-1412-a"
    assert resolve_model(name) == ModelInput("folder", name, str(folder / "model"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "there is no model ''"),
        ("nothing", "there is no model 'nothing'"),
        ("no/such/folder", "there is no model"),
        ("../x", "there is no model"),
        ("owner/..", "there is no model"),
        ("owner/model/more", "there is no model"),
        ("https://example.org/model", "there is no model"),
        ("-x/model", "there is no model"),
        ("a\0b", "there is no model"),
        ("x" * 5000, "there is no model"),
        ("~nobody-of-this-name/x", "there is no model"),
        ("run:", "there is no run"),
        ("run:nothing", "there is no run 'nothing'"),
        ("run:../runs", "there is no run"),
        ("run:" + "x" * 5000, "there is no run"),
    ],
)
def test_F51_a_name_that_means_nothing_is_refused_at_its_knob(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        resolve_model(name)
    assert raised.value.field == "model.name_or_path"
    assert raised.value.hint


def test_S13_weights_that_could_run_code_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("pytorch_model.bin", "model.pt")):
        folder = make_model(tmp_path / str(number), "config.json", name)
        with pytest.raises(ConfigError, match="pickle") as raised:
            resolve_model(str(folder))
        assert "safetensors" in raised.value.hint
    beside = make_model(tmp_path / "both", "config.json", "model.safetensors", "pytorch_model.bin")
    assert resolve_model(str(beside)).path == str(beside)


def test_a_folder_without_weights_or_config_is_refused(tmp_path: Path) -> None:
    for files, words in (
        (("config.json",), "holds no weights"),
        (("model.safetensors",), "holds no config.json"),
        (("notes.txt",), "holds no config.json"),
    ):
        with pytest.raises(ConfigError, match=words):
            resolve_model(str(make_model(tmp_path / words.replace(" ", "-") / files[0], *files)))


def test_a_run_whose_base_isnt_known_or_that_has_nothing_is_no_model_yet() -> None:
    make_run("20261122-1412-a", "adapter/adapter_config.json")
    make_run("20261122-1413-b")
    with pytest.raises(ConfigError, match="trained on isn't known"):
        resolve_model("run:20261122-1412-a")
    with pytest.raises(ConfigError, match="no trained model yet"):
        resolve_model("run:20261122-1413-b")


# -- the list ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_the_starter_heads_the_list_before_it_is_fetched(hub: Path) -> None:
    starter, *more = list_models()
    assert (starter.name, starter.path, starter.bytes, more) == ("starter", None, 0, [])
    assert starter.note
    folder = make_model(models_dir() / "starter")
    starter = list_models()[0]
    assert (starter.path, starter.bytes, starter.note) == (folder, 100, "")


def test_the_list_holds_what_can_be_trained_on(hub: Path) -> None:
    make_model(models_dir() / "own")
    make_model(models_dir() / "pickled", "config.json", "pytorch_model.bin")
    make_model(models_dir() / ".staging")
    (models_dir() / "readme.txt").write_text("", encoding="utf-8")
    make_run("20261122-1412-a", "model/config.json", "model/model.safetensors")
    make_run("20261122-1413-b", "adapter/adapter_config.json")
    make_model(hub / "models--owner--language" / "snapshots" / "abc")
    make_model(hub / "models--owner--with--dashes" / "snapshots" / "abc")
    make_model(hub / "models--owner--pictures" / "snapshots" / "abc", architecture="ViTModel")
    make_model(hub / "models--owner--half" / "snapshots" / "abc", "config.json")
    names = [model.name for model in list_models()]
    assert names == ["starter", "own", "run:20261122-1412-a", "owner/language", "owner/with--dashes"]
    for name in names:
        assert resolve_model(name).name == name, "what is listed can be taken"


def test_F57_a_damaged_config_in_the_cache_spoils_nothing(hub: Path) -> None:
    folder = make_model(hub / "models--owner--damaged" / "snapshots" / "abc")
    for content in ("", "[]", '{"architectures": null}', '{"architectures": 5}', '{"architectures": [5]}'):
        (folder / "config.json").write_text(content, encoding="utf-8")
        assert [model.name for model in list_models()] == ["starter"]


# -- what is stored so that nothing can be learned into it ------------------------------------------------------------


@pytest.mark.parametrize("method", ["gptq", "awq", "AWQ"])
def test_a_packed_base_is_refused_before_training_with_what_to_do(tmp_path: Path, method: str) -> None:
    folder = make_model(tmp_path / "packed")
    stored = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": method, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        resolve_model(str(folder))
    assert raised.value.field == "model.name_or_path"
    assert method.upper() in raised.value.message
    assert "16-bit original" in raised.value.hint


def test_a_packed_base_in_the_hub_s_cache_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--someone--packed"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc", encoding="utf-8")
    folder = make_model(repo / "snapshots" / "abc")
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}), encoding="utf-8")
    with pytest.raises(ConfigError, match="GPTQ"):
        resolve_model("someone/packed")
    assert resolve_model("someone/other").kind == "hub"


def test_a_bitsandbytes_checkpoint_is_a_model_like_others(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "small")
    (folder / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}}), encoding="utf-8"
    )
    assert resolve_model(str(folder)).path == str(folder)
