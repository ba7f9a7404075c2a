"""What LLaMA-Factory calls things, what its silence means, and which of its settings have no counterpart here."""

from __future__ import annotations

from typing import Any

from studio.core.interchange.carried import (
    TRAINER,
    Pair,
    model_name,
    number,
    whole,
)

NAME = "LLaMA-Factory"
# Keys that only its files have.
SIGNS = ("stage", "finetuning_type", "cutoff_len", "do_train", "lora_rank", "lora_target", "dataset_dir")

METHODS = {"pt": "pretrain", "sft": "sft", "rm": "reward", "ppo": "ppo", "kto": "kto", "dpo": "dpo"}
DPO_LOSSES = ("sigmoid", "hinge", "ipo")
ATTENTION = {
    "auto": "auto",
    "disabled": "eager",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
}
# What a file leaves unsaid: LLaMA-Factory's own defaults, and transformers' 5e-5 and 8 rows.
DEFAULTS: dict[str, Any] = {
    "stage": "sft",
    "finetuning_type": "lora",
    "cutoff_len": 2048,
    "val_size": 0.0,
    "lora_rank": 8,
    "lora_dropout": 0.0,
    "lora_target": "all",
    "pref_loss": "sigmoid",
    "learning_rate": 5e-5,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.0,
    "double_quantization": True,
    "quantization_type": "nf4",
    "freeze_trainable_layers": 2,
    "oft_block_size": 32,
}

PAIRS = (
    *TRAINER,
    Pair("model_name_or_path", "model.name_or_path", write=model_name),
    Pair("model_revision", "model.revision"),
    Pair("flash_attn", "model.attn_implementation", ATTENTION),
    Pair("cutoff_len", "training.max_length"),
    Pair("val_size", "dataset.validation_split", read=number),
    Pair("max_samples", "dataset.max_samples"),
    Pair("default_system", "dataset.system_prompt"),
    Pair("learning_rate", "training.learning_rate", read=number),
    Pair("warmup_ratio", "training.warmup_ratio", read=number),
    Pair("warmup_steps", "training.warmup_steps", read=lambda n: n or None),
    Pair("packing", "training.packing"),
    Pair("logging_steps", "training.logging_steps"),
    Pair("eval_steps", "training.eval_steps"),
    Pair("save_steps", "training.save_steps"),
    Pair("enable_liger_kernel", "training.use_liger_kernel"),
    Pair("disable_gradient_checkpointing", "training.gradient_checkpointing", {True: False, False: True}),
    Pair("use_reentrant_gc", "training.use_reentrant"),
)
LORA = (
    Pair("lora_rank", "adapter.r"),
    Pair("lora_alpha", "adapter.lora_alpha", write=whole),
    Pair("lora_dropout", "adapter.lora_dropout", read=number),
    Pair("use_rslora", "adapter.use_rslora"),
    Pair("use_dora", "adapter.use_dora"),
    Pair("loraplus_lr_ratio", "adapter.loraplus_lr_ratio", read=number),
)
KTO = (
    Pair("pref_beta", "method.beta", read=number),
    Pair("kto_chosen_weight", "method.desirable_weight", read=number),
    Pair("kto_rejected_weight", "method.undesirable_weight", read=number),
)
POINTLESS = {
    "template": "the model's own chat template is used",
    "output_dir": "a run has a folder of its own in the studio's place",
    "overwrite_output_dir": "a run never writes over another",
    "overwrite_cache": "caches are told apart by what is in them",
    "preprocessing_num_workers": "every core is used where it helps",
    "plot_loss": "the curves are always drawn",
    "ddp_timeout": "a run has one process",
    "do_train": "a run trains",
    "do_eval": "validation goes by the rows that are held out",
    "trust_remote_code": "code that comes with a model is never run",
    "include_num_input_tokens_seen": "tokens are always counted",
    "eval_strategy": "validation happens each eval_steps, or ten times a run",
    "save_strategy": "checkpoints are saved each save_steps, or four times a run",
    "per_device_eval_batch_size": "validation takes the batch size of training",
    "save_only_model": "a checkpoint holds what resuming needs",
    "run_name": "name the run when it is started",
    "quantization_method": "bitsandbytes quantizes",
    "resume_from_checkpoint": "`studio runs resume` goes on from a run's own checkpoints",
    "logging_dir": "a run has a folder of its own in the studio's place",
    "deepspeed": "a run has one process",
    "fsdp": "a run has one process",
    "remove_unused_columns": "rows are read by their layout",
    "bf16_full_eval": "validation computes as training does",
}
