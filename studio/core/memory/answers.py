"""Losses of methods that ask for the logits themselves: of pairs (ORPO, CPO), of answers that the model wrote.

In: a Run, the normed hidden states. Out: the loss, on the tape. Follows trl/experimental/cpo and orpo
(`concatenated_forward`, `get_batch_logps`), trl/trainer/utils.py (`selective_log_softmax`), and the studio's own
worker/trainers/online.py and ppo.py. Accelerate hands their callers float32.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory import heads, ops
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor


def compared(run: Run, hidden: Tensor) -> Tensor:
    """All logits of both answers; the likelihood of the chosen ones besides, unless CPO leaves it out."""
    tape, method = run.tape, run.config.method
    logits = heads.logits(run, hidden)
    del hidden
    part, tape.part = tape.part, "logits"
    logits = ops.cast(tape, logits, 4) if run.amp else logits
    shares = None
    if getattr(method, "cpo_alpha", 1.0):
        moved, shares = tape.new(logits.numel // 2, logits.item), tape.new(logits.numel // 2, logits.item)
        del moved
    tape.part = part
    return tape.result(tape.new(1, 4), (logits,), _compared_back, [run, shares, logits])


def _compared_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, shares, logits = saved
    numel, item = logits.numel, logits.item
    rows = tape.new(numel, item, "logits")
    if not run.cuda:  # a row's gradient at a time, which are then put together; there a kernel does it at once
        whole = tape.new(numel, item, "logits")
        del rows
        rows = whole
    del logits
    saved.clear()
    whole = tape.new(numel, item, "logits")
    del rows
    if shares is not None:
        passed = tape.new(shares.numel, item, "logits")
        del passed, shares
    return (whole,)


def written(run: Run, hidden: Tensor) -> Tensor:
    """The logits of what was written alone: log-shares are kept, and for PPO's entropy the shares too."""
    tape, ppo = run.tape, run.config.method.name == "ppo"
    answer: int = run.config.method.max_completion_length  # type: ignore[union-attr]
    tokens = run.rows * (answer + 1)
    kept = tape.result(tape.new(tokens * run.shape.hidden, hidden.item), (hidden,), _put_back, hidden.numel)
    del hidden
    logits = heads.logits(run, kept)
    del kept
    part, tape.part = tape.part, "logits"
    logits = ops.cast(tape, logits, 4) if run.amp else logits
    numel = run.rows * answer * run.shape.vocabulary
    moved = ops.scaled(tape, logits)  # by the temperature, or laid out again
    del logits
    shares = [tape.new(numel, 4)]
    if ppo:
        shares.append(tape.new(numel, 4))
        product = tape.new(numel, 4)
        del product
    tape.part = part
    return tape.result(tape.new(1, 4), (moved,), _written_back, [moved.numel, shares])


def _put_back(tape: Tape, gradient: Tensor, numel: int) -> Gradients:
    return (tape.new(numel, gradient.item),)


def _written_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    numel, shares = saved
    size = shares[0].numel
    made = [tape.new(size, 4, "logits")]
    if len(shares) > 1:  # both factors' gradients, and the exponential's
        made += [tape.new(size, 4, "logits") for _ in range(2)]
        del shares[1:], made[1:]
    below = tape.new(numel, 4, "logits")
    del made
    return (below,)
