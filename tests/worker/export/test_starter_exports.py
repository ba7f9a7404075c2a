"""The starter model, exported: what it says is what base and adapter say, and its tokenizer is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig
from transformers import AutoTokenizer

from studio.core.job import JobFolder
from studio.worker.export.gguf.reading import split_as_named
from tests.worker.export.made import make_adapter
from tests.worker.export.test_gguf import strings
from tests.worker.export.test_jobs import MakeJob, end_of, make_job

__all__ = ["make_job"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("compared_here"),
]


@pytest.fixture(scope="module")
def adapter(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"])
    return make_adapter(starter_model, tmp_path_factory.mktemp("adapter") / "adapter", config)


@pytest.mark.parametrize(
    ("format", "quantization"),
    [
        ("gguf", "f16"),
        *(pytest.param(*kind, marks=pytest.mark.nightly) for kind in (("merged", "auto"), ("ollama", "q8_0"))),
        *(pytest.param("bnb", kind, marks=pytest.mark.nightly) for kind in ("nf4", "int8")),
    ],
)
def test_the_starter_is_the_same_model_wherever_it_is_taken(
    starter_model: Path,
    adapter: Path,
    make_job: MakeJob,
    in_process: Callable[[JobFolder], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    quantization: str,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads that wait for each other on a busy machine take far longer
    job = make_job(starter_model, adapter, format=format, quantization=quantization, parity=True)
    assert in_process(job) == 0
    parity = end_of(job).result["parity"]
    told = json.dumps({key: value for key, value in parity.items() if key != "replies"})
    assert parity["same"] is True, told
    assert parity["left"] < 0.1 * parity["moved"], told
    # In few bits a model as small as this says other words now and then, trained or not; of ten places one is a lot.
    assert parity["greedy_match"] > (0.5 if format == "bnb" else 0.9), told
    if format == "gguf":
        (path,) = (tmp_path / "place" / "out").glob("*.gguf")
        one = AutoTokenizer.from_pretrained(starter_model)
        two = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        split_as_named(two, path)
        texts = strings(1000)
        assert [one(text)["input_ids"] for text in texts] == [two(text)["input_ids"] for text in texts]
        assert two.chat_template == one.chat_template and two.eos_token_id == one.eos_token_id
