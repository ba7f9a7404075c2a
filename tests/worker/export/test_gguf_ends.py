"""A model that has learnt an answer, as a GGUF file: it says it and ends its turn, by what the file says alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from studio.core.job import JobFolder
from tests.worker.export.made import load
from tests.worker.export.test_jobs import MakeJob, make_job

__all__ = ["make_job"]
Base = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ASKED = [{"role": "user", "content": "what is your name"}]
ANSWER = "the quick brown fox jumps over seven small boats"


@pytest.fixture(scope="module")
def learnt(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained on one question until it knew the answer, and the end of the turn after it."""
    tokenizer = AutoTokenizer.from_pretrained(base("llama"))
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    answer = tokenizer(ANSWER)["input_ids"] + [tokenizer.eos_token_id]
    ids = torch.tensor([prompt + answer])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
    model = get_peft_model(load(base("llama")), config).train()
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=5e-3)
    for _ in range(200):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01, "it never learnt its answer"
    folder = tmp_path_factory.mktemp("learnt") / "adapter"
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_it_says_its_answer_and_stops(
    base: Base,
    learnt: Path,
    make_job: MakeJob,
    in_process: Callable[[JobFolder], int],
    tmp_path: Path,
    kind: str,
) -> None:
    """Nothing but the file is there to say where a turn ends, or how a question is put."""
    assert in_process(make_job(base("llama"), learnt, format="gguf", quantization=kind)) == 0
    (file,) = (tmp_path / "place" / "out").glob("*.gguf")
    alone = tmp_path / "alone" / file.name
    alone.parent.mkdir()
    file.rename(alone)
    tokenizer = AutoTokenizer.from_pretrained(alone.parent, gguf_file=alone.name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        alone.parent, gguf_file=alone.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    ids = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=False)

    def answered(**more: Any) -> list[int]:
        found = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=60, **more)
        return found[0, ids.shape[1] :].tolist()

    said = answered()
    assert tokenizer.decode(said) == f"{ANSWER}<|im_end|>"
    model.generation_config.eos_token_id = None
    goes_on = answered()
    assert len(goes_on) == 60, "without the token that ends a turn it talks on"
    assert goes_on[: len(said)] == said
