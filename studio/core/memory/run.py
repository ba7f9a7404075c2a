"""A training step's circumstances: batch, number formats, what is trained.

In: a RunConfig, a ModelShape, a Practice. Out: a `Run`, which the layers and losses are computed with. Knows no
device but whether it is a graphics card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from studio.core.config import RunConfig
from studio.core.memory.adapters import is_attention, rank
from studio.core.memory.practice import Habits, Practice
from studio.core.memory.tape import Storage, Tape, Tensor
from studio.core.sections.adapter import FreezeAdapter, LoraAdapter, Targeted
from studio.core.shapes import ITEM, Layer, Matrix, ModelShape
from studio.core.shapes import Tensor as Checkpointed

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
    cache: list[Tensor] = field(default_factory=list)  # keys and values that the model collects in its forward pass
    kept: list[Tensor | None] = field(default_factory=list)  # what goes only with the whole graph of a backward pass
    bare: bool = False  # the reference is computed: with the adapter off
    chosen: set[int] | None = None  # numbers of the layers that are adapted or, frozen but the last, trained; all

    def __post_init__(self) -> None:
        self.tape.fuses_dropout = self.cuda

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def accumulates(self) -> bool:
        """Whether a step gathers several micro-batches."""
        return self.config.training.gradient_accumulation_steps > 1

    @property
    def full(self) -> bool:
        """Whether the model itself is trained: here, where only its last layers are."""
        adapter = self.config.adapter
        if adapter is None or isinstance(adapter, FreezeAdapter):
            return adapter is None or (self.chosen is not None and self.layer in self.chosen)
        return False

    @property
    def supervised(self) -> bool:
        """Whether rows are learnt as they are, with the studio's own loss on a processor."""
        return self.config.method.name in ("sft", "pretrain")

    @property
    def scores(self) -> bool:
        """Whether the model has a head of one number in place of its own."""
        return self.config.method.name == "reward"

    @property
    def outside(self) -> tuple[Checkpointed, ...]:
        """Tensors that belong to no layer; a model that scores has no head for words."""
        head = self.shape.head if self.scores else None
        return tuple(tensor for tensor in self.shape.outside if tensor is not head)

    @property
    def tunes_norms(self) -> bool:
        """Whether norms' weights have gradients."""
        return self.full or (self.config.adapter is not None and self.config.adapter.type == "ln_tuning")

    @property
    def compute(self) -> int:
        """Bytes of a number in the base's matrix products."""
        return self.amp or self.item

    @property
    def halves(self) -> bool:
        """Whether 16 bits are float16."""
        return self.config.model.dtype == "float16"

    @property
    def dropout(self) -> float:
        return float(getattr(self.config.adapter, "lora_dropout", 0.0))

    def own_dropout(self, name: str) -> float:
        """The model's own dropout: GPT-2 and its kin have it, and 0.1 where their config doesn't say."""
        default = 0.1 if self.shape.model_type in ("gpt2", "gpt_bigcode") else 0.0
        return float(self.shape.config.get(name, default) or 0.0)

    def adapts(self, matrix: Matrix) -> bool:
        """Whether LoRA stands beside this matrix, here."""
        return self.touches(matrix) and getattr(self.config.adapter, "type", "") in ("lora", "adalora")

    def touches(self, matrix: Matrix) -> bool:
        """Whether an adapter stands beside this matrix in the layer that is gone through."""
        if self.bare or (self.chosen is not None and self.layer not in self.chosen):
            return False
        return self.targets(matrix)

    def targets(self, matrix: Matrix) -> bool:
        """Whether an adapter of some kind is laid over this matrix."""
        adapter = self.config.adapter
        if not isinstance(adapter, Targeted) or self.stacks(matrix):
            return False
        # their names have come to mean the experts
        named = self.habits.stacked_experts and self.shape.model_type in _WRAPPED and matrix.name in _GATED
        if named and isinstance(adapter, LoraAdapter):
            return False
        if adapter.target_modules in ("all-linear", "attention"):
            linear = matrix.name not in _HEADS and not (_router(matrix) and self.bare_router)
            return linear and (adapter.target_modules == "all-linear" or is_attention(matrix))
        return self._named(matrix)

    def wraps(self, matrix: Matrix) -> bool:
        """Whether PEFT puts LoRA on this stack of experts, as it does where their names once were linear layers'."""
        adapter = self.config.adapter
        if not isinstance(adapter, LoraAdapter) or not self.stacks(matrix) or self.shape.model_type not in _WRAPPED:
            return False
        return adapter.target_modules == "all-linear" or self._named(matrix)

    def rank(self, matrix: Matrix) -> int:
        """The adapter's rank beside this matrix."""
        return rank(self.config.adapter, matrix.path)

    def expert_rank(self, matrix: Matrix) -> int:
        """The rank of a stack's adapter: gate and up are one stack, which gets twice the rank."""
        own = self.rank(matrix)
        return 2 * own if matrix.name in ("gate_proj", "w1") else own

    def layer_rows(self) -> list[tuple[Layer, int, bool]]:
        """Layers that follow one another and are alike, how many they are, and whether they are among the chosen."""
        adapter, layers = self.config.adapter, self.shape.layers
        first = len(layers) - adapter.trained_layers if isinstance(adapter, FreezeAdapter) else 0
        picked = getattr(adapter, "layers_to_transform", None)
        rows: list[tuple[Layer, int, bool]] = []
        for index, plan in enumerate(layers):
            among = index >= first and (picked is None or index in picked)
            if rows and rows[-1][0] is plan and rows[-1][2] == among:
                rows[-1] = (plan, rows[-1][1] + 1, among)
            else:
                rows.append((plan, 1, among))
        return rows

    @property
    def bare_router(self) -> bool:
        """Whether a mixture's router is a bare parameter that PEFT passes over."""
        kind = self.shape.model_type
        return self.habits.stacked_experts and kind not in _WRAPPED and kind != "granitemoe"

    def _named(self, matrix: Matrix) -> bool:
        adapter = self.config.adapter
        assert isinstance(adapter, Targeted)
        if isinstance(adapter.target_modules, str):
            whole = f"model.layers.{max(self.layer, 0)}.{matrix.path}"  # PEFT matches the model's own paths
            return any(re.fullmatch(adapter.target_modules, path) for path in (matrix.path, whole))
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
        # TRL cast all but the norms back, adapters too, where the base had 4 bits and the run was in bfloat16
        back = quant in ("nf4", "fp4") and amp and config.model.dtype in ("auto", "bfloat16")
        upcast = "norms" if back else "all"
    if not quant:
        upcast = "none"
    own = 2 if habits.prepares and upcast == "norms" else habits.adapter_quantized_item
    adapter = practice.adapter_item or (own if quant in ("nf4", "fp4", "int8") else 4)
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
        reentrant=bool(practice.reentrant),
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
