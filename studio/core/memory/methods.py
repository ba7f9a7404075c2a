"""What a method of training does in a step beside one forward and one backward pass: pairs, reference, generation.

In: a config; a Run for what is allocated. Out: rows and tokens that go through at once, other models that lie there,
stretches of their own. Follows TRL 1.16's trainers (dpo_trainer.py, kto_trainer.py, grpo_trainer.py, rloo_trainer.py,
distillation_trainer.py), whose losses take log probabilities from the same fused head as SFT's; those that ask for
logits are in `answers`.
"""

from __future__ import annotations

from typing import Any

from studio.core.config import RunConfig
from studio.core.memory import answers, heads, layer, state
from studio.core.memory.norms import norm
from studio.core.memory.run import Run
from studio.core.memory.tape import Tensor
from studio.core.sections.reinforcement import Generating

# Both answers of a pair go through the model in one batch.
_PAIRS = ("dpo", "orpo", "cpo", "reward", "online_dpo")
# They ask the model for its logits: of all tokens, or of the answers that it wrote.
_COMPARED, _WRITTEN = ("orpo", "cpo"), ("online_dpo", "ppo")


def sequences(config: RunConfig, rows: int) -> int:
    """Sequences that go through the model at once, for `rows` rows in a batch."""
    return 2 * rows if config.method.name in _PAIRS else rows


def length(config: RunConfig, tokens: int) -> int:
    """Tokens of the longest sequence: a prompt's, and those of the answer that is written for it."""
    return tokens + config.method.max_completion_length if generates(config) else tokens  # type: ignore[union-attr]


def generates(config: RunConfig) -> bool:
    """Whether the model writes answers while it trains."""
    method: Any = config.method
    return isinstance(config.method, Generating) and (method.name != "distill" or method.lmbda > 0)


def precomputes(config: RunConfig) -> bool:
    """Whether the reference's numbers are there before training: worker/trainers/preference.py, `precomputes`."""
    wish = getattr(config.method, "precompute_ref_log_probs", False)
    if wish != "auto":
        return bool(wish)
    passes = config.training.num_train_epochs
    return config.training.max_steps is None and (passes > 1 or (config.saves_model and passes >= 1))


def refers(config: RunConfig) -> bool:
    """Whether a step asks a reference: the base with its adapter off, or a second model."""
    method: Any = config.method
    if method.name in ("dpo", "kto"):
        return not (getattr(method, "reference_free", False) or precomputes(config))
    if method.name in ("grpo", "rloo"):
        return bool(method.beta > 0)
    return method.name in ("online_dpo", "ppo")


def companions(run: Run) -> dict[str, int]:
    """Bytes of other models that lie on the device all the time.

    A teacher's and a reward model's shapes aren't known here: each is taken to be as large as the base in 16 bits (32
    where the base is computed so).
    """
    config: Any = run.config
    found = {}
    if refers(config) and config.saves_model:
        found["reference model"] = sum(state.base(run).values())
    other = run.shape.numel * (run.item if not run.amp else 2)
    if config.method.name == "distill":
        found["teacher"] = other
    judges = sum(reward.startswith("model:") for reward in getattr(config.method, "rewards", ()))
    if judges:
        found["reward model"] = judges * (other - (run.shape.head.numel * run.compute if run.shape.head else 0))
    if config.method.name == "ppo":
        found["value head"] = run.shape.hidden * 4
    return found


def generated(run: Run) -> dict[str, int]:
    """What is there while answers are written, beside the models: keys and values of all rows, and the last logits.

    TRL writes the answers of all batches of a step at once (steps_per_generation is gradient_accumulation_steps); PPO
    and online DPO those of one batch.
    """
    config: Any = run.config
    if not generates(config):
        return {}
    rows = config.training.per_device_train_batch_size
    rows *= config.method.num_generations if config.method.name in ("online_dpo", "ppo") else 1
    if config.method.name in ("grpo", "rloo", "distill"):
        rows *= config.training.gradient_accumulation_steps
    shape = run.shape
    rank, turned = shape.number("kv_lora_rank"), shape.number("qk_rope_head_dim")
    width = 2 * shape.kv_heads * shape.head_dim
    if rank:  # transformers keeps DeepSeek's keys and values unpacked
        config_ = shape.config
        width = shape.heads * (config_["qk_nope_head_dim"] + turned + config_["v_head_dim"])
    cache = rows * run.length * width * len(shape.layers) * run.compute
    # a step of a cache that grows by copying holds one layer's keys and values twice; the prompts' own pass comes first
    copy = cache // len(shape.layers)
    logits = rows * shape.vocabulary * (run.compute + 3 * 4)  # as they come; in float32, warped, as shares
    prompts = rows * run.length * shape.hidden * run.compute * 4
    return {"KV cache": cache + copy, "generation": max(logits, prompts)}


def ask_reference(run: Run) -> None:
    """The reference's pass over the same rows, without gradients; one layer of each kind stands for all."""
    tape, run.bare = run.tape, True
    before, tape.recording = tape.recording, False
    part, tape.part = tape.part, "reference"
    holder = [heads.embed(run)]
    for plan, _ in state.alike(run.shape.layers):
        holder.append(layer.body(run, plan, holder.pop()))
    chances = _chances(run, holder)
    del chances
    tape.part, tape.recording, run.bare = part, before, False


def loss(run: Run, stream: Tensor) -> Tensor:
    """The method's loss on the stream after the last layer."""
    if not run.scores:
        holder = [stream]
        del stream  # the layers' last result goes when it has been normed
        return _chances(run, holder)
    tape = run.tape
    hidden = norm(run, stream)
    del stream
    scores = tape.new(run.tokens, hidden.item)
    return tape.result(scores, (hidden,), _scored, hidden)


def _chances(run: Run, holder: list[Tensor]) -> Tensor:
    """What the method asks of the head; `holder` has the stream, which nobody else may keep."""
    name = run.config.method.name
    if name not in (*_COMPARED, *_WRITTEN):
        return heads.loss(run, holder.pop())
    holder.append(norm(run, holder.pop()))
    return (answers.compared if name in _COMPARED else answers.written)(run, holder.pop())


def _scored(tape: Any, gradient: Tensor, hidden: Tensor) -> tuple[Tensor]:
    return (tape.new(hidden.numel, hidden.item),)
