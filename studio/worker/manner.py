"""How often a model answers in the manner it was taught, counted on prompts it never saw.

In: a model (with its adapter), prompts, a regex. Out: shares for the tuned model and its base, with the answers.
Greedy, in one batch; knows nothing of how the model was trained.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

_BATCH = 16


def manner_shares(
    model: Any, tokenizer: Any, prompts_file: Path, pattern: str, max_new_tokens: int = 96
) -> dict[str, Any]:
    """Shares (0 to 1) of held-out prompts whose answer matches `pattern` in full: `run`, and `base` for an adapter.

    `prompts_file`: jsonl rows with `prompt`. The answers stand in `answers`, for a person to read.
    """
    with prompts_file.open(encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file if line.strip()]
    taught = re.compile(pattern)
    found: dict[str, Any] = {"prompts": len(prompts), "answers": []}
    tuned = answer(model, tokenizer, prompts, max_new_tokens)
    found["run"] = _share(taught, tuned)
    base = None
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            base = answer(model, tokenizer, prompts, max_new_tokens)
        found["base"] = _share(taught, base)
    for i, prompt in enumerate(prompts):
        found["answers"].append({"prompt": prompt, "run": tuned[i], **({"base": base[i]} if base else {})})
    return found


def _share(taught: re.Pattern[str], answers: list[str]) -> float:
    return sum(bool(taught.fullmatch(text.strip())) for text in answers) / max(len(answers), 1)


def answer(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int) -> list[str]:
    """Greedy replies to single user messages, generated in batches padded on the left."""
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    was_training = model.training
    model.eval()
    replies: list[str] = []
    try:
        for first in range(0, len(prompts), _BATCH):
            batch = tokenizer.apply_chat_template(
                [[{"role": "user", "content": prompt}] for prompt in prompts[first : first + _BATCH]],
                add_generation_prompt=True,
                tokenize=True,
                padding=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device)
            with torch.inference_mode():
                out = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True)
            replies += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    finally:
        tokenizer.padding_side = side
        model.train(was_training)
    return replies
