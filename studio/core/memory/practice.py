"""What the libraries of a day do with memory, and what a run does that its config doesn't say.

In: version numbers, a RunConfig. Out: `Habits`, facts as plain fields. Each fact has the version it came with and
where that can be read; None stands for what is installed with this studio. Knows no sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    litgpt: str = ""  # where it is named, its code trains, not transformers'

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


Loss = Literal["fused", "padded", "kept", "shifted", "fast", "liger", "chunked", "pieces"]
Program = Literal["transformers", "litgpt"]


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
    """What the libraries of the day do; families are model types."""

    program: Program  # whose layers run
    loss: Loss  # of SFT; see `heads`
    own_loss: frozenset[str]  # families whose loss is still `shifted`, written in the model's own code
    metrics: bool  # TRL looks at the logits again for its curves
    prepares: bool  # a quantized base goes through peft's prepare_model_for_kbit_training
    adapter_quantized_item: int  # bytes of an adapter's numbers over a quantized base
    rotary_cache: frozenset[str]  # families whose every layer holds cosines and sines for the longest row it can read
    repeat_kv: bool  # sdpa gets keys and values copied for each of their heads
    repeat_kv_flash: frozenset[str]  # families that do so for flash attention too
    caches: frozenset[str]  # families that collect keys and values in training, whatever gradient checkpointing asks
    stacked_experts: bool  # a mixture's experts are one tensor, which bitsandbytes and LoRA pass over
    saves_input_4bit: bool  # bitsandbytes keeps the inputs of 4-bit products
    unpacks_to_half: bool  # 4-bit weights come back in float16, and are cast where bfloat16 is wanted
    reentrant: bool  # gradient checkpointing's default


# Until which version of transformers a family did something; each read in src/transformers/models/*/modeling_*.py of
# the releases 4.37.2, 4.39.3, 4.41.2, 4.42.0, 4.43.4 to 4.50.0, 4.52.4, 4.53.3 and 4.55.4.
_Until = Mapping[str, Numbers]
_ROTARY_CACHE: _Until = {  # `_set_cos_sin_cache`
    "llama": (4, 38), "mistral": (4, 42), "mixtral": (4, 48),
    **dict.fromkeys(("qwen2", "qwen2_moe", "phi", "falcon", "gpt_neox", "stablelm", "starcoder2"), (4, 45)),
}  # fmt: skip
_FLASH_COPIES: _Until = {  # `repeat_kv` in the flash-attention class
    "qwen2_moe": (5,), **dict.fromkeys(("mistral", "mixtral", "qwen2", "phi3", "starcoder2"), (4, 48)),
}  # fmt: skip
_OWN_LOSS: _Until = {  # no `self.loss_function`
    "mistral": (4, 48), "granite": (4, 48),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neox", "falcon"), (4, 49)),
}  # fmt: skip
_CACHES: _Until = {"gpt_bigcode": (4, 53)}  # no "`use_cache=True` is incompatible with gradient checkpointing"


def _before(hf: Numbers, until: _Until) -> frozenset[str]:
    return frozenset(family for family, version in until.items() if hf < version)


def habits(versions: Versions) -> Habits:
    """The facts for these versions."""
    hf, trl, torch = numbers(versions.transformers), numbers(versions.trl), numbers(versions.torch)
    bnb = numbers(versions.bitsandbytes)
    return Habits(
        program="litgpt" if versions.litgpt else "transformers",
        loss=_loss(hf, trl),
        own_loss=_before(hf, _OWN_LOSS),
        # trl/trainer/sft_trainer.py, `compute_loss`: a copy of the logits since 0.15
        metrics=(0, 15) <= trl < (1, 6),
        # SFTTrainer called peft's prepare_model_for_kbit_training for quantized models through 0.25
        # (trl/models/utils.py, `prepare_peft_model`) and since 0.26 makes their adapters bfloat16. Before, 4-bit runs
        # in bfloat16 had all but the norms cast back (`peft_module_casting_to_bf16`).
        prepares=trl < (0, 26),
        adapter_quantized_item=2 if trl >= (0, 26) else 4,
        rotary_cache=_before(hf, _ROTARY_CACHE),
        # src/transformers/integrations/sdpa_attention.py, `use_gqa_in_sdpa`: not in 4.53.3, there in 4.55.4
        repeat_kv=hf < (4, 54) or torch < (2, 5),
        repeat_kv_flash=_before(hf, _FLASH_COPIES),
        caches=_before(hf, _CACHES),
        stacked_experts=hf >= (5, 0),
        # bitsandbytes/autograd/_functions.py, MatMul4Bit: `ctx.tensors = (A, B)` through 0.43.1
        saves_input_4bit=bnb < (0, 43, 2),
        # bitsandbytes/nn/modules.py, Params4bit.cuda: `.half()` through 0.42; LitGPT's own quantizing does the same
        unpacks_to_half=bnb < (0, 43) or bool(versions.litgpt),
        reentrant=hf < (5, 0),
    )


def _loss(hf: Numbers, trl: Numbers) -> Loss:
    """TRL's own loss where it has one, else transformers'."""
    # trl/trainer/sft_trainer.py: `add_fused_lm_head` from 1.15, `_chunked_cross_entropy_loss` from 1.6
    if trl >= (1, 6):
        return "fused" if trl >= (1, 15) else "pieces"
    # src/transformers/loss/loss_utils.py: 4.46 made the loss a function that gets the logits, so their caller still
    # holds them; 4.49 pads the labels instead of copying the logits.
    return "shifted" if hf < (4, 46) else "kept" if hf < (4, 49) else "padded"


def written(way: Loss, habits: Habits, family: str) -> Loss:
    """The loss as this family's code has it: where it still writes its own, that one."""
    return "shifted" if way in ("kept", "padded") and family in habits.own_loss else way


def settle(practice: Practice | None, versions: Versions | None) -> tuple[Practice, Habits]:
    """Both with every None decided."""
    own = practice or Practice()
    found = habits(versions or Versions())
    if found.program == "litgpt":  # 16 bits throughout, adapters too, unless it is told otherwise
        autocast = bool(own.autocast)
        own = replace(own, autocast=autocast, adapter_item=own.adapter_item or (4 if autocast else 2))
    return replace(
        own,
        loss=own.loss or found.loss,
        # this studio asks for the newer one; what is measured elsewhere took its library's default
        reentrant=own.reentrant if own.reentrant is not None else (found.reentrant if versions else False),
    ), found
