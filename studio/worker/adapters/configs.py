"""An adapter's section as PEFT's config: one entry a kind.

In: a section, the model it is meant for, what the run is (steps, task). Out: a peft config. Lays nothing over a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.core.errors import ConfigError
from studio.core.sections.adapter import Adapter
from studio.worker.adapters.targets import chosen, is_tied, linear_modules, targets, touches_embeddings

# Steps that a whole AdaLoRA run is taken to have until the trainer has counted them.
_UNCOUNTED = 1000
# What PEFT calls "as the paper has it" for LoRA's first values.
_STARTS: dict[str, Any] = {"default": True}


def peft_config(adapter: Adapter, model: Any = None, *, task: str = "CAUSAL_LM", tokenizer: str = "") -> Any:
    """PEFT's config for a kind of adapter. Raises ConfigError where the model can't have it.

    Without a model nothing is looked up in it. `tokenizer`: its folder, for prompt tuning that starts from words.
    """
    import peft

    section: Any = adapter
    kind = section.type
    options: dict[str, Any] = {"task_type": task, **_MAKERS[kind](section, model, tokenizer)}
    if hasattr(section, "target_modules"):
        options["target_modules"] = targets(model, section)
        options |= _saved(section, model)
        if section.layers_to_transform is not None and kind != "ia3":
            options["layers_to_transform"] = section.layers_to_transform
        if model is not None and kind in _STORED_TURNED:
            options["fan_in_fan_out"] = _is_turned(model, section)
    return getattr(peft, _CLASSES[kind])(**options)


_CLASSES = {
    "lora": "LoraConfig",
    "adalora": "AdaLoraConfig",
    "ia3": "IA3Config",
    "vera": "VeraConfig",
    "loha": "LoHaConfig",
    "lokr": "LoKrConfig",
    "oft": "OFTConfig",
    "boft": "BOFTConfig",
    "prefix_tuning": "PrefixTuningConfig",
    "prompt_tuning": "PromptTuningConfig",
    "p_tuning": "PromptEncoderConfig",
    "ln_tuning": "LNTuningConfig",
}
# Kinds that have to be told of layers which keep their weight as (in, out), as GPT-2's do.
_STORED_TURNED = ("lora", "adalora", "ia3", "vera")


def _lora(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    start = section.init_lora_weights
    options = {
        "r": section.r,
        "lora_alpha": section.lora_alpha,
        "lora_dropout": section.lora_dropout,
        "use_rslora": section.use_rslora,
        "use_dora": section.use_dora,
        # LoftQ's start is computed here (adapters/starts), over weights that bitsandbytes holds
        "init_lora_weights": True if start == "loftq" else _STARTS.get(start, start),
        "rank_pattern": section.rank_pattern,
        "alpha_pattern": section.alpha_pattern,
        "trainable_token_indices": section.trainable_token_indices,
    }
    if start == "eva":
        from peft import EvaConfig

        options["eva_config"] = EvaConfig(rho=section.eva_rho)
    if section.trainable_token_indices and model is not None:
        rows = model.get_input_embeddings().weight.shape[0]
        if max(section.trainable_token_indices) >= rows:
            raise ConfigError(
                "adapter.trainable_token_indices",
                f"the model has no token {max(section.trainable_token_indices)}.",
                f"Its tokens are 0 to {rows - 1}.",
            )
    return options


def _adalora(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    return {
        "init_r": section.init_r,
        "target_r": section.target_r,
        "lora_alpha": section.lora_alpha,
        "lora_dropout": section.lora_dropout,
        "orth_reg_weight": section.orth_reg_weight,
        "total_step": _UNCOUNTED,
    }


def _ia3(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    inner = section.feedforward_modules
    if inner and model is not None:
        whole = chosen(model, section)
        missing = [name for name in inner if not any(path.endswith(name) for path in whole)]
        if missing:
            raise ConfigError(
                "adapter.feedforward_modules",
                f"{', '.join(missing)} isn't among the layers that get an adapter.",
                "Name it in adapter.target_modules too, or take it out here.",
            )
        inner = [path for path in whole if any(path.endswith(name) for name in inner)]
    return {"feedforward_modules": inner}


def _vera(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    return {"r": section.r, "vera_dropout": section.vera_dropout, "d_initial": section.d_initial}


def _loha(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    names = ("r", "alpha", "rank_dropout", "module_dropout")
    return {name: getattr(section, name) for name in names}


def _lokr(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    names = ("decompose_both", "decompose_factor")
    return {**_loha(section, model, tokenizer), **{name: getattr(section, name) for name in names}}


def _oft(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    _check_blocks(model, section, section.oft_block_size, "oft_block_size")
    names = ("oft_block_size", "module_dropout", "coft")
    return {name: getattr(section, name) for name in names} | {"r": 0}


def _boft(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    size, factor = section.boft_block_size, section.boft_n_butterfly_factor
    _check_blocks(model, section, size * 2 ** (factor - 1), "boft_block_size")
    if factor > 1 and model is not None and model.device.type != "cuda":
        raise ConfigError(
            "adapter.boft_n_butterfly_factor", "more than one factor needs an NVIDIA card.", "Set it to 1."
        )
    return {"boft_block_size": size, "boft_n_butterfly_factor": factor, "boft_dropout": section.boft_dropout}


def _check_blocks(model: Any, section: Any, size: int, field: str) -> None:
    """PEFT takes another size of blocks in silence, or fails; here the person decides."""
    if model is None:
        return
    widths = {
        path: inputs_of(linear_modules(model)[path]) for path in chosen(model, section) if _is_linear(model, path)
    }
    for path, width in widths.items():
        if width % size:
            raise ConfigError(
                f"adapter.{field}",
                f"blocks of {size} don't divide the {width} inputs of {path}.",
                "Give a size that divides them all, such as 4, 8 or 16.",
            )


def _is_linear(model: Any, path: str) -> bool:
    return path in linear_modules(model)


def inputs_of(module: Any) -> int:
    """How many numbers go into a linear layer."""
    return int(getattr(module, "in_features", 0) or module.weight.shape[0])


def _prefix(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    options = {"num_virtual_tokens": section.num_virtual_tokens, "prefix_projection": section.prefix_projection}
    if section.prefix_projection and model is not None:
        options["encoder_hidden_size"] = model.config.get_text_config().hidden_size
    return options


def _prompt(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    options: dict[str, Any] = {"num_virtual_tokens": section.num_virtual_tokens}
    if section.prompt_tuning_init_text:
        options |= {
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": section.prompt_tuning_init_text,
            "tokenizer_name_or_path": tokenizer,
        }
    return options


def _p(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    width = section.encoder_hidden_size
    if width is None and model is not None:
        width = model.config.get_text_config().hidden_size
    return {"num_virtual_tokens": section.num_virtual_tokens, "encoder_hidden_size": width}


def _ln(section: Any, model: Any, tokenizer: str) -> dict[str, Any]:
    if model is None:
        return {}
    found = norms(model)
    if not found:
        raise ConfigError("adapter.type", "this model has no norms with weights of their own.", "Choose lora.")
    return {"target_modules": found}


def norms(model: Any) -> list[str]:
    """The paths of a model's norms, by what they hold: one vector as long as what goes through, and at most a bias."""
    found = []
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if "norm" in type(module).__name__.lower() and set(own) <= {"weight", "bias"} and "weight" in own:
            found.append(path)
    return found


_MAKERS: dict[str, Callable[[Any, Any, str], dict[str, Any]]] = {
    "lora": _lora,
    "adalora": _adalora,
    "ia3": _ia3,
    "vera": _vera,
    "loha": _loha,
    "lokr": _lokr,
    "oft": _oft,
    "boft": _boft,
    "prefix_tuning": _prefix,
    "prompt_tuning": _prompt,
    "p_tuning": _p,
    "ln_tuning": _ln,
}


def _saved(section: Any, model: Any) -> dict[str, Any]:
    """Modules that are trained whole, and whether what is one matrix in the model stays one."""
    options: dict[str, Any] = {"modules_to_save": section.modules_to_save or None}
    if model is None:
        return options
    last = {path.rpartition(".")[2] for path, _ in model.named_modules()} | {p for p, _ in model.named_modules()}
    for name in section.modules_to_save:
        if name not in last:
            raise ConfigError(
                "adapter.modules_to_save", f"the model has no module {name!r}.", "Such as embed_tokens, lm_head."
            )
    if touches_embeddings(model, section) and is_tied(model):
        if section.type not in ("lora", "adalora"):
            raise ConfigError(
                "adapter.modules_to_save",
                f"embeddings and head are one matrix in this model, which {section.type} can't train as one.",
                "Choose lora, or leave them out.",
            )
        options["ensure_weight_tying"] = True
    return options


def _is_turned(model: Any, section: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.named_modules())
    return any(isinstance(modules[path], Conv1D) for path in chosen(model, section))
