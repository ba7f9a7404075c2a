"""What lies on the device all the time: weights, adapter, optimizer, workspaces.

In: a Run. Out: bytes by part. Sizes of quantized weights follow bitsandbytes' functional.py (blocks of 64 share a
scale, 256 scales share another when they are quantized too) and GPTQ's packing; the optimizers' those of torch and
bitsandbytes. Knows no activations.
"""

from __future__ import annotations

from studio.core.memory import adapters, litgpt
from studio.core.memory.run import Run
from studio.core.shapes import Layer, Matrix, Tensor

_ROUND = 512
_BLOCK = 64
# cuBLAS keeps one workspace a handle, and the backward pass has a handle of its own: aten/cuda/CUDABlas.cpp,
# `getChosenWorkspaceSize`, 4096 KiB twice and 16 KiB eight times; 32 MiB from Hopper on.
_WORKSPACE, _WORKSPACE_HOPPER = 2 * 4096 * 1024 + 8 * 16 * 1024, 4096 * 8 * 1024


def _rounded(size: int) -> int:
    return -(-size // _ROUND) * _ROUND


def packed(run: Run, matrix: Matrix) -> tuple[int, int]:
    """Bytes of a quantized matrix, and of what its numbers are restored with."""
    numel = matrix.numel
    if run.quant == "int8":
        return _rounded(numel), _rounded(4 * matrix.out)
    if run.quant == "gptq":
        bits = int(run.shape.quantization.get("bits", 4))
        group = int(run.shape.quantization.get("group_size", 128))
        groups = -(-matrix.inp // group) if group > 0 else 1
        zeros = _rounded(groups * matrix.out * bits // 8)
        return _rounded(numel * bits // 8), _rounded(2 * groups * matrix.out) + zeros + _rounded(4 * matrix.inp)
    scales = -(-numel // _BLOCK)
    if run.config.model.double_quant:
        extra = _rounded(scales) + _rounded(4 * -(-scales // 256)) + _rounded(4 * 256) + _rounded(4)
    else:
        extra = _rounded(4 * scales)
    return _rounded(-(-numel // 2)), extra + _rounded(4 * 16)


def base(run: Run) -> dict[str, int]:
    """The model's weights: packed ones and their scales apart from those held in 16 or 32 bits."""
    parts = {"weights": 0, "quantization": 0}
    for plan, times in alike(run.shape.layers):
        for matrix in plan.matrices:
            numbers, scales = packed(run, matrix) if run.quantizes(matrix) else (_rounded(matrix.numel * run.item), 0)
            bias = _rounded(matrix.out * run.norm_item) if matrix.bias else 0
            parts["weights"] += times * matrix.count * (numbers + bias)
            parts["quantization"] += times * matrix.count * scales
        parts["weights"] += times * sum(_rounded(numel * run.norm_item) for _, numel in plan.small)
    for tensor in _outside(run):
        if run.quant and _own_head(run, tensor):
            numbers, scales = packed(run, litgpt.head(run))
            parts["quantization"] += scales
        else:
            numbers = _rounded(tensor.numel * (run.norm_item if len(tensor.shape) < 2 else run.outer_item))
        parts["weights"] += numbers
    parts["buffers"] = _buffers(run)
    return parts


def _outside(run: Run) -> tuple[Tensor, ...]:
    """What belongs to no layer; LitGPT has a head even where the checkpoint ties it."""
    found = run.outside
    if run.habits.program == "litgpt" and run.shape.head is None:
        return (*found, Tensor("lm_head.weight", (run.shape.vocabulary, run.shape.hidden), ""))
    return found


def _own_head(run: Run, tensor: Tensor) -> bool:
    """Whether this is the head, which LitGPT quantizes like any other linear layer."""
    named = tensor.name in ("lm_head.weight", "embed_out.weight")
    return named and run.habits.program == "litgpt"


def alike(layers: tuple[Layer, ...]) -> list[tuple[Layer, int]]:
    """Layers that follow one another and are alike, and how many they are."""
    rows: list[tuple[Layer, int]] = []
    for plan in layers:
        if rows and rows[-1][0] is plan:
            rows[-1] = (plan, rows[-1][1] + 1)
        else:
            rows.append((plan, 1))
    return rows


def blocks(run: Run) -> list[tuple[int, int]]:
    """Sizes of the weights one by one, each with that of the 16-bit one it is quantized from, or 0."""
    found = [(t.numel * run.outer_item, 0) for t in _outside(run) if not (run.quant and _own_head(run, t))]
    if run.quant and len(found) < len(_outside(run)):
        numbers, scales = packed(run, litgpt.head(run))
        found += [(numbers, 2 * litgpt.head(run).numel), (scales, 0)]
    for plan in run.shape.layers:
        for matrix in plan.matrices:
            if run.quantizes(matrix):
                made = 2 * matrix.numel if run.quant != "gptq" else 0
                numbers, scales = packed(run, matrix)
                found += [(numbers, made), (scales, 0)] * matrix.count
            else:
                each = matrix.numel * run.item
                found += [(each, 0)] * matrix.count if each >= _ROUND else [(each * matrix.count, 0)]
    if run.config.adapter is not None and run.config.adapter.is_peft:
        found += [(numel * item, 0) for numel, item, times in trained_sizes(run) for _ in range(times)]
    if buffers := _buffers(run):
        found.append((buffers, 0))
    return found


def _buffers(run: Run) -> int:
    shape = run.shape
    if shape.model_type == "gpt_bigcode":
        return shape.number("n_positions") ** 2
    longest = shape.number("max_position_embeddings")
    if shape.model_type in run.habits.rotary_cache:
        turned = float(shape.config.get("partial_rotary_factor") or shape.config.get("rotary_pct") or 1.0)
        return 2 * longest * int(turned * shape.head_dim) * run.item * len(shape.layers)
    return 0


Sizes = list[tuple[int, int, int]]  # numbers, bytes of each, how many of them


def trained_sizes(run: Run) -> Sizes:
    """Every parameter that is trained."""
    if run.config.adapter is None:
        return _whole(run)
    if run.habits.program == "litgpt":
        return litgpt.trained(run)
    adapter, found, item = run.config.adapter, [], run.adapter_item
    for plan, times, chosen in run.layer_rows():
        for matrix in plan.matrices if chosen else ():
            if run.wraps(matrix):
                found += _stacked(run, matrix, times)
            elif run.targets(matrix):
                found += [(numel, item, times * matrix.count) for numel in adapters.beside(adapter, matrix)]
    own = item if adapter.is_peft else run.item
    found += [(numel, own, 1) for numel in adapters.apart(adapter, run.shape)]
    return found + ([(run.shape.hidden, run.outer_item, 1)] if run.scores else [])


def _whole(run: Run) -> Sizes:
    found: Sizes = []
    for plan, times in alike(run.shape.layers):
        for matrix in plan.matrices:
            found.append((matrix.numel, run.item, times * matrix.count))
            found += [(matrix.out, run.item, times * matrix.count)] if matrix.bias else []
        found += [(numel, run.item, times) for _, numel in plan.small if numel]
    found += [(tensor.numel, run.item, 1) for tensor in run.outside]
    return found + ([(run.shape.hidden, run.item, 1)] if run.scores else [])


def adapter_bytes(run: Run, trained: Sizes) -> int:
    """What an adapter adds to the model, buffers that aren't trained among it; 0 where the model's own are trained."""
    adapter = run.config.adapter
    if adapter is None or not adapter.is_peft:
        return 0
    matrices = [(m, n * m.count) for plan, n, chosen in run.layer_rows() if chosen for m in plan.matrices]
    return total(trained) + 4 * adapters.fixed(adapter, [(m, n) for m, n in matrices if run.targets(m)])


def _stacked(run: Run, matrix: Matrix, times: int) -> Sizes:
    """An adapter of stacked experts; gate and up are one stack, counted at the gate."""
    if matrix.name in ("up_proj", "w3"):
        return []
    out = 2 * matrix.out if matrix.name in ("gate_proj", "w1") else matrix.out
    rank = run.expert_rank(matrix) * matrix.count
    return [(rank * matrix.inp, run.adapter_item, times), (rank * out, run.adapter_item, times)]


def total(trained: Sizes) -> int:
    """Bytes of all of them."""
    return sum(times * _rounded(numel * item) for numel, item, times in trained)


def optimizer(run: Run, trained: Sizes) -> tuple[int, int]:
    """Bytes of the optimizer's state, and of what a step needs for the moment."""
    name, whole = run.config.training.optim, total(trained)
    largest = max((numel * item for numel, item, _ in trained), default=0)
    if run.habits.program == "litgpt" and run.quant:
        return 0, 0  # bitsandbytes' PagedAdamW, whatever was asked for (litgpt/utils.py)
    if name == "adamw_torch":
        # The default on a GPU is the foreach kind, which holds one more copy of everything for a moment
        # (torch/optim/adamw.py, `exp_avg_sq_sqrt`); on a processor one tensor at a time.
        return 2 * whole, whole if run.cuda else 2 * largest
    if name.startswith("paged"):
        return 0, 0  # its pages live where there is room
    if name in _EIGHT_BIT:
        return _EIGHT_BIT[name] * sum(times * _eight_bit(numel) for numel, _, times in trained) // 2, 0
    if name in _FLOAT32:
        return _FLOAT32[name] * sum(times * _rounded(4 * numel) for numel, _, times in trained), 0
    if name in _COPIES:
        copies, moment = _COPIES[name]
        return copies * whole, moment * largest
    if name in _PROJECTED:
        return _projected(trained), 2 * largest
    if name == "adafactor":
        rows = sum(times * _rounded(int(numel**0.5) * 8) for numel, _, times in trained)
        return rows, 2 * _rounded(largest * 2)
    return 0, 0  # sgd without momentum


# States of a byte or of four a number (bitsandbytes/optim), and states in the parameters' own format with the copies of
# the largest of them that a step makes for the moment: torch/optim, schedulefree, and transformers' other optimizers.
_EIGHT_BIT = {"adamw_8bit": 2, "lion_8bit": 1, "ademamix_8bit": 3}
_FLOAT32 = {"lion_32bit": 1, "ademamix": 3}
_COPIES = {
    "adamw_torch_fused": (2, 0),
    "adagrad": (1, 1),
    "rmsprop": (1, 1),
    "schedule_free_adamw": (2, 1),
    "schedule_free_sgd": (1, 1),
    "grokadamw": (3, 2),
    "stable_adamw": (2, 2),
    "muon": (2, 3),  # Newton and Schulz's iteration holds three
}
# GaLore and APOLLO hold Adam's state for gradients projected to this many rows (transformers' default, `rank`).
_PROJECTED, _PROJECTION = ("galore_adamw", "apollo_adamw"), 128


def _projected(trained: Sizes) -> int:
    """Two states of the projected gradient, and the projection; a matrix is taken to be square."""
    sizes = ((times, numel * item, _PROJECTION * int(numel**0.5) * item) for numel, item, times in trained)
    return sum(3 * times * min(whole, projected) for times, whole, projected in sizes)


def _eight_bit(numel: int) -> int:
    """Two states of a byte with a scale for 256 each; small tensors keep 32 bits (bitsandbytes optimizer.py).

    Just above the bound a larger tensor takes less than a smaller one; some KiB are added so that more is never less.
    """
    small = 2 * _rounded(4 * min(numel, 4095))
    return max(small, 2 * (_rounded(numel) + _rounded(4 * -(-numel // 256)))) if numel >= 4096 else small


def workspaces(run: Run, generation: str) -> int:
    """What the matrix library holds through the allocator, for the forward and the backward pass."""
    if not run.cuda:
        return 0
    return 2 * _rounded(_WORKSPACE_HOPPER if generation in ("hopper", "blackwell") else _WORKSPACE)
