"""Switches for memory and speed do what they say: counted, not timed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.kernels import chunked_logprob

from studio.core.errors import DataError
from studio.worker.trainers.preference import REFERENCE, precomputes
from tests.worker.trainers.building import STEPS, build, config, labelled_rows, pair_rows, text_rows

PASSES = 2 * STEPS  # micro-batches of a whole run


@contextmanager
def passes_of(model: Any) -> Iterator[list[int]]:
    """Counts how often a model's trunk is gone through."""
    counted: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: counted.append(1))
    try:
        yield counted
    finally:
        hook.remove()


def trunk(model: Any) -> Any:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize(("method", "more"), [("dpo", 1), ("kto", 3)])
def test_a_reference_computed_first_is_not_computed_again(
    tiny_model: Path, tmp_path: Path, method: str, more: int, lora: bool
) -> None:
    """Of a step's passes the reference's are saved; KTO's has two of them and one more of its own, for the KL."""
    counts = {}
    for first in (True, False):
        rows = pair_rows(16) if method == "dpo" else labelled_rows(16)
        wishes = config(method, lora, method={"precompute_ref_log_probs": first})
        trainer, _ = build(tiny_model, rows, wishes, tmp_path / str(first))
        assert (trainer.ref_model is None) is (lora or first), "a second model only where nothing else will do"
        with passes_of(trunk(trainer.model)) as own:
            if trainer.ref_model is None:
                trainer.train()
                counts[first] = len(own)
            else:
                with passes_of(trunk(trainer.ref_model)) as reference:
                    trainer.train()
                counts[first] = len(own) + len(reference)
    of_the_model = 1 if method == "dpo" else 2
    assert counts == {True: PASSES * of_the_model, False: PASSES * (of_the_model + more - (method == "kto"))}


@pytest.mark.parametrize(
    ("said", "lora", "rows", "wanted"),
    [
        ({"num_train_epochs": 1, "max_steps": None}, True, 100, False),
        ({"num_train_epochs": 2, "max_steps": None}, True, 100, True),
        ({"num_train_epochs": 3, "max_steps": 10}, True, 100, False),
        ({"num_train_epochs": 1, "max_steps": None}, False, 100, True),
        ({"num_train_epochs": 1, "max_steps": 10}, False, 100, False),
    ],
)
def test_left_to_itself_the_reference_comes_first_where_that_saves(
    said: dict[str, Any], lora: bool, rows: int, wanted: bool
) -> None:
    assert precomputes(config("dpo", lora, training=said), rows) is wanted
    for wish in (True, False):
        assert precomputes(config("kto", lora, method={"precompute_ref_log_probs": wish}, training=said), rows) is wish


def test_computing_the_reference_is_told_and_can_be_stopped(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int | None, int | None]] = []

    def progress(text: str, done: int | None, total: int | None) -> None:
        told.append((text, done, total))
        if len(told) == 3:
            raise DataError("stopped here", "go on")

    wishes = config("dpo", method={"precompute_ref_log_probs": True})
    with pytest.raises(DataError, match="stopped here"):
        build(tiny_model, pair_rows(16), wishes, tmp_path, progress=progress)
    assert told == [(REFERENCE, done, 8) for done in range(3)]


# -- packing ----------------------------------------------------------------------------------------------------------


def documents(trainer: Any) -> list[int]:
    return [token for ids in trainer.train_dataset["input_ids"] for token in ids]


def test_documents_are_wrapped_into_full_rows_and_none_of_their_tokens_is_lost(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = text_rows(24, longest=120)
    packing = {"packing": True, "packing_strategy": "wrapped", "max_length": 64, "max_steps": None}
    wishes = config("pretrain", training={**packing, "num_train_epochs": 1})
    trainer, _ = build(tiny_model, rows, wishes, tmp_path / "packed")
    apart, _ = build(tiny_model, rows, config("pretrain", training={"max_length": 1024}), tmp_path / "apart")
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    assert set(lengths[:-1]) == {64} and 0 < lengths[-1] <= 64
    assert documents(trainer) == documents(apart), "in order, and all of them"
    assert max(len(ids) for ids in apart.train_dataset["input_ids"]) > 64, "some documents were longer than a row"
    # The steps, and what goes by them, are those of the packed rows.
    assert trainer.args.save_steps == math.ceil(math.ceil(len(lengths) / 4) / 4)
    for batch in trainer.get_train_dataloader():
        assert torch.equal(batch["labels"] != -100, batch["attention_mask"].bool())


def test_whole_rows_are_packed_each_with_positions_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    rows = text_rows(24, longest=20)
    wishes = config("sft", training={"packing": True, "max_length": 128})
    trainer, _ = build(tiny_model, rows, wishes, tmp_path)
    assert len(trainer.train_dataset) < len(rows) / 2
    starts = 0
    for batch in trainer.get_train_dataloader():
        assert "attention_mask" not in batch
        positions = batch["position_ids"][0]
        starts += int((positions == 0).sum())
        assert bool(((positions[1:] == positions[:-1] + 1) | (positions[1:] == 0)).all())
    assert starts == len(rows)


@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_what_one_packed_row_says_doesnt_move_another(tiny_model: Path, tmp_path: Path, strategy: str) -> None:
    """Packed whole, a row's logits are the same whatever stands before it; wrapped text is read on from row to row."""
    wishes = config("sft", training={"packing": True, "packing_strategy": strategy, "max_length": 128})
    trainer, _ = build(tiny_model, text_rows(12, longest=20), wishes, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    batch = {name: value for name, value in batch.items() if name in ("input_ids", "position_ids")}
    ids = batch["input_ids"]
    end = int((ids[0] == trainer.processing_class.eos_token_id).nonzero()[0])
    other = {**batch, "input_ids": ids.clone()}
    other["input_ids"][0, :end] = 41
    model = trainer.model.eval()
    with torch.no_grad():
        before, after = (model(**each).logits[0] for each in (batch, other))
    assert not torch.equal(before[:end], after[:end])
    assert torch.equal(before[end + 1 :], after[end + 1 :]) is (strategy == "bfd")


# -- logits -----------------------------------------------------------------------------------------------------------


class Widest(TorchDispatchMode):
    """The most rows as wide as the vocabulary that any operation made."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[-1] == self.width:
                self.rows = max(self.rows, value.numel() // self.width)
        return made


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_the_logits_of_a_whole_batch_are_never_made(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """SFT on a processor: those of positions with loss; else TRL's head, in tiles of so many positions."""
    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", 128)
    rows = {
        "sft": [{"prompt": row["text"], "completion": " yes" * 8} for row in text_rows(8, longest=60)],
        "dpo": pair_rows(8, longest=40),
        "kto": [{**row, "prompt": row["prompt"] * 8} for row in labelled_rows(8)],
    }[method]
    trainer, _ = build(tiny_model, rows, config(method, training={"per_device_train_batch_size": 8}), tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, batch)  # looks at the model's head once, on four tokens
    with Widest(400) as widest:
        trainer.compute_loss(trainer.model, batch).backward()
    allowed = int((batch["labels"] != -100).sum()) if method == "sft" else 128
    assert 64 < widest.rows <= allowed < batch["input_ids"].numel() / 2  # 64: the head's own matrix
