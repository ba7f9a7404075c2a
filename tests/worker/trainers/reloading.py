"""What runs have saved, loaded as anybody would load it: for a process that knows nothing of the run.

In: a table of folders. Out: logits. Plain transformers and PEFT.
"""

from __future__ import annotations

import json
from pathlib import Path


def logits(table: str, out: str) -> None:
    """`table`: JSON, name -> {base, adapter ("": none), scores, ids}. Writes a tensor for each name."""
    import torch
    from peft import PeftModel
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    found = {}
    for name, case in json.loads(Path(table).read_text(encoding="utf-8")).items():
        kind = AutoModelForSequenceClassification if case["scores"] else AutoModelForCausalLM
        options = {"num_labels": 1} if case["scores"] and case["adapter"] else {}
        model = kind.from_pretrained(case["base"], dtype=torch.float32, **options)
        if case["adapter"]:
            model = PeftModel.from_pretrained(model, case["adapter"])
        with torch.no_grad():
            found[name] = model.eval()(input_ids=torch.tensor([case["ids"]])).logits.contiguous().clone()
    save_file(found, out)
