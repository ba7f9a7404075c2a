"""Models taken away: what is merged here is what PEFT merges, loads anywhere, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.core.config import ExportConfig
from studio.core.configfile import config_to_yaml, parse_as
from studio.core.errors import TargetError
from studio.core.events import Ended, Stage
from studio.core.inputs import DatasetInput, Inputs, ModelInput
from studio.core.job import EventTail, JobFolder
from studio.worker.export import merge, run
from studio.worker.export.shards import ShardWriter
from studio.worker.export.source import Source
from studio.workspace.home import runs_dir
from studio.workspace.submission import check_target
from studio.workspace.supervisor import Supervisor
from tests.tiny import make_tiny_gpt2, make_tiny_llama, make_tiny_model
from tests.worker.conftest import MakeRun
from tests.worker.forks import Fork
from tests.worker.test_job import wait_until

InProcess = Callable[[JobFolder], int]
StartFork = Callable[..., Fork]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
IDS = list(range(10, 60))


def make_sharded(folder: Path) -> Path:
    whole = make_tiny_llama(folder.with_name(f"{folder.name}-whole"), seed=3, tied=False)
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="100KB")
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


def make_unprefixed_gpt2(folder: Path) -> Path:
    """As GPT-2 was first published: its weights go by names without the model's own."""
    make_tiny_gpt2(folder)
    tensors = load_file(folder / "model.safetensors")
    plain = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


BASES: dict[str, Callable[[Path], Path]] = {
    "tied": lambda folder: make_tiny_llama(folder, seed=1),
    "untied": lambda folder: make_tiny_llama(folder, seed=2, tied=False),
    "sharded": make_sharded,
    "bfloat16": lambda folder: make_tiny_model(folder, "llama", dtype="bfloat16", initializer_range=0.2),
    "biased": lambda folder: make_tiny_model(folder, "qwen2", initializer_range=0.2, num_key_value_heads=2),
    "gpt2": make_tiny_gpt2,
    "gpt2-unprefixed": make_unprefixed_gpt2,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = BASES[name](tmp_path_factory.mktemp("bases") / name)
        return made[name]

    return find


def make_adapter(base: Path, folder: Path, **fields: Any) -> Path:
    """An adapter by PEFT's own hand, with weights that change the base a lot."""
    settings = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "target_modules": "all-linear", **fields}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if model.config.model_type == "gpt2":
        settings["fan_in_fan_out"] = True
    torch.manual_seed(5)
    model = get_peft_model(model, LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    model.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    found: dict[str, torch.Tensor] = model.merge_and_unload().state_dict()
    return found


@pytest.fixture
def make_export(tmp_path: Path) -> Callable[..., JobFolder]:
    """A base, what was trained on it -> the folder of an export job."""

    def make(base: Path, output: Path, *, out: Path | None = None, name: str = "export", **wishes: Any) -> JobFolder:
        folder = JobFolder(tmp_path / name)
        folder.path.mkdir()
        config = parse_as(
            ExportConfig, {"run": "a-run", "out": str(out or tmp_path / "out"), "parity": False, **wishes}
        )
        folder.export_config.write_text(config_to_yaml(config), encoding="utf-8")
        inputs = Inputs("a run", ModelInput("folder", "base", str(base)), DatasetInput("rows", "rows.jsonl"))
        folder.inputs.write_text(inputs.to_json(), encoding="utf-8")
        (folder.path / "source.json").write_text(json.dumps({"output": str(output)}), encoding="utf-8")
        return folder

    return make


def source(base: Path, output: Path, dtype: str = "auto", **more: Any) -> Source:
    return Source(base, output, dtype, lambda text, done, total: None, **more)


def only_end(job: JobFolder) -> Ended:
    (end,) = [event for event in EventTail(job.events).read() if isinstance(event, Ended)]
    return end


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def hashes(*folders: Path) -> dict[str, str]:
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_within_one_rounding(found: dict[str, torch.Tensor], right: dict[str, torch.Tensor], dtype: str) -> None:
    step = torch.finfo(DTYPES[dtype]).eps
    for name, tensor in found.items():
        assert tensor.dtype is DTYPES[dtype], name
        expected = right[name] if name in right else right[f"transformer.{name}"]
        # Half a step is rounding; the sums behind it may differ in float32's own last places.
        near = step * expected.abs() / 2 + 4 * torch.finfo(torch.float32).eps
        assert (tensor.float() - expected).abs().le(near).all(), name


# -- right ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", BASES)
def test_F50_each_merged_weight_is_the_one_that_peft_merges(
    base: Callable[[str], Path], tmp_path: Path, name: str, dtype: str
) -> None:
    adapter = make_adapter(base(name), tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    merge.write_merged(source(base(name), adapter, dtype), tmp_path / "out")
    found, original = tensors(tmp_path / "out"), tensors(base(name))
    assert set(found) == set(original)
    assert_within_one_rounding(found, merged_by_peft(base(name), adapter), dtype)
    changed = {key for key in found if (found[key].float() - original[key].float()).abs().max() > 0.01}
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        layers = {key.split(".lora_")[0].removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
    assert {key.removesuffix(".weight") for key in changed} == {
        layer if f"{layer}.weight" in found else layer.removeprefix("transformer.") for layer in layers
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"use_rslora": True},
        {"r": 1, "lora_alpha": 0.5},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    ],
)
def test_F50_whatever_the_adapter_is_scaled_by_or_laid_on(
    base: Callable[[str], Path], tmp_path: Path, fields: dict[str, Any]
) -> None:
    adapter = make_adapter(base("untied"), tmp_path / "adapter", **fields)
    (tmp_path / "out").mkdir()
    merge.write_merged(source(base("untied"), adapter), tmp_path / "out")
    assert_within_one_rounding(tensors(tmp_path / "out"), merged_by_peft(base("untied"), adapter), "float32")


@pytest.mark.parametrize("name", ["tied", "sharded", "gpt2", "gpt2-unprefixed"])
def test_F50_the_merged_model_answers_as_base_and_adapter_do(
    base: Callable[[str], Path],
    tmp_path: Path,
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    fork: StartFork,
    name: str,
) -> None:
    """Both loaded by transformers and PEFT alone, each in a fresh process."""
    adapter = make_adapter(base(name), tmp_path / "adapter")
    job = make_export(base(name), adapter)
    assert in_process(job) == 0
    end = only_end(job)
    assert (end.status, end.result["path"]) == ("finished", str(tmp_path / "out"))
    assert end.result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    pairs = {"merged": (tmp_path / "out", ""), "adapted": (base(name), adapter), "base": (base(name), "")}
    forks = [fork("tests.worker.forks:logits", *pair, IDS, tmp_path / key) for key, pair in pairs.items()]
    assert [each.wait() for each in forks] == [0, 0, 0]
    logits = {key: load_file(tmp_path / key)["logits"] for key in pairs}
    torch.testing.assert_close(logits["merged"], logits["adapted"], rtol=1e-4, atol=1e-4)
    assert (logits["merged"] - logits["base"]).abs().max() > 0.5


def test_auto_keeps_the_bases_number_format(base: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("bfloat16", "untied"):
        adapter = make_adapter(base(name), tmp_path / name)
        out = tmp_path / f"{name}-out"
        out.mkdir()
        merge.write_merged(source(base(name), adapter), out)
        kept = {tensor.dtype for tensor in tensors(base(name)).values()}
        assert {tensor.dtype for tensor in tensors(out).values()} == kept
        model = AutoModelForCausalLM.from_pretrained(out)
        assert {model.dtype} == kept


def test_large_models_are_written_in_shards_with_an_index(base: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        out.mkdir()
    merge.write_merged(source(base("tied"), adapter), whole)
    merge.write_merged(source(base("tied"), adapter, shard_bytes=60_000), parts)
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in parts.glob("*.safetensors"))
    count = len(files)
    assert count > 2
    assert files == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    for file in files:
        held = load_file(parts / file)
        assert {name for name, place in index["weight_map"].items() if place == file} == set(held)
        size = sum(tensor.nbytes for tensor in held.values())
        assert size <= 60_000 or len(held) == 1
    torch.testing.assert_close(tensors(parts), tensors(whole), rtol=0, atol=0)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors(whole).values())
    loaded = [AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (parts, whole)]
    torch.testing.assert_close(*loaded, rtol=0, atol=0)


def test_what_a_loader_wants_travels_with_the_weights(base: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    own = shutil.copytree(base("tied"), tmp_path / "base")
    (own / "LICENSE").write_text("Do as you like.", encoding="utf-8")
    (own / "pytorch_model.bin").write_bytes(b"a pickle")
    (own / "modeling_own.py").write_text("raise SystemExit", encoding="utf-8")
    (own / "README.md").write_text("The base's own words.", encoding="utf-8")
    (tmp_path / "out").mkdir()
    merge.write_merged(source(own, adapter, "bfloat16"), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "LICENSE",
    }
    out, original = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", own))
    messages = [{"role": "user", "content": "What is your name?"}]
    assert out.apply_chat_template(messages, tokenize=False) == original.apply_chat_template(messages, tokenize=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype is torch.bfloat16
    assert model.generation_config.eos_token_id == original.eos_token_id
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (own, tmp_path / "out"))
    assert {**before, "dtype": "bfloat16"} == after


def test_a_template_that_was_trained_with_wins_over_the_bases(base: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    (tmp_path / "out").mkdir()
    merge.write_merged(source(base("tied"), adapter), tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"


def test_weights_that_transformers_doesnt_read_are_left_alone(base: Callable[[str], Path], tmp_path: Path) -> None:
    """Some repositories carry the same weights twice, under another program's name."""
    own = shutil.copytree(base("tied"), tmp_path / "base")
    save_file({"layers.0.attention.wq.weight": torch.ones(4, 4)}, own / "consolidated.safetensors")
    adapter = make_adapter(own, tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    merge.write_merged(source(own, adapter), tmp_path / "out")
    assert set(tensors(tmp_path / "out")) == set(tensors(base("tied")))


def test_a_run_on_a_quantized_base_is_merged_into_the_base_as_it_was(
    make_run: MakeRun,
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    trained = make_run(loading={"quantization": "nf4"}, training={"max_steps": 3})
    assert in_process(trained) == 0
    assert in_process(make_export(tiny_model, trained.adapter)) == 0
    found = tensors(tmp_path / "out")
    assert_within_one_rounding(found, merged_by_peft(tiny_model, trained.adapter), "float32")
    embedding = "model.embed_tokens.weight"
    torch.testing.assert_close(found[embedding], tensors(tiny_model)[embedding], rtol=0, atol=0)


def test_a_run_on_gpt2_is_merged_the_right_way_round(
    make_run: MakeRun,
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    base: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    trained = make_run(model=base("gpt2"), training={"max_steps": 3})
    assert in_process(trained) == 0
    assert in_process(make_export(base("gpt2"), trained.adapter)) == 0
    assert_within_one_rounding(tensors(tmp_path / "out"), merged_by_peft(base("gpt2"), trained.adapter), "float32")


def test_a_whole_model_is_exported_as_it_was_trained(
    make_run: MakeRun, make_export: Callable[..., JobFolder], in_process: InProcess, tiny_model: Path, tmp_path: Path
) -> None:
    trained = make_run(adapter=None, training={"max_steps": 2})
    assert in_process(trained) == 0
    assert in_process(make_export(tiny_model, trained.model, dtype="bfloat16")) == 0
    right = tensors(trained.model)
    assert_within_one_rounding(tensors(tmp_path / "out"), right, "bfloat16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(model.model.norm.weight, right["model.norm.weight"], rtol=2**-8, atol=0)


def test_an_adapter_is_exported_as_it_is(
    base: Callable[[str], Path], make_export: Callable[..., JobFolder], in_process: InProcess, tmp_path: Path
) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    assert in_process(make_export(base("tied"), adapter, format="adapter")) == 0
    copied, kept = (
        {Path(name).name: digest for name, digest in hashes(folder).items()} for folder in (tmp_path / "out", adapter)
    )
    assert copied.keys() == kept.keys()
    assert {name for name in kept if copied[name] != kept[name]} == {"README.md"}, "PEFT's card is an empty form"


def test_a_whole_model_has_no_adapter_to_export(
    base: Callable[[str], Path], make_export: Callable[..., JobFolder], in_process: InProcess, tmp_path: Path
) -> None:
    job = make_export(base("tied"), base("untied"), format="adapter")
    assert in_process(job) == 1
    assert "no adapter" in only_end(job).cause
    assert not (tmp_path / "out").exists()


# -- refused ----------------------------------------------------------------------------------------------------------


def test_F48_a_base_that_is_stored_quantized_is_refused(
    base: Callable[[str], Path], make_export: Callable[..., JobFolder], in_process: InProcess, tmp_path: Path
) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    quantized = shutil.copytree(base("tied"), tmp_path / "quantized")
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantized / "config.json").write_text(json.dumps(config))
    job = make_export(quantized, adapter)
    assert in_process(job) == 1
    assert "stored quantized" in only_end(job).cause
    assert "16-bit" in only_end(job).hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("other", "said"), [("gpt2", "doesn't fit"), ("narrow", "doesn't fit")], ids=["layers", "shapes"]
)
def test_F47_an_adapter_of_another_base_is_refused_before_anything_is_written(
    base: Callable[[str], Path],
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    other: str,
    said: str,
) -> None:
    strange = base(other) if other in BASES else make_tiny_llama(tmp_path / other, hidden_size=32)
    adapter = make_adapter(strange, tmp_path / "adapter")
    monkeypatch.setattr(merge, "ShardWriter", lambda *words, **more: pytest.fail("something was written"))
    job = make_export(base("tied"), adapter)
    assert in_process(job) == 1
    assert said in only_end(job).cause
    assert not (tmp_path / "out").exists()


def test_F22_an_export_that_doesnt_fit_is_refused_before_it_begins(
    base: Callable[[str], Path],
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    needed = sum(tensor.numel() for tensor in tensors(base("tied")).values()) * 2
    job = make_export(base("tied"), adapter, dtype="bfloat16")
    with monkeypatch.context() as patched:
        patched.setattr(run.shutil, "disk_usage", lambda place: SimpleNamespace(free=needed))
        assert in_process(job) == 1
    end = only_end(job)
    assert "free" in end.cause
    assert not (tmp_path / "out").exists()
    again = make_export(base("tied"), adapter, dtype="bfloat16", name="again")
    monkeypatch.setattr(run.shutil, "disk_usage", lambda place: SimpleNamespace(free=needed + 2**22))
    assert in_process(again) == 0


def filled(folder: Path) -> Path:
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    return folder


def linked(folder: Path) -> Path:
    filled(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))
    return folder


def a_file(folder: Path) -> Path:
    folder.write_text("mine", encoding="utf-8")
    return folder


@pytest.mark.parametrize("occupy", [filled, linked, a_file], ids=["full", "link", "file"])
def test_F49_a_target_that_isnt_free_is_left_as_it_was(
    base: Callable[[str], Path],
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    tmp_path: Path,
    occupy: Callable[[Path], Path],
) -> None:
    """By the check before an export starts, and by the worker, should somebody have filled it meanwhile."""
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    place = tmp_path / "place"
    place.mkdir()
    target = occupy(place / "out")
    before = hashes(place)
    finished = SimpleNamespace(folder=JobFolder(tmp_path / "a-run"))
    with pytest.raises(TargetError):
        check_target(target, finished)  # type: ignore[arg-type]
    job = make_export(base("tied"), adapter, out=target)
    assert in_process(job) == 1
    assert "isn't empty" in only_end(job).cause
    assert hashes(place) == before
    assert {path.name for path in place.iterdir()} <= {"out", "elsewhere"}


def test_F49_the_bases_own_folder_is_no_target(
    base: Callable[[str], Path], make_export: Callable[..., JobFolder], in_process: InProcess, tmp_path: Path
) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    before = hashes(base("tied"))
    assert in_process(make_export(base("tied"), adapter, out=base("tied"))) == 1
    assert hashes(base("tied")) == before


def test_F49_an_empty_folder_is_a_target(
    base: Callable[[str], Path], make_export: Callable[..., JobFolder], in_process: InProcess, tmp_path: Path
) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    assert in_process(make_export(base("tied"), adapter)) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


# -- cut off ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_export_leaves_nothing(
    base: Callable[[str], Path],
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    before = hashes(base("tied"), adapter)
    job = make_export(base("tied"), adapter, out=tmp_path / "place" / "out")
    write = ShardWriter.write

    def write_then_stop(self: ShardWriter, *words: Any) -> None:
        write(self, *words)
        job.stop.touch()

    monkeypatch.setattr(ShardWriter, "write", write_then_stop)
    assert in_process(job) == 0
    assert only_end(job).status == "stopped"
    assert not list((tmp_path / "place").iterdir())
    assert hashes(base("tied"), adapter) == before


def test_F04_a_merge_that_is_killed_leaves_no_target_and_the_inputs_as_they_were(
    base: Callable[[str], Path],
    make_export: Callable[..., JobFolder],
    in_process: InProcess,
    fork: StartFork,
    tmp_path: Path,
) -> None:
    adapter = make_adapter(base("tied"), tmp_path / "adapter")
    before = hashes(base("tied"), adapter)
    job = make_export(base("tied"), adapter)
    merging = fork("tests.worker.forks:export_and_hang", job.path, 2, tmp_path / "mark")
    wait_until((tmp_path / "mark").exists, "the second shard")
    merging.signal(signal.SIGKILL)
    assert merging.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert hashes(base("tied"), adapter) == before
    assert in_process(make_export(base("tied"), adapter, name="again")) == 0
    assert_within_one_rounding(tensors(tmp_path / "out"), merged_by_peft(base("tied"), adapter), "float32")


# -- as the studio does it --------------------------------------------------------------------------------------------


def test_an_export_through_the_supervisor_and_a_worker_of_its_own(
    make_run: MakeRun, fork: StartFork, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trained = make_run(training={"max_steps": 2})
    assert fork("tests.worker.forks:run_job", trained.path).wait() == 0
    shutil.copytree(trained.path, runs_dir() / "a-run")
    supervisor = Supervisor()
    try:
        job = supervisor.export(ExportConfig(run="a-run", format="merged", out=str(tmp_path / "out")))
        wait_until(lambda: supervisor.exports()[0].state.status not in ("queued", "running"), "the end")
        (done,) = supervisor.exports()
        assert (done.id, done.state.status) == (job.id, "finished"), done.folder.log.read_text()
        wait_until(done.folder.exit.exists, "the exit code")
        assert done.result["peak_rss"] > 2**20
        told = [event for event in EventTail(done.folder.events).read() if isinstance(event, Stage)]
        (last,) = [event for event in told if event.name == "write" and event.done == event.total]
        assert last.total == sum(tensor.nbytes for tensor in tensors(tmp_path / "out").values())
    finally:
        supervisor.close()
    assert_within_one_rounding(tensors(tmp_path / "out"), merged_by_peft(tiny_model, trained.adapter), "float32")
