"""What all trainers share whose model answers while it learns: prompts that come encoded, rewards, a reference.

In: what every builder gets. Out: arguments, reward functions, and what to make a trainer of by adding a loss. The
model writes its answers itself, by transformers' own generation, on the device it trains on.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler, use_adapter

from studio.core.errors import ConfigError
from studio.core.sections.reinforcement import rows_a_question
from studio.worker.closing import ends_of
from studio.worker.trainers.arguments import training_arguments
from studio.worker.trainers.parts import Parts
from studio.worker.trainers.rewards import Reward, reward_functions
from studio.worker.trainers.scoring import Scorer


class SamePrompts(TrainerCallback):  # type: ignore[misc]
    """TRL's sampler draws all epochs' orders from one generator: a run that goes on is brought to its own epoch's."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        sampler = getattr(getattr(train_dataloader, "batch_sampler", None), "sampler", None)
        if isinstance(sampler, RepeatSampler):
            for _ in range(int(state.epoch or 0)):
                next(iter(sampler), None)


class Answering:
    """What trainers share whose model answers: prompts are the ids that our encoder made, whatever TRL would make."""

    state: Any

    def __init__(self, *args: Any, model: Any, processing_class: Any, **kwargs: Any) -> None:
        self._asked: list[list[int]] = []
        model.generation_config.eos_token_id = ends_of(model, processing_class)  # where TRL looks for them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as for all trainers of TRL
            super().__init__(*args, model=model, processing_class=processing_class, **kwargs)  # type: ignore[call-arg]
        self.add_callback(SamePrompts())  # type: ignore[attr-defined]

    @property
    def tokens_seen(self) -> int:
        """Tokens of prompts and answers so far."""
        return int(self.state.num_input_tokens_seen)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        self._asked = [list(row["prompt_ids"]) for row in inputs]
        return super()._generate_and_score_completions(inputs)  # type: ignore[misc]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return self._asked, None, {}


class Judged(Answering, GRPOTrainer):  # type: ignore[misc]
    """GRPO's loop for losses of our own: how prompts are drawn, answers written and buffered is TRL's.

    A child says in `_generate_and_score_completions` what is kept of answers, tensors with a row each, and in
    `_compute_loss` what is learnt from them. `tuning` is the config's method section.
    """

    model: Any

    def __init__(self, *args: Any, tuning: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tuning = tuning

    def _causal(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _answers(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """An answer for each row, what each is worth (B,), and which reached the longest length (B,)."""
        self._asked = [list(row["prompt_ids"]) for row in inputs]
        prompts = [row["prompt"] for row in inputs]
        prompt_ids, answer_ids, _, answers, *_ = self._generate(prompts)
        scores = self._scores(inputs, prompts, answers, answer_ids)
        ended = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        cut = torch.tensor([ids[-1] not in ended for ids in answer_ids], device=scores.device)
        return self._padded(prompt_ids, answer_ids), scores, cut

    def _scores(self, inputs: Any, prompts: list[str], answers: list[str], ids: list[list[int]]) -> Tensor:
        """(B,): the weighted sum of the rewards."""
        each = self._calculate_rewards(inputs, prompts, answers, ids)
        for name, column in zip(self.reward_func_names, each.T, strict=True):
            self._note(**{f"rewards/{name}/mean": column.nanmean()})
        scores = (each * self.reward_weights.to(each.device)).nansum(1)
        self._note(reward=scores.mean(), reward_std=scores.std(unbiased=False))
        return scores

    def _padded(self, prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Tensor]:
        """Prompts padded at the left, answers at the right, so that they meet."""
        device, pad = self.accelerator.device, self._tokenizer.pad_token_id
        left = [torch.tensor(ids[::-1], device=device) for ids in prompts]
        right = [torch.tensor(ids, device=device) for ids in answers]

        def filled(rows: list[Tensor], value: int) -> Tensor:
            return pad_sequence(rows, batch_first=True, padding_value=value)

        return {
            "prompt_ids": filled(left, pad).flip(1),
            "prompt_mask": filled([torch.ones_like(row) for row in left], 0).flip(1),
            "completion_ids": filled(right, pad),
            "completion_mask": filled([torch.ones_like(row) for row in right], 0),
        }

    def _in_turn(self, batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """As many rows at a time as a batch of training has: a whole step's logits at once would fill the memory."""
        size = self.args.per_device_train_batch_size
        for start in range(0, len(batch["prompt_ids"]), size):
            yield {name: tensor[start : start + size] for name, tensor in batch.items()}

    def _logits(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, T, V): what is said of each token of the answers, at the position that predicts it."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        length = batch["completion_ids"].shape[1]
        logits = self.model(input_ids=ids, attention_mask=mask, logits_to_keep=length + 1, use_cache=False).logits
        answered: Tensor = logits[:, -length - 1 : -1].float()
        return answered

    @contextlib.contextmanager
    def _referred(self) -> Iterator[None]:
        """The reference in the model's place: the adapter off, or the second copy that full fine-tuning holds."""
        model = self.accelerator.unwrap_model(self.model)
        if self.ref_model is None:
            with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
                yield
            return
        kept, self.model = self.model, self.ref_model
        try:
            yield
        finally:
            self.model = kept

    def _note(self, **figures: Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in figures.items():
            self._metrics[mode][name].append(value.detach().item())

    def _shared_out(self, loss: Tensor) -> Tensor:
        """A batch's share of its step's loss."""
        return loss / (self.current_gradient_accumulation_steps if self.model.training else 1)


def answering_arguments(parts: Parts) -> dict[str, Any]:
    """What the arguments share of methods whose model answers."""
    method: Any = parts.config.method
    _check_questions(parts)
    shared = training_arguments(parts.config, parts.setup, parts.data, parts.output)
    shared.pop("train_sampling_strategy", None)  # prompts are repeated for their answers by a sampler of TRL's own
    answers = rows_a_question(method)
    return {
        **shared,
        "num_generations": answers,
        "num_generations_eval": answers,
        # whole groups of answers, as many as fit in a batch of training
        "per_device_eval_batch_size": answers * max(1, parts.config.training.per_device_train_batch_size // answers),
        "max_completion_length": method.max_completion_length,
        "temperature": method.temperature,
        "top_p": method.top_p,
        "top_k": method.top_k,
        "reward_weights": method.reward_weights,
        "remove_unused_columns": False,
        "shuffle_dataset": True,
        "use_vllm": False,
    }


def judged_arguments(parts: Parts) -> dict[str, Any]:
    """The same for children of Judged: GRPO's config refuses to have but one answer, so it is told how many are there
    in a step; `num_generations` is set right once the config is made."""
    knobs = parts.config.training
    step = knobs.per_device_train_batch_size * knobs.gradient_accumulation_steps
    return {**answering_arguments(parts), "num_generations": step, "num_generations_eval": 1}


def _check_questions(parts: Parts) -> None:
    """TRL's sampler leaves out what doesn't fill a step, and would go on for ever without any."""
    knobs = parts.config.training
    step = knobs.per_device_train_batch_size * knobs.gradient_accumulation_steps
    wanted = step // rows_a_question(parts.config.method)
    if len(parts.data.train) < wanted:
        raise ConfigError(
            "training.gradient_accumulation_steps",
            f"One step asks {wanted} questions, and the dataset has {len(parts.data.train)} to learn from.",
            "Lower the batch size or the accumulation, or ask for more answers a question.",
        )


def rewards_of(parts: Parts) -> list[Reward]:
    """The functions that judge answers. Raises ModelError, ConfigError."""
    method: Any = parts.config.method
    return reward_functions(method.rewards, parts.output.parent, _scorer(parts))


def _scorer(parts: Parts) -> Callable[[str], Reward]:
    """Loads a reward model by its name in the config."""

    def load(name: str) -> Reward:
        assert parts.inputs is not None
        return Scorer(parts.inputs.extras[name], parts.setup, parts.tokenizer, parts.progress)

    return load
