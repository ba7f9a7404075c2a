"""Which device trains, in which number format, with what `auto` stands for on it.

In: the config's wishes. Out: a Setup, every `auto` resolved. The only place that asks what the hardware is. Values
come from measurement; docs/LOG.md has the table.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from studio.core.config import RunConfig
from studio.core.errors import ConfigError
from studio.core.packages import is_here, missing
from studio.core.sections.adapter import PrefixTuningAdapter


@dataclass(frozen=True)
class Setup:
    """What the run uses.

    `weights` is the base's dtype; `autocast` the one matrix products run in, None for the weights' own.
    """

    device: torch.device
    weights: torch.dtype
    autocast: torch.dtype | None
    attention: str
    gradient_checkpointing: bool
    sampling: str

    @property
    def on_cpu(self) -> bool:
        return bool(self.device.type == "cpu")


def choose_device(wish: str) -> torch.device:
    """The device for `hardware.device`. Raises ConfigError where there is no such device here."""
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if wish == "auto":
        return here if here is not None else torch.device("cpu")
    device = torch.device(wish)
    if device.type == "cpu":
        return device
    if here is None or here.type != device.type or (device.index or 0) >= torch.accelerator.device_count():
        found = f"{here.type} ({torch.accelerator.device_count()})" if here else "only the processor"
        raise ConfigError("hardware.device", f"there is no {wish} here; found: {found}.", "Use auto.")
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 trains faster than float32 on the device.

    On processors only AMX makes it so: without bf16 instructions it measured three times slower than float32, and with
    avx512_bf16 alone still 1.5 times slower (docs/LOG.md).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "xpu":
        return True
    if device.type == "cpu":
        return "amx_bf16" in _cpu_flags()
    return False  # mps: only from the M2 on, and torch can't tell which it is


def _cpu_flags() -> set[str]:
    if platform.system() != "Linux":
        return set()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    for line in text.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, Arm
            return set(values.split())
    return set()


def resolve(config: RunConfig) -> Setup:
    """Every `auto` of a config, resolved for this machine. Raises ConfigError."""
    device = choose_device(config.hardware.device)
    weights, autocast = _precision(config, device)
    checkpointing = config.training.gradient_checkpointing
    sampling = config.training.train_sampling_strategy
    attention = config.model.attn_implementation
    _check_packages(config)
    _check_device(config, device)
    if checkpointing == "auto":
        # Prefix tuning keeps what it stands in front of as a cache, which nothing recomputes.
        checkpointing = device.type != "cpu" and not isinstance(config.adapter, PrefixTuningAdapter)
    return Setup(
        device=device,
        weights=weights,
        autocast=autocast,
        attention="sdpa" if attention == "auto" else attention,
        gradient_checkpointing=bool(checkpointing),
        sampling=("random" if config.training.packing else "group_by_length") if sampling == "auto" else sampling,
    )


def _check_packages(config: RunConfig) -> None:
    """Refuse what this installation has no package for, before anything is fetched or loaded."""
    for lacking in missing(config):
        raise ConfigError(
            lacking.path,
            f"{lacking.choice} needs the package {lacking.name}, which isn't installed.",
            f"Install it (pip install {lacking.name}), or choose another.",
        )


def _check_device(config: RunConfig, device: torch.device) -> None:
    """Refuse what the device can't do, or does without being told."""
    knobs, attention = config.training, config.model.attn_implementation
    if attention.startswith("flash_attention") and device.type == "cpu":
        raise ConfigError("model.attn_implementation", f"{attention} needs a graphics card.", "Use auto.")
    if knobs.activation_offloading and device.type == "cpu":
        raise ConfigError("training.activation_offloading", "on a processor they are in RAM already.", "Switch it off.")
    if knobs.use_liger_kernel and device.type != "cuda":
        raise ConfigError("training.use_liger_kernel", "Liger's kernels need an NVIDIA card.", "Switch it off.")
    if knobs.optim.startswith("paged_") and device.type != "cuda":
        plain = knobs.optim.removeprefix("paged_").replace("adamw_32bit", "adamw_torch")
        raise ConfigError("training.optim", "paging moves memory off an NVIDIA card; there is none.", f"Use {plain}.")
    if knobs.torch_compile and not _can_compile(device):
        raise ConfigError(
            "training.torch_compile",
            "compiling needs Triton here." if device.type == "cuda" else "compiling needs a C++ compiler here.",
            "Install it, or switch it off.",
        )
    if device.type == "cpu" and config.model.quantization == "int8" and getattr(config.adapter, "use_dora", False):
        raise ConfigError("adapter.use_dora", "DoRA over an int8 base needs a graphics card.", "Use nf4, or none.")


def _can_compile(device: torch.device) -> bool:
    if device.type == "cuda":
        return is_here("triton")
    return any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))


def _precision(config: RunConfig, device: torch.device) -> tuple[torch.dtype, torch.dtype | None]:
    wish: str = config.model.dtype
    if wish == "auto":
        # float16 halves the memory of cards before Ampere; processors and M1 Macs compute float32 best.
        without = "float16" if device.type == "cuda" else "float32"
        wish = "bfloat16" if computes_bf16(device) else without
        if config.adapter is None and device.type != "cpu" and wish != "float32":
            # Full fine-tuning updates are smaller than 16 bits resolve: float32 weights, 16-bit products.
            return torch.float32, getattr(torch, wish)
    if wish == "float16" and device.type == "cpu":
        raise ConfigError("model.dtype", "processors can't train in float16.", "Use auto or float32.")
    weights = getattr(torch, wish)
    if wish == "float32":
        return weights, None
    # float16's gradients can't be scaled in place; who asks for no autocast gets it throughout
    wide = wish == "float16" and config.adapter is None and config.training.autocast is not False
    return (torch.float32 if wide else weights), weights
