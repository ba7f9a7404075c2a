"""How often a model answers in the manner it was taught, counted on prompts it never saw.

In: a model (with its adapter), prompts, a regex. Out: shares for the tuned model and its base, with the answers.
Greedy, in one batch; knows nothing of how the model was trained.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from studio.core.example import Example
from studio.worker.encode import Encoder

_BATCH = 10
_LONGEST = 120.0  # seconds: on a slow machine fewer prompts are asked rather than the run held up


def manner_shares(
    model: Any,
    tokenizer: Any,
    prompts_file: Path,
    pattern: str,
    *,
    max_new_tokens: int = 72,
    progress: Callable[[int, int], None] = lambda asked, all: None,
) -> dict[str, Any]:
    """Shares (0 to 1) of held-out prompts whose answer matches `pattern` in full: `run`, and `base` for an adapter.

    `prompts_file`: jsonl rows with `prompt`. `prompts` counts those that were asked; the answers stand in `answers`,
    for a person to read. `progress(asked, all)` may raise to end it.
    """
    with prompts_file.open(encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file if line.strip()]
    taught = re.compile(pattern)
    began = time.monotonic()
    asked: list[str] = []
    columns = ("run", "base") if hasattr(model, "disable_adapter") else ("run",)
    answers: dict[str, list[str]] = {name: [] for name in columns}
    while len(asked) < len(prompts) and time.monotonic() - began < _LONGEST:
        progress(len(asked), len(prompts))
        batch = prompts[len(asked) : len(asked) + _BATCH]
        asked += batch
        answers["run"] += answer(model, tokenizer, batch, max_new_tokens)
        if "base" in answers:
            with model.disable_adapter():
                answers["base"] += answer(model, tokenizer, batch, max_new_tokens)
    table = [{"prompt": prompt, **{name: told[i] for name, told in answers.items()}} for i, prompt in enumerate(asked)]
    return {"prompts": len(asked), **{name: _share(taught, told) for name, told in answers.items()}, "answers": table}


def _share(taught: re.Pattern[str], answers: list[str]) -> float:
    return sum(bool(taught.fullmatch(text.strip())) for text in answers) / max(len(answers), 1)


def answer(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int) -> list[str]:
    """Greedy replies to single user messages, generated in one batch padded on the left."""
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    was_training = model.training
    model.eval()
    try:
        encoder = Encoder(tokenizer)
        asked = [encoder.encode(Example(prompt=({"role": "user", "content": prompt},))).ids for prompt in prompts]
        batch = tokenizer.pad({"input_ids": asked}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            out = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True)
    finally:
        tokenizer.padding_side = side
        model.train(was_training)
    told: list[str] = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return told
