"""What an export and a merge are told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from studio.core.llamacpp import QUANTIZED
from studio.core.sections.section import Section

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantization = Literal[
    "auto", "f32", "f16", "bf16", "q8_0",
    "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
    "nf4", "fp4", "int8",
]  # fmt: skip

GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")  # which the studio writes itself
BNB_TYPES = ("nf4", "fp4", "int8")


class ExportConfig(Section):
    """What an export is told: which run (or, where adapters trained elsewhere are merged, which base), to what, where.

    `quantized_base`: whether a run on a base held in 4 or 8 bits is merged into that base as it was published, or into
    what the quantized weights stand for, which is what it was trained on. `quantization`: of a GGUF file or a
    bitsandbytes checkpoint; what llama.cpp's quantizer alone makes needs that on the machine.
    """

    run: str = Field(min_length=1)
    format: Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "bnb"] = "merged"
    out: str = Field(min_length=1)
    dtype: Dtype = "auto"
    quantization: Quantization = "auto"
    shard_size: float = Field(default=5.0, gt=0, le=1000, description="Gigabytes a file at most.")
    quantized_base: Literal["original", "dequantized"] = "original"
    parity: bool = Field(default=True, description="Load what was written and compare it with base and adapter.")

    @model_validator(mode="after")
    def _quantization_is_one_of_the_formats(self) -> ExportConfig:
        made = (*GGUF_TYPES, *QUANTIZED)
        known = {"gguf": made, "ollama": made, "bnb": BNB_TYPES}.get(self.format, ())
        if self.quantization != "auto" and self.quantization not in known:
            said = f"{self.format} knows {', '.join(known)}" if known else f"{self.format} has none; leave it out"
            raise ValueError(f"quantization: {said}")
        return self


class MergeConfig(Section):
    """What a merge of adapters trained elsewhere is told. `combination` and `density` are those of PEFT."""

    base: str = Field(min_length=1)
    adapters: list[str] = Field(min_length=1)
    out: str = Field(min_length=1)
    dtype: Dtype = "auto"
    shard_size: float = Field(default=5.0, gt=0, le=1000)
    weights: list[float] = Field(default_factory=list)
    combination: Literal["linear", "cat", "svd", "ties", "dare_linear", "dare_ties"] = "cat"
    density: float = Field(default=0.5, gt=0, le=1)
    parity: bool = True

    @model_validator(mode="after")
    def _each_adapter_has_its_weight(self) -> MergeConfig:
        if self.weights and len(self.weights) != len(self.adapters):
            raise ValueError(
                f"weights: there are {len(self.weights)} weights for {len(self.adapters)} adapters; give one for each"
            )
        return self
