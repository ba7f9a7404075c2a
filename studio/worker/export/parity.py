"""`python -m studio.worker.export.parity REQUEST ANSWER` says whether what was written is the model that was trained.

In: request.json (base, adapters, what was written). Out: answer.json: logits of base + adapter and of the written model
on the same prompts, in a fresh process each time; what the format's own rounding explains of their difference; replies
side by side; template, special tokens and end of turn. Knows nothing of how anything was written.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from studio.core.job import read_json, write_text
from studio.worker.export.loading import Written, load_reference, load_used, load_written
from studio.worker.export.proof import end_with_the_asker
from studio.worker.export.rounding import round_like, stored_dtype
from studio.worker.export.shards import TensorFiles, shard_files

PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Explain in simple words why the sky is blue.",
    "def fibonacci(n):",
)
STRINGS = ("Hello, world!", "  two  spaces\n\n\ttab", "12345.67", "naïve café 東京 🙂", "for i in range(10): print(i)")
_NEW = 16  # tokens of a reply
_SLACK = 1e-3  # of the largest logit: sums in another order
# Of what the rounding explains. The merge that was written and the one in memory add in another order, so they may
# differ in float32's last place, 1e-7 of a weight. Where that decides which way a number is rounded, it comes out a
# step apart: with bfloat16's steps of 1/256 this meets one in 2e4, with coarser ones fewer. A step is sqrt(12) times
# what rounding costs on the average, so all of them together come to sqrt(12 / 2e4) of it, 2.4 %.
_TURNS = 0.05
# Of what the adapter moved: where a coarse format explains far more than that, the adapter must still be there.
_MISSING = 0.25
_BESIDE = 1.2


@dataclass
class Parity:
    """`max_logit_diff` between base + adapter and what was written; `explained` by rounding the weights as the format
    does, `moved` by the adapter itself, `left` where the same rounding is done in memory; `greedy_match`: share of
    places where both would say the same token. `problems` in plain words.

    Of what llama.cpp's quantizer made: `proven` is the number format that it was given, and that had to be right;
    `proven_diff` is how far that one is from base + adapter. How far its own rounding goes is `max_logit_diff`.
    """

    max_logit_diff: float | None = None
    greedy_match: float | None = None
    explained: float | None = None
    moved: float | None = None
    left: float | None = None
    same: bool | None = None
    problems: list[str] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)  # template, special, end, generation, tokens: the same?
    replies: list[dict[str, str]] = field(default_factory=list)
    skipped: str = ""
    proven: str = ""
    proven_diff: float | None = None


@dataclass
class _Said:
    ids: list[torch.Tensor]
    logits: list[torch.Tensor]
    replies: list[str]


def compare(request: dict[str, Any]) -> Parity:
    """Compare what `request` names: base, adapters (with `combination`, `weights`, `density`), written, format."""
    written = Written.from_request(request)
    needed = memory_needed(Path(request["base"]))
    free = psutil.virtual_memory().available
    if needed > free:
        return Parity(skipped=f"Comparing needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free.")
    model, tokenizer = load_reference(request)
    prompts = [_rendered(tokenizer, text) for text in PROMPTS]
    before = _say(model, tokenizer, prompts)
    base = _base_logits(model, before.ids)
    small = written.compare_small_things(tokenizer, model)
    model = round_like(model, request["format"], request["quantization"], stored_dtype(request))
    rounded = [_logits(model, ids) for ids in before.ids]
    del model
    gc.collect()
    other, its_tokenizer = load_written(written, request)
    after = [_logits(other, ids) for ids in before.ids]
    small |= written.compare_carried(tokenizer, its_tokenizer)
    small["tokens"] = _compare_tokens(tokenizer, its_tokenizer)
    shown, untold = after, ""
    if request["format"] == "bnb" or request.get("made"):
        del other
        gc.collect()
        other, untold = load_used(written, request)
        shown = shown if other is None else [_logits(other, ids) for ids in before.ids]
    replies = [] if other is None else _say(other, its_tokenizer, prompts).replies
    found = _judge(before.logits, base, rounded, after, shown)
    if request.get("made"):
        found.proven, found.proven_diff = request["quantization"], _furthest(before.logits, after)
    found.checks = {name: not problem for name, problem in small.items()}
    found.problems = [problem for problem in small.values() if problem] + found.problems
    found.same = not found.problems
    if untold:
        found.skipped, found.max_logit_diff, found.greedy_match = untold, None, None
        found.same = None if found.same else False
    found.replies = [
        {"prompt": text, "before": one, "after": two}
        for text, one, two in zip(PROMPTS, before.replies, replies, strict=False)  # none of what can't be loaded
    ]
    return found


def memory_needed(base: Path) -> int:
    """Bytes: one model in float32 at a time."""
    return int(sum(place.numbers for place in TensorFiles(shard_files(base)).places.values()) * 4 * _BESIDE)


def _judge(
    before: list[torch.Tensor],
    base: list[torch.Tensor],
    rounded: list[torch.Tensor],
    after: list[torch.Tensor],
    shown: list[torch.Tensor],
) -> Parity:
    """One criterion for all formats: the written numbers say what base + adapter say when the same numbers are rounded
    in memory. Both are computed in float32: layers that round what goes into them as well, as bitsandbytes' do in 8
    bits, turn the last place of a sum into a step of 1/127, and the next layer that into more of them. What such layers
    say of the written model is `shown`.
    """
    scale = max(float(logits.abs().max()) for logits in before)
    difference, explained = _furthest(before, shown), _furthest(before, rounded)
    left, moved = _furthest(rounded, after), _furthest(before, base)
    allowed = min(_TURNS * explained, _MISSING * moved) if moved else _TURNS * explained  # no adapter moves nothing
    places = [(one.argmax(-1) == two.argmax(-1)).float() for one, two in zip(before, shown, strict=True)]
    found = Parity(difference, float(torch.cat(places).mean()), explained, moved, left)
    if not max(difference, left) < float("inf"):
        found.problems.append("What was written says no numbers at all (NaN or infinity).")
    elif left > _SLACK * scale + allowed:
        found.problems.append(
            f"What was written differs from base + adapter by {_furthest(before, after):.3g}; the format explains "
            f"{explained:.3g}, "
            f"and {left:.3g} is left where the same rounding is done in memory."
        )
    elif moved > _SLACK * scale and _apart(shown, before) > _apart(shown, base):
        found.problems.append(
            "This number format rounds away what was learnt: what was written is nearer to the base than to what was "
            "trained. Choose a more exact one."
        )
    elif _apart(shown, before) > _spread(before):
        found.problems.append("What was written says something else altogether: its numbers are another model's.")
    return found


def _furthest(one: list[torch.Tensor], two: list[torch.Tensor]) -> float:
    width = min(one[0].shape[-1], two[0].shape[-1])
    return max(float((a[..., :width] - b[..., :width]).abs().max()) for a, b in zip(one, two, strict=True))


def _apart(one: list[torch.Tensor], two: list[torch.Tensor]) -> float:
    """How far apart logits are on the whole: rounding moves them about, what is lost moves them to the base's."""
    width = min(one[0].shape[-1], two[0].shape[-1])
    return sum(float((a[..., :width] - b[..., :width]).square().sum()) for a, b in zip(one, two, strict=True))


def _spread(logits: list[torch.Tensor]) -> float:
    """How far apart the logits of one place are; a model that has nothing to do with this one is further away."""
    return sum(float((each - each.mean(-1, keepdim=True)).square().sum()) for each in logits)


def _rendered(tokenizer: Any, text: str) -> torch.Tensor:
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")["input_ids"]
    else:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
    return torch.as_tensor(ids)


def _say(model: Any, tokenizer: Any, prompts: list[torch.Tensor]) -> _Said:
    """Greedy replies, and the logits at each of their places and before."""
    ids, logits, replies = [], [], []
    for prompt in prompts:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        mask = torch.ones_like(prompt)
        whole = model.generate(
            input_ids=prompt, attention_mask=mask, max_new_tokens=_NEW, do_sample=False, pad_token_id=pad
        )
        ids.append(whole)
        logits.append(_logits(model, whole))
        replies.append(tokenizer.decode(whole[0, prompt.shape[1] :], skip_special_tokens=False))
    return _Said(ids, logits, replies)


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits[0, -_NEW - 1 :].float()
    return found


def _base_logits(model: Any, ids: list[torch.Tensor]) -> list[torch.Tensor]:
    if not hasattr(model, "disable_adapter"):
        return [_logits(model, each) for each in ids]
    with model.disable_adapter():
        return [_logits(model, each) for each in ids]


def _compare_tokens(one: Any, two: Any) -> str:
    if any(one(text)["input_ids"] != two(text)["input_ids"] for text in STRINGS):
        return "The written tokenizer splits text into other tokens."
    return ""


def main(arguments: list[str]) -> int:
    request, answer = (Path(argument) for argument in arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compare(read_json(request) or {})
    write_text(answer, json.dumps(dataclasses.asdict(found), ensure_ascii=False))
    return 0


if __name__ == "__main__":
    threading.Thread(target=end_with_the_asker, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
