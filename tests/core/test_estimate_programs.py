"""What older libraries and LitGPT did with memory: against published figures and by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.published import published
from studio.core.config import RunConfig
from studio.core.estimate import Device, Estimate, Practice, Versions, estimate
from studio.core.memory.practice import habits, written
from studio.core.memory.state import trained_sizes
from studio.core.shapes import from_config

AUTUMN_2023 = Versions.parse("litgpt=0.1.0,torch=2.1.0,bitsandbytes=0.41.1")


def lit(
    model: str, length: int, rows: int = 1, quantized: str = "", targets: tuple[str, ...] = ("query", "value")
) -> Estimate:
    """LitGPT's finetune/lora.py with its defaults."""
    config = RunConfig.model_validate(
        {
            "model": {
                "dtype": "bfloat16",
                "quantization": "nf4" if quantized else "none",
                "double_quant": quantized == "nf4-dq",
            },
            "adapter": {"type": "lora", "r": 8, "lora_dropout": 0.05, "target_modules": list(targets)},
            "training": {
                "per_device_train_batch_size": rows,
                "max_length": length,
                "gradient_checkpointing": False,
                "gradient_accumulation_steps": 1,
                "optim": "adamw_torch",
            },
        }
    )
    described = published(model)
    assert described is not None
    return estimate(config, from_config(described), versions=AUTUMN_2023, device=Device())


# github.com/Lightning-AI/litgpt, tutorials/resource-tables.md: trainable parameters, and GB of max_memory_allocated.
@pytest.mark.parametrize(
    ("model", "length", "trainable"),
    [
        ("phi-1.5", 1044, 1_572_864),
        ("stablelm-base-alpha-3b", 1034, 2_097_152),
        ("llama-2-7b", 1304, 4_194_304),
        ("llama-2-13b", 1304, 6_553_600),
    ],
)
def test_litgpts_adapters_have_the_published_number_of_parameters(model: str, length: int, trainable: int) -> None:
    run = lit(model, length).step.run
    assert sum(times * numel for numel, _, times in trained_sizes(run)) == trainable


@pytest.mark.parametrize(
    ("model", "length", "rows", "quantized", "measured"),
    [
        ("phi-1.5", 1044, 1, "", 4.82),
        ("phi-1.5", 1044, 2, "", 6.76),
        ("phi-1.5", 1044, 4, "", 10.68),
        ("phi-1.5", 1044, 1, "nf4", 3.78),
        ("phi-1.5", 1044, 1, "nf4-dq", 3.72),
        ("llama-2-13b", 1304, 1, "", 38.12),
        ("llama-2-13b", 1304, 1, "nf4", 23.14),
        ("llama-2-13b", 1304, 1, "nf4-dq", 22.55),
    ],
)
def test_litgpt_takes_what_it_was_measured_to_take(
    model: str, length: int, rows: int, quantized: str, measured: float
) -> None:
    assert lit(model, length, rows, quantized).allocated == pytest.approx(measured * 1e9, rel=0.035)


def test_litgpt_never_ties_its_head_and_quantizes_it() -> None:
    described = published("gemma-2b")
    assert described is not None
    head = described["vocab_size"] * described["hidden_size"]
    plain = lit("gemma-2b", 64).moments["loaded"].parts["weights"]
    assert plain == pytest.approx(2 * (from_config(described).numel + head), rel=1e-4)
    packed = lit("gemma-2b", 64, quantized="nf4").moments["loaded"].parts
    linear = from_config(described).numel - head
    assert packed["weights"] == pytest.approx(2 * head + (linear + head) / 2, rel=1e-3)


@pytest.mark.parametrize("model", ["mistral-7b", "falcon-7b", "phi-3-mini", "gemma-2-2b", "llama-3.2-1b"])
def test_litgpt_runs_every_layout_with_every_adapter(model: str) -> None:
    every = ("query", "key", "value", "projection", "mlp", "head")
    few, many = lit(model, 256), lit(model, 256, targets=every)
    assert few.allocated < many.allocated
    assert many.allocated < lit(model, 512, targets=every).allocated


def trained(name: str, versions: str, practice: Practice | None = None, length: int = 2048, **knobs: Any) -> Estimate:
    training = {"per_device_train_batch_size": 4, "max_length": length, "gradient_accumulation_steps": 1,
                "gradient_checkpointing": True, "optim": "adamw_torch"}  # fmt: skip
    config = RunConfig.model_validate({"adapter": None, "training": training, **knobs})
    described = published(name)
    assert described is not None
    return estimate(
        config, from_config(described), versions=Versions.parse(versions), practice=practice, device=Device()
    )


def test_gpt_bigcode_held_its_cache_through_checkpointing() -> None:
    """Keys and values are a view of what c_attn gave: hidden and two heads' numbers a token and layer, in bfloat16."""
    way = Practice(autocast=False, loss="shifted")
    model: dict[str, Any] = {"model": {"dtype": "bfloat16", "attn_implementation": "flash_attention_2"}}
    old, new = (
        trained("gpt_bigcode-santacoder", f"transformers={v},trl=0.13.0,torch=2.4.1", way, **model)
        for v in ("4.52.4", "4.53.0")
    )
    held = old.moments["loss"].bytes - new.moments["loss"].bytes
    assert held == pytest.approx(24 * 4 * 2048 * (2048 + 2 * 128) * 2, rel=0.001)


def test_bitsandbytes_kept_the_inputs_of_four_bit_products() -> None:
    knobs: dict[str, Any] = {"model": {"quantization": "nf4", "dtype": "float16"}, "adapter": {"type": "lora", "r": 8}}
    older, newer = (
        trained("mistral-7b", f"transformers=4.45.2,trl=0.11.4,bitsandbytes={v}", **knobs) for v in ("0.43.1", "0.43.2")
    )
    # of the feed-forward part alone: its input for gate and for up, its product of 14336 numbers, 2 bytes each
    least = 4 * 2048 * (2 * 4096 + 14336) * 2
    assert older.moments["backward"].bytes - newer.moments["backward"].bytes > 0.9 * least


@pytest.mark.parametrize(
    ("versions", "loss", "family", "way"),
    [
        ("transformers=4.45.2,trl=0.11.4", "shifted", "llama", "shifted"),
        ("transformers=4.46.0,trl=0.13.0", "kept", "mistral", "shifted"),
        ("transformers=4.48.1,trl=0.13.0", "kept", "mistral", "kept"),
        ("transformers=4.48.1,trl=0.13.0", "kept", "gpt_neox", "shifted"),
        ("transformers=4.49.0,trl=0.15.0", "padded", "gpt_neox", "padded"),
        ("transformers=4.57.0,trl=1.0.0", "padded", "llama", "padded"),
        ("transformers=5.0.0,trl=1.9.2", "pieces", "llama", "pieces"),
        ("transformers=5.0.0,trl=1.15.0", "fused", "llama", "fused"),
    ],
)
def test_each_release_computes_the_loss_its_own_way(versions: str, loss: Any, family: str, way: str) -> None:
    found = habits(Versions.parse(versions))
    assert found.loss == loss
    assert written(found.loss, found, family) == way


def test_pieces_of_the_logits_take_no_more_when_rows_are_longer() -> None:
    knobs: dict[str, Any] = {"adapter": {"type": "lora"}, "model": {"dtype": "bfloat16"}}
    parts = [
        trained("llama-3-8b", "transformers=5.0.0,trl=1.9.2", **knobs, length=n).moments["loss"].parts
        for n in (512, 1024)
    ]
    assert parts[0]["logits"] == parts[1]["logits"] == pytest.approx(2 * 4 * 256 * 128256, rel=0.01)
