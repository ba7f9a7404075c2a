"""What a model with eyes holds beside the part that speaks: SigLIP's tower and Gemma 3's projector.

In: the whole config.json. Out: (name, shape) pairs, as in `decoder`. They lie on the device in training, though text
alone never runs through them. A config without a `vision_config`, or of another family, has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Config = Mapping[str, Any]
Named = tuple[str, tuple[int, ...]]

# transformers' SiglipVisionConfig, for what a config leaves out
_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "image_size": 224,
             "patch_size": 16, "num_channels": 3, "vision_use_head": True}  # fmt: skip


def tensors(config: Config) -> Iterator[Named]:
    """The tensors of Gemma 3's eyes, under the names that transformers saves them with."""
    inner = config.get("vision_config")
    if config.get("model_type") != "gemma3" or not isinstance(inner, Mapping):
        return
    eyes = {**_DEFAULTS, **inner}
    width = int(eyes["hidden_size"])
    text = int(config.get("text_config", {}).get("hidden_size") or 2304)
    yield "multi_modal_projector.mm_input_projection_weight", (width, text)
    yield "multi_modal_projector.mm_soft_emb_norm.weight", (width,)
    yield from _tower(eyes, width)


def _both(at: str, out: int, *inner: int) -> Iterator[Named]:
    yield f"{at}.weight", (out, *inner)
    yield f"{at}.bias", (out,)


def _tower(eyes: Mapping[str, Any], width: int) -> Iterator[Named]:
    patch, wide = int(eyes["patch_size"]), int(eyes["intermediate_size"])
    yield from _both("vision_tower.embeddings.patch_embedding", width, int(eyes["num_channels"]), patch, patch)
    yield "vision_tower.embeddings.position_embedding.weight", ((int(eyes["image_size"]) // patch) ** 2, width)
    for index in range(int(eyes["num_hidden_layers"])):
        at = f"vision_tower.encoder.layers.{index}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _both(f"{at}.{norm}", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _both(f"{at}.self_attn.{name}", width, width)
        yield from _both(f"{at}.mlp.fc1", wide, width)
        yield from _both(f"{at}.mlp.fc2", width, wide)
    yield from _both("vision_tower.post_layernorm", width)
    if eyes["vision_use_head"]:
        at = "vision_tower.head"
        yield f"{at}.probe", (1, 1, width)
        yield f"{at}.attention.in_proj_weight", (3 * width, width)
        yield f"{at}.attention.in_proj_bias", (3 * width,)
        yield from _both(f"{at}.attention.out_proj", width, width)
        yield from _both(f"{at}.layernorm", width)
        yield from _both(f"{at}.mlp.fc1", wide, width)
        yield from _both(f"{at}.mlp.fc2", width, wide)
