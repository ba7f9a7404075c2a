"""Online DPO: two answers of the model's own to each question, and DPO's loss on the better and the worse of them.

In: what every builder gets. Out: a trainer, on the loop that TRL's GRPO trainer has. Which answer is better, the
rewards say; a pair that they find alike teaches nothing. A row of a batch is a question with both its answers.
(Guo et al. 2024, arXiv:2402.04792; TRL's own trainer of this name neither validates nor shares a step's loss out among
its batches.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import GRPOConfig

from studio.worker.adapters.laying import fresh_config
from studio.worker.trainers.answering import Judged, judged_arguments, rewards_of
from studio.worker.trainers.parts import Parts


def pair_losses(ratios: Tensor, beta: float, kind: str) -> Tensor:
    """(B,): the loss of each pair, by log pi(y+)/ref(y+) - log pi(y-)/ref(y-).

    sigmoid: -log sigmoid(beta x), arXiv:2305.18290, eq. 7. ipo: (x - 1 / (2 beta))^2, arXiv:2310.12036, eq. 17.
    """
    return (ratios - 1 / (2 * beta)) ** 2 if kind == "ipo" else -logsigmoid(beta * ratios)


class OnlineDPOTrainer(Judged):
    """See the module."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch, scores, cut = self._answers([row for row in inputs for _ in range(2)])
        if self.tuning.missing_eos_penalty is not None:
            scores = scores - self.tuning.missing_eos_penalty * cut
        with torch.no_grad(), self._referred():
            batch["reference"] = torch.cat([self._sums(part) for part in self._in_turn(batch)])
        pairs = scores.view(-1, 2)
        worse = (pairs[:, 1] > pairs[:, 0]).long()  # where the better one is the second
        order = 2 * torch.arange(len(pairs), device=scores.device)[:, None] + torch.stack([worse, 1 - worse], 1)
        differ = (pairs[:, 0] != pairs[:, 1]).float()
        self._note(reward_margin=(pairs[:, 0] - pairs[:, 1]).abs().mean(), ties=1 - differ.mean())
        return {**{name: tensor[order] for name, tensor in batch.items()}, "differ": differ}

    def _sums(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,): the log-probability of each whole answer."""
        logps = torch.log_softmax(self._logits(batch), -1).gather(-1, batch["completion_ids"][..., None])[..., 0]
        return (logps * batch["completion_mask"]).sum(1)

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        differ, beta = inputs["differ"], self.tuning.beta
        flat = {name: tensor.flatten(0, 1) for name, tensor in inputs.items() if name != "differ"}
        gained = (self._sums(flat) - flat["reference"]).view(-1, 2)
        ratios = gained[:, 0] - gained[:, 1]
        loss = (pair_losses(ratios, beta, self.tuning.loss_type) * differ).mean()
        chosen, rejected = beta * gained.detach().mean(0)
        self._note(**{"rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected})
        if differ.any():
            self._note(**{"rewards/accuracies": (ratios[differ > 0] > 0).float().mean()})
        return self._shared_out(loss)


def online_dpo(parts: Parts) -> Any:
    """Online DPO."""
    method: Any = parts.config.method
    arguments = GRPOConfig(**judged_arguments(parts), beta=method.beta)
    arguments.num_generations = arguments.num_generations_eval = 1  # a row stands for both answers
    return OnlineDPOTrainer(
        model=parts.model,
        reward_funcs=rewards_of(parts),
        args=arguments,
        train_dataset=parts.data.train,
        eval_dataset=parts.data.validation,
        processing_class=parts.tokenizer,
        peft_config=fresh_config(parts.config, parts.model),
        tuning=method,
    )
