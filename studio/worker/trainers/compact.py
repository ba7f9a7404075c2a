"""SFTTrainer with the loss computed only where there is one: the same numbers, less arithmetic on a processor.

In: what SFTTrainer takes, rows encoded. Out: the loss, and a count of the tokens trained on. Knows no config.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from trl import SFTTrainer

# Rows of hidden states whose logits are held at once: 2048 x 49152 float32 are 400 MB.
_HEAD_ROWS = 2048
# Config entries by which a model changes its logits between head and loss, or adds to the loss.
_LOSS_CHANGES = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
    "output_router_logits",
)


class CompactSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer, counting tokens, with the loss computed only where there is one.

    On a GPU TRL's fused head does that by itself. On a processor it projects every position through the head and
    gathers statistics nobody asked for; here only positions that carry loss are projected: the same loss, less
    arithmetic.
    """

    tokens_seen = 0
    full_loss = False  # the model's own loss, from all logits at once
    _plain: bool | None = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:
            mask = inputs.get("attention_mask")
            self.tokens_seen += int(mask.sum() if mask is not None else inputs["input_ids"].numel())
        if self.full_loss and self.args.loss_type == "nll" and self.label_smoother is None:
            outputs = model(**{**inputs, "use_cache": False}, num_items_in_batch=num_items_in_batch)
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        causal = self.accelerator.unwrap_model(model)
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        if return_outputs or not self._is_short(causal, inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        rest = {key: value for key, value in inputs.items() if key not in ("labels", "use_cache")}
        hidden = causal.base_model(**rest, use_cache=False).last_hidden_state[:, :-1]
        learnt = labels != -100
        total = _cross_entropy_sum(hidden[learnt], causal.get_output_embeddings(), labels[learnt])
        count = learnt.sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(count).clamp(min=1)

    def _is_short(self, causal: Any, inputs: dict[str, Any]) -> bool:
        """Whether the loss may be taken by the short way, past all that a trainer or adapter does around the model."""
        if inputs["input_ids"].device.type != "cpu" or self.label_smoother is not None or self.args.torch_compile:
            return False
        if self.args.loss_type != "nll":
            return False
        if any(config.is_prompt_learning for config in getattr(self.model, "peft_config", {}).values()):
            return False
        if self._plain is None:
            self._plain = plain_head(causal, inputs["input_ids"][:1, :4])
        return self._plain


def plain_head(causal: Any, ids: torch.Tensor) -> bool:
    """Whether a model's logits are its head's of its last hidden states and nothing more; other models keep TRL's loss.

    Its config may say that they are scaled or capped; what else a model does behind its hidden states is seen by
    trying it on a few tokens.
    """
    config = causal.config.get_text_config()
    if any(getattr(config, name, None) not in (None, False, 1, 1.0) for name in _LOSS_CHANGES):
        return False
    was_training = causal.training
    causal.eval()
    try:
        with torch.no_grad():
            logits = causal(input_ids=ids, use_cache=False).logits
            hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return bool(torch.allclose(causal.get_output_embeddings()(hidden).float(), logits.float(), 1e-5, 1e-6))
    finally:
        causal.train(was_training)


def _cross_entropy_sum(hidden: torch.Tensor, head: Any, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross entropy of (n, d) hidden states under the head; long inputs are recomputed piece by piece."""

    def piece(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(head(states).float(), targets, reduction="sum")

    if hidden.shape[0] <= _HEAD_ROWS:
        return piece(hidden, labels)
    parts = zip(hidden.split(_HEAD_ROWS), labels.split(_HEAD_ROWS), strict=True)
    pieces = [checkpoint(piece, states, targets, use_reentrant=False) for states, targets in parts]
    return torch.stack(pieces).sum()
