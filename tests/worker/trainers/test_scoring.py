"""Reward models as judges: the number is that of the whole conversation, as plain transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from studio.core.errors import ModelError
from studio.core.example import Example
from studio.core.inputs import ExtraModel, ModelInput
from studio.worker.data.source import quiet
from studio.worker.device import resolve
from studio.worker.encode import Encoder
from studio.worker.models import load_tokenizer
from studio.worker.trainers.scoring import Scorer
from tests.tiny import tiny_tokenizer
from tests.worker.trainers.building import config


@pytest.fixture(scope="module")
def judge(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1, dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def scorer(judge: Path, tokenizer: Any) -> Scorer:
    extra = ExtraModel(ModelInput("folder", "judge", str(judge)))
    return Scorer(extra, resolve(config("grpo", method={"num_generations": 2})), tokenizer, quiet)


def test_a_conversation_is_judged_as_it_was_learnt_to_be(tiny_model: Path, judge: Path) -> None:
    """With the line's end that ChatML writes behind an answer; alone and beside longer ones."""
    tokenizer = load_tokenizer(tiny_model)
    plain = AutoModelForSequenceClassification.from_pretrained(judge, dtype=torch.float32).eval()
    asked, answers = [], []
    expected = []
    for question, answer in (("what is your name", "one"), ("seven", "a boat in the light of early morning")):
        messages = [{"role": "user", "content": question}]
        asked.append(Encoder(tokenizer).encode(Example(prompt=tuple(messages))).ids)
        answers.append([*tokenizer(answer)["input_ids"], tokenizer.eos_token_id])
        said = {"role": "assistant", "content": answer}
        whole = tokenizer.apply_chat_template([*messages, said], return_tensors="pt", return_dict=True)
        with torch.no_grad():
            expected.append(float(plain(**whole).logits[0, 0]))
    found = scorer(judge, tokenizer)(prompt_ids=asked, completion_ids=answers)
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_judge_of_other_tokens_is_refused(judge: Path) -> None:
    with pytest.raises(ModelError, match="other tokens"):
        scorer(judge, tiny_tokenizer(size=380))
