"""How training goes: rates, batches, lengths, the optimizer, what is saved and how often."""

from __future__ import annotations

from typing import Literal

from studio.core.sections.section import Section, knob


class TrainingSection(Section):
    num_train_epochs: float = knob(3, "Epochs", "How many times the model sees every row.", basic=True, gt=0, le=1000)
    max_steps: int | None = knob(
        None,
        "Steps at most",
        "Ends after this many optimizer steps, whatever the epochs say.",
        group="optimizer",
        ge=1,
        unit="steps",
    )
    learning_rate: float = knob(
        2e-4,
        "Learning rate",
        "How big each step is; 2e-4 suits LoRA, 1e-5 to 5e-5 full fine-tuning.",
        basic=True,
        gt=0,
        le=1,
    )
    find_learning_rate: bool = knob(
        False,
        "Find the learning rate",
        "Instead of training: a short run whose rate rises at every step, and that says where the loss falls fastest.",
        group="optimizer",
        rule="arXiv:1506.01186",
    )
    per_device_train_batch_size: int = knob(
        4,
        "Batch size",
        "Rows computed at once; more is faster and takes more memory.",
        basic=True,
        ge=1,
        le=4096,
        unit="rows",
    )
    gradient_accumulation_steps: int = knob(
        4,
        "Gradient accumulation",
        "Batches gathered before each step; batch size times this is what one step learns from.",
        basic=True,
        ge=1,
        le=4096,
        unit="batches",
    )
    max_length: int = knob(
        1024,
        "Longest row",
        "Rows with more tokens are cut here; counted and shown before training.",
        basic=True,
        ge=8,
        le=1_048_576,
        unit="tokens",
    )
    packing: bool = knob(
        False,
        "Packing",
        "Fills each row with several short examples, kept apart by their positions: faster where rows are short.",
        group="memory",
    )
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = knob(
        "bfd",
        "How rows are packed",
        "bfd fits whole examples together, bfd_split cuts those that are too long into several, wrapped cuts the text "
        "wherever a row is full.",
        group="memory",
        rule="bfd: arXiv:2404.10830",
    )
    padding_free: bool = knob(
        False,
        "Without padding",
        "Lays a batch's rows end to end instead of filling them up; needs flash attention.",
        group="memory",
    )
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
        "reduce_lr_on_plateau",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
    ] = knob("cosine", "Schedule", "How the learning rate moves during the run.", group="optimizer")
    lr_scheduler_kwargs: dict[str, int | float | str] = knob(
        {},
        "Of the schedule",
        "What else a schedule takes, as transformers names it: num_cycles, min_lr_rate, power, num_stable_steps.",
        group="optimizer",
    )
    warmup_ratio: float = knob(
        0.03,
        "Warm-up share",
        "Over this part of the run the learning rate rises from zero.",
        group="optimizer",
        ge=0.0,
        le=1.0,
    )
    warmup_steps: int | None = knob(
        None,
        "Warm-up steps",
        "The same as a number of steps; empty goes by the share.",
        group="optimizer",
        ge=0,
        unit="steps",
    )
    weight_decay: float = knob(
        0.0,
        "Weight decay",
        "Pulls trained weights towards zero, against memorising.",
        group="optimizer",
        ge=0.0,
        le=10.0,
    )
    adam_beta1: float = knob(
        0.9, "Adam's beta 1", "How long the mean of gradients remembers.", group="optimizer", ge=0.0, lt=1.0
    )
    adam_beta2: float = knob(
        0.999, "Adam's beta 2", "How long the mean of their squares remembers.", group="optimizer", ge=0.0, lt=1.0
    )
    adam_epsilon: float = knob(
        1e-8, "Adam's epsilon", "Keeps steps finite where gradients are tiny.", group="optimizer", gt=0, le=1
    )
    max_grad_norm: float = knob(
        1.0, "Gradient clipping", "Caps how hard one batch can push; 0 switches it off.", group="optimizer", ge=0.0
    )
    optim: Literal[
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "lion_32bit",
        "lion_8bit",
        "paged_lion_8bit",
        "ademamix",
        "ademamix_8bit",
        "adafactor",
        "sgd",
        "adagrad",
        "rmsprop",
        "schedule_free_adamw",
        "schedule_free_sgd",
        "galore_adamw",
        "apollo_adamw",
        "grokadamw",
        "lomo",
        "stable_adamw",
        "muon",
    ] = knob(
        "adamw_torch",
        "Optimizer",
        "The rule that turns gradients into steps; 8-bit ones hold their state in a quarter of the memory, paged ones "
        "move it to the computer's own.",
        group="optimizer",
    )
    optim_target_modules: list[str] = knob(
        [],
        "Layers for GaLore and APOLLO",
        "Modules whose gradients are projected by these optimizers; empty takes all linear layers.",
        group="optimizer",
    )
    neftune_noise_alpha: float | None = knob(
        None,
        "Noise on the words (NEFTune)",
        "Adds noise to the embeddings while training, against memorising; empty adds none.",
        group="optimizer",
        gt=0,
        le=100,
        rule="5 to 15 (arXiv:2310.05914)",
    )
    label_smoothing_factor: float = knob(
        0.0,
        "Smoothing of the answers",
        "Aims at a little less than certainty for every token; only with supervised fine-tuning.",
        group="optimizer",
        ge=0.0,
        lt=1.0,
    )
    gradient_checkpointing: Literal["auto"] | bool = knob(
        "auto",
        "Gradient checkpointing",
        "Recomputes instead of remembering: much less memory, about a third slower; auto uses it on a GPU.",
        group="memory",
    )
    use_reentrant: Literal["auto"] | bool = knob(
        "auto",
        "Older checkpointing",
        "Recomputes in the way that older versions did: a little more memory; for models that need it.",
        group="memory",
    )
    loss_implementation: Literal["auto", "full", "liger", "chunked", "in_place"] = knob(
        "auto",
        "How the loss is computed",
        "auto never holds all logits, where TRL can do without them; full holds them, as transformers' own loss does. "
        "The others are ways of other programs, for estimates of their runs.",
        group="memory",
    )
    keep_logits: bool = knob(
        False,
        "Logits are kept",
        "For estimates of training loops that hold on to a step's logits until the next one.",
        group="memory",
    )
    padded_rows: bool = knob(
        False,
        "Rows differ in length",
        "For estimates without a dataset: as if the rows of a batch were padded to the longest, so that attention "
        "gets a mask.",
        group="memory",
    )
    autocast: Literal["auto"] | bool = knob(
        "auto",
        "Mixed precision",
        "Computes products in 16 bits whatever the weights are held in; auto does it unless the weights are float32, "
        "false computes in the weights' own format throughout.",
        group="memory",
    )
    activation_offloading: bool = knob(
        False,
        "Keep activations in RAM",
        "Moves what the backward pass needs to the computer's own memory: less on the card, slower.",
        group="memory",
    )
    torch_compile: bool = knob(
        False,
        "Compile the model",
        "Translates the model into faster code at the start of the run, which takes a minute or more.",
        group="memory",
    )
    use_liger_kernel: bool = knob(
        False,
        "Liger kernels",
        "Faster and leaner kernels for common layers, where the package liger-kernel is installed; NVIDIA cards only.",
        group="memory",
    )
    dataloader_num_workers: int = knob(
        0,
        "Loading processes",
        "Processes that prepare batches beside training; 0 does it in between.",
        group="memory",
        ge=0,
        le=64,
    )
    train_sampling_strategy: Literal["auto", "random", "group_by_length", "sequential"] = knob(
        "auto",
        "Order of rows",
        "Rows of like length together waste less on padding; auto groups them by length unless they are packed.",
        group="memory",
    )
    seed: int = knob(42, "Seed", "The same seed and data repeat the same run.", group="optimizer", ge=0, le=2**32 - 1)
    full_determinism: bool = knob(
        False,
        "Exactly repeatable",
        "Only operations that give the same numbers every time; slower, and some have no such form.",
        group="optimizer",
    )
    logging_steps: int = knob(
        5, "Log every", "A point on the curves each so many steps.", group="checkpoints", ge=1, unit="steps"
    )
    eval_steps: int | None = knob(
        None,
        "Validate every",
        "Measures the loss on the held-out rows each so many steps; empty does it ten times a run.",
        group="checkpoints",
        ge=1,
        unit="steps",
    )
    save_steps: int | None = knob(
        None,
        "Checkpoint every",
        "Saves a state to go on from each so many steps; empty does it four times a run.",
        group="checkpoints",
        ge=1,
        unit="steps",
    )
    save_total_limit: int = knob(
        2,
        "Checkpoints kept",
        "Older ones are deleted once a newer one is complete.",
        group="checkpoints",
        ge=1,
        le=1000,
    )
    load_best_model_at_end: bool = knob(
        False,
        "Keep the best",
        "At the end goes back to the checkpoint that was best on the held-out rows.",
        group="checkpoints",
    )
    metric_for_best_model: str = knob(
        "eval_loss",
        "Best by",
        "The figure that says which checkpoint is best; a loss is best low, a reward or an accuracy high.",
        group="checkpoints",
        min_length=1,
    )
    early_stopping_patience: int | None = knob(
        None,
        "Stop early after",
        "Ends the run when the validation loss hasn't improved for so many measurements; empty never does.",
        group="checkpoints",
        ge=1,
        unit="validations",
    )
    report_to: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = knob(
        [],
        "Also report to",
        "Trackers that get the curves too, where their packages are installed.",
        group="checkpoints",
    )
