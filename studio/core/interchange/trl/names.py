"""What TRL calls things, what its silence means, and which of its settings have no counterpart here."""

from __future__ import annotations

from typing import Any

from studio.core.interchange.carried import (
    TRAINER,
    Pair,
    listed,
    model_name,
    number,
    whole,
)

NAME = "TRL"
SIGNS = ("dataset_name", "use_peft", "lora_target_modules", "load_in_4bit", "dataset_train_split", "lora_r")
COMMANDS = ("sft", "dpo", "kto", "reward", "grpo", "rloo")

DEFAULTS: dict[str, Any] = {
    "learning_rate": None,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.0,
    "max_length": 1024,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "logging_steps": 10,
    "optim": "adamw_torch_fused",
    "packing": False,
    "gradient_checkpointing": True,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": False,
}
# TRL's own, by method (trl/trainer/*_config.py); supervised fine-tuning of an adapter has no rate of its own there.
RATES = {"sft": 2e-5, "reward": 1e-4}
RATE = 1e-6
# Knobs that only one method's config has, the surest first.
TELLING = {
    "kto": ("desirable_weight", "undesirable_weight"),
    "grpo": ("reward_funcs", "num_generations", "epsilon_high", "scale_rewards"),
    "reward": ("center_rewards_coefficient",),
    "dpo": ("loss_weights", "precompute_ref_log_probs", "reference_free", "label_smoothing", "beta"),
}
DTYPES = {
    "auto": "auto",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
}
PAIRS = (
    *TRAINER,
    Pair("model_name_or_path", "model.name_or_path", write=model_name),
    Pair("model_revision", "model.revision", read=lambda name: None if name == "main" else name),
    Pair("dtype", "model.dtype", DTYPES),
    Pair("attn_implementation", "model.attn_implementation", write=lambda name: None if name == "auto" else name),
    Pair("max_length", "training.max_length"),
    Pair("adam_beta1", "training.adam_beta1", read=number),
    Pair("adam_beta2", "training.adam_beta2", read=number),
    Pair("adam_epsilon", "training.adam_epsilon", read=number),
    Pair("label_smoothing_factor", "training.label_smoothing_factor", read=number),
    Pair("activation_offloading", "training.activation_offloading"),
    Pair("use_liger_kernel", "training.use_liger_kernel"),
    Pair("torch_compile", "training.torch_compile"),
    Pair("full_determinism", "training.full_determinism"),
    Pair("load_best_model_at_end", "training.load_best_model_at_end"),
    Pair("metric_for_best_model", "training.metric_for_best_model"),
)
# What only supervised fine-tuning has.
PACKING = (Pair("packing", "training.packing"), Pair("packing_strategy", "training.packing_strategy"))
LORA = (
    Pair("lora_r", "adapter.r"),
    Pair("lora_alpha", "adapter.lora_alpha", write=whole),
    Pair("lora_dropout", "adapter.lora_dropout", read=number),
    Pair("lora_modules_to_save", "adapter.modules_to_save", read=listed, write=lambda given: given or None),
    Pair("use_rslora", "adapter.use_rslora"),
    Pair("use_dora", "adapter.use_dora"),
)
POINTLESS = {
    "output_dir": "a run has a folder of its own in the studio's place",
    "dataset_train_split": "register the dataset with it on the Data tab",
    "dataset_test_split": "validation rows are held out, or named as dataset.validation_path",
    "dataset_streaming": "rows are always read as a stream",
    "dataset_num_proc": "every core is used where it helps",
    "eval_strategy": "validation happens each eval_steps, or ten times a run",
    "save_strategy": "checkpoints are saved each save_steps, or four times a run",
    "push_to_hub": "`studio export` takes a run away, and the window uploads it",
    "hub_model_id": "`studio export` takes a run away, and the window uploads it",
    "run_name": "name the run when it is started",
    "eos_token": "the model's own tokens are used",
    "lora_task_type": "it follows from the method",
    "trust_remote_code": "code that comes with a model is never run",
    "overwrite_output_dir": "a run never writes over another",
    "do_eval": "validation goes by the rows that are held out",
    "per_device_eval_batch_size": "validation takes the batch size of training",
    "remove_unused_columns": "rows are read by their layout",
    "logging_first_step": "the first step is always logged",
    "log_level": "the log is always kept",
}
