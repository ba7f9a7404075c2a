"""What lies on the device all the time: weights, adapter, optimizer, workspaces.

In: a Run. Out: bytes by part. Sizes of quantized weights follow bitsandbytes' functional.py (blocks of 64 share a
scale, 256 scales share another when they are quantized too) and GPTQ's packing; the optimizers' those of torch and
bitsandbytes. Knows no activations.
"""

from __future__ import annotations

from studio.core.memory.run import Run
from studio.core.shapes import Layer, Matrix

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
    for tensor in run.shape.outside:
        small = len(tensor.shape) < 2
        parts["weights"] += _rounded(tensor.numel * (run.norm_item if small else run.outer_item))
    parts["buffers"] = _buffers(run)
    return parts


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
    found = [(t.numel * run.outer_item, 0) for t in run.shape.outside]
    for plan in run.shape.layers:
        for matrix in plan.matrices:
            if run.quantizes(matrix):
                made = 2 * matrix.numel if run.quant != "gptq" else 0
                numbers, scales = packed(run, matrix)
                found += [(numbers, made), (scales, 0)] * matrix.count
            else:
                found += [(matrix.numel * run.item, 0)] * matrix.count
    if not run.full:
        found += [(numel * item, 0) for numel, item, times in trained_sizes(run) for _ in range(times)]
    if buffers := _buffers(run):
        found.append((buffers, 0))
    return found


def _buffers(run: Run) -> int:
    shape = run.shape
    if shape.model_type == "gpt_bigcode":
        return shape.number("n_positions") ** 2
    longest = shape.number("max_position_embeddings")
    if run.habits.rotary_cache and shape.model_type in ("mistral", "mixtral", "qwen2", "phi3", "gemma"):
        return 2 * longest * shape.head_dim * run.item * len(shape.layers)
    return 0


Sizes = list[tuple[int, int, int]]  # numbers, bytes of each, how many of them


def trained_sizes(run: Run) -> Sizes:
    """Every parameter that is trained."""
    found: Sizes = []
    for plan, times in alike(run.shape.layers):
        for matrix in plan.matrices:
            found += _trained(run, matrix, times * matrix.count, times)
        if run.full:
            found += [(numel, run.item, times) for _, numel in plan.small if numel]
    return found + ([(tensor.numel, run.item, 1) for tensor in run.shape.outside] if run.full else [])


def _trained(run: Run, matrix: Matrix, each: int, stacks: int) -> Sizes:
    """Of one matrix, of which there are `each`, in `stacks` stacks of experts."""
    if run.full:
        return [(matrix.numel, run.item, each)] + ([(matrix.out, run.item, each)] if matrix.bias else [])
    if run.wraps(matrix):
        return _stacked(run, matrix, stacks)
    if not run.adapts(matrix):
        return []
    rank, item = run.config.adapter.r if run.config.adapter else 0, run.adapter_item
    return [(rank * matrix.inp, item, each), (rank * matrix.out, item, each)]


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
    if name == "adamw_torch":
        # The default on a GPU is the foreach kind, which holds one more copy of everything for a moment
        # (torch/optim/adamw.py, `exp_avg_sq_sqrt`); on a processor one tensor at a time.
        return 2 * whole, whole if run.cuda else 2 * largest
    if name == "adamw_torch_fused":
        return 2 * whole, 0
    if name in ("adamw_8bit", "paged_adamw_8bit"):
        if name.startswith("paged"):
            return 0, 0  # its pages live where there is room
        return sum(times * _eight_bit(numel) for numel, _, times in trained), 0
    if name == "adafactor":
        rows = sum(times * _rounded(int(numel**0.5) * 8) for numel, _, times in trained)
        return rows, 2 * _rounded(largest * 2)
    return 0, 0  # sgd without momentum


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
