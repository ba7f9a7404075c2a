"""The GGUF formats of an export: the model, the model with Ollama's recipe, the adapter alone.

In: an export's task. Out: files in its staging folder.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig, AutoTokenizer

from studio.core.errors import ModelError
from studio.core.job import read_json
from studio.core.llamacpp import quantizer
from studio.worker.export.gguf.chat import modelfile
from studio.worker.export.gguf.file import GgufFile
from studio.worker.export.gguf.lora import write_lora
from studio.worker.export.gguf.quantizer import quantize
from studio.worker.export.merge import open_stream
from studio.worker.export.shards import Unstreamable
from studio.worker.export.task import BETWEEN, Export


def write_gguf(task: Export, target: Path) -> None:
    """One file, named after the target and its number format. What only llama.cpp's quantizer makes is made from a file
    in 16 bits (or in float32, where that is asked for), which stays beside it to be compared. Raises ModelError.
    """
    kind, written = task.gguf_type, task.written_type
    if kind == written:
        _write(task, target / task.gguf_name, written)
        return
    program = quantizer()
    assert program is not None, "it was looked for before anything was written"
    between = target / BETWEEN / f"{written}.gguf"
    between.parent.mkdir()
    _write(task, between, written)
    report = partial(task.source.report, f"Quantizing to {kind} by llama.cpp")
    quantize(program, between, target / task.gguf_name, kind, report)


def _write(task: Export, path: Path, wished: str) -> None:
    source = task.source
    try:
        with torch.inference_mode():
            stream = open_stream(source, task.combine)
            config = AutoConfig.from_pretrained(str(source.weights), trust_remote_code=False)
            for name, value in stream.changes.items():
                setattr(config, name, value)
            tokenizer = AutoTokenizer.from_pretrained(str(task.tokenizer_folder), trust_remote_code=False)
            file = GgufFile(path, stream, config, wished, source.writing)
            file.write(tokenizer, lambda writer: _describe(task, tokenizer, writer))
    except Unstreamable as reason:
        raise ModelError(
            f"This can't be written as GGUF in one go ({reason}).",
            "Export it merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py.",
        ) from None


def write_ollama(task: Export, target: Path) -> None:
    """The GGUF file, and the Modelfile that `ollama create NAME -f Modelfile` reads."""
    write_gguf(task, target)
    tokenizer = AutoTokenizer.from_pretrained(str(task.tokenizer_folder), trust_remote_code=False)
    ends = [tokenizer.convert_ids_to_tokens(number) for number in _ends(task, tokenizer)]
    text = modelfile(task.gguf_name, tokenizer, [token for token in ends if token])
    (target / "Modelfile").write_text(text, encoding="utf-8")


def write_gguf_lora(task: Export, target: Path) -> None:
    """The adapter alone. Raises ModelError."""
    if not task.source.is_adapter:
        raise ModelError("This run trained the whole model; it has no adapter.", "Export it as gguf.")
    write_lora(task.source, target / "adapter-f32.gguf")


def _describe(task: Export, tokenizer: Any, writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(task.label)
    if task.base_name:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, task.base_name)
    others = [number for number in _ends(task, tokenizer) if number != tokenizer.eos_token_id]
    if others:
        writer.add_eot_token_id(others[-1])


def _ends(task: Export, tokenizer: Any) -> list[int]:
    """The tokens that end a turn: the tokenizer's, and those of the base's generation config."""
    generation = read_json(task.source.base / "generation_config.json") or {}
    named = generation.get("eos_token_id")
    ids = named if isinstance(named, list) else [named]
    return list(dict.fromkeys(n for n in (tokenizer.eos_token_id, *ids) if isinstance(n, int)))
