"""llama.cpp's number formats: the config takes each of them, and nothing that a table doesn't know."""

from __future__ import annotations

from typing import get_args

import gguf
import pytest

from studio.core.config import BNB_TYPES, GGUF_TYPES, ExportConfig
from studio.core.configfile import parse_as
from studio.core.errors import ConfigError
from studio.core.llamacpp import QUANTIZED


def test_the_config_takes_what_the_tables_have() -> None:
    taken = get_args(ExportConfig.model_fields["quantization"].annotation)
    assert taken == ("auto", *GGUF_TYPES, *QUANTIZED, *BNB_TYPES)


def test_every_one_is_a_file_type_of_gguf() -> None:
    assert {f"MOSTLY_{kind.upper()}" for kind in QUANTIZED} <= set(gguf.LlamaFileType.__members__)
    assert not set(QUANTIZED) & set(GGUF_TYPES)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_it_takes_more_bits_than_its_blocks_and_fewer_than_sixteen(kind: str) -> None:
    """A mixture keeps some tensors more exactly than the blocks it is named after."""
    block = "_".join(kind.split("_")[:2]).upper()
    numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[block]]
    assert 8 * size / numbers <= QUANTIZED[kind] < 8 * size / numbers + 1


def test_which_of_them_a_format_takes() -> None:
    for format, kind, good in (("gguf", "q4_k_m", True), ("ollama", "q2_k", True), ("bnb", "q4_k_m", False)):
        fields = {"run": "a", "out": "b", "format": format, "quantization": kind}
        if good:
            assert parse_as(ExportConfig, fields).quantization == kind
        else:
            with pytest.raises(ConfigError, match="bnb knows nf4, fp4, int8"):
                parse_as(ExportConfig, fields)
