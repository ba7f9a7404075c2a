"""Distillation: a model learns to give its words the chances that a teacher gives them.

In: what every builder gets, rows as for supervised fine-tuning. Out: a trainer. The loss is the generalised
Jensen-Shannon divergence of GKD (Agarwal et al. 2023, arXiv:2306.13649, eq. 1) between teacher and student, at the
tokens that carry loss. In a share `lmbda` of batches the model writes the answers itself and learns at those; it then
answers from where a row's last answer begins.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import kl_div
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig
from trl.models.utils import unwrap_model_for_generation

from studio.core.config import ModelSection
from studio.core.errors import ModelError
from studio.worker.closing import ends_of
from studio.worker.models import fetch, load_model, load_tokenizer
from studio.worker.trainers.compact import CompactSFTTrainer, plain_head
from studio.worker.trainers.parts import Parts
from studio.worker.trainers.sft import sft_trainer

_ROWS = 512  # positions whose chances are held at once, of both models: 512 x 150,000 float32 are 300 MB


def divergence(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """The sum over (n, V) logits of beta KL(p | m) + (1 - beta) KL(q | m), p the teacher's chances, q the student's,
    m = beta p + (1 - beta) q; at 0 it is KL(p | q), at 1 KL(q | p) (arXiv:2306.13649, eq. 1 and below).
    """
    q, p = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    if beta in (0, 1):
        target, given = (p, q) if beta == 0 else (q, p)
        return kl_div(given, target, reduction="sum", log_target=True)
    mixed = torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
    to_teacher, to_student = (kl_div(mixed, one, reduction="sum", log_target=True) for one in (p, q))
    return beta * to_teacher + (1 - beta) * to_student


class States(NamedTuple):
    """(n, d) where there is loss, and what makes logits of them."""

    at: Tensor
    head: Any


class DistillTrainer(CompactSFTTrainer):
    """See the module. `tuning` is the config's method section; `teacher` only answers."""

    def __init__(self, *args: Any, teacher: Any, tuning: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher, self.tuning = teacher, tuning
        self._plain_heads: dict[Any, bool] = {}
        causal, tokenizer = self.accelerator.unwrap_model(self.model), self.processing_class
        self.answers = GenerationConfig(
            do_sample=True,
            temperature=tuning.temperature,
            top_p=tuning.top_p,
            top_k=tuning.top_k,
            max_new_tokens=tuning.max_completion_length,
            eos_token_id=ends_of(causal, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:
            self.tokens_seen += int(inputs["attention_mask"].sum())
        labels = inputs["labels"][:, 1:]
        learnt = labels != -100
        with self.accelerator.autocast():
            student = self._states(model, inputs, learnt)
            with torch.no_grad():
                teacher = self._states(self.teacher, inputs, learnt)
            total = _in_pieces(student, teacher, self.tuning.beta)
        count = learnt.sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(count).clamp(min=1)
        return (loss, {"loss": loss}) if return_outputs else loss

    def _states(self, model: Any, inputs: dict[str, Any], learnt: Tensor) -> States:
        asked = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False}
        causal = self.accelerator.unwrap_model(model)
        adapters = getattr(causal, "peft_config", {}).values()
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        if model not in self._plain_heads:
            plain = not (self.args.torch_compile or any(one.is_prompt_learning for one in adapters))
            self._plain_heads[model] = plain and plain_head(causal, inputs["input_ids"][:1, :4])
        if self._plain_heads[model]:
            hidden = causal.base_model(**asked).last_hidden_state
            return States(hidden[:, :-1][learnt], causal.get_output_embeddings())
        return States(model(**asked).logits[:, :-1][learnt], torch.nn.Identity())

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """A step's batches, some of them with answers of the model's own; what carries loss is counted anew."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.tuning.lmbda == 0:
            return batches, count
        batches = [self._answered(batch) if torch.rand(()) < self.tuning.lmbda else batch for batch in batches]
        return batches, self._get_num_items_in_batch(batches, device)

    def _answered(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same questions, with answers that the model writes now."""
        device, pad = batch["input_ids"].device, self.answers.pad_token_id
        rows = zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
        asked = [ids[mask.bool()][: _asked(labels[mask.bool()])] for ids, mask, labels in rows]
        prompts = pad_sequence([ids.flip(0) for ids in asked], batch_first=True, padding_value=pad).flip(1)
        mask = pad_sequence([torch.ones_like(ids) for ids in asked], batch_first=True).flip(1)
        options = {"gradient_checkpointing_kwargs": self.args.gradient_checkpointing_kwargs}
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator, **options) as model, torch.no_grad():
            whole = model.generate(input_ids=prompts, attention_mask=mask, generation_config=self.answers)
        said = whole[:, prompts.shape[1] :]
        ends = torch.isin(said, torch.tensor(self.answers.eos_token_id, device=device))
        written = (ends.cumsum(1) - ends.long()) == 0  # up to the first end, and that too
        own = [answer[kept] for answer, kept in zip(said, written, strict=True)]
        ids = [torch.cat(pair) for pair in zip(asked, own, strict=True)]
        labels = [torch.cat([torch.full_like(ask, -100), answer]) for ask, answer in zip(asked, own, strict=True)]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        }


def _asked(labels: Tensor) -> int:
    """How many tokens stand before a row's last answer; one at least, to go on from."""
    carries = labels != -100
    begins = carries & ~carries.roll(1)
    begins[0] = carries[0]
    places = begins.nonzero()
    return max(1, int(places[-1])) if len(places) else len(labels)


def _in_pieces(student: States, teacher: States, beta: float) -> Tensor:
    """Their divergence, some positions at a time, each computed again for its gradient."""

    def piece(q: Tensor, p: Tensor) -> Tensor:
        ours = student.head(q)
        with torch.no_grad():
            theirs = teacher.head(p)
        width = min(ours.shape[-1], theirs.shape[-1])  # families pad their heads to different widths
        return divergence(ours[:, :width], theirs[:, :width], beta)

    if len(student.at) <= _ROWS:
        return piece(student.at, teacher.at)
    parts = zip(student.at.split(_ROWS), teacher.at.split(_ROWS), strict=True)
    return torch.stack([checkpoint(piece, q, p, use_reentrant=False) for q, p in parts]).sum()


def distill(parts: Parts) -> Any:
    """Distillation."""
    method: Any = parts.config.method
    return sft_trainer(parts, DistillTrainer, teacher=_teacher(parts), tuning=method)


def _teacher(parts: Parts) -> Any:
    """The model to learn from, as it answers. Raises ModelError where its tokens are others than the student's."""
    assert parts.inputs is not None
    extra = parts.inputs.extras["teacher"]
    base = fetch(extra.model, parts.progress)
    tokens = load_tokenizer(Path(extra.adapter) if extra.adapter else base).get_vocab()
    if tokens != parts.tokenizer.get_vocab():
        raise ModelError(
            "The teacher reads other tokens than the model that learns.",
            "Choose a teacher of the same family (method.teacher_model_name_or_path).",
        )
    # it is never trained, so it needs no more bits than products are computed in
    setup = replace(parts.setup, weights=parts.setup.autocast or parts.setup.weights)
    model = load_model(base, ModelSection(), setup)
    if extra.adapter:
        model = PeftModel.from_pretrained(model, extra.adapter)
    return model.eval().requires_grad_(False)
