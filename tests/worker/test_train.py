"""Training as plain TRL does it: the same loss, the same gradients, the same weights, step by step.

The other side is written here with transformers, PEFT and TRL alone: its own model, its own tokenization and masking
(a chat template with {% generation %} marks), its own arguments. In between stand the rows and a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.inputs import DatasetInput
from studio.core.schedule import optimizer_steps
from studio.worker.data.prepare import prepare
from studio.worker.device import resolve
from studio.worker.encode import Encoder
from studio.worker.models import load_model, load_tokenizer
from studio.worker.show import show
from studio.worker.trainers.build import build_trainer
from studio.worker.trainers.compact import CompactSFTTrainer
from tests.tiny import CHATML, make_tiny_llama, make_tiny_model, sentence, tiny_rows, tiny_tokenizer

MakeDataset = Callable[..., DatasetInput]

MARKED = CHATML.replace(
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}",
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}",
)
STEPS = 4
# 22 rows with one to six short or long answers: every batch, and every step, counts other labels.
ROWS = [row for turns in (1, 2, 3) for row in tiny_rows(8, seed=turns, turns=turns, longest=4 * turns**2)][:22]


@dataclass
class Recorder(TrainerCallback):  # type: ignore[misc]
    """What went into each optimizer step, and what the log said of it."""

    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def config(**sections: Any) -> RunConfig:
    training = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        # Adam divides by the gradient's size and so makes large differences of rounding errors; this doesn't.
        "optim": "sgd",
        "learning_rate": 0.1,
        "logging_steps": 1,
        "max_length": 512,
        "train_sampling_strategy": "sequential",
        **sections.pop("training", {}),
    }
    data = {"validation_split": 0.0, **sections.pop("dataset", {})}
    model = {"dtype": "float32", **sections.pop("model", {})}
    return parse_config(
        {"training": training, "dataset": data, "model": model, "hardware": {"device": "cpu"}, **sections}
    )


def ours(folder: Path, source: DatasetInput, wishes: RunConfig, output: Path) -> tuple[Any, Recorder]:
    """A trainer as a run builds it."""
    setup = resolve(wishes)
    tokenizer = load_tokenizer(folder)
    data = prepare(
        wishes.dataset,
        source,
        Encoder(tokenizer, wishes.dataset.train_on),
        max_length=wishes.training.max_length,
        seed=wishes.training.seed,
    )
    model = load_model(folder, wishes.model, setup)
    set_seed(7)
    trainer = build_trainer(wishes, setup, model, tokenizer, data, output)
    recorder = Recorder()
    trainer.add_callback(recorder)
    return trainer, recorder


def plain(folder: Path, rows: list[dict[str, Any]], wishes: RunConfig, output: Path) -> tuple[Any, Recorder]:
    """The same wish, spelt out for plain TRL, which tokenizes and masks the rows itself."""
    knobs = wishes.training
    quantized = {
        "none": None,
        "nf4": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
        "int8": BitsAndBytesConfig(load_in_8bit=True),
    }[wishes.model.quantization]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=quantized)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if "messages" in rows[0]:
        tokenizer.chat_template = MARKED
    arguments = SFTConfig(
        output_dir=str(output),
        max_steps=STEPS,
        learning_rate=knobs.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim=knobs.optim,
        per_device_train_batch_size=knobs.per_device_train_batch_size,
        gradient_accumulation_steps=knobs.gradient_accumulation_steps,
        max_length=knobs.max_length,
        packing=knobs.packing,
        assistant_only_loss="messages" in rows[0],
        train_sampling_strategy="sequential",
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    adapter = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    set_seed(7)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter if wishes.adapter else None,
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL rounds adapters of a quantized base to bfloat16, whatever is computed in
            parameter.data = parameter.data.float()
    recorder = Recorder()
    trainer.add_callback(recorder)
    return trainer, recorder


def named(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_trains_as_plain_trl(
    folder: Path, source: DatasetInput, rows: list[dict[str, Any]], wishes: RunConfig, tmp_path: Path, **near: float
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Both are trained for STEPS steps and compared at each. Returns our trainer and its parameters before."""
    expected, wanted = plain(folder, rows, wishes, tmp_path / "plain")
    trainer, seen = ours(folder, source, wishes, tmp_path / "ours")
    assert type(trainer) is CompactSFTTrainer
    before = named(trainer)
    torch.testing.assert_close(before, named(expected), rtol=0, atol=0)
    expected.train()
    trainer.train()
    near = near or {"rtol": 1e-5, "atol": 1e-6}
    assert len(seen.losses) == len(wanted.losses) == STEPS
    assert seen.losses == pytest.approx(wanted.losses, rel=near["rtol"] / 10)
    assert len(seen.gradients) == len(wanted.gradients) == STEPS
    for found, right in zip(seen.gradients, wanted.gradients, strict=True):
        assert any(gradient.abs().max() > 1e-3 for gradient in right.values())
        torch.testing.assert_close(found, right, **near)
    torch.testing.assert_close(named(trainer), named(expected), **{name: 10 * value for name, value in near.items()})
    return trainer, before


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"adapter": None},
        {"adapter": None, "training": {"optim": "adamw_torch", "learning_rate": 1e-2}},
        {"training": {"packing": True, "max_length": 256}},
        {"adapter": None, "training": {"packing": True, "max_length": 256}},
        {"training": {"gradient_checkpointing": True}},
    ],
    ids=["lora", "full", "full-adamw", "packing", "packing-full", "checkpointing"],
)
def test_a_run_takes_the_steps_that_plain_trl_takes(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path, sections: dict[str, Any]
) -> None:
    assert_trains_as_plain_trl(tiny_model, dataset(ROWS), ROWS, config(**sections), tmp_path)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_base_takes_the_steps_that_plain_trl_takes(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path, quantization: str
) -> None:
    wishes = config(model={"quantization": quantization})
    assert_trains_as_plain_trl(tiny_model, dataset(ROWS), ROWS, wishes, tmp_path, rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize(
    ("model_type", "shape"),
    [
        ("gpt2", {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
        ("opt", {"ffn_dim": 128, "word_embed_proj_dim": 32, "dropout": 0.0}),
        ("gemma2", {"final_logit_softcapping": 2.0, "head_dim": 16, "num_key_value_heads": 2}),
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"num_key_value_heads": 2}),
        ("modernbert-decoder", {"bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2}),
    ],
)
def test_whatever_a_model_does_to_its_logits_is_in_the_loss(
    dataset: MakeDataset, tmp_path: Path, model_type: str, shape: dict[str, Any]
) -> None:
    folder = make_tiny_model(tmp_path / "model", model_type, initializer_range=0.2, **shape)
    assert_trains_as_plain_trl(folder, dataset(ROWS), ROWS, config(adapter=None), tmp_path)


def test_a_batch_of_thousands_of_labels_gives_the_same_loss(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path
) -> None:
    chance = random.Random(0)
    rows = [{"text": sentence(chance, 150, 200)} for _ in range(8 * STEPS)]
    wishes = config(training={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_length": 400})
    trainer, _ = assert_trains_as_plain_trl(tiny_model, dataset(rows), rows, wishes, tmp_path)
    assert all(int((batch["labels"] != -100).sum()) > 2048 for batch in trainer.get_train_dataloader())


def test_packed_rows_dont_see_each_other(tiny_model: Path, dataset: MakeDataset, tmp_path: Path) -> None:
    source = dataset(ROWS)
    trainer, _ = ours(tiny_model, source, config(training={"packing": True, "max_length": 256}), tmp_path)
    packed = list(trainer.get_train_dataloader())
    assert len(packed) < len(ROWS) / 4
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    total, labels = 0.0, 0
    for number in range(len(ROWS)):
        row = show(source, config().dataset, load_tokenizer(tiny_model), number, 256)
        ids = torch.tensor(row["ids"][: row["cut"]])
        wanted = torch.tensor([*row["loss"][1 : row["cut"]], False])
        logits = model(input_ids=ids[None]).logits[0].detach()
        total += float(torch.nn.functional.cross_entropy(logits[wanted], ids.roll(-1)[wanted], reduction="sum"))
        labels += int(wanted.sum())
    with torch.no_grad():
        found = [float(trainer.compute_loss(trainer.model, batch, num_items_in_batch=1)) for batch in packed]
    assert sum(found) == pytest.approx(total, rel=1e-5)
    assert sum(int((batch["labels"] != -100).sum()) for batch in packed) == labels


def test_an_evaluation_changes_no_step_of_a_quantized_run(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path
) -> None:
    """On some processors bitsandbytes repacks 4-bit weights to evaluate, and then passes no gradient through them."""
    seen = []
    for eval_steps in (1, 1000):
        wishes = config(
            model={"quantization": "nf4"}, dataset={"validation_split": 0.2}, training={"eval_steps": eval_steps}
        )
        trainer, recorder = ours(tiny_model, dataset(ROWS), wishes, tmp_path / str(eval_steps))
        trainer.train()
        evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        assert len(evaluated) == (STEPS if eval_steps == 1 else 1)  # the last step is always evaluated
        seen.append((recorder.losses, recorder.gradients))
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


# -- what is trained, and on what -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_an_adapter_run_changes_the_adapter_alone(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path, quantization: str
) -> None:
    wishes = config(
        model={"quantization": quantization},
        dataset={"validation_split": 0.2},
        training={"eval_steps": 2},
        adapter={"r": 4, "target_modules": ["q_proj", "down_proj"]},
    )
    trainer, _ = ours(tiny_model, dataset(ROWS), wishes, tmp_path)
    before = named(trainer)
    trainer.train()
    after = named(trainer)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    adapter = {name for name in after if ".lora_" in name}
    assert changed == adapter
    assert len(adapter) == 2 * 2 * 2  # layers, modules, A and B
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in adapter} == {"q_proj", "down_proj"}
    assert {parameter.shape[0] for name, parameter in after.items() if ".lora_A." in name} == {4}


def test_a_full_run_changes_every_weight(tiny_model: Path, dataset: MakeDataset, tmp_path: Path) -> None:
    trainer, _ = ours(tiny_model, dataset(ROWS), config(adapter=None), tmp_path)
    before = named(trainer)
    trainer.train()
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert not [name for name, value in named(trainer).items() if torch.equal(value, before[name])]


def rows_of(batch: dict[str, torch.Tensor]) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each example in a batch, padded or packed."""
    if "attention_mask" in batch:
        kept = [mask.bool() for mask in batch["attention_mask"]]
        pairs = zip(batch["input_ids"], batch["labels"], kept, strict=True)
        return [(ids[mask].tolist(), labels[mask].tolist()) for ids, labels, mask in pairs]
    ids, labels, positions = (batch[name][0] for name in ("input_ids", "labels", "position_ids"))
    starts = [*torch.nonzero(positions == 0)[:, 0].tolist(), len(ids)]
    return [(ids[a:b].tolist(), labels[a:b].tolist()) for a, b in pairwise(starts)]


@pytest.mark.parametrize("train_on", ["assistant", "last_assistant", "all"])
@pytest.mark.parametrize("packing", [False, True])
def test_the_tokens_trained_on_are_those_that_are_shown(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path, train_on: str, packing: bool
) -> None:
    source = dataset(ROWS)
    wishes = config(dataset={"train_on": train_on}, training={"packing": packing, "max_length": 60})
    trainer, _ = ours(tiny_model, source, wishes, tmp_path)
    tokenizer = load_tokenizer(tiny_model)
    shown = []
    for number in range(len(ROWS)):
        row = show(source, wishes.dataset, tokenizer, number, 60)
        ids, loss = row["ids"][: row["cut"]], row["loss"][: row["cut"]]
        labels = [token if carries else -100 for token, carries in zip(ids, loss, strict=True)]
        if any(loss[1:]):
            # The first token of a row is never predicted; packed, it would be by the row before.
            shown.append((ids, [-100, *labels[1:]]))
    trained = [(ids, [-100, *labels[1:]]) for batch in trainer.get_train_dataloader() for ids, labels in rows_of(batch)]
    assert sorted(trained) == sorted(shown)


@pytest.mark.parametrize("pad", ["<|im_end|>", None])
def test_F42_where_padding_is_the_end_token_the_end_stays_in_the_labels(
    dataset: MakeDataset, tmp_path: Path, pad: str | None
) -> None:
    folder = make_tiny_llama(tmp_path / "model", tokenizer=tiny_tokenizer(pad=pad))
    trainer, _ = ours(folder, dataset(ROWS), config(), tmp_path / "out")
    end = load_tokenizer(folder).eos_token_id
    answers = sum(message["role"] == "assistant" for row in ROWS for message in row["messages"])
    batches = list(trainer.get_train_dataloader())
    assert any((batch["attention_mask"] == 0).any() for batch in batches)
    assert sum(int((batch["labels"] == end).sum()) for batch in batches) == answers


def test_F40_a_batch_without_labels_gives_a_loss_of_nothing(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path
) -> None:
    """Such rows are left out and counted before training (test_data); should a batch of them arrive, it's no NaN."""
    trainer, _ = ours(tiny_model, dataset(ROWS), config(), tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(torch.isfinite(p.grad).all() for p in trainer.model.parameters() if p.grad is not None)


def test_tokens_are_counted_without_padding_and_without_evaluations(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path
) -> None:
    wishes = config(
        dataset={"validation_split": 0.2}, training={"eval_steps": 1, "max_steps": None, "num_train_epochs": 2}
    )
    trainer, _ = ours(tiny_model, dataset(ROWS), wishes, tmp_path)
    trainer.train()
    assert trainer.tokens_seen == 2 * sum(map(len, trainer.train_dataset["input_ids"]))


def test_the_held_out_loss_is_the_models_own(tiny_model: Path, dataset: MakeDataset, tmp_path: Path) -> None:
    wishes = config(dataset={"validation_split": 0.3}, training={"per_device_train_batch_size": 1})
    trainer, _ = ours(tiny_model, dataset(ROWS), wishes, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    losses = [
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss.item()
        for row in trainer.eval_dataset
    ]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


# -- what a trainer is told -------------------------------------------------------------------------------------------


def test_knobs_reach_the_trainer(tiny_model: Path, dataset: MakeDataset, tmp_path: Path) -> None:
    told = {
        "num_train_epochs": 2.5,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.25,
        "max_grad_norm": 0.5,
        "optim": "adafactor",
        "seed": 11,
        "logging_steps": 7,
        "eval_steps": 13,
        "save_steps": 17,
        "train_sampling_strategy": "random",
        "max_length": 99,
    }
    wishes = config(training={**told, "max_steps": None, "warmup_ratio": 0.5}, dataset={"validation_split": 0.1})
    trainer, _ = ours(tiny_model, dataset(ROWS), wishes, tmp_path)
    assert {name: getattr(trainer.args, name) for name in told} == told
    # 20 rows of 22 in batches of 3, two of which make a step: 4 steps an epoch.
    assert trainer.args.warmup_steps == 5
    trainer.train()
    assert trainer.state.max_steps == 10


@pytest.mark.parametrize(
    ("rows", "epochs", "most"), [(1, 1, None), (7, 3, None), (22, 2.5, None), (22, 3, 5), (7, 1, 9)]
)
def test_steps_are_foretold(
    tiny_model: Path, dataset: MakeDataset, tmp_path: Path, rows: int, epochs: float, most: int | None
) -> None:
    wishes = config(training={"max_steps": most, "num_train_epochs": epochs})
    trainer, _ = ours(tiny_model, dataset(ROWS[:rows]), wishes, tmp_path)
    trainer.train()
    assert optimizer_steps(wishes, rows) == trainer.state.global_step


def test_a_run_that_no_longer_improves_stops_early(tiny_model: Path, dataset: MakeDataset, tmp_path: Path) -> None:
    wishes = config(
        dataset={"validation_split": 0.2},
        training={"learning_rate": 1e-30, "eval_steps": 1, "max_steps": 30, "early_stopping_patience": 3},
    )
    trainer, _ = ours(tiny_model, dataset(ROWS), wishes, tmp_path)
    trainer.train()
    assert trainer.state.global_step == 4  # the first measurement is the best, the next three are no better
