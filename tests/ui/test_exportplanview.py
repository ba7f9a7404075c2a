"""What stands before an export: a card for each target, a line for each need, and no start where it can't work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from studio.core.config import GGUF_TYPES, ExportConfig, RunConfig
from studio.core.configfile import parse_config
from studio.core.llamacpp import QUANTIZED
from studio.core.sections.adapter import AnyAdapter
from studio.ui import exportplanview, shown
from studio.ui.exportplanview import TARGETS
from studio.workspace import exportplan
from studio.workspace.exportplan import Material
from studio.workspace.home import models_dir
from studio.workspace.modelshapes import ShapeState
from tests.ui.fake_estimating import FakeEstimating
from tests.workspace.test_exportplan import LLAMA, llama, material, write_header

LORA = {"peft_type": "LORA"}
ALL_ADAPTERS = get_args(get_args(AnyAdapter)[0])


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
    assert names(plan(found, out, "gguf-lora")) == ["parity"]
    (quantization, _) = plan(found, out, "ollama")["choices"]
    values = [option["value"] for option in quantization["options"]]
    for value in values:
        ExportConfig.model_validate({"run": "a", "out": "b", "format": "ollama", "quantization": value})
    assert quantization["options"][0]["title"] == "auto (bf16)"


@pytest.fixture
def quantizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """llama.cpp's quantizer, as far as the window looks at it."""
    program = tmp_path / "llama-quantize"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("STUDIO_LLAMA_QUANTIZE", str(program))
    return program


def offered(told: dict[str, Any]) -> list[str]:
    return [option["value"] for option in told["choices"][0]["options"]]


@pytest.mark.parametrize("format", ["gguf", "ollama"])
def test_what_llama_cpp_makes_is_offered_where_llama_cpp_is(
    found: Material, tmp_path: Path, quantizer: Path, format: str
) -> None:
    told = plan(found, tmp_path / "new", format, quantization="q4_k_m")
    assert offered(told) == ["auto", *GGUF_TYPES, *QUANTIZED]
    assert lines(told)["quantizer"] == ("ok", f"Quantizer: {quantizer}")
    assert told["reason"] == ""
    assert "q4_k_m" not in offered(plan(found, tmp_path / "new", "bnb"))


def test_where_it_is_not_it_is_named_with_what_to_install(
    found: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_LLAMA_QUANTIZE", str(tmp_path / "nowhere"))
    told = plan(found, tmp_path / "new", "gguf")
    assert offered(told) == ["auto", *GGUF_TYPES]
    note = told["choices"][0]["note"]
    for words in (*QUANTIZED, "install llama.cpp", "llama-quantize", "STUDIO_LLAMA_QUANTIZE"):
        assert words in note
    assert "llama.cpp" not in plan(found, tmp_path / "new", "bnb")["choices"][0]["note"]
    again = plan(found, tmp_path / "new", "gguf", quantization="q4_k_m")
    assert lines(again)["quantizer"][0] == "bad"
    assert again["reason"] == lines(again)["quantizer"][1]


def test_lm_studio_s_own_folder_is_one_click_away(
    found: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert plan(found, tmp_path / "new", "gguf")["place"] is None, "there is no LM Studio here"
    models = tmp_path / ".lmstudio" / "models"
    models.mkdir(parents=True)
    place = plan(found, tmp_path / "new", "gguf")["place"]["path"]
    assert Path(place) == models / "finetuning-studio" / "a-run"
    assert plan(found, tmp_path / "new", "ollama")["place"] is None
    there = plan(found, Path(place), "gguf")
    assert there["place"] is None
    assert "where LM Studio looks" in lines(there)["target"][1]
    Path(place).mkdir(parents=True)
    assert Path(plan(found, tmp_path / "new", "gguf")["place"]["path"]).name == "a-run-2"


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


def later(shapes: Any = None, adapter: Any = None, **model: Any) -> str:
    config = {"model": model, **({"adapter": adapter} if adapter else {})}
    return exportplanview.later(parse_config(config), shapes)


def test_the_merge_is_told_before_training() -> None:
    write_header(models_dir() / "base", llama(2), LLAMA)
    assert "of disk, nothing to download" in later(name_or_path="base")
    assert later(name_or_path="base", quantization="nf4").startswith("into the 16-bit base")
    assert "once the base is fetched" in later(name_or_path="someone/elsewhere")
    assert later(name_or_path="no such thing at all") == ""
    assert exportplanview.later(RunConfig(adapter=None)) == ""
    assert later(name_or_path="base", adapter={"type": "freeze"}) == "", "a whole model comes out of it"


def test_a_merge_into_a_base_that_is_still_on_the_hub_has_its_figures_too() -> None:
    """By the hub's own headers: eight billion numbers of two bytes, fetched once, written once."""
    shapes = FakeEstimating()
    told = later(shapes, name_or_path="someone/elsewhere")
    size = shown.size(16.06e9)
    assert f"{size} of disk" in told
    assert f"{size} to download, once" in told
    assert shown.size(0.6e9 + 8 * 14336 * 4096) in told, "a process and the largest matrix twice in float32"
    head = {"type": "lora", "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    saved = later(shapes, name_or_path="someone/elsewhere", adapter=head)
    assert shown.size(0.6e9 + 8 * 128256 * 4096) in saved
    assert "into the 16-bit base" in later(shapes, name_or_path="someone/elsewhere", quantization="nf4")
    shapes.state = ShapeState(None, busy=True)
    assert "being asked for" in later(shapes, name_or_path="someone/elsewhere")
    shapes.state = ShapeState(None, "The hub can't be reached.")
    assert "once the base is fetched" in later(shapes, name_or_path="someone/elsewhere")


@pytest.mark.parametrize("kind", sorted(kind.model_fields["type"].default for kind in ALL_ADAPTERS))
def test_what_can_t_be_merged_is_told_before_training(kind: str) -> None:
    """Every adapter there is: those that PEFT calls learnt prompts, and no others."""
    write_header(models_dir() / "base", llama(2), LLAMA)
    told = later(name_or_path="base", adapter={"type": kind})
    assert ("only the adapter can be taken away" in told) is (kind.upper() in exportplan.PROMPTS)


def test_a_base_stored_quantized_is_told_before_training() -> None:
    stored = LLAMA | {"quantization_config": {"quant_method": "bitsandbytes"}}
    write_header(models_dir() / "stored", llama(2), stored)
    assert "only the adapter" in later(name_or_path="stored")
