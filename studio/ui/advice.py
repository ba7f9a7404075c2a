"""What is unwise about a run, in plain words, each with the change that would mend it.

In: a valid RunConfig and a few facts about what it names. Out: `Advice`, and HTML with a button for each. Rules of
thumb are the field's, with their sources in the words; what can't work at all is refused by core. Reads no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from studio.core.config import LoraAdapter, RunConfig
from studio.core.errors import DataError
from studio.core.fitting import FITTING, SHAPES, check_fit
from studio.ui.form import METHOD, QUANTIZATION
from studio.ui.plan import Facts, effective_batch
from studio.ui.spelling import number
from studio.ui.text_methods import say

_FULL_RATE = 1e-3  # above it, training every weight is known to wreck a model rather than teach it
# Above these, methods that compare answers drift: a tenth of what suits supervised fine-tuning, with some room.
_PREFERENCE_RATE = {"adapter": 2e-5, "full": 2e-6}
_PREFERENCE_USUAL = {"adapter": "1e-5", "full": "1e-6"}
_COMPARING = ("dpo", "kto", "orpo", "cpo", "online_dpo")
_SMALL_MODEL = 500e6  # parameters up to which high rates were measured to do well (docs/LOG.md: the quickstarts)
_MOST_RANK = 256
_FEW_ROWS = 100
_COLD = 0.7
# The first method that comes to mind for rows of a type.
_FIRST = {
    "language_modeling": "sft",
    "prompt_completion": "sft",
    "preference": "dpo",
    "unpaired_preference": "kto",
    "prompt_only": "grpo",
}
_RATE, _ALPHA = "training.learning_rate", "adapter.lora.lora_alpha"


@dataclass(frozen=True)
class Advice:
    """A warning in plain words; `changes`, by the form's names as written there, would mend it, and `mend` says so."""

    key: str
    text: str
    mend: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def advice(config: RunConfig, facts: Facts) -> list[Advice]:
    """What is likely to hurt, as far as it can be told without reading the data; gravest first."""
    return [*_of_rows(config, facts), *_of_rates(config, facts), *_of_method(config), *_of_the_rest(config, facts)]


def misfits(type: str) -> dict[str, str]:
    """Methods that can't learn from rows of this type, each with why; none where the type isn't known ("")."""
    found = {}
    for method in FITTING if type else ():
        try:
            check_fit(type, method)
        except DataError as error:
            found[method] = error.message
    return found


def _of_rows(config: RunConfig, facts: Facts) -> Iterator[Advice]:
    name = config.method.name
    if facts.type:
        try:
            check_fit(facts.type, name)
        except DataError as error:
            fitting = _FIRST[facts.type]
            told = {"message": error.message, "hint": error.hint, "method": say(f"method.{fitting}")}
            yield _advice("misfit", {METHOD: fitting}, **told)
    if facts.longest is not None and config.training.max_length > facts.longest:
        most = number(facts.longest)
        yield _advice("too_long", {"training.max_length": most}, most=most)
    few = facts.rows is not None and facts.rows < _FEW_ROWS
    if few and config.training.num_train_epochs <= 1 and not config.training.max_steps:
        yield _advice("few_rows", {"training.num_train_epochs": "3"}, rows=str(facts.rows))


def _of_rates(config: RunConfig, facts: Facts) -> Iterator[Advice]:
    rate, kind = config.training.learning_rate, "full" if config.saves_model else "adapter"
    small = facts.parameters is not None and facts.parameters <= _SMALL_MODEL
    if config.method.name in _COMPARING and rate > _PREFERENCE_RATE[kind] and not small:
        usual = _PREFERENCE_USUAL[kind]
        told = {"rate": number(rate), "usual": usual, "method": say(f"method.{config.method.name}")}
        yield _advice("preference_rate", {_RATE: usual}, **told)
    elif config.saves_model and rate > _FULL_RATE:
        yield _advice("full_rate", {_RATE: "2e-5"}, rate=number(rate))


def _of_method(config: RunConfig) -> Iterator[Advice]:
    method: Any = config.method
    if method.name == "dpo" and set(method.loss_type) & {"sigmoid", "hinge", "robust"}:
        if method.beta < 0.1:
            yield _advice("beta_low", {"method.dpo.beta": "0.1"}, beta=number(method.beta))
        if method.beta > 0.5:
            yield _advice("beta_high", {"method.dpo.beta": "0.5"}, beta=number(method.beta))
    if method.name == "cpo" and method.loss_type == "simpo" and method.beta < 1:
        yield _advice("simpo_beta", {"method.cpo.beta": "2"})
    if SHAPES[method.name] == "prompts" and method.temperature < _COLD:
        cold = number(method.temperature)
        yield _advice("cold", {f"method.{method.name}.temperature": "1"}, temperature=cold)


def _of_the_rest(config: RunConfig, facts: Facts) -> Iterator[Advice]:
    knobs, section = config.training, config.dataset
    if section.validation_split == 0 and section.validation_path is None:
        yield _advice("no_validation", {"dataset.validation_split": "0.1"})
    if isinstance(config.adapter, LoraAdapter):
        yield from _of_lora(config.adapter)
    if config.model.quantization == "fp4":
        yield _advice("fp4", {QUANTIZATION: "nf4"})
    if effective_batch(config) == 1:
        yield _advice("batch", {"training.gradient_accumulation_steps": "8"})
    if knobs.packing and not config.model.attn_implementation.startswith("flash"):
        if facts.flash:
            yield _advice("packing", {"model.attn_implementation": "flash_attention_2"})
        else:
            yield _advice("packing_off", {"training.packing": False})
    if knobs.early_stopping_patience is not None and not knobs.load_best_model_at_end:
        yield _advice("early", {"training.load_best_model_at_end": True})


def _of_lora(adapter: LoraAdapter) -> Iterator[Advice]:
    r, alpha = adapter.r, adapter.lora_alpha
    if r > _MOST_RANK:
        changes = {"adapter.lora.r": "64", _ALPHA: number(min(alpha, 128))}
        yield _advice("rank", changes)
    elif not adapter.use_rslora and not 0.5 * r <= alpha <= 2 * r:  # rsLoRA scales by the root of the rank
        yield _advice("alpha", {_ALPHA: number(r)}, alpha=number(alpha), r=number(r), usual=number(r))


def _advice(key: str, changes: Mapping[str, Any], **values: str) -> Advice:
    return Advice(key, say(f"advice.{key}", **values), say(f"advice.{key}.mend", **values), changes)


def advice_html(found: list[Advice]) -> str:
    """Every piece of advice with its button, which carries its key."""
    return "".join(
        f'<div class="st-note warn advice"><span>{escape(one.text)}</span>'
        f'<button type="button" class="st-button small" data-mend="{escape(one.key)}">{escape(one.mend)}</button></div>'
        for one in found
    )
