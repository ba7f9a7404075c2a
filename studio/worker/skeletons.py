"""A model's tensors from its config.json alone: its class is built without memory, and every shape is read off.

In: a config.json as a mapping. Out: a name, shape and dtype for each tensor, as JSON; `core.shapes.from_skeleton` makes
a ModelShape of it. For architectures that `core/architectures` has no table of. No weights are read and no code that
comes with a model is run. Whoever asks keeps the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.errors import ModelError

_STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}


def skeleton(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"config", "tensors": [[name, shape, dtype], ...]}: parameters, tied ones once, under the model's own names.

    Raises ModelError for a config that transformers has no class for, or can't build one from.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind = str(config.get("model_type") or "no model_type")
    if config.get("auto_map") and not _known(kind):
        raise ModelError(f"The architecture {kind} comes with code of its own, which isn't run here.", _OTHER)
    plain = {key: _decoded(value) for key, value in config.items() if key not in _LEFT_OUT}
    try:
        settings = CONFIG_MAPPING[kind].from_dict(plain)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    except (
        KeyError, TypeError, ValueError, AttributeError, ImportError, RuntimeError, AssertionError, StrictDataclassError
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"The architecture {kind} can't be built ({reason}).", _OTHER) from None
    model.tie_weights()
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    dtype = _STORED.get(stored, "F32")
    found = [[name, list(value.shape), dtype] for name, value in model.named_parameters()]
    known = {name: getattr(settings.get_text_config(), name, None) for name in _ASKED}
    known = {"num_attention_heads": 1, **{name: value for name, value in known.items() if value is not None}}
    return {"config": {**known, **config}, "tensors": found}


def skeleton_op(request: dict[str, Any], part: Any) -> dict[str, Any]:
    """The op `skeleton`: {"config": {...}} -> what `skeleton` gives."""
    return skeleton(request["config"])


def _decoded(value: Any) -> Any:
    """transformers writes infinity as {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        return float(value["__float__"]) if set(value) == {"__float__"} else {k: _decoded(v) for k, v in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value


def _known(kind: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


_OTHER = "Choose a model of an architecture that transformers has."
# What names code or a device, or is about the files and not the model.
_LEFT_OUT = ("model_type", "auto_map", "architectures", "quantization_config", "torch_dtype", "dtype", "_name_or_path")
# Entries that estimates read, which a config.json may leave to its class's defaults.
_ASKED = (
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "num_experts_per_tok",
    "hidden_act",
)
