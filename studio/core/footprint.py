"""What a run takes beside its device: the computer's own memory, and the disk.

In: an Estimate, a ModelShape, Surroundings. Out: bytes by part. Worked out from what is read and written: files of the
model, checkpoints with the optimizer's state, the streamed merge. Asks no machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.core.estimate import Estimate
from studio.core.shapes import ModelShape

# Resident in a worker once torch, transformers and trl are imported; and, on a card, once CUDA's libraries are there.
_PROCESS, _CUDA_PROCESS = 700_000_000, 2_000_000_000
_MERGE_PROCESS = 600_000_000  # a worker that merges, with the blocks it works in; measured: 0.46 to 0.58 GB
_SHARD = 5_000_000_000  # the size that transformers split models into before version 5
_STATE = 10_000_000  # trainer state, scheduler, random states, manifest, tokenizer
# Bytes of an optimizer's state on the disk for each number trained, where they differ from those on the device.
_PAGED = 2 * (1 + 4 / 256)  # two states of a byte, a scale for 256 each


@dataclass(frozen=True)
class Surroundings:
    """What is around the device. Bytes and watts; None for what isn't known."""

    ram_free: int | None = None
    ram_total: int | None = None
    disk_free: int | None = None
    download: int = 0  # bytes of the model that are still to be fetched
    largest_file: int | None = None  # of the model's weights
    power_limit: float | None = None  # watts of the chosen device


def host_ram(found: Estimate, shape: ModelShape, around: Surroundings) -> dict[str, int]:
    """The computer's memory at its worst moments, and `peak`, the highest of them; `free` if it is known.

    loading: files are mapped, and one is read at a time, beside the matrix that is being quantized. checkpoint: what
    is trained is copied from the card to be written. merging: base and adapter, a tensor at a time.
    """
    cuda, run = found.device_used.kind == "cuda", found.step.run
    biggest = max((tensor.numel for tensor in shape.tensors), default=0)
    file = min(around.largest_file or _SHARD, shape.bytes)
    trained = found.step.gradients
    process = _CUDA_PROCESS if cuda else _PROCESS
    if cuda:
        loading = process + file + (4 * biggest if run.quant else 0)
        training = process + (_optimizer(found) if run.config.training.optim.startswith("paged") else 0)
        checkpoint = training + max(trained, _optimizer(found))
    else:
        loading = process + found.moments["loaded"].bytes + (file if run.quant else 0)
        training = found.device
        checkpoint = training
    told = {
        "loading": loading,
        "training": training,
        "checkpoint": checkpoint,
        "merging": _MERGE_PROCESS + 8 * biggest if _merges(found) else 0,
    }
    told["peak"] = max(told.values())
    return told if around.ram_free is None else {**told, "free": around.ram_free}


def disk(found: Estimate, shape: ModelShape, around: Surroundings) -> dict[str, int]:
    """What is written, and `total`, the sum of it; `free` if it is known.

    checkpoints: one more than are kept, as the oldest goes when the newest is complete; each with the optimizer's
    state. final: the adapter or the model. merge: an adapter merged into its base, should it be wanted.
    """
    run, trained = found.step.run, found.step.gradients
    each = trained + _optimizer(found) + _STATE
    told = {
        "download": around.download,
        "checkpoints": (run.config.training.save_total_limit + 1) * each,
        "final": trained + _STATE,
        "merge": shape.bytes + _STATE if _merges(found) else 0,
    }
    told["total"] = sum(told.values())
    return told if around.disk_free is None else {**told, "free": around.disk_free}


def _merges(found: Estimate) -> bool:
    """Whether there will be an adapter that can become part of its base."""
    run = found.step.run
    return not run.full and run.config.adapter is not None and run.config.adapter.merges


def _optimizer(found: Estimate) -> int:
    """The optimizer's state, wherever it lies."""
    run = found.step.run
    if run.config.training.optim.startswith("paged"):
        numbers = found.step.gradients // (run.item if run.full else run.adapter_item)
        return round(numbers * _PAGED)
    return found.step.constant["optimizer"]
