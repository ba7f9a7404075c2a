"""Proximal policy optimization, whole: what TRL no longer has, on the loop that its GRPO trainer has.

In: what every builder gets. Out: a trainer. Answers are written and judged as GRPO's are. Beside the model stands a
value head, one linear layer on the hidden states that predict each token; it says what an answer will still be worth.
A token's reward is minus `kl_coef` times its distance from the reference (the model with its adapter off), and the
last one's also what the answer was judged by (Ziegler et al. 2019, arXiv:1909.08593, section 2). Advantages are
generalised (Schulman et al. 2015, arXiv:1506.02438, eq. 16), policy and value are clipped (Schulman et al. 2017,
arXiv:1707.06347, eq. 7; the value as in their code).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from trl import GRPOConfig

from studio.worker.adapters.laying import fresh_config
from studio.worker.trainers.answering import Judged, judged_arguments, rewards_of
from studio.worker.trainers.parts import Parts

HEAD = "value_head.safetensors"  # beside the model's own files in a checkpoint


def token_rewards(scores: Tensor, logps: Tensor, reference: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """(B, T): what each token earns. `scores` (B,) is paid at an answer's last token; `mask` (B, T) is 1 up to it."""
    earned = -kl_coef * (logps - reference) * mask
    last = mask.sum(1).long().clamp(min=1) - 1
    return earned.scatter_add(1, last[:, None], scores[:, None].to(earned.dtype))


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """(B, T) each: A_t = sum over l of (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t; A + V.

    arXiv:1506.02438, eq. 16. Behind an answer's end there is no value.
    """
    values = values * mask
    advantage, following = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    found = []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = (delta + gamma * lam * advantage) * mask[:, t]
        following = values[:, t]
        found.append(advantage)
    advantages = torch.stack(found[::-1], 1)
    return advantages, (advantages + values) * mask


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum().clamp(min=1)


def whitened(x: Tensor, mask: Tensor, shift: bool = True) -> Tensor:
    """Spread 1, and mean 0 with `shift`, over what the mask leaves."""
    mean = masked_mean(x, mask)
    scaled = (x - mean) * torch.rsqrt(masked_mean((x - mean) ** 2, mask) + 1e-8)
    return (scaled if shift else scaled + mean) * mask


def policy_loss(logps: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """-E[min(r A, clip(r, 1 - e, 1 + e) A)], r the ratio of the chances now and then: arXiv:1707.06347, eq. 7."""
    ratio = torch.exp(logps - old)
    return masked_mean(-torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), mask)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, the worse of the value's own and that of one held within `clip` of the old value."""
    held = old + (values - old).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (held - returns) ** 2), mask)


class Read(NamedTuple):
    """What one pass over prompts and answers gives, each (B, T): log-probabilities, values, entropies."""

    logps: Tensor
    values: Tensor
    entropies: Tensor


class PPOTrainer(Judged):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        causal = self._causal()
        weight = causal.get_output_embeddings().weight
        width = causal.config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, device=weight.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)  # nothing is expected until something was seen
        nn.init.zeros_(self.value_head.bias)

    # -- the head, beside the model: in the optimizer, in checkpoints, and not in what the run saves ------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        first = optimizer.param_groups[0]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if id(self.value_head.weight) not in held:
            optimizer.add_param_group({"params": list(self.value_head.parameters()), "lr": first["lr"]})
            # the Trainer clears the gradients of its model alone
            optimizer.register_step_post_hook(lambda *_: self.value_head.zero_grad())
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        save_file({name: tensor.detach().cpu() for name, tensor in self.value_head.state_dict().items()}, folder / HEAD)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.value_head.load_state_dict(load_file(Path(resume_from_checkpoint) / HEAD))

    # -- answers, and what they are worth -----------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch, scores, _ = self._answers(inputs)
        mask = batch["completion_mask"].float()
        with torch.no_grad():
            before = Read(*(torch.cat(each) for each in zip(*map(self._read, self._in_turn(batch)), strict=True)))
            reference = self._reference(batch, before)
        rewards = token_rewards(scores, before.logps, reference, mask, self.tuning.kl_coef)
        if self.tuning.whiten_rewards:
            rewards = whitened(rewards, mask, shift=False)
        advantages, returns = advantages_and_returns(rewards, before.values, mask, self.tuning.gamma, self.tuning.lam)
        self._note(kl=masked_mean(before.logps - reference, mask), value=masked_mean(before.values, mask))
        told = {"old_logps": before.logps, "old_values": before.values, "returns": returns}
        return {**batch, **told, "advantages": whitened(advantages, mask)}

    def _read(self, batch: dict[str, Tensor]) -> Read:
        """One pass; a token is read at the position that predicts it."""
        length, hidden = batch["completion_ids"].shape[1], []
        head = self._causal().get_output_embeddings()
        catch = head.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
        try:
            logits = self._logits(batch) / self.temperature
        finally:
            catch.remove()
        spread = torch.log_softmax(logits, -1)
        logps = spread.gather(-1, batch["completion_ids"][..., None])[..., 0]
        values = self.value_head(hidden[0][:, -length - 1 : -1].float())[..., 0]
        return Read(logps, values, -(spread.exp() * spread).sum(-1))

    def _reference(self, batch: dict[str, Tensor], before: Read) -> Tensor:
        """(B, T): the log-probabilities of the model as it was before the run."""
        if self.tuning.kl_coef == 0:
            return before.logps
        with self._referred():
            return torch.cat([self._read(part).logps for part in self._in_turn(batch)])

    # -- learning -----------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        now, mask, tuning = self._read(inputs), inputs["completion_mask"].float(), self.tuning
        policy = policy_loss(now.logps, inputs["old_logps"], inputs["advantages"], mask, tuning.cliprange)
        value = value_loss(now.values, inputs["old_values"], inputs["returns"], mask, tuning.cliprange_value)
        entropy = masked_mean(now.entropies, mask)
        moved = (torch.exp(now.logps - inputs["old_logps"]) - 1).abs() > tuning.cliprange
        self._note(policy_loss=policy, value_loss=value, entropy=entropy, clipped=masked_mean(moved.float(), mask))
        loss = policy + tuning.vf_coef * value - tuning.entropy_coef * entropy
        return self._shared_out(loss)


def ppo(parts: Parts) -> Any:
    """PPO."""
    method: Any = parts.config.method
    arguments = GRPOConfig(**judged_arguments(parts), beta=method.kl_coef, num_iterations=method.num_ppo_epochs)
    arguments.num_generations = arguments.num_generations_eval = method.num_generations
    return PPOTrainer(
        model=parts.model,
        reward_funcs=rewards_of(parts),
        args=arguments,
        train_dataset=parts.data.train,
        eval_dataset=parts.data.validation,
        processing_class=parts.tokenizer,
        peft_config=fresh_config(parts.config, parts.model),
        tuning=method,
    )
