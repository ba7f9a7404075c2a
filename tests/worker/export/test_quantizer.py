"""GGUF files that llama.cpp's quantizer makes: proven before it, compared after it, nothing left where it fails."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import pytest
from peft import LoraConfig

from studio.core.events import Stage
from studio.core.job import EventTail, JobFolder
from studio.worker.export.gguf import quantizer
from tests import fake_quantizer
from tests.fake_worker import until
from tests.worker.export.made import make_adapter
from tests.worker.export.test_gguf import write
from tests.worker.export.test_jobs import LORA, MakeJob, end_of, make_job

__all__ = ["make_job"]
Base = Callable[..., Path]
InProcess = Callable[[JobFolder], int]
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("compared_here")]


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fake one, as a program of its own: a script around the real thing, as installations have them."""
    made = tmp_path / "bin" / "llama-quantize"
    made.parent.mkdir()
    made.write_text(f'#!/bin/sh\n"{sys.executable}" "{fake_quantizer.__file__}" "$@"\n', encoding="utf-8")
    made.chmod(0o755)
    monkeypatch.setenv("STUDIO_LLAMA_QUANTIZE", str(made))
    return made


@pytest.fixture
def adapter(base: Base, tmp_path: Path) -> Path:
    return make_adapter(base("llama"), tmp_path / "adapter", LoraConfig(**LORA))


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("format", ["gguf", "ollama"])
def test_what_it_made_is_compared_and_what_it_was_given_is_proven(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path, format: str
) -> None:
    job = make_job(base("llama"), adapter, format=format, quantization="q4_0", parity=True)
    assert in_process(job) == 0, end_of(job)
    out = tmp_path / "place" / "out"
    assert {path.name for path in out.glob("*.gguf")} == {"out-q4_0.gguf"}
    assert not [path for path in out.iterdir() if path.is_dir()], "what it was made from is gone"
    found = tensors(out / "out-q4_0.gguf")
    exact = tensors(write(base("llama"), adapter, tmp_path / "exact", "f16"))
    assert set(found) == set(exact)
    name = "blk.0.ffn_down.weight"
    assert found[name].tensor_type.name == "Q4_0"
    values = gguf.dequantize(exact[name].data, exact[name].tensor_type)
    step = np.abs(values.reshape(-1, 32)).max(1) / 8
    off = np.abs(gguf.dequantize(found[name].data, found[name].tensor_type) - values).reshape(-1, 32)
    assert (off <= 1.01 * step[:, None]).all()
    parity = end_of(job).result["parity"]
    assert parity["same"] is True, parity["problems"]
    assert (parity["proven"], len(parity["replies"])) == ("f16", 2)
    assert parity["proven_diff"] < 0.02 * parity["moved"]
    assert 20 * parity["proven_diff"] < parity["max_logit_diff"] < parity["moved"], "four bits cost more than sixteen"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "in q4_0" in card and "before llama.cpp's quantizer" in card
    told = [
        event for event in EventTail(job.events).read() if isinstance(event, Stage) and "by llama.cpp" in event.text
    ]
    assert told[-1].done == told[-1].total and told[-1].unit == "bytes"
    assert format == "gguf" or "FROM ./out-q4_0.gguf" in (out / "Modelfile").read_text(encoding="utf-8")


def test_an_adapter_that_was_never_merged_is_red(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quantizer's own error is no excuse: what it was given is held against base and adapter."""
    from studio.worker.export.stream import AdaptedModel

    monkeypatch.setattr(AdaptedModel, "_touched", lambda self, name: False)
    job = make_job(base("llama"), adapter, format="gguf", quantization="q4_0", parity=True)
    assert in_process(job) == 0
    parity = end_of(job).result["parity"]
    assert parity["same"] is False
    assert "differs from base + adapter" in parity["problems"][0]


def test_one_that_makes_something_else_is_red(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QUANTIZER", "wrong")
    job = make_job(base("llama"), adapter, format="gguf", quantization="q4_k_m", parity=True)
    assert in_process(job) == 0
    parity = end_of(job).result["parity"]
    assert parity["proven_diff"] < 0.02 * parity["moved"]
    assert (parity["same"], len(parity["problems"])) == (False, 1)
    assert "another model's" in parity["problems"][0] or "rounds away" in parity["problems"][0]


def test_what_cant_be_loaded_back_is_said_not_to_have_been_compared(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QUANTIZER", "unreadable")
    job = make_job(base("llama"), adapter, format="gguf", quantization="q2_k", parity=True)
    assert in_process(job) == 0
    parity = end_of(job).result["parity"]
    assert (parity["same"], parity["max_logit_diff"], parity["greedy_match"]) == (None, None, None)
    assert "can't be loaded back" in parity["skipped"]
    assert parity["proven_diff"] < 0.02 * parity["moved"] and not parity["problems"]


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("fails", "failed to quantize: unsupported tensor"),
        ("silent", "said nothing"),
        ("no program", "can't be started"),
    ],
)
def test_one_that_fails_costs_a_sentence_and_leaves_nothing(
    base: Base,
    adapter: Path,
    make_job: MakeJob,
    in_process: InProcess,
    tmp_path: Path,
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    said: str,
) -> None:
    monkeypatch.setenv("FAKE_QUANTIZER", way)
    if way == "no program":
        program.write_text("#!/nowhere/at/all\n", encoding="utf-8")
    job = make_job(base("llama"), adapter, format="gguf", quantization="q4_k_m")
    assert in_process(job) == 1
    assert said in end_of(job).cause and "by itself" in end_of(job).hint
    assert not list((tmp_path / "place").iterdir())


def test_without_one_nothing_is_begun(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_LLAMA_QUANTIZE", str(tmp_path / "nowhere"))
    job = make_job(base("llama"), adapter, format="gguf", quantization="q4_k_m")
    assert in_process(job) == 1
    assert "there is none on this machine" in end_of(job).cause
    assert "llama-quantize" in end_of(job).hint and "STUDIO_LLAMA_QUANTIZE" in end_of(job).hint
    assert not (tmp_path / "place").exists()


def test_a_cancel_ends_it_too(
    base: Base, adapter: Path, make_job: MakeJob, in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a script around the program has started, and while it says nothing."""
    mark = tmp_path / "mark"
    monkeypatch.setenv("FAKE_QUANTIZER", "hangs")
    monkeypatch.setenv("FAKE_QUANTIZER_MARK", str(mark))
    job = make_job(base("llama"), adapter, format="gguf", quantization="q4_k_m")
    cancel = threading.Thread(target=lambda: (until(lambda: mark.exists() and mark.read_text()), job.stop.touch()))
    cancel.start()
    in_process(job)
    cancel.join()
    assert end_of(job).status == "stopped"
    assert not list((tmp_path / "place").iterdir())
    pid = int(mark.read_text())
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_it_is_given_what_was_asked_for(
    base: Base, adapter: Path, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen bits, as the base has them; all of float32 only on request."""
    from studio.worker.export.task import Export
    from studio.worker.job import Job

    asked = [("float32", "auto", "f16"), ("float32", "float32", "f32"), ("bfloat16", "auto", "bf16")]
    for number, (kept, dtype, given) in enumerate(asked):
        job = make_job(base("llama", kept), adapter, name=f"j{number}", format="gguf", quantization="q4_0", dtype=dtype)
        signed = Job.sign(job.path)
        assert signed is not None
        assert Export(signed).written_type == given


def test_the_program_is_looked_for_where_it_was_named_then_on_the_path(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.core.llamacpp import quantizer as find

    assert find() == str(program)
    monkeypatch.delenv("STUDIO_LLAMA_QUANTIZE")
    monkeypatch.setenv("PATH", os.pathsep.join([str(program.parent), "/nowhere"]))
    assert find() == str(program)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find() is None


def test_a_program_that_closes_its_mouth_is_still_waited_for(tmp_path: Path) -> None:
    program, target = tmp_path / "quiet", tmp_path / "target"
    program.write_text('#!/bin/sh\nexec >&- 2>&-\nsleep 0.3\necho done > "$2"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "source").write_bytes(b"12345")
    told: list[tuple[int, int]] = []
    quantizer.quantize(str(program), tmp_path / "source", target, "q4_0", lambda *step: told.append(step))
    assert target.read_text() == "done\n"
    assert told[-1] == (5, 5) and all(done < 5 for done, _ in told[:-1])
