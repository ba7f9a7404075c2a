"""RunConfig: everything a run is told, put together from the sections of run.yaml.

In: nothing. Out: pydantic models, inert. The form, run.yaml, the command line and the docs are made from these fields;
reading and writing them is `configfile`'s, describing them to a form is `knobs`'s. Names are those of TRL, PEFT and
transformers. Knows nothing of files, processes or libraries that train.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from studio.core.sections.adapter import Adapter, AnyAdapter, LoraAdapter
from studio.core.sections.dataset import DatasetSection, MixPart
from studio.core.sections.export import BNB_TYPES, GGUF_TYPES, Dtype, ExportConfig, MergeConfig
from studio.core.sections.hardware import HardwareSection
from studio.core.sections.method import EXPERIMENTAL, Method, SFTMethod
from studio.core.sections.model import ModelSection
from studio.core.sections.reinforcement import rows_a_question
from studio.core.sections.section import Section, knob
from studio.core.sections.together import refusals
from studio.core.sections.training import TrainingSection

__all__ = [
    "BNB_TYPES",
    "EXPERIMENTAL",
    "GGUF_TYPES",
    "TAGS",
    "Adapter",
    "DatasetSection",
    "Dtype",
    "ExportConfig",
    "HardwareSection",
    "LoraAdapter",
    "MergeConfig",
    "MixPart",
    "ModelSection",
    "RunConfig",
    "SFTMethod",
    "Section",
    "TrainingSection",
    "knob",
]


# Sections that are one of several: where the choice is written, and what stands there unsaid.
TAGS = (("method", "name", "sft"), ("adapter", "type", "lora"))


class RunConfig(Section):
    """Everything a run is told. Defaults are chosen so that the empty config is a working run."""

    method: Method = SFTMethod()
    model: ModelSection = ModelSection()
    dataset: DatasetSection = DatasetSection()
    adapter: AnyAdapter | None = LoraAdapter()
    training: TrainingSection = TrainingSection()
    hardware: HardwareSection = HardwareSection()

    @model_validator(mode="before")
    @classmethod
    def _unnamed_is_the_usual(cls, data: Any) -> Any:
        """A method without its name is sft, an adapter without its type is lora, as before there were others."""
        if isinstance(data, dict):
            for section, tag, usual in TAGS:
                if isinstance(data.get(section), dict):
                    data = {**data, section: {tag: usual, **data[section]}}
        return data

    @property
    def saves_model(self) -> bool:
        """Whether what comes out is a whole model, and not an adapter beside one."""
        return self.adapter is None or not self.adapter.is_peft

    @model_validator(mode="after")
    def _what_cant_work_together(self) -> RunConfig:
        for reason in refusals(self):
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _answers_to_a_question_share_a_step(self) -> RunConfig:
        answers = rows_a_question(self.method)
        step = self.training.per_device_train_batch_size * self.training.gradient_accumulation_steps
        if self.method.name in ("grpo", "rloo", "ppo", "online_dpo") and step < 2:
            raise ValueError(
                "training.per_device_train_batch_size: one answer a step can't be compared with any; take two at least"
            )
        if answers > 1 and step % answers:
            raise ValueError(
                f"method.num_generations: {answers} answers a question don't divide the {step} of one step; make batch "
                "size times accumulation a multiple of them"
            )
        return self
