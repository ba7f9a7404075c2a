"""A training step's circumstances: batch, number formats, what is trained.

In: a RunConfig, a ModelShape, a Practice. Out: a `Run`, which the layers and losses are computed with. Knows no
device but whether it is a graphics card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from studio.core.config import RunConfig
from studio.core.memory.practice import Habits, Practice
from studio.core.memory.tape import Storage, Tape, Tensor
from studio.core.shapes import ITEM, Matrix, ModelShape

# Mixtures whose stacked experts PEFT treats as the linear layers they were (peft/utils/transformers_weight_conversion).
_WRAPPED = ("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3", "olmoe")
_GATED = ("gate_proj", "up_proj", "down_proj")
_HEADS = ("lm_head", "embed_out", "score")


@dataclass
class Run:
    """What stays the same through a step. Sizes of numbers (`*_item`) are in bytes, 0 standing for "not used".

    `rows` of `length` tokens each. `quant`: nf4, fp4, int8, gptq or empty. `scored`: share of tokens with loss.
    """

    shape: ModelShape
    config: RunConfig
    practice: Practice
    habits: Habits
    cuda: bool
    rows: int
    length: int
    item: int  # the base's weights
    amp: int  # matrix products by autocast
    norm_item: int
    outer_item: int  # embedding and head
    adapter_item: int
    quant: str
    checkpointing: bool
    attention: str
    reentrant: bool = False
    tape: Tape = field(default_factory=Tape)
    casts: dict[str, Tensor] | None = None
    gradients: dict[str, Storage] = field(default_factory=dict)
    layer: int = 0

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def accumulates(self) -> bool:
        """Whether a step gathers several micro-batches."""
        return self.config.training.gradient_accumulation_steps > 1

    @property
    def full(self) -> bool:
        """Whether the model itself is trained."""
        return self.config.adapter is None

    @property
    def compute(self) -> int:
        """Bytes of a number in the base's matrix products."""
        return self.amp or self.item

    @property
    def dropout(self) -> float:
        return self.config.adapter.lora_dropout if self.config.adapter else 0.0

    def own_dropout(self, name: str) -> float:
        """The model's own dropout: GPT-2 and its kin have it, and 0.1 where their config doesn't say."""
        default = 0.1 if self.shape.model_type in ("gpt2", "gpt_bigcode") else 0.0
        return float(self.shape.config.get(name, default) or 0.0)

    def adapts(self, matrix: Matrix) -> bool:
        """Whether LoRA stands beside this matrix."""
        adapter = self.config.adapter
        if adapter is None or self.stacks(matrix):
            return False
        if self.habits.stacked_experts and self.shape.model_type in _WRAPPED and matrix.name in _GATED:
            return False  # their names have come to mean the experts
        if adapter.target_modules == "all-linear":
            return matrix.name not in _HEADS and not (_router(matrix) and self.bare_router)
        return self._named(matrix)

    def wraps(self, matrix: Matrix) -> bool:
        """Whether PEFT puts LoRA on this stack of experts, as it does where their names once were linear layers'."""
        adapter = self.config.adapter
        if adapter is None or not self.stacks(matrix) or self.shape.model_type not in _WRAPPED:
            return False
        return adapter.target_modules == "all-linear" or self._named(matrix)

    def expert_rank(self, matrix: Matrix) -> int:
        """The rank of a stack's adapter: gate and up are one stack, which gets twice the rank."""
        rank = self.config.adapter.r if self.config.adapter else 0
        return 2 * rank if matrix.name in ("gate_proj", "w1") else rank

    @property
    def bare_router(self) -> bool:
        """Whether a mixture's router is a bare parameter that PEFT passes over."""
        kind = self.shape.model_type
        return self.habits.stacked_experts and kind not in _WRAPPED and kind != "granitemoe"

    def _named(self, matrix: Matrix) -> bool:
        adapter = self.config.adapter
        assert adapter is not None
        if isinstance(adapter.target_modules, str):
            return re.fullmatch(adapter.target_modules, matrix.path) is not None
        return any(matrix.path == name or matrix.path.endswith("." + name) for name in adapter.target_modules)

    def stacks(self, matrix: Matrix) -> bool:
        """Whether these experts are one bare tensor, which neither PEFT nor bitsandbytes takes for linear layers."""
        return matrix.count > 1 and (self.habits.stacked_experts or matrix.name in ("input_linear", "output_linear"))

    def quantizes(self, matrix: Matrix) -> bool:
        """Whether this matrix is held in 4 or 8 bits."""
        if not self.quant or self.stacks(matrix):
            return False
        return not (_router(matrix) and (self.habits.stacked_experts or self.quant == "gptq"))

    def gradient(self, key: str, numel: int, item: int) -> None:
        """A parameter's gradient arrives: kept until the optimizer's step, or added to the one that is there.

        In all but the first of several micro-batches one is there already, for every parameter.
        """
        made = Storage(self.tape, numel * item, "gradients")
        if not self.accumulates:
            self.gradients.setdefault(f"{self.layer}.{key}", made)


def _router(matrix: Matrix) -> bool:
    """A mixture's router: a linear layer once, a bare parameter since experts are stacked."""
    return matrix.path.endswith(("mlp.gate", "block_sparse_moe.gate", "router.layer"))


def circumstances(
    config: RunConfig,
    shape: ModelShape,
    practice: Practice,
    habits: Habits,
    rows: int,
    length: int,
    cuda: bool,
    *,
    wide: bool = True,
) -> Run:
    """Every `auto` settled. `wide`: the device computes bfloat16."""
    quant = config.model.quantization if config.model.quantization != "none" else _own_quantization(shape)
    item, amp = _formats(config, cuda, wide)
    autocast = config.training.autocast if practice.autocast is None else practice.autocast
    if autocast != "auto":
        amp = 2 if autocast else 0
    if practice.autocast is not None:
        item = ITEM.get(config.model.dtype, item)  # as it is told, without this studio's own care for updates
    upcast = practice.upcast or "none"
    if practice.upcast is None and quant not in ("", "gptq") and habits.prepares:
        # TRL cast all but the norms back where the run was in bfloat16
        upcast = "norms" if amp and config.model.dtype in ("auto", "bfloat16") else "all"
    if not quant:
        upcast = "none"
    adapter = practice.adapter_item or (habits.adapter_quantized_item if quant in ("nf4", "fp4", "int8") else 4)
    attention = config.model.attn_implementation
    if attention == "auto":
        attention = "eager" if shape.config.get("attn_logit_softcapping") else "sdpa"
    checkpointing = config.training.gradient_checkpointing
    return Run(
        shape=shape,
        config=config,
        practice=practice,
        habits=habits,
        cuda=cuda,
        rows=rows,
        length=length,
        item=item,
        amp=0 if amp == item == 4 else amp,
        norm_item=4 if upcast in ("norms", "all") else item,
        outer_item=4 if upcast == "all" else item,
        adapter_item=adapter,
        quant=quant,
        checkpointing=cuda if checkpointing == "auto" else bool(checkpointing),
        attention=attention,
        reentrant=bool(practice.reentrant) or config.training.use_reentrant,
    )


def _own_quantization(shape: ModelShape) -> str:
    return "gptq" if str(shape.quantization.get("quant_method", "")) in ("gptq", "awq") else ""


def _formats(config: RunConfig, cuda: bool, wide: bool) -> tuple[int, int]:
    """Bytes of the weights' numbers and of autocast's, as worker/device chooses them."""
    wish: str = config.model.dtype
    if wish == "auto":
        wish = ("bfloat16" if wide else "float16") if cuda else "float32"
        if config.adapter is None and wish != "float32":
            return 4, 2
    if wish == "float32":
        return 4, 0
    return (4 if wish == "float16" and config.adapter is None else 2), ITEM[wish]
