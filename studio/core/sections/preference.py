"""Methods that learn from better and worse answers, with the knobs that only they have; names are TRL's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from studio.core.sections.adapter import Prompting
from studio.core.sections.section import Section, knob

if TYPE_CHECKING:
    from studio.core.config import RunConfig

DPOLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]


# Losses that say of one answer alone whether it became likelier: without a reference they would say nothing.
_AGAINST_REFERENCE = ("nca_pair", "bco_pair", "sppo_hard", "aot_unpaired", "apo_zero", "apo_down")


def _beta(default: float, rule: str) -> float:
    """How far the model may move from its reference."""
    value: float = knob(
        default,
        "Strength (beta)",
        "How closely the model is held to what it was before: higher changes less.",
        group="method",
        basic=True,
        gt=0,
        le=100,
        rule=rule,
    )
    return value


_WITH_PLAIN_LOGITS = ("orpo", "cpo")


class DPOMethod(Section):
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): better answers become likelier than
    worse ones, held to what the model said before."""

    name: Literal["dpo"] = "dpo"
    beta: float = _beta(0.1, "0.1 to 0.5 (arXiv:2305.18290, section 6)")
    loss_type: list[DPOLoss] = knob(
        ["sigmoid"],
        "Loss",
        "How better and worse are compared; sigmoid is the paper's. Several are added up by their weights.",
        group="method",
        min_length=1,
    )
    loss_weights: list[float] | None = knob(
        None,
        "Weights of the losses",
        "One for each loss, where there are several; empty counts all alike.",
        group="method",
    )
    label_smoothing: float = knob(
        0.0,
        "Label smoothing",
        "The share of pairs that you think are labelled the wrong way round.",
        group="method",
        ge=0.0,
        lt=0.5,
    )
    reference_free: bool = knob(
        False,
        "Without a reference",
        "Compares the answers alone and not with what the model said before: one forward pass less, less hold.",
        group="method",
    )
    precompute_ref_log_probs: Literal["auto"] | bool = knob(
        "auto",
        "Reference computed first",
        "Computes the reference's numbers once before training; auto does so where that saves memory or time.",
        group="method",
    )
    discopop_tau: float = knob(
        0.05, "Temperature of discopop", "Only for the loss discopop.", group="method", gt=0, le=10
    )
    use_weighting: bool = knob(
        False,
        "Weigh pairs by likelihood",
        "Counts pairs more that the model itself might have written (WPO).",
        group="method",
    )

    @model_validator(mode="after")
    def _losses_and_weights_agree(self) -> DPOMethod:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"method.loss_weights: there are {len(self.loss_weights)} weights for {len(self.loss_type)} losses"
            )
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            raise ValueError("method.label_smoothing: the loss exo_pair needs one above 0; 0.001 is usual")
        unweighed = [loss for loss in self.loss_type if loss in ("aot", "aot_unpaired", "sft")]
        if self.use_weighting and unweighed:
            raise ValueError(f"method.use_weighting: the loss {unweighed[0]} doesn't go by pairs that could be weighed")
        return self

    @model_validator(mode="after")
    def _a_reference_that_is_needed_is_there(self) -> DPOMethod:
        needing = [loss for loss in self.loss_type if loss in _AGAINST_REFERENCE]
        if self.reference_free and needing:
            raise ValueError(
                f"method.reference_free: the loss {needing[0]} holds each answer against the reference; take sigmoid, "
                "or keep the reference"
            )
        if self.reference_free and self.precompute_ref_log_probs is True:
            raise ValueError("method.precompute_ref_log_probs: without a reference there is nothing to compute first")
        return self


class KTOMethod(Section):
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306): learns from single answers that are
    labelled good or bad."""

    name: Literal["kto"] = "kto"
    beta: float = _beta(0.1, "0.1 (arXiv:2402.01306)")
    loss_type: Literal["kto", "apo_zero_unpaired"] = knob(
        "kto", "Loss", "kto is the paper's; apo_zero_unpaired does without the estimate of the KL.", group="method"
    )
    desirable_weight: float = knob(
        1.0,
        "Weight of good answers",
        "Raise it where there are fewer good answers than bad ones.",
        group="method",
        gt=0,
        le=100,
        rule="good x weight : bad x weight between 1:1 and 4:3 (arXiv:2402.01306, section 4.1)",
    )
    undesirable_weight: float = knob(
        1.0,
        "Weight of bad answers",
        "Raise it where there are fewer bad answers than good ones.",
        group="method",
        gt=0,
        le=100,
    )
    precompute_ref_log_probs: Literal["auto"] | bool = knob(
        "auto",
        "Reference computed first",
        "Computes the reference's numbers once before training; auto does so where that saves memory or time.",
        group="method",
    )


class ORPOMethod(Section):
    """Odds ratio preference optimization (Hong et al. 2024, arXiv:2403.07691): answers and preferences in one go,
    without a reference."""

    name: Literal["orpo"] = "orpo"
    beta: float = _beta(0.1, "0.1 (arXiv:2403.07691, lambda)")


class CPOMethod(Section):
    """Contrastive preference optimization (Xu et al. 2024, arXiv:2401.08417), and SimPO (arXiv:2405.14734) by its
    loss: preferences without a reference."""

    name: Literal["cpo"] = "cpo"
    beta: float = _beta(0.1, "cpo: 0.1; simpo: 2 to 2.5 (arXiv:2405.14734, table 8)")
    loss_type: Literal["sigmoid", "hinge", "ipo", "simpo"] = knob(
        "sigmoid",
        "Loss",
        "sigmoid is CPO's; simpo compares the answers' mean likelihood a token, with a margin.",
        group="method",
    )
    label_smoothing: float = knob(
        0.0,
        "Label smoothing",
        "The share of pairs that you think are labelled the wrong way round.",
        group="method",
        ge=0.0,
        lt=0.5,
    )
    cpo_alpha: float = knob(
        1.0,
        "Weight of the answers' own loss",
        "How much the model also learns to write the better answers; 0 for SimPO alone.",
        group="method",
        ge=0.0,
        le=100,
    )
    simpo_gamma: float = knob(
        0.5,
        "Margin of SimPO",
        "By how much a better answer has to lead; only for the loss simpo.",
        group="method",
        ge=0.0,
        le=100,
        rule="0.3 to 1.6 (arXiv:2405.14734, table 8)",
    )


class RewardMethod(Section):
    """A reward model: it learns to give answers a number, higher for better ones (Bradley and Terry)."""

    name: Literal["reward"] = "reward"
    center_rewards_coefficient: float | None = knob(
        None,
        "Pull towards zero",
        "Keeps the rewards' mean near zero; 0.01 is usual, empty doesn't.",
        group="method",
        gt=0,
        le=10,
        rule="0.01 (arXiv:2312.09244)",
    )


def method_refusals(config: RunConfig) -> Iterator[str]:
    """What a method can't be combined with, in sentences that open with the knob to change."""
    method, knobs, name = config.method, config.training, config.method.name
    texts = name in ("sft", "pretrain", "distill")
    for knob_name in ("packing", "padding_free"):
        if getattr(knobs, knob_name) and name not in ("sft", "pretrain"):
            yield f"training.{knob_name}: {name} keeps each row on its own; switch it off"
    if config.dataset.train_on == "all" and not texts:
        yield f"dataset.train_on: {name} learns from the answers alone; set it to assistant"
    if isinstance(method, KTOMethod) and method.loss_type == "kto":
        if knobs.per_device_train_batch_size == 1:
            yield (
                "training.per_device_train_batch_size: the loss kto estimates the KL from other answers of a batch; "
                "take 2 or more, or the loss apo_zero_unpaired"
            )
        if knobs.train_sampling_strategy == "group_by_length":
            yield "training.train_sampling_strategy: the loss kto settles beforehand which rows meet; set it to auto"
    if name in _WITH_PLAIN_LOGITS and isinstance(config.adapter, Prompting):
        yield f"adapter.type: {name} can't read answers behind {config.adapter.type}; take lora, or the method dpo"
    targets = getattr(config.adapter, "target_modules", "")
    if name in ("dpo", "kto") and isinstance(targets, list) and "lm_head" in targets:
        yield f"adapter.target_modules: {name} reads the head's own weights, so an adapter on lm_head would never learn"
