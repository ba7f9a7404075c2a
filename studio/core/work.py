"""What a run has to compute: optimizer steps, tokens, floating-point operations.

In: a RunConfig, a ModelShape, the rows' lengths or at least their number. Out: Work. An operation is a multiplication
or an addition, so a product of (m, k) and (k, n) counts 2 m k n, as torch's FlopCounterMode counts it. Products with
weights and attention are counted, nothing else: norms and the like are some per mille. Knows no speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from studio.core.config import RunConfig
from studio.core.estimate import Device, prepared
from studio.core.memory.run import Run
from studio.core.padding import padding
from studio.core.rowlengths import RowLengths
from studio.core.schedule import optimizer_steps, split_sizes
from studio.core.shapes import Layer, Matrix, ModelShape

_CPU_PIECE = 2048  # worker/trainers.py: more positions than these have their logits computed again
_EVALUATIONS = 10  # of a run, where eval_steps is empty: worker/trainers.py


@dataclass(frozen=True)
class Work:
    """A whole run: optimizer steps, tokens without padding, floating-point operations with it.

    `flops` are those of its optimizer steps, `evaluation` those of validating in between.
    """

    steps: int
    tokens: int
    flops: float
    evaluation: float = 0.0


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a batch by where they are spent; `attention` is the part that grows with length."""

    matrices: float = 0.0
    attention: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        return self.matrices + self.attention + self.head

    def times(self, factor: float) -> Flops:
        return Flops(self.matrices * factor, self.attention * factor, self.head * factor)

    def plus(self, other: Flops) -> Flops:
        return Flops(self.matrices + other.matrices, self.attention + other.attention, self.head + other.head)


def work_kind(config: RunConfig, device_kind: str) -> str:
    """Runs of one kind compute at about one speed: device, number format, and what is trained: cuda/auto/qlora."""
    if config.adapter is None:
        trained = "full"
    else:
        trained = config.adapter.type if config.model.quantization == "none" else f"q{config.adapter.type}"
    return f"{device_kind}/{config.model.dtype}/{trained}"


def work(
    config: RunConfig,
    shape: ModelShape,
    *,
    rows: int | None = None,
    lengths: Sequence[int] | None = None,
    device: Device | None = None,
) -> Work | None:
    """The whole run; None where neither `rows` (usable ones) nor their `lengths` nor training.max_steps is known.

    Rows whose lengths aren't known are as long as training.max_length.
    """
    run = prepared(config, shape, None, None, None, device)[0]
    knobs, known = config.training, RowLengths.of(lengths) if lengths else None
    found = len(known) if known else rows
    if found is None and not knobs.max_steps:
        return None
    batch = knobs.per_device_train_batch_size
    if found is not None:
        found = min(found, config.dataset.max_samples or found)
    parts = split_sizes(config.dataset, found) if found is not None else None
    train = parts.train if parts else batch * knobs.gradient_accumulation_steps * (knobs.max_steps or 1)
    spread = _Spread.of(config, known, train)
    lines = math.ceil(train * spread.joined)
    steps = optimizer_steps(config, lines)
    whole = knobs.max_steps or _method(config).generated  # steps that are full
    seen = steps * batch * knobs.gradient_accumulation_steps if whole else lines * knobs.num_train_epochs
    each = step_flops(run, spread)
    tokens = round(seen * spread.tokens * _method(config).learnt)
    evaluation = 0.0
    if parts and parts.validation:
        times = math.ceil(steps / knobs.eval_steps) if knobs.eval_steps else min(_EVALUATIONS, steps)
        evaluation = times * parts.validation * spread.joined * _forward(run, spread).total
    return Work(steps, tokens, seen * each.total, evaluation)


# -- lengths ----------------------------------------------------------------------------------------------------------


class _Spread(NamedTuple):
    """A row's means: its tokens, its tokens with padding, and the pairs of tokens that attention compares.

    `joined`: packed rows for each row of the dataset. `learnt`: the share of tokens with loss.
    """

    tokens: float
    padded: float
    pairs: float
    joined: float = 1.0
    learnt: float = 1.0

    @classmethod
    def of(cls, config: RunConfig, lengths: RowLengths | None, train: int) -> _Spread:
        knobs = config.training
        longest, batch = knobs.max_length, knobs.per_device_train_batch_size
        flash = config.model.attn_implementation.startswith("flash")
        if lengths is None:
            # One row's tokens see those before them; a packed batch without flash attention is one long masked row.
            whole = batch * longest**2 if packs(config) and not flash else longest**2 / 2
            return cls(longest, longest, whole)
        cut = lengths.cut(longest)
        mean = cut.total() / len(cut)
        if packs(config):
            square = sum(n * length**2 for length, n in cut.items()) / cut.total()  # the square a token
            pairs = longest * square / 2 if flash else batch * longest**2
            return cls(longest, longest, pairs, mean / longest, cut.learnt)
        padded, square = padding(cut, batch, knobs.gradient_accumulation_steps, _grouped(config), train)
        masked = batch > 1 and cut.longest != cut[-1]
        return cls(mean, padded, square if masked else square / 2, 1.0, cut.learnt)


def packs(config: RunConfig) -> bool:
    """Whether rows are joined until they are full."""
    return config.training.packing


def _grouped(config: RunConfig) -> bool:
    return config.training.train_sampling_strategy in ("auto", "group_by_length")


# -- one row ----------------------------------------------------------------------------------------------------------


def step_flops(run: Run, spread: _Spread) -> Flops:
    """Of one row's share in an optimizer step: its training passes, and what its method computes beside them."""
    config, method = run.config, _method(run.config)
    if method.generated:
        own = _Spread(*_with_answer(config, spread))
        learnt = _forward_backward(run, own).times(method.learnt)
        return learnt.plus(_forward(run, own).times(method.beside))
    return _forward_backward(run, spread).times(method.learnt).plus(_forward(run, spread).times(method.beside))


def batch_flops(run: Run, rows: int, length: int, *, masked: bool = False, learnt: float = 1.0) -> Flops:
    """Forward and backward pass of a batch of equally long rows under supervised fine-tuning."""
    pairs = length**2 if masked or run.attention == "eager" else length**2 / 2
    return _forward_backward(run, _Spread(length, length, pairs, 1.0, learnt)).times(rows)


def _forward(run: Run, spread: _Spread) -> Flops:
    """A row's forward pass alone."""
    layers = sum(_forward_of(run, layer, spread) for layer in run.shape.layers)
    return Flops(layers * spread.padded, _mixing(run) * _pairs(run, spread), _head(run, spread))


def _forward_backward(run: Run, spread: _Spread) -> Flops:
    """A row's forward and backward pass, and what gradient checkpointing computes again."""
    tokens = spread.padded
    matrices = again = once = 0.0
    for number, layer in enumerate(run.shape.layers):
        forward = _forward_of(run, layer, spread)
        matrices += forward + _backward_of(run, layer, number == 0)
        again += forward - (_last_of(run, layer) if not run.reentrant else 0.0)
        once += _summed(run, layer) * (6 if run.checkpointing else 4)
    mixing = _mixing(run) * _pairs(run, spread)
    # Gradients of queries, keys, values and scores: twice the forward pass; kernels that don't keep the scores compute
    # them again: 2.5 times (FlashAttention-2, arXiv:2307.08691, section 4.1).
    attention = mixing * (1 + (2.0 if run.attention == "eager" else 2.5))
    if run.checkpointing:
        matrices, attention = matrices + again, attention + mixing
    return Flops(matrices * tokens + once / run.rows, attention, _head(run, spread, backward=True))


def _forward_of(run: Run, layer: Layer, spread: _Spread) -> float:
    return sum(_active(run, m) * (2.0 * m.numel + _beside(run, m)) for m in layer.matrices)


def _backward_of(run: Run, layer: Layer, first: bool) -> float:
    """Gradients of inputs, and of the weights that are trained.

    What the first layer reads needs none where nothing before it is trained.
    """
    total = 0.0
    below = run.full or run.checkpointing or bool(run.quant)
    # side by side, attention and feed-forward both read it
    reads = (*_READS_FIRST, "fc1", "dense_h_to_4h") if run.shape.model_type in _PARALLEL else _READS_FIRST
    for matrix in layer.matrices:
        plain, beside = 2.0 * matrix.numel, _beside(run, matrix)
        inputs, adapter = plain, 2 * beside
        if first and not below and matrix.name in reads:
            inputs, adapter = 0.0, adapter - beside * matrix.inp / (matrix.inp + matrix.out)
        weights = plain if run.full or run.wraps(matrix) else 0.0
        total += _active(run, matrix) * (inputs + weights + adapter)
    return total


_READS_FIRST = ("q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn", "query_key_value", "q_a_proj", "kv_a_proj_with_mqa")
_PARALLEL = ("phi", "falcon", "gpt_neox")
_LAST = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "w2", "output_linear")


def _last_of(run: Run, layer: Layer) -> float:
    """The layer's last product, which isn't computed again: recomputing stops once everything kept is there again.

    A norm or dropout behind it keeps something more.
    """
    if any("post_feedforward" in name for name, _ in layer.small) or run.own_dropout("resid_pdrop"):
        return 0.0
    last = layer.find(*(f"mlp.{name}" for name in _LAST))
    if last is None or last.count > 1:
        return 0.0
    beside = _beside(run, last)
    return beside * last.out / (last.inp + last.out) if beside else 2.0 * last.numel


def _active(run: Run, matrix: Matrix) -> float:
    """How many of these matrices a token goes through: of a mixture's experts the chosen ones."""
    if matrix.count == 1:
        return 1.0
    chosen = run.shape.number("num_experts_per_tok", "num_experts_per_token", "moe_topk", default=2)
    return float(min(chosen, matrix.count))


def _beside(run: Run, matrix: Matrix) -> float:
    """What an adapter computes beside a matrix, a token, forward."""
    adapter = run.config.adapter
    if adapter is None or not run.adapts(matrix):
        return 0.0
    rank = getattr(adapter, "r", 0) or getattr(adapter, "init_r", 0)
    return 2.0 * rank * (matrix.inp + matrix.out)


def _summed(run: Run, layer: Layer) -> float:
    """What PEFT computes once a pass, whatever the batch: the sum of stacked experts and the product of their adapter
    (peft/tuners/lora/layer.py, `ParamWrapper`), which every forward pass does twice. Gate and up are one stack, counted
    at the gate.
    """
    total = 0.0
    for matrix in layer.matrices:
        if run.wraps(matrix) and matrix.name not in ("up_proj", "w3"):
            out = 2 * matrix.out if matrix.name in ("gate_proj", "w1") else matrix.out
            total += 2.0 * run.expert_rank(matrix) * matrix.count * out * matrix.inp
    return total


def _mixing(run: Run) -> float:
    """Scores and mixing, for one pair of tokens in all layers: 2 numbers a head's width each, forward."""
    shape = run.shape
    wide = shape.head_dim
    if "qk_nope_head_dim" in shape.config:  # DeepSeek's: keys are wider than values
        wide = shape.config["qk_nope_head_dim"] + shape.config["qk_rope_head_dim"]
    value = int(shape.config.get("v_head_dim") or shape.head_dim)
    return 2.0 * shape.heads * (wide + value) * len(shape.layers)


def _pairs(run: Run, spread: _Spread) -> float:
    """Eager attention computes what a mask then hides."""
    return spread.padded**2 if run.attention == "eager" else spread.pairs


def _head(run: Run, spread: _Spread, backward: bool = False) -> float:
    """The head, where logits are computed: everywhere, or where a token carries loss."""
    if run.config.method.name == "reward":
        return 0.0
    whole = run.practice.loss not in ("fused",)
    positions = spread.padded if whole else spread.tokens * spread.learnt
    one = 2.0 * run.shape.vocabulary * run.shape.hidden * positions
    if not backward:
        return one
    # TRL computes each tile again in its backward pass; on a processor long batches are computed again in pieces
    again = run.practice.loss == "fused" and (run.cuda or positions * run.rows > _CPU_PIECE)
    return one * (2 + again + run.full)


# -- methods ----------------------------------------------------------------------------------------------------------


class _Passes(NamedTuple):
    """Sequences a row that go forward and backward (`learnt`), and forward alone (`beside`)."""

    learnt: float
    beside: float = 0.0
    generated: bool = False


def _method(config: RunConfig) -> _Passes:
    """What a row costs under each method, as TRL's trainers compute it.

    A teacher to distil from is taken to be as large as its pupil, a model that judges to cost nothing. An answer that
    the model writes costs a forward pass over all its tokens, as keys and values are kept.
    """
    method = config.method
    epochs = config.training.num_train_epochs
    if method.name == "dpo":
        # chosen and rejected, each also by the reference: at every step, or once
        reference = 0.0 if method.reference_free else 2.0
        return _Passes(2, reference / epochs if method.precompute_ref_log_probs is True else reference)
    if method.name == "kto":
        # the other answers that the estimate of the KL looks at go through model and reference
        compared = 2.0 if method.loss_type == "kto" else 0.0
        reference = 1.0 / epochs if method.precompute_ref_log_probs is True else 1.0
        return _Passes(1, reference + compared)
    if method.name in ("orpo", "cpo", "reward"):
        return _Passes(2)
    if method.name == "grpo":
        reference, uses = float(method.beta > 0), method.num_iterations
        return _Passes(1, (1 + reference + (uses > 1)) / uses, True)
    if method.name == "rloo":
        return _Passes(1, (2 + float(method.beta > 0)) / method.num_iterations, True)
    if method.name == "online_dpo":
        return _Passes(1, 2, True)
    if method.name == "ppo":
        return _Passes(1, 3 / method.num_ppo_epochs, True)
    if method.name == "distill":
        return _Passes(1, 1 + method.lmbda)
    return _Passes(1)


def _with_answer(config: RunConfig, spread: _Spread) -> _Spread:
    """A prompt with its answer, as long as answers may get."""
    answer = int(getattr(config.method, "max_completion_length", None) or 0)
    tokens, padded = spread.tokens + answer, spread.padded + answer
    return _Spread(tokens, padded, padded**2, 1.0, answer / tokens)
