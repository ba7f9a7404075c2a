"""What holds of every estimate: for every method and adapter, whatever the knobs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from studio.core.config import RunConfig
from studio.core.estimate import Device, advice, estimate, largest, largest_batch, largest_length
from studio.core.memory.heap import Heap
from studio.core.shapes import ModelShape, from_config
from tests.core.published import LLAMA_8B

SMALL = {**LLAMA_8B, "hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 2,
         "num_hidden_layers": 6, "vocab_size": 8000, "max_position_embeddings": 8192}  # fmt: skip
METHODS: list[dict[str, Any]] = [
    {"name": "sft"},
    {"name": "pretrain"},
    {"name": "dpo"},
    {"name": "dpo", "precompute_ref_log_probs": False},
    {"name": "kto", "precompute_ref_log_probs": False},
    {"name": "orpo"},
    {"name": "cpo"},
    {"name": "reward"},
    {"name": "grpo", "max_completion_length": 64},
    {"name": "grpo", "beta": 0.04, "max_completion_length": 64},
    {"name": "rloo", "max_completion_length": 64},
    {"name": "online_dpo", "max_completion_length": 64},
    {"name": "ppo", "max_completion_length": 64},
    {"name": "distill", "teacher_model_name_or_path": "teacher"},
]
ADAPTERS: list[dict[str, Any] | None] = [
    None,
    {"type": "lora"},
    {"type": "lora", "use_dora": True},
    {"type": "lora", "layers_to_transform": [0, 3], "target_modules": "attention"},
    *({"type": kind} for kind in ("adalora", "ia3", "vera", "loha", "lokr", "oft", "boft")),
    *({"type": kind} for kind in ("prefix_tuning", "prompt_tuning", "p_tuning", "ln_tuning", "freeze")),
]
RANKS = {"lora": "r", "adalora": "init_r", "vera": "r", "loha": "r"}
GIB = 2**30

methods = st.sampled_from(METHODS)
adapters = st.sampled_from(ADAPTERS)
trainings = st.fixed_dictionaries(
    {
        "per_device_train_batch_size": st.integers(1, 8),
        "max_length": st.integers(16, 2000),
        "gradient_accumulation_steps": st.integers(1, 2),
        "gradient_checkpointing": st.booleans(),
        "activation_offloading": st.booleans(),
        "optim": st.sampled_from(["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "lion_32bit", "muon", "sgd"]),
    }
)


def config_of(method: Any, adapter: Any, training: dict[str, Any], **model: Any) -> RunConfig:
    try:
        return RunConfig.model_validate({"method": method, "adapter": adapter, "training": training, "model": model})
    except ValidationError:
        reject()  # knobs that don't go together
        raise


def of(**changes: Any) -> ModelShape:
    return from_config({**SMALL, **changes})


def allocated(config: RunConfig, shape: ModelShape | None = None) -> int:
    return estimate(config, shape or of(), device=Device()).allocated


@given(method=methods, adapter=adapters, training=trainings, more=st.integers(1, 5))
@settings(max_examples=60)
def test_more_of_anything_never_takes_less(method: Any, adapter: Any, training: dict[str, Any], more: int) -> None:
    config = config_of(method, adapter, training)
    before = allocated(config)
    for name in ("per_device_train_batch_size", "max_length"):
        assert allocated(config_of(method, adapter, {**training, name: training[name] + more})) >= before, name
    for grown in (of(vocab_size=8000 + 128 * more), of(num_hidden_layers=6 + more)):
        assert allocated(config, grown) >= before
    if adapter and (rank := RANKS.get(adapter["type"])):
        first = getattr(config.adapter, rank)
        assert allocated(config_of(method, {**adapter, rank: first + more}, training)) >= before


@given(method=methods, adapter=adapters, training=trainings)
@settings(max_examples=60)
def test_parts_sum_to_the_peak_of_every_moment(method: Any, adapter: Any, training: dict[str, Any]) -> None:
    found = estimate(config_of(method, adapter, training), of(), device=Device())
    for peak in found.moments.values():
        assert sum(peak.parts.values()) == peak.bytes
        assert min(peak.parts.values()) > 0
    assert found.allocated == max(peak.bytes for peak in found.moments.values())
    assert found.allocated <= found.reserved < found.device


@given(method=methods, adapter=adapters, training=trainings)
@settings(max_examples=60)
def test_checkpointing_and_offloading_never_cost_memory(method: Any, adapter: Any, training: dict[str, Any]) -> None:
    for name in ("gradient_checkpointing", "activation_offloading"):
        took = [allocated(config_of(method, adapter, {**training, name: on})) for on in (True, False)]
        # Checkpointing makes the first layer's input ask for a gradient, which an adapter alone doesn't: some tensors
        # of a hidden state's size, that rows of a few tokens have nothing to set against.
        rows = 2 * training["per_device_train_batch_size"]
        first = 16 * 512 * rows * (training["max_length"] + 84) if training["max_length"] < 64 else 0
        assert took[0] <= took[1] + first, name


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(str(v) for v in method.values())[:30])
def test_fewer_bits_take_less_by_every_method(method: dict[str, Any]) -> None:
    ways: list[dict[str, Any]] = [
        {"quantization": "nf4"},
        {"quantization": "int8"},
        {"dtype": "bfloat16"},
        {"dtype": "float32"},
    ]
    took = [allocated(config_of(method, {"type": "lora"}, {"max_length": 128}, **way), of(**LLAMA_8B)) for way in ways]
    assert took == sorted(set(took))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(str(v) for v in method.values())[:30])
@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_the_largest_that_fits_fits_and_one_more_does_not(method: dict[str, Any], kind: str) -> None:
    device, room = Device(kind=kind), 3 * GIB
    config = config_of(method, {"type": "lora"}, {"max_length": 256, "gradient_checkpointing": False})

    def needed(**changed: int) -> int:
        training = config.training.model_copy(update=changed)
        return estimate(config.model_copy(update={"training": training}), of(), device=device).needed

    rows = largest_batch(config, of(), room, device=device)
    assert rows == 0 or needed(per_device_train_batch_size=rows) <= room
    assert needed(per_device_train_batch_size=rows + 1) > room
    tokens = largest_length(config, of(), room, device=device)
    assert tokens == 0 or needed(max_length=tokens) <= room
    assert tokens == SMALL["max_position_embeddings"] or needed(max_length=max(8, tokens + 1)) > room


@given(
    fixed=st.integers(0, 10**6),
    slope=st.integers(1, 10**4),
    bend=st.integers(1, 4096),
    second=st.integers(0, 10**4),
    room=st.integers(0, 10**8),
    start=st.integers(1, 4096),
)
def test_the_largest_is_found_whatever_the_curve(
    fixed: int, slope: int, bend: int, second: int, room: int, start: int
) -> None:
    def needed(n: int) -> int:
        asked.append(n)
        return fixed + slope * n + max(0, n - bend) * second

    asked: list[int] = []
    found = largest(1, 4096, start, room, needed)
    wanted = max((n for n in range(1, 4097) if fixed + slope * n + max(0, n - bend) * second <= room), default=0)
    assert found == wanted
    assert len(asked) <= 20


def test_few_estimates_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    import studio.core.estimate as module

    asked: list[int] = []
    plain = module._needed
    monkeypatch.setattr(module, "_needed", lambda *args: asked.append(1) or plain(*args))
    shape = from_config(LLAMA_8B)
    for quantization in ("none", "nf4"):
        for room in (12, 24, 80):
            for ask in (largest_batch, largest_length):
                asked.clear()
                config = config_of({"name": "sft"}, {"type": "lora"}, {"max_length": 1024}, quantization=quantization)
                ask(config, shape, room * GIB, device=Device())
                assert len(asked) <= 8, (quantization, room, ask)


@given(method=methods, adapter=adapters, training=trainings)
@settings(max_examples=15)
def test_every_advice_saves_what_it_says(method: Any, adapter: Any, training: dict[str, Any]) -> None:
    config, shape = config_of(method, adapter, training), of()
    now = estimate(config, shape, device=Device()).needed
    for one in advice(config, shape, device=Device()):
        assert now - estimate(one.apply(config), shape, device=Device()).needed == one.saves > 0
        assert one.cost


def test_a_second_sequence_and_a_reference_are_counted() -> None:
    """DPO's batch is SFT's of twice the rows; without an adapter the reference is the base once more."""
    training = {"per_device_train_batch_size": 2, "max_length": 512, "gradient_accumulation_steps": 1}
    pairs = config_of({"name": "dpo", "precompute_ref_log_probs": True}, {"type": "lora"}, training)
    rows = config_of({"name": "sft"}, {"type": "lora"}, {**training, "per_device_train_batch_size": 4})
    assert allocated(pairs) == allocated(rows)
    dpo = {"name": "dpo", "precompute_ref_log_probs": False}
    whole = estimate(config_of(dpo, None, training), of(), device=Device())
    assert whole.parts["reference model"] == pytest.approx(4 * of().numel, rel=0.001)
    assert "reference model" not in estimate(config_of(dpo, {"type": "lora"}, training), of(), device=Device()).parts


def test_keys_and_values_of_all_that_is_written_at_once_are_there() -> None:
    """By hand: 2 numbers of 2 bytes for each layer, head and token, of batch times accumulation rows."""
    method = {"name": "grpo", "max_completion_length": 300}
    training = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_length": 100}
    found = estimate(config_of(method, {"type": "lora"}, training), of(), device=Device())
    one = 16 * 400 * 2 * 2 * 64 * 2
    assert found.moments["generation"].parts["KV cache"] == 6 * one + one


@given(st.lists(st.integers(1, 60_000_000), min_size=1, max_size=60), st.randoms())
def test_the_heap_gives_distinct_memory_and_takes_it_back(sizes: list[int], chance: Any) -> None:
    heap, live = Heap(), {}
    for size in sizes:
        address = heap.allocate(size)
        assert all(address + 16 + size <= start or start + 16 + length <= address for start, length in live.items())
        assert (address + 16) % 64 == 0
        live[address] = size
        if chance.random() < 0.5:
            gone = chance.choice(list(live))
            heap.release(gone)
            del live[gone]
        assert sum(live.values()) <= heap.top <= heap.highest
    for address in live:
        heap.release(address)
    heap.settle()
    assert heap.top == 0


def test_a_hole_with_an_object_behind_it_is_too_small_for_a_second_tensor_of_its_size() -> None:
    heap = Heap()
    _, second, _ = (heap.allocate(10**6) for _ in range(3))  # behind every other one lies an object
    heap.release(second)
    before = heap.highest
    heap.allocate(10**6)
    assert heap.highest >= before + 10**6
    before = heap.highest
    heap.allocate(10**5)
    assert heap.highest == before
