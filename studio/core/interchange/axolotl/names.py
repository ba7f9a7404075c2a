"""What Axolotl calls things, what its silence means, and which of its settings have no counterpart here."""

from __future__ import annotations

from typing import Any

from studio.core.interchange.carried import (
    Pair,
    listed,
    model_name,
    number,
    whole,
)

NAME = "Axolotl"
SIGNS = (
    "base_model",
    "sequence_len",
    "micro_batch_size",
    "datasets",
    "sample_packing",
    "num_epochs",
    "lora_target_linear",
)

DEFAULTS: dict[str, Any] = {
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "num_epochs": 1.0,
    "sequence_len": 512,
    "val_set_size": 0.0,
    "lr_scheduler": "cosine",
    "optimizer": "adamw_torch_fused",
    "weight_decay": 0.0,
    "lora_r": 8,
    "lora_dropout": 0.0,
    "warmup_ratio": 0.0,
    "gradient_checkpointing": False,
    "sample_packing": False,
}
OPTIMIZERS = {"adamw_bnb_8bit": "adamw_8bit", "adamw_hf": "adamw_torch"}
METHODS = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo", "simpo": "cpo", "grpo": "grpo"}
# What Axolotl calls the ways in which rows are laid out, under `datasets[].type`.
FORMATS = {
    "alpaca": "alpaca",
    "chat_template": "auto",
    "sharegpt": "sharegpt",
    "completion": "text",
    "input_output": "auto",
    "chatml.intel": "auto",
}
PAIRS = (
    Pair("base_model", "model.name_or_path", write=model_name),
    Pair("revision_of_model", "model.revision"),
    Pair("sequence_len", "training.max_length"),
    Pair("val_set_size", "dataset.validation_split", read=number),
    Pair("micro_batch_size", "training.per_device_train_batch_size"),
    Pair("gradient_accumulation_steps", "training.gradient_accumulation_steps"),
    Pair("num_epochs", "training.num_train_epochs", read=number),
    Pair("max_steps", "training.max_steps", read=lambda n: n if int(n) > 0 else None),
    Pair("learning_rate", "training.learning_rate", read=number),
    Pair("lr_scheduler", "training.lr_scheduler_type"),
    Pair("lr_scheduler_kwargs", "training.lr_scheduler_kwargs", write=lambda given: given or None),
    Pair("warmup_ratio", "training.warmup_ratio", read=number),
    Pair("warmup_steps", "training.warmup_steps"),
    Pair("weight_decay", "training.weight_decay", read=number),
    Pair("max_grad_norm", "training.max_grad_norm", read=number),
    Pair("adam_beta1", "training.adam_beta1", read=number),
    Pair("adam_beta2", "training.adam_beta2", read=number),
    Pair("adam_epsilon", "training.adam_epsilon", read=number),
    Pair("neftune_noise_alpha", "training.neftune_noise_alpha", read=number),
    Pair("optimizer", "training.optim", read=lambda name: OPTIMIZERS.get(name, name)),
    Pair("sample_packing", "training.packing"),
    Pair("seed", "training.seed"),
    Pair("logging_steps", "training.logging_steps"),
    Pair("save_total_limit", "training.save_total_limit"),
    Pair("early_stopping_patience", "training.early_stopping_patience"),
    Pair("torch_compile", "training.torch_compile"),
    Pair("dataloader_num_workers", "training.dataloader_num_workers"),
    Pair("load_best_model_at_end", "training.load_best_model_at_end"),
    Pair("activation_offloading", "training.activation_offloading"),
)
LORA = (
    Pair("lora_r", "adapter.r"),
    Pair("lora_alpha", "adapter.lora_alpha", write=whole),
    Pair("lora_dropout", "adapter.lora_dropout", read=number),
    Pair("peft_use_rslora", "adapter.use_rslora"),
    Pair("peft_use_dora", "adapter.use_dora"),
    Pair("loraplus_lr_ratio", "adapter.loraplus_lr_ratio", read=number),
    Pair("lora_modules_to_save", "adapter.modules_to_save", read=listed, write=lambda given: given or None),
    Pair("peft_layers_to_transform", "adapter.layers_to_transform"),
    Pair("peft_trainable_token_indices", "adapter.trainable_token_indices"),
    Pair("lora_model_dir", "adapter.continue_from"),
)
RL = {
    "dpo": (
        Pair("rl_beta", "method.beta", read=number),
        Pair("dpo_beta", "method.beta", read=number),
        Pair("dpo_label_smoothing", "method.label_smoothing", read=number),
        Pair("dpo_use_weighting", "method.use_weighting"),
        Pair("precompute_ref_log_probs", "method.precompute_ref_log_probs"),
    ),
    "kto": (
        Pair("rl_beta", "method.beta", read=number),
        Pair("kto_desirable_weight", "method.desirable_weight", read=number),
        Pair("kto_undesirable_weight", "method.undesirable_weight", read=number),
    ),
    "orpo": (Pair("rl_beta", "method.beta", read=number), Pair("orpo_alpha", "method.beta", read=number)),
    "cpo": (
        Pair("rl_beta", "method.beta", read=number),
        Pair("cpo_alpha", "method.cpo_alpha", read=number),
        Pair("simpo_gamma", "method.simpo_gamma", read=number),
    ),
}
POINTLESS = {
    "output_dir": "a run has a folder of its own in the studio's place",
    "dataset_prepared_path": "caches have their own place",
    "model_type": "the model's class is found from its config",
    "tokenizer_type": "the tokenizer's class is found from its files",
    "pad_to_sequence_len": "rows are padded to the longest of their batch, no further",
    "eval_sample_packing": "validation rows aren't packed",
    "group_by_length": "rows are grouped by length unless they are packed",
    "tf32": "products are computed in the model's own format",
    "trust_remote_code": "code that comes with a model is never run",
    "chat_template": "the model's own chat template is used",
    "special_tokens": "the model's own special tokens are used",
    "wandb_project": "the tracker's own environment variables say where it reports to",
    "wandb_entity": "the tracker's own environment variables say where it reports to",
    "wandb_name": "name the run when it is started",
    "wandb_watch": "it isn't reported",
    "wandb_log_model": "models stay on this machine",
    "evals_per_epoch": "validation happens each eval_steps, or ten times a run",
    "saves_per_epoch": "checkpoints are saved each save_steps, or four times a run",
    "eval_table_size": "answers to held-out questions are kept where the dataset has them",
    "debug": "the log is always kept",
    "deepspeed": "a run has one process",
    "fsdp": "a run has one process",
    "fsdp_config": "a run has one process",
    "local_rank": "a run has one process",
    "strict": "unknown keys are always refused",
    "hub_model_id": "`studio export` takes a run away, and the window uploads it",
    "bf16": "",
    "save_safetensors": "weights are always safetensors",
    "remove_unused_columns": "rows are read by their layout",
    "lora_fan_in_fan_out": "PEFT finds it from the layer",
    "resume_from_checkpoint": "`studio runs resume` goes on from a run's own checkpoints",
    "auto_resume_from_checkpoints": "`studio runs resume` goes on from a run's own checkpoints",
}
