"""What the libraries of a day do with memory, and what a run does that its config doesn't say.

In: version numbers, a RunConfig. Out: `Habits`, facts as plain fields. Each fact has the version it came with and
where that can be read; None stands for what is installed with this studio. Knows no sizes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Versions:
    """The libraries that do the training; those left out are the ones this studio is made for."""

    transformers: str = "5.23.0"
    trl: str = "1.16.0"
    torch: str = "2.13.0"
    peft: str = "0.21.2"
    bitsandbytes: str = "0.50.2"

    @classmethod
    def parse(cls, text: str) -> Versions:
        """From `transformers=4.48.1,trl=0.13.0`. Raises ValueError for names it doesn't know and odd numbers."""
        given = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(",") if part)
        known = set(cls.__dataclass_fields__)
        for name, version in given.items():
            if name not in known:
                raise ValueError(f"there is no {name}; choose from {', '.join(sorted(known))}")
            if not numbers(version):
                raise ValueError(f"{version!r} is no version of {name}")
        return cls(**given)


def numbers(version: str) -> Numbers:
    """2.4.1+cu121 -> (2, 4, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


Loss = Literal["fused", "padded", "kept", "shifted", "fast", "liger", "chunked"]


@dataclass(frozen=True)
class Practice:
    """What a run does where its config is silent; None takes what this studio (or the libraries of the day) would do.

    `autocast`: products in 16 bits by autocast, or the weights' own format throughout. `adapter_item`: bytes of an
    adapter's numbers. `loss`: how it is computed. `upcast`: which weights beside a quantized base are held in float32
    (peft's prepare_model_for_kbit_training: `all`; with TRL's casting back: `norms`). `reentrant`: the older gradient
    checkpointing. `hold_logits`: the training loop keeps them until its step ends. `masked`: rows are padded, so
    attention gets a mask. `compiled`: layers went through torch.compile or have fused kernels, which keep what a kernel
    read and not what it made in between. `expandable`: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.
    """

    autocast: bool | None = None
    adapter_item: int | None = None
    loss: Loss | None = None
    upcast: Literal["none", "norms", "all"] | None = None
    reentrant: bool | None = None
    hold_logits: bool = False
    masked: bool = False
    compiled: bool = False
    expandable: bool = True


@dataclass(frozen=True)
class Habits:
    """What the libraries of the day do."""

    loss: Loss  # of SFT; see `heads`
    metrics: bool  # TRL looks at the logits again for its curves
    prepares: bool  # a quantized base goes through peft's prepare_model_for_kbit_training
    adapter_quantized_item: int  # bytes of an adapter's numbers over a quantized base
    rotary_cache: bool  # every layer holds cosines and sines for the longest row the model can read
    repeat_kv: bool  # sdpa gets keys and values copied for each of their heads
    repeat_kv_flash: bool  # and so does flash attention, in the families that were modelled on Mistral
    stacked_experts: bool  # a mixture's experts are one tensor, which bitsandbytes and LoRA pass over
    saves_input_4bit: bool  # bitsandbytes keeps the inputs of 4-bit products
    reentrant: bool  # gradient checkpointing's default


def habits(versions: Versions) -> Habits:
    """The facts for these versions."""
    hf, trl, torch = numbers(versions.transformers), numbers(versions.trl), numbers(versions.torch)
    # transformers 4.46 made the loss a function that gets the logits, so their caller still holds them; 4.50 pads the
    # labels instead of copying the logits (src/transformers/loss/loss_utils.py). TRL 1.16: trl/trainer/sft_trainer.py,
    # `add_fused_lm_head`.
    if trl >= (1, 16):
        loss: Loss = "fused"
    else:
        loss = "shifted" if hf < (4, 46) else "kept" if hf < (4, 50) else "padded"
    return Habits(
        loss=loss,
        metrics=(0, 16) <= trl < (1, 16),
        # TRL called peft's prepare_model_for_kbit_training for quantized models until 0.24, and for bf16 runs cast all
        # but the norms back (trl/trainer/utils.py, `peft_module_casting_to_bf16`).
        prepares=trl < (0, 24),
        adapter_quantized_item=2 if trl >= (0, 24) else 4,
        # Llama lost its cache in 4.38, Mistral and Mixtral in 4.42 (modeling_mistral.py, `_set_cos_sin_cache`).
        rotary_cache=hf < (4, 42),
        # 4.48 gave all models one attention interface (src/transformers/integrations/).
        repeat_kv=hf < (4, 48) or torch < (2, 5),
        repeat_kv_flash=hf < (4, 48),
        stacked_experts=hf >= (5, 0),
        saves_input_4bit=numbers(versions.bitsandbytes) < (0, 42),
        reentrant=hf < (5, 0),
    )


def settle(practice: Practice | None, versions: Versions | None) -> tuple[Practice, Habits]:
    """Both with every None decided."""
    own = practice or Practice()
    found = habits(versions or Versions())
    return replace(
        own,
        loss=own.loss or found.loss,
        # this studio asks for the newer one; what is measured elsewhere took its library's default
        reentrant=own.reentrant if own.reentrant is not None else (found.reentrant if versions else False),
    ), found
