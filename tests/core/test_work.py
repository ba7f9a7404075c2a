"""What a run computes, against torch's own counter on real models and transformers' own sampler."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.estimate import Device, Practice, prepared
from studio.core.schedule import optimizer_steps
from studio.core.shapes import from_config
from studio.core.work import batch_flops, work, work_kind
from tests.core.published import LLAMA_8B

# What the libraries say of each other; nothing of it is the studio's to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning"),
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning"),
]

SMALL = {"vocab_size": 500, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}  # fmt: skip
LLAMA = from_config(LLAMA_8B)


def run_config(lora: bool, rows: int, length: int, **training: Any) -> RunConfig:
    knobs = {"per_device_train_batch_size": rows, "max_length": length, **training}
    adapter = {"type": "lora", "r": 8} if lora else None
    model = {"dtype": "float32", "attn_implementation": "eager"}
    return RunConfig.model_validate({"model": model, "adapter": adapter, "training": knobs})


def counted(kind: str, config: RunConfig, lora: bool) -> tuple[float, float]:
    """(what torch counts, what we work out) for a forward and a backward pass."""
    import peft
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    described = AutoConfig.for_model(kind, **SMALL)
    model = AutoModelForCausalLM.from_config(described, attn_implementation="eager")
    if kind == "mixtral":  # other ways of going through experts use kernels that the counter doesn't know
        model.set_experts_implementation("eager")
    if lora:
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"))
    knobs = config.training
    if knobs.gradient_checkpointing is True:
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": knobs.use_reentrant is True}
        )
        if lora:
            model.enable_input_require_grads()
    rows, length = knobs.per_device_train_batch_size, knobs.max_length
    ids = torch.randint(3, 500, (rows, length))
    model.train()
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    run = prepared(config, from_config(described.to_dict()), None, None, Practice(loss="padded"), Device("cpu"))[0]
    return float(counter.get_total_flops()), batch_flops(run, rows, length).total


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "phi"])
def test_a_steps_operations_are_those_that_torch_counts(kind: str, checkpointing: bool, lora: bool) -> None:
    there, ours = counted(kind, run_config(lora, 2, 48, gradient_checkpointing=checkpointing), lora)
    assert ours == pytest.approx(there, rel=0.002)


def test_the_older_checkpointing_computes_the_whole_layer_again() -> None:
    config = run_config(False, 2, 48, gradient_checkpointing=True, use_reentrant=True)
    there, ours = counted("llama", config, False)
    assert ours == pytest.approx(there, rel=0.002)


def test_of_a_mixture_only_the_chosen_experts_count() -> None:
    there, ours = counted("mixtral", run_config(False, 2, 48, gradient_checkpointing=False), False)
    assert ours == pytest.approx(there, rel=0.002)


def test_an_adapter_on_stacked_experts_costs_what_peft_makes_of_it() -> None:
    there, ours = counted("mixtral", run_config(True, 2, 48, gradient_checkpointing=False), True)
    assert ours == pytest.approx(there, rel=0.03)


def test_a_large_models_training_is_near_six_operations_a_weight_and_token() -> None:
    # Kaplan et al. 2020, arXiv:2001.08361, section 2.1: 6 N a token, the embedding left out
    config = RunConfig.model_validate(
        {"adapter": None, "training": {"max_length": 512, "gradient_checkpointing": False}, "dataset": {"path": None}}
    )
    found = work(config, LLAMA, rows=1000)
    assert found is not None and LLAMA.embedding is not None
    seen = 900 * 3 * 512  # a tenth of the rows validates
    assert found.tokens == seen
    assert found.flops / seen == pytest.approx(6 * (LLAMA.numel - LLAMA.embedding.numel), rel=0.08)


# -- a run ------------------------------------------------------------------------------------------------------------


def of(method: dict[str, Any], **training: Any) -> RunConfig:
    return RunConfig.model_validate({"method": method, "training": training, "dataset": {"path": None}})


def test_steps_are_the_schedules_and_tokens_the_rows_own() -> None:
    config = of({"name": "sft"}, max_length=100, num_train_epochs=2, train_sampling_strategy="random")
    lengths = [50] * 500 + [150] * 500
    found = work(config, LLAMA, lengths=lengths)
    assert found is not None
    assert found.steps == optimizer_steps(config, 900)
    assert found.tokens == 2 * 900 * 75  # half are cut at 100
    assert found.evaluation > 0


def test_packed_rows_are_full() -> None:
    loose, packed = (of({"name": "sft"}, max_length=1000, packing=packing) for packing in (False, True))
    lengths = [100] * 1000
    one, other = work(loose, LLAMA, lengths=lengths), work(packed, LLAMA, lengths=lengths)
    assert one is not None and other is not None
    assert one.steps == pytest.approx(10 * other.steps, rel=0.1) and one.tokens == pytest.approx(other.tokens, rel=0.01)


def test_a_pair_costs_two_answers_and_a_reference_their_forward_passes() -> None:
    knobs: dict[str, Any] = {"max_length": 256, "gradient_checkpointing": False, "max_steps": 10}
    sft, dpo, free = (
        work(of(method, **knobs), LLAMA, rows=100)
        for method in ({"name": "sft"}, {"name": "dpo"}, {"name": "dpo", "reference_free": True})
    )
    assert sft is not None and dpo is not None and free is not None
    assert free.flops == pytest.approx(2 * sft.flops) and free.tokens == 2 * sft.tokens
    assert 2.5 * sft.flops < dpo.flops < 3.1 * sft.flops  # a forward pass is half of an adapter's step or a little less


def test_answers_that_the_model_writes_are_computed_too() -> None:
    sft = work(of({"name": "sft"}, max_length=256, max_steps=10), LLAMA, rows=100)
    grpo = work(of({"name": "grpo", "max_completion_length": 256}, max_length=256, max_steps=10), LLAMA, rows=100)
    assert sft is not None and grpo is not None
    assert grpo.flops > 2 * sft.flops


def test_without_rows_nothing_is_known_but_what_max_steps_says() -> None:
    assert work(of({"name": "sft"}, max_length=64), LLAMA) is None
    found = work(of({"name": "sft"}, max_length=64, max_steps=7), LLAMA)
    assert found is not None and (found.steps, found.tokens) == (7, 7 * 16 * 64)


def test_runs_of_one_kind_share_device_format_and_what_is_trained() -> None:
    qlora = RunConfig.model_validate({"model": {"quantization": "nf4", "dtype": "bfloat16"}})
    assert work_kind(qlora, "cuda") == "cuda/bfloat16/qlora"
    assert len({work_kind(qlora, "cpu"), work_kind(qlora, "cuda"), work_kind(RunConfig(adapter=None), "cuda"),
                work_kind(RunConfig(), "cuda")}) == 4  # fmt: skip
