"""What a process that knows nothing of the studio makes of saved adapters: transformers, PEFT and bitsandbytes alone.

In: cases as JSON (base, adapter, quantization, whole). Out: a file of logits, one tensor a case.
"""

from __future__ import annotations

import json
from typing import Any

IDS = [5, 60, 7, 80, 9, 100, 11, 120, 13, 14]


def bnb_config(quantization: str) -> Any:
    """bitsandbytes' config as its own documentation spells it."""
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "none":
        return None
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.removesuffix("-single"),
        bnb_4bit_use_double_quant=not quantization.endswith("-single"),
        bnb_4bit_compute_dtype=torch.float32,
    )


def reload(cases: str, out: str) -> None:
    """The logits of every case: a base with its adapter laid over it, or a whole model ("" as adapter)."""
    import warnings

    import torch
    from peft import PeftModel
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    warnings.simplefilter("ignore")
    found = {}
    for name, (base, adapter, quantization) in json.loads(cases).items():
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, quantization_config=bnb_config(quantization)
        )
        for module in model.modules():
            # bitsandbytes would round products to bfloat16 on processors that have it, by what it is built with
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        if adapter:
            model = PeftModel.from_pretrained(model, adapter)
        with torch.no_grad():
            found[name] = model.eval()(input_ids=torch.tensor([IDS])).logits[0].contiguous()
    save_file(found, out)
