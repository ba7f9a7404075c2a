"""What `auto` comes to, and wishes that this machine can't fulfil."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.worker import device
from studio.worker.device import Setup, choose_device, resolve


def setup(**sections: Any) -> Setup:
    return resolve(parse_config(sections))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two CUDA cards that compute bfloat16, as far as torch can tell."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(device, "computes_bf16", lambda place: True)
    return monkeypatch


def test_on_a_processor_nothing_stays_auto() -> None:
    found = setup(hardware={"device": "cpu"})
    assert found.device == torch.device("cpu")
    assert found.on_cpu
    assert found.weights in (torch.float32, torch.bfloat16)
    assert found.attention in ("sdpa", "eager")
    assert found.sampling in ("random", "group_by_length", "sequential")
    assert found.gradient_checkpointing is False


@pytest.mark.parametrize("sampling", ["random", "group_by_length", "sequential"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_wish_stands(sampling: str, attention: str, dtype: str, checkpointing: bool) -> None:
    found = setup(
        hardware={"device": "cpu"},
        model={"dtype": dtype, "attn_implementation": attention},
        training={"gradient_checkpointing": checkpointing, "train_sampling_strategy": sampling},
    )
    assert (found.sampling, found.attention, found.gradient_checkpointing) == (sampling, attention, checkpointing)
    assert found.weights is getattr(torch, dtype)


def test_packed_rows_arent_grouped_by_length() -> None:
    """They're all about as long as each other, and what is in them should be mixed."""
    assert setup(hardware={"device": "cpu"}, training={"packing": True}).sampling == "random"


@pytest.mark.parametrize("wish", ["cuda", "cuda:0", "xpu", "mps"])
def test_a_device_that_isnt_here_is_refused_by_name(wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"no {wish} here; found: only the processor") as refused:
        choose_device(wish)
    assert refused.value.field == "hardware.device"


@pytest.mark.parametrize(("section", "wish"), [("dtype", "float16"), ("attn_implementation", "flash_attention_2")])
def test_what_a_processor_cant_do_is_refused(section: str, wish: str) -> None:
    with pytest.raises(ConfigError) as refused:
        setup(hardware={"device": "cpu"}, model={section: wish})
    assert refused.value.field == f"model.{section}"


def test_auto_takes_the_card(card: pytest.MonkeyPatch) -> None:
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="found: cuda \\(2\\)"):
        choose_device("cuda:2")
    assert setup().gradient_checkpointing is True


def test_on_a_card_an_adapter_trains_on_a_16_bit_base(card: pytest.MonkeyPatch) -> None:
    found = setup()
    assert (found.weights, found.autocast) == (torch.bfloat16, torch.bfloat16)


def test_on_a_card_a_whole_model_keeps_32_bit_weights(card: pytest.MonkeyPatch) -> None:
    """Updates of a step are smaller than 16 bits resolve."""
    found = setup(adapter=None)
    assert (found.weights, found.autocast) == (torch.float32, torch.bfloat16)


def test_a_card_without_bfloat16_takes_float16(card: pytest.MonkeyPatch) -> None:
    card.setattr(device, "computes_bf16", lambda place: False)
    assert setup().autocast is torch.float16
    assert setup(adapter=None).weights is torch.float32  # float16 weights can't be trained


@pytest.mark.parametrize("adapter", [None, {}])
def test_float32_means_float32(card: pytest.MonkeyPatch, adapter: Any) -> None:
    found = setup(model={"dtype": "float32"}, adapter=adapter)
    assert (found.weights, found.autocast) == (torch.float32, None)


def test_a_turing_card_computes_nothing_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch itself says so of a card of compute capability 7.5; over a base in 4 bits float16 is computed in then."""
    from types import SimpleNamespace

    from studio.worker.models import quantization

    for major, name in ((7, "float16"), (8, "bfloat16")):
        with monkeypatch.context() as patch:
            patch.setattr(torch.version, "cuda", "13.0")
            patch.setattr(torch.accelerator, "is_available", lambda: True)
            patch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
            patch.setattr(torch.accelerator, "device_count", lambda: 1)
            patch.setattr(torch.cuda, "current_device", lambda: 0)
            properties = SimpleNamespace(major=major, minor=5)
            patch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
            patch.setattr(torch.cuda, "is_available", lambda: True)
            config = parse_config({"model": {"quantization": "nf4"}})
            found = resolve(config)
            assert found.autocast is getattr(torch, name)
            assert quantization(config.model, found).bnb_4bit_compute_dtype is getattr(torch, name)
