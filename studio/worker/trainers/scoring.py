"""Reward models at work: a number for an answer behind its prompt.

In: a base, and the adapter that a run of the method reward trained over it. Out: a function as TRL calls rewards.
Answers are judged as token ids, so the reward model and the one that is trained must share a tokenizer. A reward is
read at a text's end, so what the chat template writes behind a finished answer is put behind it here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence

from studio.core.config import ModelSection
from studio.core.errors import ModelError
from studio.core.inputs import ExtraModel
from studio.worker.closing import Closing
from studio.worker.device import Setup
from studio.worker.models import Report, fetch, load_model, load_tokenizer

_ROWS = 16  # answers scored at once


class Scorer:
    """A reward model, ready to judge. Raises ModelError where its tokens are others than `tokenizer`'s."""

    def __init__(self, extra: ExtraModel, setup: Setup, tokenizer: Any, report: Report) -> None:
        base = fetch(extra.model, report)
        own = load_tokenizer(Path(extra.adapter) if extra.adapter else base)
        if own.get_vocab() != tokenizer.get_vocab():
            raise ModelError(
                "The reward model reads other tokens than the model that is trained.",
                "Train the reward model on the same base, or on one of its family.",
            )
        model = load_model(base, ModelSection(), setup, scores=True)
        if extra.adapter:
            model = PeftModel.from_pretrained(model, extra.adapter)
        self.model = model.eval().requires_grad_(False)
        self.model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        self.pad = int(tokenizer.pad_token_id)
        self.closing = Closing(tokenizer)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """A number for each sequence of token ids: a prompt with its answer."""
        found: list[float] = []
        for start in range(0, len(sequences), _ROWS):
            rows = [torch.tensor(list(ids), device=self.model.device) for ids in sequences[start : start + _ROWS]]
            ids = pad_sequence(rows, batch_first=True, padding_value=self.pad)
            lengths = torch.tensor([len(row) for row in rows], device=ids.device)
            mask = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
            with torch.inference_mode():
                found += self.model(input_ids=ids, attention_mask=mask.long()).logits[:, 0].float().tolist()
        return found

    def __call__(
        self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float | None]:
        """As TRL calls a reward."""
        pairs = zip(prompt_ids, completion_ids, strict=True)
        return list(self.score([[*prompt, *answer, *self.closing.behind(prompt, answer)] for prompt, answer in pairs]))
