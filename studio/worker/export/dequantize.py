"""What a base's weights stand for once bitsandbytes has held them in 4 or 8 bits.

In: a model's modules, how the run loaded it. Out: for each of the linear weights that bitsandbytes takes, the numbers
that its layers compute with. They are quantized and turned back one at a time, on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from studio.core.config import ModelSection


class Dequantized:
    """Called with a weight's name and value in the model; other weights come back as they are."""

    def __init__(self, model: Any, section: ModelSection) -> None:
        from transformers.quantizers.base import get_keys_to_not_convert
        from transformers.quantizers.quantizers_utils import should_convert_module

        self.section = section
        kept = get_keys_to_not_convert(model)
        self.transposed: dict[str, bool] = {
            f"{path}.weight": isinstance(module, Conv1D)
            for path, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and should_convert_module(path, kept)
        }

    def __contains__(self, name: str) -> bool:
        return name in self.transposed

    def __call__(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.transposed:
            return value
        if self.section.dtype != "auto":
            value = value.to(getattr(torch, self.section.dtype))
        turned = self.transposed[name]
        found = self._there_and_back(value.T.contiguous() if turned else value).float()
        return found.T.contiguous() if turned else found

    def _there_and_back(self, value: torch.Tensor) -> torch.Tensor:
        from bitsandbytes import functional

        if self.section.quantization == "int8":
            numbers, scales, _ = functional.int8_vectorwise_quant(value.half())
            back: torch.Tensor = functional.int8_vectorwise_dequant(numbers, scales)
            return back
        packed, state = functional.quantize_4bit(
            value,
            quant_type=self.section.quantization,
            compress_statistics=self.section.double_quant,
            quant_storage=torch.uint8,
        )
        return functional.dequantize_4bit(packed, state)
