"""The trace worker's answers are the trace's own."""

from __future__ import annotations

import dataclasses
from typing import Any

from studio.core.config import RunConfig
from studio.core.estimate import Device, Versions
from studio.worker.trace import trace
from studio.worker.traces import trace_op
from tests.core.published import LLAMA_8B

SMALL = {**LLAMA_8B, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 3, "vocab_size": 512}  # fmt: skip


def test_an_answer_over_the_pipe_is_what_the_trace_says() -> None:
    config = RunConfig.model_validate({"training": {"max_length": 32}, "dataset": {"path": None}})
    device, day = Device(memory=8 * 2**30), Versions(transformers="4.45.0", trl="0.11.0")
    told: list[dict[str, Any]] = []
    request = {"config": config.model_dump(mode="json"), "model_config": SMALL, "lengths": [20, 10],
               "device": dataclasses.asdict(device), "versions": dataclasses.asdict(day)}  # fmt: skip
    answer = trace_op(request, told.append)
    own = trace(config, SMALL, lengths=[20, 10], device=device, versions=day)
    assert {key: answer[key] for key in ("allocated", "parts", "peak_moment", "reserved")} == {
        "allocated": own.allocated, "parts": own.parts, "peak_moment": own.peak_moment, "reserved": own.reserved,
    }  # fmt: skip
    assert answer["length"] == 20 and answer["seconds"] > 0
    assert [part["text"] for part in told][1] == "Going through a step"
