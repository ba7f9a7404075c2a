"""What some adapters need of a trainer while it trains: AdaLoRA's ranks, LoRA+'s two rates, what PEFT leaves out.

In: a built trainer, its config. Out: the same trainer, with callbacks and an optimizer. Knows no method's loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from studio.core.config import RunConfig
from studio.core.errors import ConfigError
from studio.core.sections.adapter import AdaLoraAdapter, LoraAdapter, Prompting
from studio.worker.device import Setup

NAME = "default"
_FILE = "adapter_state.safetensors"
# Shares of an AdaLoRA run before ranks are given up and after they stay (arXiv:2303.10512, table 9: about a tenth to a
# fifth at first, a third to a half at the end).
_FIRST, _LAST = 0.1, 0.4


def follow(trainer: Any, config: RunConfig, setup: Setup) -> None:
    """Give a trainer what its adapter needs. Raises ConfigError."""
    section = config.adapter
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.model.quantization != "none" and setup.autocast is not torch.bfloat16:
        # TRL holds adapters of a quantized base in bfloat16, which not every card and no float32 product takes.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if isinstance(section, AdaLoraAdapter):
        trainer.add_callback(SharingOut(model, Path(trainer.args.output_dir)))
        _add_penalty(trainer, model)
    elif isinstance(section, Prompting):
        trainer.add_callback(WholePrompt(model, Path(trainer.args.output_dir)))
        # What PEFT has saved are the vectors that come out of the network, which it would load in front of it.
        trainer._load_from_checkpoint = trainer._load_best_model = lambda *args, **kwargs: None
    elif isinstance(section, LoraAdapter) and section.loraplus_lr_ratio is not None:
        trainer.optimizer = two_rates(trainer, section.loraplus_lr_ratio)


def two_rates(trainer: Any, ratio: float) -> torch.optim.Optimizer:
    """LoRA+ (arXiv:2402.12354): B learns `ratio` times as fast as A, by whichever optimizer. Raises ConfigError."""
    from peft.optimizers import create_loraplus_optimizer

    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    if not isinstance(kind, type) or {"params", "model", "optimizer_dict"} & set(options):
        raise ConfigError(
            "adapter.loraplus_lr_ratio",
            f"LoRA+ can't be had with {trainer.args.optim.value}, which groups the weights its own way.",
            "Choose another training.optim, such as adamw_torch.",
        )
    rate = options.pop("lr")
    found: torch.optim.Optimizer = create_loraplus_optimizer(
        trainer.model,
        kind,
        lr=rate,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=trainer.args.weight_decay,
        **options,
    )
    found.param_groups[:] = [group for group in found.param_groups if group["params"]]
    return found


def penalty(model: Any) -> torch.Tensor:
    """AdaLoRA's: how far the directions of every layer are from being at right angles.

    The weight times the mean, over all A and B, of the Frobenius norm of their Gram matrix less the identity (PEFT's
    own form of arXiv:2303.10512, equation 4), which PEFT adds where a model computes its loss itself; trainers don't.
    """
    found = []
    for name, value in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = value @ value.T if "lora_A" in name else value.T @ value
            found.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype)))
    return torch.stack(found).mean() * model.peft_config[NAME].orth_reg_weight


def _add_penalty(trainer: Any, model: Any) -> None:
    plain = trainer.compute_loss

    def compute_loss(wrapped: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        found = plain(wrapped, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)
        if not wrapped.training or getattr(trainer, "full_loss", False):  # the model's own loss has it already
            return found
        # Where the loss is a sum over all of a step's batches, each brings its part of the penalty.
        parts = trainer.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        more = penalty(model) / parts
        return (found[0] + more, *found[1:]) if return_outputs else found + more

    trainer.compute_loss = compute_loss


class SharingOut(TrainerCallback):  # type: ignore[misc]
    """AdaLoRA's ranks, shared out after every step.

    The pattern of kept ranks is held here and not in the config while the run lasts, so that checkpoints hold every
    rank and can be gone on from; in the end it goes into the config, and the adapter is saved without the rest.
    """

    def __init__(self, model: Any, output: Path) -> None:
        self.model = model
        self.output = output
        self.pattern: dict[str, list[bool]] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        config = self.model.peft_config[NAME]
        config.total_step = state.max_steps
        config.tinit = int(_FIRST * state.max_steps)
        config.tfinal = int(_LAST * state.max_steps)
        if state.global_step:
            self._read(self.output / f"checkpoint-{state.global_step}" / _FILE)

    @property
    def allocator(self) -> Any:
        return self.model.base_model.rankallocator

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        config = self.model.peft_config[NAME]
        config.rank_pattern = self.pattern
        self.model.base_model.update_and_allocate(state.global_step + 1)
        self.pattern, config.rank_pattern = config.rank_pattern, None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self._read(Path(state.best_model_checkpoint) / _FILE)
        self.model.peft_config[NAME].rank_pattern = self.pattern

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        tensors = {
            f"{part}|{name}": value.contiguous()
            for part in ("ipt", "exp_avg_ipt", "exp_avg_unc")
            for name, value in getattr(self.allocator, part).items()
        }
        for name, kept in (self.pattern or {}).items():
            tensors[f"pattern|{name}"] = torch.tensor(kept)
        save_file(tensors, self.output / f"checkpoint-{state.global_step}" / _FILE)

    def _read(self, file: Path) -> None:
        pattern = {}
        for key, value in load_file(file).items():
            part, _, name = key.partition("|")
            if part == "pattern":
                pattern[name] = value.tolist()
            else:
                getattr(self.allocator, part)[name] = value.to(self.model.device)
        self.pattern = pattern or None


class WholePrompt(TrainerCallback):  # type: ignore[misc]
    """The network that learnt vectors come out of: PEFT saves the vectors alone, which can't be trained on."""

    def __init__(self, model: Any, output: Path) -> None:
        self.encoder = model.prompt_encoder[NAME]
        self.output = output

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step:
            self.encoder.load_state_dict(load_file(self.output / f"checkpoint-{state.global_step}" / _FILE))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self.encoder.load_state_dict(load_file(Path(state.best_model_checkpoint) / _FILE))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.encoder.state_dict().items()}
        save_file(tensors, self.output / f"checkpoint-{state.global_step}" / _FILE)
