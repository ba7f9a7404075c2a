"""Models that are stored packed are known by their config alone."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.packed import HINT, packed_as, refusal


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "GPTQ"),
        ({"quantization_config": {"quant_method": "AWQ"}}, "AWQ"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, ""),
        ({"quantization_config": {}}, ""),
        ({"quantization_config": "gptq"}, ""),
        ({"model_type": "llama"}, ""),
        (None, ""),
    ],
)
def test_F48_how_a_model_is_packed(config: dict[str, Any] | None, said: str) -> None:
    assert packed_as(config) == said


def test_the_sentence_names_it_and_what_to_give_instead() -> None:
    assert "some/model is stored quantized (GPTQ)" in refusal("some/model", "GPTQ")
    assert "16-bit original" in HINT
