"""Exports as jobs: every format proven by its own comparison, what isn't streamed said so, cards, leftovers, kills."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import peft
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

from studio.core.config import ExportConfig, ModelSection
from studio.core.configfile import config_to_yaml, parse_as
from studio.core.events import Ended, Note
from studio.core.inputs import DatasetInput, Inputs, ModelInput
from studio.core.job import EventTail, JobFolder
from studio.worker.export import fallback
from studio.worker.export.dequantize import Dequantized
from studio.worker.export.gguf.chat import take_apart
from studio.worker.export.run import WRITERS
from studio.worker.origin import keep_origin
from tests.tiny import make_tiny_llama
from tests.worker.conftest import MakeRun
from tests.worker.export.made import files_of, laid_over, load, make_adapter
from tests.worker.forks import Fork
from tests.worker.test_export import hashes

Base = Callable[..., Path]
MakeJob = Callable[..., JobFolder]
InProcess = Callable[[JobFolder], int]
StartFork = Callable[..., Fork]
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
LORA = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "target_modules": "all-linear"}


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """A base, what was trained on it -> the folder of an export job, beside those of other jobs."""

    def make(base: Path, output: Path, *, name: str = "job", where: Any = None, **wishes: Any) -> JobFolder:
        folder = JobFolder(tmp_path / "exports" / name)
        folder.path.mkdir(parents=True)
        fields = {"run": "a-run", "out": str(tmp_path / "place" / "out"), "parity": False, **wishes}
        folder.export_config.write_text(config_to_yaml(parse_as(ExportConfig, fields)), encoding="utf-8")
        inputs = Inputs("a run", ModelInput("folder", "some/base", str(base)), DatasetInput("rows", "rows.jsonl"))
        folder.inputs.write_text(inputs.to_json(), encoding="utf-8")
        source = {"output": str(output), **(where or {})}
        (folder.path / "source.json").write_text(json.dumps(source), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def adapter(base: Base, tmp_path: Path) -> Path:
    return make_adapter(base("llama"), tmp_path / "adapter", LoraConfig(**LORA))


def end_of(job: JobFolder) -> Ended:
    (end,) = [event for event in EventTail(job.events).read() if isinstance(event, Ended)]
    return end


def notes_of(job: JobFolder) -> str:
    return " ".join(event.text for event in EventTail(job.events).read() if isinstance(event, Note))


FILES = {
    "adapter": {"adapter_model.safetensors", "adapter_config.json", "README.md"},
    "merged": {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"},
    "gguf": {"out-f16.gguf", "README.md"},
    "gguf-lora": {"adapter-f32.gguf", "README.md"},
    "ollama": {"out-f16.gguf", "Modelfile", "README.md"},
    "bnb": {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"},
}


@pytest.mark.usefixtures("compared_here")
@pytest.mark.parametrize("format", WRITERS)
def test_every_format_is_compared_with_what_was_trained(
    base: Base,
    adapter: Path,
    make_job: MakeJob,
    in_process: InProcess,
    tmp_path: Path,
    format: str,
) -> None:
    """Here in this process; in a fresh one, as it is, where the command is tested."""
    wishes = {"quantization": {"gguf": "f16", "ollama": "f16", "bnb": "int8"}.get(format, "auto")}
    before = hashes(base("llama"), adapter)
    job = make_job(base("llama"), adapter, format=format, parity=True, **wishes)
    assert in_process(job) == 0, job.log.read_text() if job.log.exists() else ""
    result = end_of(job).result
    out = tmp_path / "place" / "out"
    assert FILES[format] <= {path.name for path in out.iterdir()}
    assert not [path for path in out.iterdir() if path.is_dir()]
    assert result["path"] == str(out)
    assert result["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    assert result["seconds"] > 0 and result["peak_rss"] > 2**20
    assert result["parity"]["same"] is True, result["parity"]
    assert result["parity"]["max_logit_diff"] < result["parity"]["moved"]
    assert 0.5 < result["parity"]["greedy_match"] <= 1
    assert hashes(base("llama"), adapter) == before
    assert list((tmp_path / "place").iterdir()) == [out]


def test_a_checkpoint_in_four_bits_loads_as_it_is(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path
) -> None:
    assert in_process(make_job(base("llama"), adapter, format="bnb", quantization="nf4")) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "place" / "out", dtype=torch.float32)
    merged = laid_over(base("llama"), adapter).merge_and_unload()
    stands_for = Dequantized(merged, ModelSection(quantization="nf4", dtype="float32"))
    checked = 0
    for path, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            right = stands_for(f"{path}.weight", merged.get_submodule(path).weight.data)
            torch.testing.assert_close(dequantize_bnb_weight(module.weight).float(), right, rtol=1e-3, atol=1e-3)
            checked += 1
    assert checked == 14


@pytest.mark.usefixtures("compared_here")
def test_what_is_wrong_with_an_export_is_found(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter's change forgotten: the files are whole, and another model."""
    from studio.worker.export.plain import PlainMerge

    monkeypatch.setattr(PlainMerge, "_changed", lambda self, name, layer: self._base.blocks(name))
    job = make_job(base("llama"), adapter, parity=True)
    assert in_process(job) == 0
    parity = end_of(job).result["parity"]
    assert parity["same"] is False
    assert "differs from base + adapter" in parity["problems"][0]


def test_what_a_comparison_found_is_said(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process answers in a file, the last of its arguments."""
    from studio.worker.export import proof

    answer = {"max_logit_diff": 2.0, "greedy_match": 0.5, "explained": 0.1, "same": False, "skipped": ""}
    told = json.dumps({**answer, "problems": ["It is another model."]})
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nfor last; do :; done\nprintf '%s' '{told}' > \"$last\"\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(proof.sys, "executable", str(program))
    job = make_job(base("llama"), adapter, parity=True)
    assert in_process(job) == 0
    assert end_of(job).result["parity"]["same"] is False
    assert "It is another model." in notes_of(job)


@pytest.mark.parametrize(("ends", "said"), [("exit 1", "the log says why"), ("kill -9 $$", "lack of memory")])
def test_a_comparison_that_breaks_down_costs_no_export(
    base: Base,
    adapter: Path,
    make_job: MakeJob,
    in_process: InProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: str,
    said: str,
) -> None:
    from studio.worker.export import proof

    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{ends}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(proof.sys, "executable", str(program))
    job = make_job(base("llama"), adapter, parity=True)
    assert in_process(job) == 0
    assert end_of(job).result["parity"]["same"] is None
    assert "couldn't be compared" in notes_of(job) and said in notes_of(job)
    assert (tmp_path / "place" / "out" / "model.safetensors").is_file()


# -- another base ------------------------------------------------------------------------------------------------------


def test_F47_another_base_of_the_same_shape_is_told_by_its_hash(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path
) -> None:
    """And one that only lies elsewhere under another name isn't."""
    keep_origin(base("llama"), ModelInput("hub", "some/base"), adapter)
    copy = Path(shutil.copytree(base("llama"), tmp_path / "copy"))
    other = make_tiny_llama(tmp_path / "other", seed=7, tied=False, num_key_value_heads=2)
    for name, there, merged in (("copied", copy, ""), ("other", other, "their hashes differ")):
        job = make_job(there, adapter, name=name, out=str(tmp_path / "place" / name))
        assert in_process(job) == 0, end_of(job)
        assert merged in notes_of(job) and bool(notes_of(job)) is bool(merged)


# -- what isn't streamed ----------------------------------------------------------------------------------------------


def test_other_kinds_of_adapters_are_merged_by_peft_and_that_is_said(
    base: Base, make_job: MakeJob, in_process: InProcess, tmp_path: Path
) -> None:
    config = peft.HiraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"])
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config)
    job = make_job(base("llama"), adapter)
    assert in_process(job) == 0
    assert "the whole model in memory" in notes_of(job)
    right = laid_over(base("llama"), adapter).merge_and_unload().state_dict()
    for key, value in files_of(tmp_path / "place" / "out").items():
        torch.testing.assert_close(value, right[key])


def test_the_whole_model_is_not_loaded_into_memory_that_isnt_there(
    base: Base, make_job: MakeJob, in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = peft.HiraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config)
    monkeypatch.setattr(fallback.psutil, "virtual_memory", lambda: SimpleNamespace(available=400_000))
    job = make_job(base("llama"), adapter)
    assert in_process(job) == 1
    assert "whole model in memory" in end_of(job).cause and "free" in end_of(job).cause
    assert not (tmp_path / "place" / "out").exists()


# -- several adapters -------------------------------------------------------------------------------------------------


def test_several_adapters_are_put_together_as_peft_does_it(
    base: Base, make_job: MakeJob, in_process: InProcess, tmp_path: Path
) -> None:
    """One way, as a job is asked for it; all of them are `test_merge_matrix`'s."""
    adapters = [
        make_adapter(base("llama"), tmp_path / f"a{n}", LoraConfig(**{**LORA, "r": rank}), seed=n)
        for n, rank in enumerate((4, 6))
    ]
    how = {"others": [str(adapters[1])], "combination": "svd", "weights": [0.7, 0.4], "density": 0.5}
    assert in_process(make_job(base("llama"), adapters[0], where=how)) == 0
    model = peft.PeftModel.from_pretrained(load(base("llama")), str(adapters[0]), adapter_name="one")
    model.load_adapter(str(adapters[1]), adapter_name="two")
    torch.manual_seed(0)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.4], "both", combination_type="svd")
    model.set_adapter("both")
    right = model.merge_and_unload().state_dict()
    found = files_of(tmp_path / "place" / "out")
    original = files_of(base("llama"))
    key = "model.layers.0.self_attn.q_proj.weight"
    assert (found[key] - original[key]).abs().max() > 1e-3
    for name, value in found.items():
        torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-4, msg=name)


def test_adapters_that_dont_go_together_are_refused(
    base: Base, make_job: MakeJob, in_process: InProcess, tmp_path: Path
) -> None:
    one = make_adapter(base("llama"), tmp_path / "one", LoraConfig(**LORA))
    two = make_adapter(base("llama"), tmp_path / "two", LoraConfig(**{**LORA, "r": 6}))
    other = make_adapter(
        base("llama"), tmp_path / "other", peft.LoHaConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    )
    how = {"combination": "ties", "weights": [1.0, 1.0], "density": 0.5}
    for name, second, said in (("ranks", two, "svd and cat"), ("kinds", other, "Merge one of them")):
        job = make_job(base("llama"), one, name=name, where={**how, "others": [str(second)]})
        assert in_process(job) == 1
        assert said in end_of(job).hint, end_of(job).cause
    assert not (tmp_path / "place" / "out").exists()


# -- the card ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("compared_here")
def test_the_card_says_what_was_trained_and_quotes_no_data(
    make_run: MakeRun, make_job: MakeJob, in_process: InProcess, tiny_model: Path, tmp_path: Path
) -> None:
    trained = make_run(training={"max_steps": 4, "eval_steps": 2}, dataset={"validation_split": 0.25})
    assert in_process(trained) == 0
    job = make_job(tiny_model, trained.adapter, where={"run": str(trained.path)}, parity=True)
    assert in_process(job) == 0
    out = tmp_path / "place" / "out"
    card = (out / "README.md").read_text(encoding="utf-8")
    for said in (
        'base_model: "some/base"',
        "library_name: transformers",
        "`training.max_steps`: 4",
        "`dataset.validation_split`: 0.25",
        "training loss",
        "validation loss",
        "the logits differ by",
        "![Loss by step](curves.svg)",
        "- time: ",
        "- peak of memory: ",
        "AutoModelForCausalLM.from_pretrained('out')",
        f"torch {torch.__version__}",
    ):
        assert said in card, said
    assert "training.optim" not in card, "what is as usual isn't listed"
    assert str(tmp_path) not in card and str(tiny_model) not in card, "no folder of this machine"
    assert json.loads((trained.adapter / "origin.json").read_text())["base"] == "tiny"
    rows = [json.loads(line) for line in Path(Inputs.read(trained.inputs).dataset.path).read_text().splitlines()]
    assert not [m for row in rows for m in row["messages"] if len(m["content"]) > 12 and m["content"] in card]
    assert (out / "curves.svg").read_text().count("<polyline") == 2


# -- talking ----------------------------------------------------------------------------------------------------------


def test_ollamas_template_is_the_models_own(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path
) -> None:
    assert in_process(make_job(base("llama"), adapter, format="ollama", quantization="q8_0")) == 0
    text = (tmp_path / "place" / "out" / "Modelfile").read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(base("llama"))
    assert text.startswith("FROM ./out-q8_0.gguf\n")
    assert 'PARAMETER stop "<|im_end|>"' in text
    turns = take_apart(tokenizer)
    assert turns is not None
    for piece in (*turns.user, *(turns.system or ()), *turns.assistant, turns.start, turns.head):
        assert piece in text
    for messages in (
        [("user", "Hi")],
        [("system", "Be brief."), ("user", "Hi")],
        [("user", "Hi"), ("assistant", "Hello."), ("user", "Bye")],
    ):
        spoken = [{"role": role, "content": content} for role, content in messages]
        assert turns.render(spoken) == tokenizer.apply_chat_template(spoken, tokenize=False, add_generation_prompt=True)
    tokenizer.chat_template = "{% for m in messages %}{{ loop.index }}{{ m['content'] }}{% endfor %}"
    assert take_apart(tokenizer) is None


def test_the_file_for_llama_cpp_ends_its_turns(make_job: MakeJob, in_process: InProcess, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base", tied=False)
    generation = json.loads((base / "generation_config.json").read_text())
    eos = generation["eos_token_id"]
    (base / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": [eos, 7]}))
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(**LORA))
    assert in_process(make_job(base, adapter, format="gguf", quantization="f16")) == 0
    reader = gguf.GGUFReader(tmp_path / "place" / "out" / "out-f16.gguf")
    fields = {key: reader.get_field(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot")}
    assert {key: field.contents() for key, field in fields.items() if field} == {"eos": eos, "eot": 7}
    name, origin = reader.get_field("general.name"), reader.get_field("general.base_model.0.name")
    assert name and origin and (name.contents(), origin.contents()) == ("a run", "some/base")


# -- cut off ----------------------------------------------------------------------------------------------------------


def wide(tmp_path: Path) -> tuple[Path, Path]:
    """A model of some megabytes, so that there is a middle to be killed in."""
    base = make_tiny_llama(tmp_path / "wide", hidden_size=256, intermediate_size=1024, num_hidden_layers=6, tied=False)
    return base, make_adapter(base, tmp_path / "adapter", LoraConfig(**LORA))


def _killed_at(moments: list[float], make_job: MakeJob, fork: StartFork, tmp_path: Path, in_process: InProcess) -> None:
    base, adapter = wide(tmp_path)
    before, place = hashes(base, adapter), tmp_path / "place"
    whole: dict[str, str] = {}
    for number, moment in enumerate(moments):
        job = make_job(base, adapter, name=f"job-{number}", shard_size=0.002, out=str(place / f"out-{number}"))
        merging = fork("tests.worker.forks:run_job", job.path)
        while not job.process.exists():
            time.sleep(0.002)
        time.sleep(moment)
        merging.signal(signal.SIGKILL)
        merging.wait()
        out = place / f"out-{number}"
        if out.exists():
            found = {path.name: value for path, value in ((Path(k), v) for k, v in hashes(out).items())}
            found.pop("README.md")
            whole = whole or found
            assert found == whole, f"half an export after {moment} s"
        assert hashes(base, adapter) == before
    last = make_job(base, adapter, name="last", shard_size=0.002, out=str(place / "last"))
    assert in_process(last) == 0
    assert not [path for path in place.iterdir() if path.name.startswith(".")], "leftovers of killed exports"


def test_F04_killed_at_any_moment_the_target_is_absent_or_whole(
    make_job: MakeJob, fork: StartFork, tmp_path: Path, in_process: InProcess
) -> None:
    chance = random.Random(4)
    _killed_at([chance.uniform(0, 1.2) for _ in range(4)], make_job, fork, tmp_path, in_process)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_F04_killed_at_fifty_moments(make_job: MakeJob, fork: StartFork, tmp_path: Path, in_process: InProcess) -> None:
    chance = random.Random(50)
    _killed_at([chance.uniform(0, 1.5) for _ in range(50)], make_job, fork, tmp_path, in_process)


def test_what_is_no_leftover_of_ours_is_left_alone(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path
) -> None:
    for name in (".mine.partial-of-something", ".out.partial-20200101-0000-unknown", ".out.partial-alive"):
        (tmp_path / "place" / name).mkdir(parents=True)
    alive = make_job(base("llama"), adapter, name="alive")
    import psutil

    me = psutil.Process()
    alive.process.write_text(json.dumps({"pid": me.pid, "create_time": me.create_time()}))
    assert in_process(make_job(base("llama"), adapter)) == 0
    assert len([path for path in (tmp_path / "place").iterdir() if path.name.startswith(".")]) == 3


def test_F22_a_disk_that_fills_up_leaves_nothing(make_job: MakeJob, fork: StartFork, tmp_path: Path) -> None:
    base, adapter = wide(tmp_path)
    before = hashes(base, adapter)
    job = make_job(base, adapter)
    assert fork("tests.worker.export.test_jobs:run_with_little_room", job.path, 3_000_000).wait() == 1
    assert "filled up" in end_of(job).cause
    assert not list((tmp_path / "place").iterdir())
    assert hashes(base, adapter) == before


def run_with_little_room(folder: str, most: int) -> int:
    """A job where no file may grow beyond `most` bytes: the system refuses to write more, as on a full disk."""
    from studio.worker.job import run_job

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return run_job(Path(folder))


# -- memory -----------------------------------------------------------------------------------------------------------


def test_F50_a_merge_holds_a_tensor_and_not_the_model(make_job: MakeJob, fork: StartFork, tmp_path: Path) -> None:
    """A model of 230 MB, in float32, on top of what the libraries take."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no way to ask this system for a peak")
    shape = {"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 8}
    base = make_tiny_llama(tmp_path / "large", tied=False, **shape)
    size = sum(tensor.nbytes for tensor in files_of(base).values())
    assert size > 200e6
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(**{**LORA, "target_modules": ["q_proj", "up_proj"]}))
    job = make_job(base, adapter, dtype="bfloat16")
    mark = tmp_path / "grown"
    assert fork("tests.worker.export.test_jobs:run_and_measure", job.path, mark).wait() == 0
    assert int(mark.read_text()) < 100e6


def run_and_measure(folder: str, mark: str) -> int:
    """A job; by how many bytes it grew above what it had at its start is written down."""
    from studio.worker.export import run  # noqa: F401 - what it takes by itself isn't the merge's
    from studio.worker.job import run_job

    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    code = run_job(Path(folder))
    Path(mark).write_text(str(_peak() - before))
    return code


def _peak() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
