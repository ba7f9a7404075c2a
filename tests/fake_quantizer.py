"""A stand-in for llama.cpp's quantizer: `python fake_quantizer.py IN OUT TYPE`, which really quantizes.

In: a GGUF file, a type, FAKE_QUANTIZER in the environment (works, fails, hangs, writes nothing, breaks what it writes).
Out: the file with its matrices in the blocks of q4_0, by the gguf package's own arithmetic, and the lines that the real
program prints. Rows that 32 doesn't divide stay as they are.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import gguf
import numpy as np

Q4_0 = gguf.GGMLQuantizationType.Q4_0
HEAD = ("general.architecture", "GGUF.", "general.file_type")


def copy_fields(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if not name.startswith(HEAD):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)


def quantize(source: Path, target: Path, wrong: bool) -> None:
    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    writer = gguf.GGUFWriter(target, architecture.contents())
    copy_fields(reader, writer)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    for number, tensor in enumerate(reader.tensors, 1):
        data, kind = gguf.dequantize(tensor.data, tensor.tensor_type), gguf.GGMLQuantizationType.F32
        if data.ndim > 1 and data.shape[-1] % 32 == 0:
            data, kind = gguf.quantize(np.roll(data, 1, axis=0) if wrong else data, Q4_0), Q4_0
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
        print(f"[{number:4d}/{len(reader.tensors):4d}] {tensor.name:>36} - converting to {kind.name} .. ", flush=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(source: str, target: str, kind: str) -> int:
    way = os.environ.get("FAKE_QUANTIZER", "works")
    assert kind == kind.upper(), kind
    if way == "hangs":
        Path(os.environ["FAKE_QUANTIZER_MARK"]).write_text(str(os.getpid()), encoding="utf-8")
        print("[   1/   9] token_embd.weight", flush=True)
        time.sleep(100)
    if way == "fails":
        print("main: quantizing\nllama_model_quantize: failed to quantize: unsupported tensor", file=sys.stderr)
        return 1
    if way != "silent":
        quantize(Path(source), Path(target), way == "wrong")
    if way == "unreadable":
        Path(target).write_bytes(b"GGUF and nothing else")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
