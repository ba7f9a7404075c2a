"""Which model is taught, and how it is held in memory."""

from __future__ import annotations

from typing import Literal

from studio.core.sections.section import Section, knob


class ModelSection(Section):
    name_or_path: str = knob(
        "starter",
        "Model",
        "The model to teach: the built-in starter, a folder, a name on the Hugging Face hub, or an earlier run.",
        basic=True,
        min_length=1,
    )
    revision: str | None = knob(
        None,
        "Revision",
        "Which version of a hub model to take: a branch, tag or commit; empty takes the newest.",
        group="data",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob(
        "auto",
        "Number format",
        "How the model's numbers are held in memory; auto takes bfloat16 where the device computes it in hardware.",
        group="memory",
    )
    quantization: Literal["none", "nf4", "fp4", "int8"] = knob(
        "none",
        "Quantization",
        "Holds the base in 4 or 8 bits while an adapter is trained on it (QLoRA): far less memory, a bit slower.",
        group="memory",
    )
    double_quant: bool = knob(
        True,
        "Double quantization",
        "Also compresses the scales of a 4-bit model: saves about 0.4 bits a weight at no visible cost.",
        group="memory",
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = knob(
        "auto",
        "Attention",
        "Which code computes attention; auto takes what was measured to be right for the device.",
        group="memory",
    )
    prepare_for_kbit: Literal["auto"] | bool = knob(
        "auto",
        "Quantized: the rest in float32",
        "Holds what isn't quantized in float32, as PEFT's prepare_model_for_kbit_training does: more memory; auto does "
        "what the installed TRL does, which leaves it.",
        group="memory",
    )
