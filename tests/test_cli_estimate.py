"""`studio estimate`: what it prints, that it needs neither card nor network, and that published rows can be stated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.measured import Case, cases, path
from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml
from studio.core.estimate import estimate
from tests.commands import Command, runner
from tests.core.published import LLAMA_8B

GIB = 2**30
# Rows as their sources give them (fms-acceleration, LitGPT): numbers of 2^30 and 10^9 bytes beside one another.
COLUMNS = (
    "source,url_or_path,model_id,params_b,method,optimizer,weight_dtype,compute_dtype,lora_r,lora_targets,seq_len,"
    "padded_or_packed,micro_batch,grad_accum,grad_checkpointing,attn_impl,loss_impl,gpu,peak_gb,peak_kind,notes,"
    "quality,n_gpu,peak_gib,end_alloc_gb,nvml_gb,trainable_params,transformers,torch,trl,date,config_id"
)
ROWS = (
    "fms-acceleration,,mistralai/Mistral-7B-v0.1,7.24,qlora4,adamw_torch (foreach),nf4-dq,autocast bfloat16,16,"
    "q_proj k_proj v_proj o_proj,4096,packed,4,1,yes (reentrant),flash_attention_2,standard,A100-80GB,20.6693,"
    "allocated,framework=baseline-peft-bnb; adapters fp32; lora_dropout=0.1,A,1,,,,,4.48.1,2.4.1,0.13.0,2025-02-07,a",
    "fms-acceleration,,mistralai/Mistral-7B-v0.1,7.24,full,adamw_torch (foreach),float16,pure float16,,,4096,packed,"
    "4,1,yes (reentrant),flash_attention_2,standard,A100-80GB,72.4354,allocated,framework=none,A,1,,,,,4.43.3,2.4.1,"
    "0.9.6,2024-08-07,b",
    "fms-acceleration,,mistralai/Mistral-7B-v0.1,7.24,qlora4,adamw_torch (foreach),nf4-dq,autocast bfloat16,16,"
    "q_proj k_proj v_proj o_proj,4096,packed,4,1,yes,flash_attention_2,foak fast CE,A100-80GB,20.0,allocated,"
    "framework=accelerated-peft-bnb-foak; adapters bf16; lora_dropout=0.1,B,1,,,,,4.45.2,2.4.1,0.11.0,2024-10-07,c",
)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return runner(monkeypatch, capfd, "estimate")


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    """A run of a model that is only a config.json, over rows that are as long as can be."""
    return written(tmp_path, LLAMA_8B, {"max_length": 1024, "max_steps": 50})


def written(place: Path, config: dict[str, Any], training: dict[str, Any]) -> Path:
    model = place / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run = place / "run.yaml"
    run.write_text(
        json.dumps({"model": {"name_or_path": str(model)}, "dataset": {"path": None}, "training": training}), "utf-8"
    )
    return run


def test_json_is_one_object_with_the_promised_keys(command: Command, run_yaml: Path) -> None:
    told = command(run_yaml, "--gpu-memory", 24, "--json").json
    promised = {"allocated", "reserved", "device", "parts", "peak_moment", "fits", "free", "largest_micro_batch",
                "largest_max_length", "advice", "host_ram", "disk", "steps", "tokens", "seconds", "kwh"}  # fmt: skip
    assert promised <= set(told)
    assert (told["free"], told["fits"], told["steps"]) == (24 * GIB, True, 50)
    assert 16e9 < told["parts"]["weights"] < 16.2e9 and told["disk"]["download"] == 0


def test_a_card_that_isnt_here_is_a_card_on_any_machine(command: Command, run_yaml: Path) -> None:
    small, large = (command(run_yaml, "--gpu-memory", size, "--json").json for size in (8, 80))
    assert (small["verdict"], large["verdict"]) == ("over", "fits") and small["advice"]
    assert small["allocated"] == large["allocated"] and large["largest_micro_batch"] > small["largest_micro_batch"]
    named = command(run_yaml, "--set", "hardware.device=cuda", "--json").json
    assert (named["allocated"], named["verdict"], named["fits"]) == (large["allocated"], "unknown", None)


def test_people_are_told_in_words(command: Command, run_yaml: Path) -> None:
    said = command(run_yaml, "--gpu-memory", 8)
    assert said.code == 0 and "It doesn't fit." in said.out and "What would make it less:" in said.out
    assert "15.0 GB  the model's weights" in said.out and "model.quantization=nf4" in said.out


def test_settings_can_be_changed_and_faults_are_the_users(command: Command, run_yaml: Path, tmp_path: Path) -> None:
    plain = command(run_yaml, "--gpu-memory", 24, "--json").json
    nf4 = command(run_yaml, "--gpu-memory", 24, "--set", "model.quantization=nf4", "--json").json
    assert nf4["allocated"] < plain["allocated"] - 9e9
    for arguments in (
        [run_yaml, "--set", "training.max_lenght=3"],
        [run_yaml, "--versions", "transformer=4.0"],
        [tmp_path / "no.yaml"],
        [run_yaml, "--set", "model.name_or_path=/nowhere"],
    ):
        said = command(*arguments)
        assert said.code == 2 and not said.out and said.err.count("\n") <= 2


def test_a_model_that_isnt_here_and_cant_be_asked_for_is_a_plain_sentence(command: Command, run_yaml: Path) -> None:
    said = command(run_yaml, "--set", "model.name_or_path=nobody/nothing", "--gpu-memory", 24)
    assert said.code != 0 and "can't be reached" in said.err and "Traceback" not in said.err


def test_the_starter_is_known_before_it_is_here(command: Command, run_yaml: Path) -> None:
    told = command(run_yaml, "--set", "model.name_or_path=starter", "--gpu-memory", 8, "--json").json
    # SmolLM2-135M: 134,515,008 parameters by its card, in bfloat16
    assert told["disk"]["download"] == 2 * 134_515_008 and told["fits"]


# -- published measurements -------------------------------------------------------------------------------------------


def knobs_of(case: Case) -> list[str]:
    """What a person would --set so that a run is the case's."""
    practice = case.practice
    assert practice is not None
    losses = {"fast": "in_place", "padded": "full", None: "auto"}
    found = {
        "training.loss_implementation": losses.get(practice.loss, practice.loss),
        "training.padded_rows": practice.masked,
        "training.keep_logits": practice.hold_logits,
        "training.torch_compile": practice.compiled,
        "training.use_reentrant": True if practice.reentrant else "auto",
        "hardware.expandable_segments": practice.expandable,
    }
    if practice.autocast is not None:
        found["training.autocast"] = practice.autocast
    if practice.upcast == "none":
        found["model.prepare_for_kbit"] = False
    if practice.adapter_item is not None and case.config is not None and case.config.adapter is not None:
        found["adapter.autocast_adapter_dtype"] = practice.adapter_item == 4
    return [f"--set={knob}={json.dumps(value) if not isinstance(value, str) else value}"
            for knob, value in found.items()]  # fmt: skip


def test_a_published_row_stated_in_run_yaml_is_the_benchs_own_estimate(command: Command, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("\n".join([COLUMNS, *ROWS]) + "\n", encoding="utf-8")
    found = list(cases(table))
    assert len(found) == len(ROWS)
    for number, case in enumerate(found):
        assert case.config is not None and case.shape is not None and case.versions is not None
        own = estimate(
            case.config, case.shape, versions=case.versions, practice=case.practice,
            device=dataclasses.replace(case.card, free=case.card.memory),
        )  # fmt: skip
        place = tmp_path / str(number)
        place.mkdir()
        written(place, dict(case.shape.config), {})
        config = case.config.model_copy(
            update={
                "model": case.config.model.model_copy(update={"name_or_path": str(place / "model")}),
                "dataset": case.config.dataset.model_copy(update={"path": None}),
            }
        )
        (place / "run.yaml").write_text(config_to_yaml(config), encoding="utf-8")
        day = ",".join(f"{name}={value}" for name, value in dataclasses.asdict(case.versions).items() if value)
        told = command(place / "run.yaml", "--versions", day, "--gpu-memory", 80, "--json", *knobs_of(case)).json
        assert (told["allocated"], told["reserved"]) == (own.allocated, own.reserved), case.label


def _measured() -> list[Case]:
    try:
        return [case for case in cases(path()) if case.quality == "A" and not case.reason]
    except FileNotFoundError:
        return []


@pytest.mark.skipif(not _measured(), reason="the table of measurements isn't here")
def test_every_measured_row_can_be_stated_in_knobs() -> None:
    """What the command does with them, without a process each."""
    for case in _measured():
        assert case.config is not None and case.shape is not None
        knobs = case.config.model_dump(mode="json")
        knobs["dataset"]["path"] = None
        for knob in knobs_of(case):
            name, _, value = knob.removeprefix("--set=").partition("=")
            section, _, leaf = name.partition(".")
            knobs[section][leaf] = yaml.safe_load(value)
        stated, given = (
            estimate(config, case.shape, versions=case.versions, practice=practice, device=case.card).allocated
            for config, practice in ((RunConfig.model_validate(knobs), None), (case.config, case.practice))
        )
        assert stated == given, case.label
