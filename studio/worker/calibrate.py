"""How fast this machine trains, measured in five seconds before there is a run to tell it.

    python -m studio.worker --calibrate ANSWER      measures and writes calibration.json; $STUDIO_HOME has it

In: nothing but the machine. Out: FLOP/s for each kind of work (core/work.py) at what `auto` stands for here: a decoder
layer's products, attention and norms, forward and backward, with a frozen base and LoRA, a quantized one, or trained
whole; and what torch knows of cards that NVIDIA's driver doesn't. In a process of its own, so that a standby worker has
no context on a card and no memory from it. Runs know better: what they measure replaces what stands here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.nn import functional

from studio.core.config import LoraAdapter, RunConfig
from studio.core.job import write_text
from studio.core.work import work_kind
from studio.worker.device import Setup, resolve
from studio.worker.nvidia import Card, device_name, in_use

SCHEMA = 1
SECONDS = 5.0
_ROOM = 4 << 30  # bytes that must be free on a card


class Size(NamedTuple):
    """A layer and a row: numbers of the hidden state, of the feed-forward part, heads, tokens."""

    hidden: int
    inner: int
    heads: int
    tokens: int


# The starter model's layer on a processor; on a card an 8B model's, which is large enough to keep it busy.
_ON_CPU, _ON_CARD = Size(576, 1536, 9, 512), Size(4096, 14336, 32, 2048)
_KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"model": {"quantization": "nf4"}},
    {"adapter": None},
)


def configs() -> list[RunConfig]:
    """A config of each kind that is measured: LoRA, QLoRA, the whole model."""
    return [RunConfig.model_validate(sections) for sections in _KINDS]


class Layer(nn.Module):  # type: ignore[misc]
    """A decoder layer in Llama's manner; with `rank`, its base is frozen and every matrix has an adapter beside it."""

    def __init__(self, size: Size, rank: int, linear: Any = nn.Linear) -> None:
        super().__init__()
        hidden, inner = size.hidden, size.inner
        shapes = {"q": (hidden, hidden), "k": (hidden, hidden), "v": (hidden, hidden), "o": (hidden, hidden)}
        shapes |= {"gate": (hidden, inner), "up": (hidden, inner), "down": (inner, hidden)}
        self.size = size
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(2))
        self.base = nn.ModuleDict({name: linear(*shape, bias=False) for name, shape in shapes.items()})
        self.beside = nn.ModuleDict()
        if rank:
            self.requires_grad_(False)
            pairs = {
                n: (nn.Linear(i, rank, bias=False), nn.Linear(rank, o, bias=False)) for n, (i, o) in shapes.items()
            }
            self.beside = nn.ModuleDict({name: nn.Sequential(*pair) for name, pair in pairs.items()})

    def flops(self) -> float:
        """Of a forward and a backward pass over one row, counted as core/work.py counts them."""
        weights = sum(a * b for a, b in self._shapes())
        beside = sum(sum(p.numel() for p in pair.parameters()) for pair in self.beside.values())
        passes = 2 if len(self.beside) else 3  # a frozen weight needs no gradient of its own
        pairs = self.size.tokens**2 / 2
        return 2.0 * self.size.tokens * (passes * weights + 3 * beside) + 3.5 * 4 * pairs * self.size.hidden

    def _shapes(self) -> list[tuple[int, int]]:
        hidden, inner = self.size.hidden, self.size.inner
        return [(hidden, hidden)] * 4 + [(hidden, inner)] * 3

    def _at(self, name: str, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base[name](states)
        return out + self.beside[name](states) if name in self.beside else out

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normed = self.norms[0](states)
        split = (1, self.size.tokens, self.size.heads, -1)
        query, key, value = (self._at(name, normed).view(split).transpose(1, 2) for name in ("q", "k", "v"))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self._at("o", mixed.transpose(1, 2).reshape(states.shape))
        normed = self.norms[1](states)
        inner = functional.silu(self._at("gate", normed)) * self._at("up", normed)
        return states + self._at("down", inner)


def build(config: RunConfig, setup: Setup, size: Size) -> Layer:
    """The layer as a run of that config would hold it."""
    linear: Any = nn.Linear
    if config.model.quantization != "none":
        import bitsandbytes

        def linear(inp: int, out: int, bias: bool) -> nn.Module:
            made: nn.Module = bitsandbytes.nn.Linear4bit(inp, out, bias=bias, compute_dtype=setup.weights)
            return made

    rank = config.adapter.r if isinstance(config.adapter, LoraAdapter) else 0
    layer = Layer(size, rank, linear)
    layer.to(device=setup.device, dtype=setup.weights)
    return layer


def rate(config: RunConfig, size: Size, seconds: float) -> float:
    """FLOP/s of a kind of work. Takes `seconds`, and at least three passes."""
    setup = resolve(config)
    layer = build(config, setup, size)
    states = torch.randn(1, size.tokens, size.hidden, device=setup.device, dtype=setup.weights, requires_grad=True)
    autocast = torch.autocast(setup.device.type, setup.autocast) if setup.autocast else contextlib.nullcontext()
    taken: list[float] = []
    began = time.monotonic()
    while len(taken) < 3 or time.monotonic() - began < seconds:
        at = time.monotonic()
        with autocast:
            layer(states).sum().backward()
        if not setup.on_cpu:
            torch.accelerator.synchronize(setup.device)
        taken.append(time.monotonic() - at)
        layer.zero_grad()
    return layer.flops() / statistics.median(taken[1:])


def calibrate(seconds: float = SECONDS, size: Size | None = None) -> dict[str, Any]:
    """What calibration.json holds. Kinds that can't be measured here (no room, no bitsandbytes) are left out."""
    setup = resolve(RunConfig())
    rates = {}
    for config in configs() if _has_room(setup.device) else []:
        try:
            chosen = size or (_ON_CPU if setup.on_cpu else _ON_CARD)
            rates[work_kind(config, setup.device.type)] = rate(config, chosen, seconds / len(_KINDS))
        except Exception as error:  # noqa: BLE001 - whatever a device can't do, it is left out
            sys.stderr.write(f"not calibrated: {work_kind(config, setup.device.type)} ({error!r})\n")
    return {
        "schema": SCHEMA,
        "machine": fingerprint(),
        "time": time.time(),
        "device_name": device_name(setup.device, Card.find(setup.device)),
        "rates": rates,
        "cards": cards(),
    }


def _has_room(device: torch.device) -> bool:
    return device.type != "cuda" or int(torch.cuda.mem_get_info(device)[0]) >= _ROOM


def cards() -> list[dict[str, Any]]:
    """Cards that NVIDIA's driver doesn't know of: names, and bytes of memory."""
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if here is None or torch.version.cuda is not None:
        return []
    if here.type == "mps":
        return [{"name": "Apple GPU", "memory_total": int(torch.mps.recommended_max_memory())}]
    each = [torch.device(here.type, index) for index in range(torch.accelerator.device_count())]
    facts = getattr(torch, here.type).get_device_properties
    return [{"name": device_name(one, None), "memory_total": int(facts(one).total_memory)} for one in each]


def fingerprint() -> list[str]:
    """Tells this machine from another, and this torch from the next; asked without waking a card."""
    return [importlib.metadata.version("torch"), str(os.cpu_count()), *sorted(in_use())]


def wanted(answer: Path) -> bool:
    """Whether this machine was never calibrated with this torch."""
    try:
        known = json.loads(answer.read_text(encoding="utf-8"))
        return bool(known["schema"] != SCHEMA or known["machine"] != fingerprint())
    except (OSError, ValueError, KeyError, TypeError):
        return True


def main(answer: Path, seconds: float = SECONDS, size: Size | None = None) -> int:
    """Calibrate at the lowest priority and write the answer; ends at once when stdin does."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    psutil.Process().nice(19 if os.name == "posix" else getattr(psutil, "IDLE_PRIORITY_CLASS", None))
    with contextlib.suppress(Timeout), FileLock(answer.with_suffix(".lock"), timeout=0):
        if wanted(answer):
            write_text(answer, json.dumps(calibrate(seconds, size), indent=1))
    return 0


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)
