"""How large the files of an export will be, by its format and the shape of the base.

In: a ModelShape, an ExportConfig. Out: bytes. Worked out from what each format keeps of a number; nothing is read.
"""

from __future__ import annotations

from studio.core.config import ExportConfig
from studio.core.llamacpp import QUANTIZED
from studio.core.shapes import ITEM, ModelShape, Tensor

_GGUF_BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5}
_GGUF_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
# What llama.cpp's quantizer takes instead for rows that its blocks of 256 don't divide (llama_tensor_get_type's
# fallbacks: iq4_nl, q5_0, q5_1, q8_0), and for the head, whatever was asked for (q6_k).
_SMALL_BLOCKS = {"q2_k": 4.5, "q3_k": 4.5, "q4_k": 5.5, "q5_k": 6.0, "q6_k": 8.5}
_HEAD, _BLOCK, _SMALL_BLOCK = 6.5625, 256, 32

# bitsandbytes in 4 bits: a scale of 8 bits for each 64 numbers, and one of 32 for each 256 of those; beside each matrix
# its two tables of values and a description. In 8 bits: a scale of 32 bits for each row.
_BNB_4 = 0.5 + 1 / 64 + 4 / (64 * 256)
_BNB_4_BESIDE = 4 * (256 + 16) + 1200
_BNB_8_BESIDE = 400


def merged_bytes(shape: ModelShape, dtype: str) -> int:
    """The merged weights. `dtype` as a person chose it."""
    return sum(tensor.numel * _written(tensor, dtype) for tensor in shape.tensors)


def _written(tensor: Tensor, dtype: str) -> int:
    """Bytes of one of its numbers, once written; whole numbers stay what they are."""
    floating = tensor.dtype.startswith(("F", "BF"))
    return ITEM[dtype] if dtype != "auto" and floating else ITEM.get(tensor.dtype, 2)


def gguf_type(shape: ModelShape | None, config: ExportConfig) -> str:
    """The number format of a GGUF file, `auto` resolved."""
    if config.quantization != "auto":
        return str(config.quantization)
    dtype = config.dtype if config.dtype != "auto" else shape.dtype if shape else "float32"
    return _GGUF_DTYPES.get(dtype, "f32")


def gguf_bytes(shape: ModelShape, config: ExportConfig) -> int:
    """The file."""
    return _gguf(shape, gguf_type(shape, config))


def between_bytes(shape: ModelShape, config: ExportConfig) -> int:
    """The file that llama.cpp's quantizer is given; nothing where the studio writes the wished format itself."""
    if gguf_type(shape, config) not in QUANTIZED:
        return 0
    return _gguf(shape, "f32" if config.dtype == "float32" else "f16")


def _gguf(shape: ModelShape, kind: str) -> int:
    own = any(tensor.name.startswith("lm_head.") for tensor in shape.tensors)
    heads = ("lm_head",) if own else ("embed_tokens", "wte")  # a tied embedding is the head, too
    # Norms and biases are always in float32.
    return int(
        sum(
            tensor.numel * (_bits(kind, tensor.shape[-1], any(head in tensor.name for head in heads)) / 8)
            if len(tensor.shape) > 1
            else 4 * tensor.numel
            for tensor in shape.tensors
        )
    )


def _bits(kind: str, columns: int, head: bool) -> float:
    """Bits a number, in rows of so many."""
    if kind not in QUANTIZED:
        return _GGUF_BITS.get(kind, 16.0)
    if columns % _SMALL_BLOCK:
        return 16.0
    if columns % _BLOCK and kind[:4] in _SMALL_BLOCKS:
        return _GGUF_BITS["q8_0"] if head else _SMALL_BLOCKS[kind[:4]]
    return _HEAD if head else QUANTIZED[kind]


def bnb_bytes(shape: ModelShape, config: ExportConfig) -> int:
    """The checkpoint: linear layers in few bits, all else in float32."""
    matrices = [matrix for layer in shape.layers for matrix in layer.matrices]
    rest = 4 * (shape.numel - sum(matrix.numel * matrix.count for matrix in matrices))
    if config.quantization == "int8":
        return rest + sum(matrix.count * (matrix.numel + 4 * matrix.out + _BNB_8_BESIDE) for matrix in matrices)
    return rest + int(sum(matrix.count * (matrix.numel * _BNB_4 + _BNB_4_BESIDE) for matrix in matrices))
