"""Distillation: its loss and gradients against the formula in float64, teachers that fit, and a distance that falls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.core.errors import ModelError
from studio.core.inputs import DatasetInput, ExtraModel, Inputs, ModelInput
from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.worker.trainers import distill
from tests.tiny import make_tiny_llama, tiny_tokenizer
from tests.worker.conftest import MakeRun
from tests.worker.trainers.building import build, config, text_rows
from tests.worker.trainers.test_losses import assert_equal_losses, in_double, moved

TEXTS = text_rows(3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider than the student, with a head that is padded to more tokens than there are."""
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    return make_tiny_llama(folder, seed=5, hidden_size=128, vocab_size=448, initializer_range=0.15)


def inputs(teacher: Path) -> Inputs:
    extras = {"teacher": ExtraModel(ModelInput("folder", "teacher", str(teacher)))}
    return Inputs("", ModelInput("folder", "student"), DatasetInput("rows"), extras=extras)


def built(folder: Path, teacher: Path, tmp_path: Path, lora: bool = True, **method: Any) -> Any:
    said = {"teacher_model_name_or_path": str(teacher), **method}
    wishes = config("distill", lora, method=said, training={"per_device_train_batch_size": 3})
    return build(folder, TEXTS, wishes, tmp_path, inputs=inputs(teacher))[0]


def distance(p: Tensor, q: Tensor, beta: float) -> Tensor:
    """Equation 1 of arXiv:2306.13649, term by term; p the teacher's chances, q the student's."""
    if beta == 0:
        return (p * (p.log() - q.log())).sum(-1)
    if beta == 1:
        return (q * (q.log() - p.log())).sum(-1)
    m = beta * p + (1 - beta) * q
    return beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1)


@pytest.mark.parametrize(
    ("beta", "lora", "rows"), [(0.0, True, 512), (0.5, True, 512), (1.0, True, 512), (0.1, True, 7), (0.5, False, 512)]
)
def test_its_loss_is_the_divergence_of_the_paper(
    tiny_model: Path, teacher: Path, tmp_path: Path, beta: float, lora: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "_ROWS", rows)
    trainer = built(tiny_model, teacher, tmp_path, lora, beta=beta)
    moved(trainer)
    double = in_double(trainer, tiny_model)
    taught = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    found = []
    for row in TEXTS:
        ids = torch.tensor([[*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]])
        q = double(input_ids=ids).logits[0, :-1].softmax(-1)
        with torch.no_grad():
            p = taught(input_ids=ids).logits[0, :-1, : q.shape[-1]].softmax(-1)
        found.append(distance(p, q, beta))
    assert_equal_losses(trainer, double, torch.cat(found).mean())


def test_own_answers_stand_in_for_the_datasets(tiny_model: Path, teacher: Path, tmp_path: Path) -> None:
    """From where the last answer began, to the model's end; nothing else carries loss, and it is counted anew."""
    trainer = built(tiny_model, teacher, tmp_path, lmbda=1.0, max_completion_length=5)
    tokenizer = trainer.processing_class
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = torch.tensor([[5, 6, 7, 8, 9, end], [5, 6, 9, end, pad, pad]])
    labels = torch.tensor([[-100, 6, -100, -100, 9, end], [-100, -100, 9, end, -100, -100]])
    batch = {"input_ids": ids, "attention_mask": (ids != pad).long(), "labels": labels}
    torch.manual_seed(1)
    trainer.model_wrapped = trainer.model
    batches, count = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    own = batches[0]
    for row, prompt in enumerate(([5, 6, 7, 8], [5, 6])):
        mask = own["attention_mask"][row].bool()
        said = own["input_ids"][row][mask].tolist()
        assert said[: len(prompt)] == prompt
        answer = said[len(prompt) :]
        assert 1 <= len(answer) <= 5 and end not in answer[:-1]
        assert own["labels"][row][mask].tolist() == [-100] * len(prompt) + answer
        assert (own["labels"][row][~mask] == -100).all()
    assert int(count) == int((own["labels"] != -100).sum())


def test_a_teacher_of_other_tokens_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = make_tiny_llama(tmp_path / "other", tokenizer=tiny_tokenizer(size=380))
    with pytest.raises(ModelError, match="other tokens"):
        built(tiny_model, other, tmp_path)


def test_the_distance_falls(make_run: MakeRun, in_process: Callable[[JobFolder], int], teacher: Path) -> None:
    job = make_run(
        rows=TEXTS * 4,
        method={"name": "distill", "teacher_model_name_or_path": str(teacher), "beta": 0.0},
        adapter=None,
        training={"max_steps": 25, "per_device_train_batch_size": 4, "learning_rate": 5e-3, "save_steps": 25},
        dataset={"validation_split": 0, "group_duplicates": "off"},
    )
    assert in_process(job) == 0
    progress = Progress()
    for event in EventTail(job.events).read():
        progress.fold(event)
    losses = [value for _, value in progress.series["loss"]]
    assert losses[-1] < 0.5 * losses[0]
