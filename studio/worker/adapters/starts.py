"""First values that come from the base's weights or from the data, and what they leave behind in the base.

In: a LoRA just laid over a model. Out: the same, started by PiSSA, OLoRA (which take their start out of the base), EVA
or LoftQ; at the end the adapter turned into plain LoRA for the untouched base. Knows no trainer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from studio.core.errors import ConfigError, ModelError

NAME = "default"
# Beside the checkpoints: what was taken out of the base, so that a resumed run takes out the very same.
KEPT = "start.safetensors"
_WORDS = 512  # tokens of answers that EVA looks at in one go, where there are as many
_SEED = 0


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The linear layers with LoRA, by path in the base."""
    for path, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer) and NAME in module.lora_A:
            yield path, module


def take_out(model: Any, start: str, kept: Path) -> None:
    """PiSSA and OLoRA: PEFT's own decomposition, or the one that this run began with; `kept` is written where missing.

    The randomised PiSSA draws from a seed of its own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        before = load_file(kept) if kept.is_file() else None
        for path, layer in layers(model):
            if before is not None:
                _take_again(layer, before[f"{path}.A"], before[f"{path}.B"])
            elif start == "olora":
                layer.olora_init(NAME)
            else:
                layer.pissa_init(NAME, start)
    if before is None:
        save_file(_values(model), kept)
    for _, layer in layers(model):
        for name in ("lora_A", "lora_B"):
            module = getattr(layer, name)[NAME]
            module.weight.data = module.weight.data.to(layer.get_base_layer().weight.device).contiguous()


def _values(model: Any) -> dict[str, torch.Tensor]:
    found = {}
    for path, layer in layers(model):
        found[f"{path}.A"] = layer.lora_A[NAME].weight.detach().float().cpu().clone().contiguous()
        found[f"{path}.B"] = layer.lora_B[NAME].weight.detach().float().cpu().clone().contiguous()
    return found


def _take_again(layer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    device = layer.get_base_layer().weight.device
    layer.lora_A[NAME].weight.data, layer.lora_B[NAME].weight.data = a.to(device), b.to(device)
    _add(layer, a, b, -1)


def _add(layer: Any, a: torch.Tensor, b: torch.Tensor, sign: int) -> None:
    """To the base's weight: the layer's scale times B A."""
    weight = layer.get_base_layer().weight
    change = sign * layer.scaling[NAME] * b.to(weight.device) @ a.to(weight.device)
    turned = change.T if isinstance(layer.get_base_layer(), Conv1D) else change
    weight.data = (weight.data.float() + turned).to(weight.dtype)


def put_back(model: Any, kept: Path) -> None:
    """What was taken out of the base at the start, back into it."""
    before = load_file(kept)
    for path, layer in layers(model):
        _add(layer, before[f"{path}.A"], before[f"{path}.B"], 1)


def as_plain_lora(folder: Path, kept: Path) -> None:
    """Rewrite a saved adapter so that it belongs on the base as it was.

    What was trained is B A on the rest W - s B0 A0 of the base: on W itself that is the change s (B A - B0 A0), a LoRA
    of twice the rank, as PEFT's `path_initial_model_for_weight_conversion` has it. Unlike PEFT's this keeps whatever
    else the adapter holds (DoRA's lengths, modules trained whole), and its scale: alpha grows as the rank does.
    """
    from peft import PeftConfig

    before = load_file(kept)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in list(tensors):
        path = name.removeprefix("base_model.model.").removesuffix(".weight")
        if path.endswith(".lora_A"):
            start = before[f"{path.removesuffix('.lora_A')}.A"]
            tensors[name] = torch.cat([tensors[name], start.to(tensors[name].dtype)], dim=0)
        elif path.endswith(".lora_B"):
            start = before[f"{path.removesuffix('.lora_B')}.B"]
            tensors[name] = torch.cat([tensors[name], -start.to(tensors[name].dtype)], dim=1)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    config: Any = PeftConfig.from_pretrained(str(folder))
    growth = 2**0.5 if config.use_rslora else 2
    config.init_lora_weights = True
    config.r *= 2
    config.lora_alpha *= growth
    config.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    config.alpha_pattern = {name: growth * alpha for name, alpha in (config.alpha_pattern or {}).items()}
    config.inference_mode = True
    config.save_pretrained(str(folder))


def look_at_data(model: Any, rows: Any, r: int, rho: float) -> None:
    """EVA: the directions in which the layers' inputs differ most, over the run's own rows. Raises ConfigError."""
    from peft import initialize_lora_eva_weights

    needed = 2 * round(r * rho)
    batches = list(_batches(rows, max(_WORDS, needed), needed))
    if not batches:
        raise ConfigError(
            "adapter.init_lora_weights",
            f"eva needs {needed} tokens that are learnt from, and there are fewer.",
            "Take more rows or a lower rank, or choose default.",
        )
    device = model.device
    on_device = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        initialize_lora_eva_weights(model, on_device, show_progress_bar=False)


def _batches(rows: Any, wanted: int, needed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Rows padded together until so many of their tokens carry loss; `needed` will do for the last ones."""
    held: list[tuple[list[int], list[int]]] = []
    learnt = 0
    for row in rows:
        ids, labels = ids_of(row)
        held.append((ids, labels))
        learnt += sum(label != -100 for label in labels)
        if learnt >= wanted:
            yield _padded(held)
            held, learnt = [], 0
    if learnt >= needed:
        yield _padded(held)


def _padded(rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows]),
    }


def ids_of(row: Any) -> tuple[list[int], list[int]]:
    """A row's tokens and labels, whichever method it was made for: of a pair, the better answer."""
    if "input_ids" in row:
        ids = list(row["input_ids"])
        return ids, list(row.get("labels", ids))
    prompt = list(row.get("prompt_ids") or [])
    answer = next((list(row[name]) for name in ("chosen_ids", "completion_ids") if row.get(name) is not None), [])
    return prompt + answer, ([-100] * len(prompt) + answer) if answer else prompt


def make_good(model: Any, folder: Path) -> None:
    """LoftQ, its step for the adapter (arXiv:2310.08659, algorithm 1): B A nearest to what 4 bits have lost.

    The weights that bitsandbytes holds stay as they are. Raises ModelError where the model's files name weights
    otherwise than the model does.
    """
    from bitsandbytes.functional import dequantize_4bit

    places: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file)
    prefix = getattr(model.get_base_model(), "base_model_prefix", "")
    for path, layer in layers(model):
        held = layer.get_base_layer().weight
        name = next((n for n in (f"{path}.weight", f"{path}.weight".removeprefix(f"{prefix}.")) if n in places), None)
        if name is None:
            raise ModelError(
                f"The model's files have no {path}.weight of its own, which loftq starts from.",
                "Set adapter.init_lora_weights to default.",
            )
        with safe_open(str(places[name]), framework="pt") as opened:
            original = opened.get_tensor(name).to(held.device, torch.float32)
        if not hasattr(held, "quant_state"):
            continue  # a layer that bitsandbytes leaves alone has lost nothing
        lost = original - dequantize_4bit(held.data, held.quant_state).float()
        u, s, v = torch.linalg.svd(lost, full_matrices=False)
        rank = layer.r[NAME]
        root = (s[:rank] / layer.scaling[NAME]).sqrt()
        layer.lora_A[NAME].weight.data = (root[:, None] * v[:rank]).to(layer.lora_A[NAME].weight.dtype).contiguous()
        layer.lora_B[NAME].weight.data = (u[:, :rank] * root).to(layer.lora_B[NAME].weight.dtype).contiguous()
