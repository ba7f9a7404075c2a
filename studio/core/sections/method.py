"""How a model learns: every method of training, each with the knobs that only it has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from studio.core.sections.preference import CPOMethod, DPOMethod, KTOMethod, ORPOMethod, RewardMethod
from studio.core.sections.reinforcement import (
    DistillMethod,
    GRPOMethod,
    OnlineDPOMethod,
    PPOMethod,
    RLOOMethod,
)
from studio.core.sections.section import Section, knob


class SFTMethod(Section):
    """Supervised fine-tuning: the model learns to give the answers in the dataset."""

    name: Literal["sft"] = "sft"
    loss_type: Literal["nll", "dft"] = knob(
        "nll",
        "Loss",
        "nll is the usual cross entropy; dft weighs each token by how likely the model already finds it.",
        group="method",
        rule="dft: arXiv:2508.05629",
    )


class PretrainMethod(Section):
    """Continued pre-training: the model reads raw text, every token of it, in rows filled to the brim."""

    name: Literal["pretrain"] = "pretrain"


Method = Annotated[
    SFTMethod
    | PretrainMethod
    | DPOMethod
    | KTOMethod
    | ORPOMethod
    | CPOMethod
    | RewardMethod
    | GRPOMethod
    | RLOOMethod
    | OnlineDPOMethod
    | PPOMethod
    | DistillMethod,
    Field(discriminator="name"),
]

# What TRL keeps in trl.experimental: it may change or go with any release.
EXPERIMENTAL = ("orpo", "cpo")
