"""What stands before an export: a card for each target, a line for each need, and no start where it can't work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from studio.core.config import ExportConfig, RunConfig
from studio.core.configfile import parse_config
from studio.ui import exportplanview
from studio.ui.exportplanview import TARGETS
from studio.workspace import exportplan
from studio.workspace.exportplan import Material
from studio.workspace.home import models_dir
from tests.workspace.test_exportplan import LLAMA, llama, material, write_header

LORA = {"peft_type": "LORA"}


@pytest.fixture
def found(tmp_path: Path) -> Material:
    return material(write_header(tmp_path / "base", llama(2), LLAMA), LORA)


def plan(found: Material, out: Path, format: str = "merged", taken: Any = (), **more: Any) -> dict[str, Any]:
    fields = {"run": found.run.id, "out": str(out), "format": format, **more}
    return exportplanview.told(found, ExportConfig.model_validate(fields), "/suggested", taken)


def lines(told: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {line["key"]: (line["state"], line["text"]) for line in told["lines"]}


def names(told: dict[str, Any]) -> list[str]:
    return [choice["name"] for choice in told["choices"]]


def test_every_format_there_is_has_a_card() -> None:
    assert set(TARGETS) == set(get_args(ExportConfig.model_fields["format"].annotation))


def test_a_run_that_can_be_written_so_has_sizes_and_may_start(found: Material, tmp_path: Path) -> None:
    told = plan(found, tmp_path / "new")
    assert [card["format"] for card in told["cards"]] == list(TARGETS)
    assert all(card["size"].startswith("about ") and not card["cannot"] for card in told["cards"])
    assert told["reason"] == ""
    assert {state for state, _ in lines(told).values()} == {"ok"}
    assert set(lines(told)) == {"base", "disk", "memory", "compare", "target"}


def test_a_target_that_is_no_way_for_this_run_says_why_and_what_to_do(tmp_path: Path) -> None:
    whole = material(write_header(tmp_path / "base", llama(2), LLAMA), None)
    told = plan(whole, tmp_path / "new", "adapter")
    cards = {card["format"]: card for card in told["cards"]}
    assert "no adapter. Take it" in cards["adapter"]["cannot"]
    assert cards["merged"]["cannot"] == ""
    assert told["reason"]
    assert told["lines"] == []


@pytest.mark.parametrize(
    ("what", "key", "words"),
    [
        ("disk", "disk", "only 1.0 kB free"),
        ("memory", "memory", "only 1.0 kB free"),
        ("full", "target", "isn't empty"),
        ("taken", "target", "another export"),
        ("nothing", "target", "Type the folder"),
    ],
)
def test_what_can_t_work_is_a_red_line_and_no_start(
    found: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, key: str, words: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    if what == "disk":
        monkeypatch.setattr(exportplan, "disk_free", lambda out: 1000)
    if what == "memory":
        monkeypatch.setattr(exportplan, "memory_free", lambda: 1000)
    out = Path(" ") if what == "nothing" else tmp_path / what
    told = plan(found, out, taken={str(tmp_path / "taken")})
    state, text = lines(told)[key]
    assert state == "bad"
    assert words in text
    assert told["reason"] == text


def test_too_little_memory_to_compare_is_told_and_hinders_nothing(
    found: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exportplan, "needs", lambda *_: exportplan.Needs(10, 10, 10, 10**15))
    told = plan(found, tmp_path / "new")
    assert lines(told)["compare"][0] == "warn"
    assert "left out" in lines(told)["compare"][1]
    assert told["reason"] == ""


def test_each_target_has_the_choices_that_are_its_own(found: Material, tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert names(plan(found, out)) == ["dtype", "shard_size", "parity"]
    assert names(plan(found, out, "gguf")) == ["quantization", "parity"]
    assert names(plan(found, out, "bnb")) == ["quantization", "shard_size", "parity"]
    assert names(plan(found, out, "adapter")) == ["parity"]
    assert names(plan(found, out, "gguf-lora")) == []
    (quantization, _) = plan(found, out, "ollama")["choices"]
    values = [option["value"] for option in quantization["options"]]
    for value in values:
        ExportConfig.model_validate({"run": "a", "out": "b", "format": "ollama", "quantization": value})
    assert quantization["options"][0]["title"] == "auto (bf16)"


def test_which_base_is_asked_only_of_a_run_on_a_quantized_one(tmp_path: Path) -> None:
    trained = material(write_header(tmp_path / "base", llama(2), LLAMA), LORA, "nf4")
    told = plan(trained, tmp_path / "new", "gguf", quantized_base="dequantized")
    assert "quantized_base" in names(told)
    assert "quantized_base" not in names(plan(trained, tmp_path / "new", "adapter"))
    assert "nf4" in next(choice["note"] for choice in told["choices"] if choice["name"] == "quantized_base")


def test_the_size_on_a_card_follows_the_choices(found: Material, tmp_path: Path) -> None:
    def size(**more: Any) -> str:
        cards = plan(found, tmp_path / "new", "merged", **more)["cards"]
        return str(cards[0]["size"])

    assert size(dtype="float32") != size(dtype="bfloat16")


def test_a_suggestion_is_a_folder_that_nobody_has(found: Material) -> None:
    first = exportplanview.suggestion(found.run, "merged", ())
    assert not first.exists()
    second = exportplanview.suggestion(found.run, "merged", {str(first)})
    assert second != first
    second.mkdir(parents=True)
    assert exportplanview.suggestion(found.run, "merged", {str(first)}) not in (first, second)


# -- beside the estimate, before training -----------------------------------------------------------------------------


def later(**model: Any) -> str:
    return exportplanview.later(parse_config({"model": model}))


def test_the_merge_is_told_before_training() -> None:
    write_header(models_dir() / "base", llama(2), LLAMA)
    assert "of disk, nothing to download" in later(name_or_path="base")
    assert later(name_or_path="base", quantization="nf4").startswith("into the 16-bit base")
    assert "once the base is fetched" in later(name_or_path="someone/elsewhere")
    assert later(name_or_path="no such thing at all") == ""
    assert exportplanview.later(RunConfig(adapter=None)) == ""


def test_a_base_stored_quantized_is_told_before_training() -> None:
    stored = LLAMA | {"quantization_config": {"quant_method": "bitsandbytes"}}
    write_header(models_dir() / "stored", llama(2), stored)
    assert "only the adapter" in later(name_or_path="stored")
