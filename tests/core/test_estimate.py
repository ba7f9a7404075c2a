"""The instant estimate: its properties, and figures that follow from the libraries' code by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from studio.core.config import RunConfig
from studio.core.estimate import (
    Device,
    Estimate,
    Practice,
    Versions,
    advice,
    estimate,
    largest_batch,
    largest_length,
    worst_batch,
)
from studio.core.memory.advice import fit
from studio.core.memory.allocator import CachingAllocator, OutOfMemory
from studio.core.memory.replay import _Unrolling
from studio.core.shapes import ModelShape, from_config
from tests.core.published import LLAMA_8B, MISTRAL_7B, QWEN_MOE, TOTAL_SIZES, tiny

SMALL = {**LLAMA_8B, "hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 2,
         "num_hidden_layers": 6, "vocab_size": 8000}  # fmt: skip
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
GIB = 2**30


def config_of(**knobs: Any) -> RunConfig:
    """A RunConfig from knobs by their last name; `adapter` is None, or its knobs."""
    model = {k: knobs.pop(k) for k in ("dtype", "quantization", "double_quant", "attn_implementation") if k in knobs}
    adapter = knobs.pop("adapter", {})
    return RunConfig.model_validate(
        {"model": model, "adapter": adapter if adapter is None else {"type": "lora", **adapter}, "training": knobs}
    )


def allocated(shape: ModelShape, device: Device | None = None, practice: Practice | None = None, **knobs: Any) -> int:
    return estimate(config_of(**knobs), shape, device=device or Device(), practice=practice).allocated


def of(**changes: Any) -> ModelShape:
    return from_config({**SMALL, **changes})


knobs_of_a_run = st.fixed_dictionaries(
    {
        "per_device_train_batch_size": st.integers(1, 8),
        "max_length": st.integers(8, 3000),
        "gradient_accumulation_steps": st.integers(1, 2),
        "gradient_checkpointing": st.booleans(),
        "optim": st.sampled_from(["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "sgd"]),
        "dtype": st.sampled_from(["auto", "bfloat16", "float32"]),
        "attn_implementation": st.sampled_from(ATTENTIONS),
    }
)
lora = st.fixed_dictionaries({"r": st.integers(1, 128), "lora_dropout": st.sampled_from([0.0, 0.1])})
practices = st.builds(
    Practice,
    loss=st.sampled_from([None, "padded", "kept", "shifted", "liger", "fast", "chunked"]),
    autocast=st.sampled_from([None, True, False]),
    reentrant=st.booleans(),
)


@given(knobs=knobs_of_a_run, adapter=st.one_of(st.none(), lora), practice=practices, more=st.integers(1, 5))
@settings(max_examples=60)
def test_more_of_anything_never_takes_less(
    knobs: dict[str, Any], adapter: dict[str, Any] | None, practice: Practice, more: int
) -> None:
    shape = of()
    before = allocated(shape, practice=practice, adapter=adapter, **knobs)
    for name in ("per_device_train_batch_size", "max_length"):
        grown = {**knobs, name: knobs[name] + more}
        assert allocated(shape, practice=practice, adapter=adapter, **grown) >= before, name
    for changed in (of(vocab_size=8000 + 128 * more), of(num_hidden_layers=6 + more)):
        assert allocated(changed, practice=practice, adapter=adapter, **knobs) >= before
    if adapter:
        larger = {**adapter, "r": adapter["r"] + more}
        assert allocated(shape, practice=practice, adapter=larger, **knobs) >= before


@given(knobs=knobs_of_a_run, adapter=st.one_of(st.none(), lora), practice=practices)
@settings(max_examples=60)
def test_parts_sum_to_the_peak_of_every_moment(
    knobs: dict[str, Any], adapter: dict[str, Any] | None, practice: Practice
) -> None:
    found = estimate(config_of(adapter=adapter, **knobs), of(), device=Device(), practice=practice)
    for peak in found.moments.values():
        assert sum(peak.parts.values()) == peak.bytes
        assert min(peak.parts.values()) > 0
    assert found.allocated == max(peak.bytes for peak in found.moments.values()) == sum(found.parts.values())
    assert found.allocated <= found.reserved < found.device


@given(knobs=knobs_of_a_run, adapter=st.one_of(st.none(), lora), practice=practices)
@settings(max_examples=60)
def test_checkpointing_never_costs_memory(
    knobs: dict[str, Any], adapter: dict[str, Any] | None, practice: Practice
) -> None:
    # Checkpointing makes the first layer's input ask for a gradient, which an adapter alone doesn't: some tensors of
    # a hidden state's size, which rows of a few tokens have nothing to set against.
    assume(knobs["max_length"] >= 64)
    shape = of()
    took = [
        allocated(shape, practice=practice, adapter=adapter, **{**knobs, "gradient_checkpointing": on})
        for on in (True, False)
    ]
    assert took[0] <= took[1]


@pytest.mark.parametrize(
    "config", [LLAMA_8B, MISTRAL_7B, TOTAL_SIZES["Qwen/Qwen2.5-7B"][0]], ids=["llama", "mistral", "qwen"]
)
@pytest.mark.parametrize("length", [256, 2048])
def test_fewer_bits_take_less(config: dict[str, Any], length: int) -> None:
    shape = from_config(config)
    ways = ({"quantization": "nf4"}, {"quantization": "int8"}, {"dtype": "bfloat16"}, {"dtype": "float32"})
    took = [allocated(shape, max_length=length, per_device_train_batch_size=1, **way) for way in ways]
    assert took == sorted(set(took))
    plain, double = (allocated(shape, quantization="nf4", double_quant=d, max_length=length) for d in (False, True))
    assert double < plain


@pytest.mark.parametrize("gib", [12, 16, 24, 48])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_largest_that_fits_fits_and_one_more_does_not(gib: int, quantization: str) -> None:
    shape, room = from_config(LLAMA_8B), gib * GIB
    config = config_of(quantization=quantization, max_length=1024)

    def needed(**changed: Any) -> int:
        training = config.training.model_copy(update=changed)
        return estimate(config.model_copy(update={"training": training}), shape, device=Device()).needed

    rows = largest_batch(config, shape, room, device=Device())
    assert rows == 0 or needed(per_device_train_batch_size=rows) <= room
    assert needed(per_device_train_batch_size=rows + 1) > room
    tokens = largest_length(config, shape, room, device=Device())
    assert tokens == 0 or needed(max_length=tokens) <= room
    assert needed(max_length=max(8, tokens + 1)) > room


def test_a_length_is_never_more_than_the_model_reads() -> None:
    assert largest_length(config_of(), of(max_position_embeddings=512), 80 * GIB, device=Device()) == 512


# -- by hand ----------------------------------------------------------------------------------------------------------


def near(value: float, wanted: float, share: float = 0.002) -> bool:
    return abs(value / wanted - 1) <= share


def test_full_training_in_bfloat16_with_foreach_adam_takes_ten_bytes_a_parameter() -> None:
    shape = from_config(MISTRAL_7B)
    found = estimate(
        config_of(adapter=None, dtype="bfloat16", max_length=512, gradient_accumulation_steps=1),
        shape,
        device=Device(),
        practice=Practice(autocast=False),
    )
    assert found.peak_moment == "optimizer"
    assert near(found.allocated, 10 * shape.numel + 2 * 8_519_680)


@pytest.mark.parametrize(
    ("optim", "bytes_each"),
    [("adamw_torch", 20), ("adamw_torch_fused", 16), ("adamw_8bit", 10.03), ("paged_adamw_8bit", 8), ("sgd", 8)],
)
def test_the_optimizers_state_is_what_its_library_keeps(optim: str, bytes_each: float) -> None:
    shape = from_config(MISTRAL_7B)
    found = estimate(config_of(adapter=None, optim=optim, max_length=8), shape, device=Device())
    assert near(found.moments["optimizer"].bytes, bytes_each * shape.numel, 0.005)


@pytest.mark.parametrize(
    ("loss", "forward"), [("shifted", 12), ("kept", 14), ("padded", 12), ("fast", 6), ("fused", 0)]
)
def test_logits_take_what_each_loss_makes_of_them(loss: Any, forward: int) -> None:
    """Bytes for each number of the logits, from the difference that a larger vocabulary makes."""
    took = []
    for words in (64_000, 128_000):
        shape = of(vocab_size=words, tie_word_embeddings=True)
        found = estimate(
            config_of(max_length=4096, per_device_train_batch_size=4), shape, device=Device(),
            practice=Practice(loss=loss),
        )  # fmt: skip
        took.append(max(found.moments[m].bytes for m in ("loss", "backward")) - found.moments["loaded"].bytes)
    share = (took[1] - took[0]) / (64_000 * 4 * 4096)
    assert share == pytest.approx(forward, abs=0.05)


def test_four_bits_are_half_a_byte_and_a_scale_for_64() -> None:
    shape = from_config(MISTRAL_7B)
    linear = sum(m.numel for layer in shape.layers for m in layer.matrices)
    rest = 2 * (shape.numel - linear)
    for double, each in ((False, 0.5 + 4 / 64), (True, 0.5 + 1 / 64 + 4 / 64 / 256)):
        found = estimate(config_of(quantization="nf4", double_quant=double), shape, device=Device())
        parts = found.moments["loaded"].parts
        assert near(parts["weights"] + parts["quantization"], linear * each + rest, 0.001)


def test_padding_needs_a_mask_and_equal_rows_none() -> None:
    config = config_of(per_device_train_batch_size=2, max_length=100)
    assert worst_batch(config, None) == (2, 100, False)
    assert worst_batch(config, [10, 50, 50, 7]) == (2, 50, False)
    assert worst_batch(config, [10, 500, 60]) == (2, 100, True)
    assert worst_batch(config, [30]) == (1, 30, False)


def test_packed_rows_are_one_row_with_a_mask_unless_flash_attention_tells_them_apart() -> None:
    packed = {"per_device_train_batch_size": 2, "max_length": 100, "packing": True}
    assert worst_batch(config_of(**packed), [5]) == (1, 200, True)
    assert worst_batch(config_of(attn_implementation="flash_attention_2", **packed), [5]) == (2, 100, False)


def test_short_datasets_take_less_than_the_bound() -> None:
    config, shape = config_of(per_device_train_batch_size=4, max_length=4096), of()
    assert estimate(config, shape, lengths=[100] * 50, device=Device()).allocated < estimate(config, shape).allocated


def test_on_a_processor_there_is_no_card_to_count() -> None:
    found = estimate(config_of(dtype="float32"), of(), device=Device(kind="cpu"))
    assert "workspace" not in found.parts
    assert found.reserved == found.allocated < found.device


def test_every_architecture_can_be_estimated() -> None:
    from studio.core.architectures import TENSORS

    for kind in TENSORS:
        more = {"kv_channels": 16} if kind == "qwen" else {}
        shape = from_config(tiny(kind, **more))
        for adapter in ({}, None):
            found = estimate(config_of(adapter=adapter, max_length=64), shape, device=Device())
            assert found.allocated > shape.bytes, kind
            assert found.parts.get("gradients", 0) >= 0


def test_old_versions_behave_as_they_did() -> None:
    shape = from_config(MISTRAL_7B)
    config = config_of(quantization="nf4", max_length=2048, attn_implementation="flash_attention_2")
    took = {
        text: estimate(config, shape, device=Device(), versions=Versions.parse(text))
        for text in (
            "transformers=4.45.2,trl=0.11.4",
            "transformers=4.48.1,trl=0.13.0",
            "transformers=4.39.3,trl=0.9.6",
        )
    }
    new, cached = (took[text].moments for text in list(took)[1:])
    assert cached["loaded"].parts["buffers"] == 2 * 32768 * 128 * 2 * 32
    assert "buffers" not in new["loaded"].parts
    assert "logits" in next(iter(took.values())).moments["loss"].parts
    with pytest.raises(ValueError, match="there is no tranformers"):
        Versions.parse("tranformers=4")
    with pytest.raises(ValueError, match="no version"):
        Versions.parse("torch=new")


def test_a_dictionary_has_what_the_command_line_prints() -> None:
    found = estimate(config_of(), of(), device=Device(memory=24 * GIB, free=GIB)).to_dict()
    assert {"allocated", "reserved", "device", "parts", "peak_moment", "fits", "free"} <= set(found)
    assert found["free"] == GIB


# -- what to do about it ----------------------------------------------------------------------------------------------


def test_every_advice_saves_what_it_says() -> None:
    shape = from_config(LLAMA_8B)
    config = config_of(adapter={"r": 64}, max_length=2048, gradient_checkpointing=False)
    now = estimate(config, shape, device=Device()).needed
    found = advice(config, shape, device=Device())
    assert found[0].change == {"training.gradient_checkpointing": True}
    for one in found:
        assert now - estimate(one.apply(config), shape, device=Device()).needed == one.saves > 0
        assert one.cost


def test_make_it_fit_ends_with_a_config_that_fits() -> None:
    shape = from_config(LLAMA_8B)
    config = config_of(max_length=4096, per_device_train_batch_size=8, gradient_checkpointing=False)

    def needed(changed: RunConfig) -> int:
        return estimate(changed, shape, device=Device()).needed

    changed, made = fit(config, needed, 16 * GIB)
    assert needed(config) > 16 * GIB >= needed(changed)
    assert made
    whole = config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
    assert changed.training.per_device_train_batch_size * changed.training.gradient_accumulation_steps == whole


def test_what_can_never_fit_is_left_as_far_as_it_goes() -> None:
    shape = from_config(QWEN_MOE)
    changed, made = fit(config_of(), lambda c: estimate(c, shape, device=Device()).needed, GIB)
    assert estimate(changed, shape, device=Device()).needed > GIB
    assert made


# -- the allocator ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60_000_000), min_size=1, max_size=60), st.randoms(), st.booleans())
def test_the_allocator_gives_distinct_memory_and_takes_it_back(sizes: list[int], chance: Any, expandable: bool) -> None:
    allocator, live = CachingAllocator(expandable), {}
    for size in sizes:
        address = allocator.allocate(size)
        assert all(address + size <= start or start + length <= address for start, length in live.items())
        live[address] = size
        if chance.random() < 0.5:
            gone = chance.choice(list(live))
            allocator.release(gone)
            del live[gone]
        assert sum(live.values()) <= allocator.allocated <= allocator.reserved <= allocator.highest
    for address in live:
        allocator.release(address)
    assert allocator.allocated == 0
    held = allocator.reserved
    allocator.give_back()
    assert allocator.reserved <= held
    assert expandable or allocator.reserved == 0


def test_the_allocator_rounds_as_cudas_does() -> None:
    allocator = CachingAllocator()
    for size, segment in ((1, 2), (2**20, 2), (2**20 + 1, 20), (9 * 2**20, 20), (11 * 2**20, 12)):
        before = allocator.reserved
        allocator.allocate(size)
        assert allocator.reserved - before in (0, segment * 2**20), size
    first = CachingAllocator()
    first.allocate(700)
    assert first.allocated == 1024


def test_a_full_device_gives_back_what_is_unused_before_it_fails() -> None:
    allocator = CachingAllocator(capacity=100 * 2**20)
    for address in [allocator.allocate(30 * 2**20) for _ in range(3)]:
        allocator.release(address)
    allocator.allocate(90 * 2**20)
    assert allocator.retries == 1
    with pytest.raises(OutOfMemory):
        allocator.allocate(20 * 2**20)


def _replayed(found: Estimate) -> int:
    """The most that is live at once; what is released as it is allocated has a size less than 0."""
    live: dict[int, int] = {}
    high = 0
    for name, size in _Unrolling(found.step.stretches).events():
        high = max(high, sum(live.values()) + abs(size))
        if size > 0:
            live[name] = size
        elif not size:
            live.pop(name, None)
    return high


@pytest.mark.parametrize("kind", ["llama", "deepseek_v2"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_unrolled_to_all_layers_nothing_is_lost_or_freed_twice(
    kind: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.core.memory.replay._SMALL", 0)
    shape = from_config(tiny(kind, num_hidden_layers=9, hidden_size=256, intermediate_size=1024))
    knobs = {"max_length": 4096, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    config = config_of(gradient_checkpointing=checkpointing, **knobs)
    found = estimate(config, shape, device=Device())
    live: dict[int, int] = {}
    for name, size in _Unrolling(found.step.stretches).events():
        if size:
            assert name not in live
        if size > 0:
            live[name] = size
        elif not size and name >= 0:
            del live[name]
    # what is left are gradients; a mixture's router is too small to be gone through
    assert 0.9 * found.step.gradients <= sum(live.values()) <= found.step.gradients
    known = sum(found.step.constant.values())
    peak = max(found.moments[m].bytes for m in ("forward", "loss", "backward")) - known
    assert _replayed(found) == peak
