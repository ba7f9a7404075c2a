"""An adapter that a run goes on from, or that it has merged into its base first: what its name stands for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from studio.core.configfile import config_to_yaml, parse_config
from studio.core.errors import ConfigError
from studio.core.inputs import DatasetInput, Inputs, ModelInput
from studio.workspace.continued import resolve_adapter
from studio.workspace.home import models_dir, runs_dir
from studio.workspace.models import resolve_model

BASE = ModelInput("starter", "starter", "/models/starter")


def made_run(name: str, kind: str = "LORA") -> Path:
    folder = runs_dir() / name
    (folder / "adapter").mkdir(parents=True)
    (folder / "run.yaml").write_text(config_to_yaml(parse_config({})), encoding="utf-8")
    (folder / "inputs.json").write_text(Inputs("", BASE, DatasetInput("x")).to_json(), encoding="utf-8")
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": kind}), encoding="utf-8")
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def wish(name: str, **adapter: Any) -> Any:
    return parse_config({"adapter": {"type": "lora", **adapter, "continue_from": name}})


@pytest.mark.parametrize("name", ["run:first", "first"])
def test_a_run_stands_for_its_adapter(name: str) -> None:
    folder = made_run("first")
    assert resolve_adapter(wish(name), BASE) == str(folder / "adapter")
    assert resolve_adapter(wish(str(folder / "adapter")), BASE) == str(folder / "adapter")


def test_a_new_adapter_stands_for_none() -> None:
    assert resolve_adapter(parse_config({}), BASE) is None
    assert resolve_adapter(parse_config({"adapter": None}), BASE) is None


@pytest.mark.parametrize(
    ("name", "adapter", "base", "said"),
    [
        ("run:none", {}, BASE, "holds no adapter"),
        ("run:first", {"type": "ia3"}, BASE, "of kind lora, not ia3"),
        ("run:first", {}, ModelInput("hub", "someone/else"), "was trained on starter, not on someone/else"),
    ],
)
def test_F47_what_cant_be_gone_on_from_is_refused(
    name: str, adapter: dict[str, Any], base: ModelInput, said: str
) -> None:
    made_run("first")
    with pytest.raises(ConfigError, match=said) as refused:
        resolve_adapter(wish(name, **adapter), base)
    assert refused.value.field == "adapter.continue_from" and refused.value.hint


def test_a_run_as_a_model_is_its_base_with_the_adapter_merged_in() -> None:
    folder = made_run("first")
    found = resolve_model("run:first")
    assert (found.kind, found.base, found.adapter) == ("merged", BASE, str(folder / "adapter"))
    assert Path(found.path or "").parent == models_dir() / ".merged"
    assert resolve_model("run:first") == found == ModelInput(**asdict(found))
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"other weights")
    assert resolve_model("run:first").path != found.path


def test_learnt_tokens_arent_merged() -> None:
    made_run("second", "PREFIX_TUNING")
    with pytest.raises(ConfigError, match="can't become weights"):
        resolve_model("run:second")
