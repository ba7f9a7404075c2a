"""Formats that a run asks for are those its model has, and the full loss is the short way's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.core.config import RunConfig
from studio.core.inputs import DatasetInput
from studio.worker.data.prepare import prepare as prepare_rows
from studio.worker.device import resolve
from studio.worker.encode import Encoder
from studio.worker.holding import prepare, settle_allocator
from studio.worker.models import load_model, load_tokenizer
from studio.worker.trainers.build import build_trainer
from tests.tiny import tiny_rows, write_rows

CONF = "PYTORCH_CUDA_ALLOC_CONF"


def trainer_of(tiny_model: Path, place: Path, **sections: Any) -> Any:
    training = {"max_steps": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
                **sections.pop("training", {})}  # fmt: skip
    config = RunConfig.model_validate({"hardware": {"device": "cpu"}, "training": training, **sections})
    setup, tokenizer = resolve(config), load_tokenizer(tiny_model)
    dataset = DatasetInput("rows", str(write_rows(place / "rows.jsonl", tiny_rows(8))))
    data = prepare_rows(config.dataset, dataset, Encoder(tokenizer, "assistant"), max_length=256, seed=1)
    model = load_model(tiny_model, config.model, setup)
    return build_trainer(config, setup, model, tokenizer, data, place / "checkpoints")


@pytest.mark.parametrize(("wish", "dtype"), [("auto", torch.float32), (True, torch.float32), (False, torch.bfloat16)])
def test_the_adapters_format_is_the_wished_one(tiny_model: Path, tmp_path: Path, wish: Any, dtype: Any) -> None:
    adapter = {"type": "lora", "autocast_adapter_dtype": wish}
    trainer = trainer_of(tiny_model, tmp_path, adapter=adapter, model={"dtype": "bfloat16"})
    kinds = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert kinds == {dtype}
    trainer.train()


def test_the_full_loss_is_the_same_number(tiny_model: Path, tmp_path: Path) -> None:
    short, full = (trainer_of(tiny_model, tmp_path, training={"loss_implementation": way}) for way in ("auto", "full"))
    assert full.full_loss and not short.full_loss
    batch = next(iter(short.get_train_dataloader()))
    losses = [one.compute_loss(one.model.train(), dict(batch), num_items_in_batch=torch.tensor(30)).item()
              for one in (short, full)]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    full.train()


def test_what_isnt_quantized_is_prepared_where_it_is_wished(tiny_model: Path) -> None:
    config = RunConfig.model_validate({"model": {"quantization": "nf4", "dtype": "bfloat16", "prepare_for_kbit": True},
                                       "hardware": {"device": "cpu"}})  # fmt: skip
    model = load_model(tiny_model, config.model, resolve(config))
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert prepare(model, config).get_input_embeddings().weight.dtype == torch.float32
    plain = RunConfig.model_validate({"model": {"prepare_for_kbit": True}})
    other = object()
    assert prepare(other, plain) is other


@pytest.mark.parametrize(
    ("own", "wish", "left"),
    [("expandable_segments:True", True, True), ("expandable_segments:True", False, False),
     ("max_split_size_mb:64", False, True)],
)  # fmt: skip
def test_growing_segments_are_taken_back_but_never_a_persons_own_words(
    monkeypatch: pytest.MonkeyPatch, own: str, wish: bool, left: bool
) -> None:
    monkeypatch.setenv(CONF, own)
    settle_allocator(RunConfig.model_validate({"hardware": {"expandable_segments": wish}}))
    assert (os.environ.get(CONF) == own) is left
