"""Shapes from a config.json alone, by building the model's class without memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.errors import ModelError
from studio.core.estimate import Device, estimate
from studio.core.shapes import from_config, from_skeleton
from studio.worker.skeletons import skeleton, skeleton_op
from tests.core.published import tiny

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 500, "max_position_embeddings": 128}  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "gemma2"])
def test_it_says_what_the_tables_say(kind: str) -> None:
    config = tiny(kind)
    built, known = from_skeleton(skeleton(config)), from_config(config)
    assert built.numel == known.numel
    assert built.layers == known.layers


@pytest.mark.parametrize("kind", ["stablelm", "starcoder2", "cohere", "arcee", "helium", "lfm2"])
@pytest.mark.parametrize("adapter", [None, {"type": "lora"}], ids=["full", "lora"])
def test_an_architecture_without_a_table_has_an_estimate(kind: str, adapter: Any) -> None:
    shape = from_skeleton(json.loads(json.dumps(skeleton({"model_type": kind, **SMALL}))))
    assert len(shape.layers) == 3
    config = RunConfig.model_validate({"adapter": adapter, "training": {"max_length": 64}})
    found = estimate(config, shape, device=Device())
    assert shape.bytes // 2 < found.allocated <= found.reserved
    assert found.parts.get("activations", 1) > 0


def test_a_model_of_states_has_one_too() -> None:
    shape = from_skeleton(
        skeleton({"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 99})
    )
    assert estimate(RunConfig(), shape, device=Device()).allocated > shape.bytes // 2


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(ModelError, match="can't be built"):
        skeleton({"model_type": "no_such_model"})
    with pytest.raises(ModelError, match="code of its own"):
        skeleton({"model_type": "no_such_model", "auto_map": {"AutoModel": "modeling.Evil"}})
    with pytest.raises(ValueError, match="skeleton"):
        from_skeleton({"tensors": [["a", [1]]]})


def test_the_op_answers_as_json() -> None:
    answer = skeleton_op({"config": tiny("llama")}, lambda fields: None)
    assert json.loads(json.dumps(answer)) == answer
