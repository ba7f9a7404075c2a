"""DPO and KTO: TRL's trainers on rows that come encoded, with a reference to hold to, or without one.

In: what every builder gets. Out: trainers. With an adapter the reference is the base with the adapter off; without one
it is a second copy of the model, unless its numbers are computed once before training.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from studio.core.config import RunConfig
from studio.worker.adapters.laying import fresh_config
from studio.worker.data.source import Progress, quiet
from studio.worker.trainers.arguments import training_arguments
from studio.worker.trainers.parts import Parts

# Words of progress that count batches.
REFERENCE = "Computing the reference"


class Referring:
    """What DPO and KTO share: rows that need no tokenizing, and word of how far the reference is computed."""

    _total_train_tokens: int

    def __init__(self, *args: Any, progress: Progress = quiet, **kwargs: Any) -> None:
        self._progress, self._done, self._batches = progress, 0, 0
        with warnings.catch_warnings():
            # TRL speaks of what the person can't change here (a model loaded in float32, a padding token set).
            warnings.simplefilter("ignore")
            super().__init__(*args, **kwargs)

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on so far: of both answers, each with its prompt."""
        return self._total_train_tokens

    def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        self._done, self._batches = 0, math.ceil(len(dataset) / batch_size)
        return super()._precompute_ref_logps(dataset, name, batch_size)  # type: ignore[misc]

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        self._progress(REFERENCE, self._done, self._batches)
        self._done += 1
        return super().compute_ref_log_probs(model, inputs)  # type: ignore[misc]


class EncodedDPOTrainer(Referring, DPOTrainer):  # type: ignore[misc]
    """`reference_free`: the reference finds all answers equally likely, and so falls out of every loss."""

    def __init__(self, *args: Any, reference_free: bool = False, **kwargs: Any) -> None:
        self.data_collator: Any
        self._reference_free = reference_free
        super().__init__(*args, **kwargs)
        if reference_free:
            collate = self.data_collator
            self.data_collator = lambda rows: _without_reference(collate(rows))

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        return dataset if self._reference_free else super()._precompute_ref_logps(dataset, name, batch_size)


def _without_reference(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    none = torch.zeros(len(batch["input_ids"]) // 2)
    return {**batch, "ref_chosen_logps": none, "ref_rejected_logps": none}


class EncodedKTOTrainer(Referring, KTOTrainer):  # type: ignore[misc]
    """Gives each prompt the answer of the row before it in its batch, by which the KL is estimated, as TRL does."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, name: str) -> Any:
        if not self.calculate_KL:
            return dataset
        return dataset.map(_others_answers, batched=True, batch_size=args.per_device_train_batch_size)


def _others_answers(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    answers = rows["completion_ids"]
    return {"KL_completion_ids": answers[-1:] + answers[:-1]}


def dpo(parts: Parts) -> Any:
    """DPO, by one loss or several added up."""
    config, data = parts.config, parts.data
    method: Any = config.method
    free = method.reference_free
    arguments = DPOConfig(
        **training_arguments(config, parts.setup, data, parts.output),
        **preference_arguments(config),
        beta=method.beta,
        loss_type=list(method.loss_type),
        loss_weights=method.loss_weights,
        label_smoothing=method.label_smoothing,
        # Without a reference there is nothing to load or to compute; zeros stand where its numbers would.
        precompute_ref_log_probs=free or precomputes(config, len(data.train)),
        discopop_tau=method.discopop_tau,
        use_weighting=method.use_weighting,
        padding_free=False,
    )
    return EncodedDPOTrainer(
        model=parts.model,
        ref_model=_reference(parts, arguments),
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.validation,
        processing_class=parts.tokenizer,
        peft_config=fresh_config(config, parts.model),
        progress=parts.progress,
        reference_free=free,
    )


def kto(parts: Parts) -> Any:
    """KTO, on answers in an order of their own."""
    config, data = parts.config, parts.data
    method: Any = config.method
    train, shared = data.train, training_arguments(config, parts.setup, data, parts.output)
    if method.loss_type == "kto":
        # Whose answers meet in a batch is settled before training, so the rows are shuffled once, here.
        if config.training.train_sampling_strategy != "sequential":
            train = train.shuffle(seed=config.training.seed)
        shared["train_sampling_strategy"] = "sequential"
    arguments = KTOConfig(
        **shared,
        **preference_arguments(config),
        beta=method.beta,
        loss_type=method.loss_type,
        desirable_weight=method.desirable_weight,
        undesirable_weight=method.undesirable_weight,
        precompute_ref_log_probs=precomputes(config, len(data.train)),
    )
    return EncodedKTOTrainer(
        model=parts.model,
        ref_model=_reference(parts, arguments),
        args=arguments,
        train_dataset=train,
        eval_dataset=data.validation,
        processing_class=parts.tokenizer,
        peft_config=fresh_config(config, parts.model),
        progress=parts.progress,
    )


def preference_arguments(config: RunConfig) -> dict[str, Any]:
    """What the arguments of all methods share that learn from better and worse answers."""
    return {
        "max_length": config.training.max_length,
        # The losses compare likelihoods, which dropout would blur: off, unless the adapter's own is asked for.
        "disable_dropout": not _drops(config),
        "remove_unused_columns": False,  # the collators take what they need; the sampler needs the lengths
    }


def _drops(config: RunConfig) -> bool:
    section = config.adapter
    return section is not None and any(
        getattr(section, name) for name in type(section).model_fields if "dropout" in name
    )


def precomputes(config: RunConfig, rows: int) -> bool:
    """Whether the reference's numbers are computed before training rather than in every step.

    `auto`: where rows come up more than once that takes fewer passes, and without an adapter, from a whole pass on, no
    second model has to be held.
    """
    wish: bool | str = config.method.precompute_ref_log_probs  # type: ignore[union-attr]
    if wish != "auto":
        return bool(wish)
    knobs = config.training
    passes = float(knobs.num_train_epochs)
    if knobs.max_steps:
        passes = knobs.max_steps * knobs.per_device_train_batch_size * knobs.gradient_accumulation_steps / max(rows, 1)
    return passes > 1 or (config.saves_model and passes >= 1)


def _reference(parts: Parts, arguments: Any) -> Any:
    """The model as it is now, as a second one, where no adapter can be switched off and nothing is precomputed."""
    if not parts.config.saves_model or arguments.precompute_ref_log_probs:
        return None
    return copy.deepcopy(parts.model).requires_grad_(False).eval()
