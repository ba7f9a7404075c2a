"""The two models that a comparison loads: base + adapter as PEFT lays it over, and what an export wrote.

In: a comparison's request. Out: models and tokenizers in float32 on the CPU, as anybody would load them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from studio.core.config import ModelSection
from studio.worker.export.adapterfile import wider_vocabulary
from studio.worker.export.combine import combination
from studio.worker.export.dequantize import Dequantized
from studio.worker.export.gguf.reading import fitted, split_as_named

_FLAGS = {"dtype": torch.float32, "trust_remote_code": False}


def load_reference(request: dict[str, Any]) -> tuple[Any, Any]:
    """Base + adapter (or the whole model that was trained), and the tokenizer it was trained with."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, adapters = Path(request["base"]), [Path(path) for path in request["adapters"]]
    with_tokenizer = [p for p in (*adapters[:1], base) if (p / "tokenizer_config.json").is_file()]
    tokenizer = AutoTokenizer.from_pretrained(str((with_tokenizer or [base])[0]), trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(str(base), **_FLAGS)
    if getattr(model, "is_quantized", False):  # in its own files: what its weights stand for, in plain layers
        model = model.dequantize(torch.float32)
    if request.get("quantized"):
        as_quantized = Dequantized(model, ModelSection(**request["quantized"]))
        for name, parameter in model.named_parameters():
            parameter.data = as_quantized(name, parameter.data)
    if adapters:
        tokens = wider_vocabulary(model, adapters)
        if tokens is not None:
            model.resize_token_embeddings(tokens, mean_resizing=False)
        model = PeftModel.from_pretrained(model, str(adapters[0]))
        for number, folder in enumerate(adapters[1:], 1):
            model.load_adapter(str(folder), adapter_name=f"adapter{number}")
        if request.get("combination"):
            way = combination(request["combination"], request["weights"], request["density"])
            model.set_adapter(way(model))
    return model.eval(), tokenizer


def load_written(written: Written, request: dict[str, Any]) -> tuple[Any, Any]:
    """What the export wrote: its numbers, in layers of float32 also where they are kept in fewer bits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(written.folder)
    if request["format"] == "adapter":
        model, _ = load_reference({**request, "adapters": [folder]})
        with_tokenizer = folder if (written.folder / "tokenizer_config.json").is_file() else request["base"]
        return model, AutoTokenizer.from_pretrained(with_tokenizer, trust_remote_code=False)
    if request["format"] == "gguf-lora":
        return _load_gguf_lora(written.folder, request)
    if request["format"] == "gguf":
        return _load_gguf(written.folder, Path(request["base"]))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, **_FLAGS)
    if request["format"] == "bnb":
        model = model.dequantize(torch.float32)
    return model.eval(), tokenizer


def load_used(written: Written, request: dict[str, Any]) -> tuple[Any, str]:
    """What whoever takes the export will use, where that is more than the numbers that were proven: a bitsandbytes
    checkpoint in its own layers, or the file that llama.cpp's quantizer made; with why not, where it can't be loaded.
    """
    from transformers import AutoModelForCausalLM

    if not request.get("made"):
        return AutoModelForCausalLM.from_pretrained(str(written.folder), **_FLAGS).eval(), ""
    made = Path(request["made"])
    try:
        return _gguf_model(made, Path(request["base"])), ""
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        sys.stderr.write(f"{made.name} can't be loaded back: {error!r}\n")
        return None, (
            f"What llama.cpp's quantizer made can't be loaded back here, and wasn't compared; the "
            f"{request['quantization']} file that it was given was."
        )


def _load_gguf(folder: Path, base: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    (file,) = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=file.name)
    split_as_named(tokenizer, file)
    return _gguf_model(file, base), tokenizer


def _gguf_model(file: Path, base: Path) -> Any:
    """The file as transformers' own loader reads it; of the base only the config's fields that a GGUF doesn't carry."""
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    options: dict[str, Any] = {"gguf_file": file.name}
    config = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
    if config.model_type != "mistral":  # which is a Llama there
        options["config"] = fitted(config, file)
    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent), quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **options
    )
    return model.eval()


def _load_gguf_lora(folder: Path, request: dict[str, Any]) -> tuple[Any, Any]:
    """The base with the file's A and B worked into it, as llama.cpp lays them over."""
    from studio.worker.export.gguf.lora import lay_over

    model, tokenizer = load_reference({**request, "adapters": []})
    (file,) = folder.glob("*.gguf")
    lay_over(model, file)
    return model, tokenizer


@dataclass(frozen=True)
class Written:
    """What an export wrote, where."""

    folder: Path
    format: str

    @classmethod
    def from_request(cls, request: dict[str, Any]) -> Written:
        return cls(Path(request["written"]), request["format"])

    def compare_small_things(self, tokenizer: Any, model: Any) -> dict[str, str]:
        """Template, special tokens, generation config and end of turn against those it was trained with: for each that
        could be compared what is wrong in plain words, "" where it is the same.
        """
        from transformers import AutoTokenizer, GenerationConfig

        if self.format == "adapter" or not (self.folder / "tokenizer_config.json").is_file():
            return {}
        other = AutoTokenizer.from_pretrained(str(self.folder), trust_remote_code=False)
        template = (other.chat_template or "") == (tokenizer.chat_template or "")
        special = (
            other.special_tokens_map == tokenizer.special_tokens_map
            and other.all_special_ids == tokenizer.all_special_ids
        )
        found = {
            "template": "" if template else "The chat template isn't the one it was trained with.",
            "special": "" if special else "The special tokens aren't those it was trained with.",
        }
        if (self.folder / "generation_config.json").is_file():
            own = GenerationConfig.from_pretrained(str(self.folder))
            ends = _as_set(own.eos_token_id) == _as_set(model.generation_config.eos_token_id)
            found["end"] = "" if ends else "It ends its turns at another token than the model that was trained."
            same = _settings(own) == _settings(model.generation_config)
            found["generation"] = "" if same else "The generation config isn't the base's."
        return found

    def compare_carried(self, tokenizer: Any, its: Any) -> dict[str, str]:
        """The same of what a GGUF file carries in itself: the template, and the tokens that begin, end and fill."""
        if self.format != "gguf":
            return {}
        named = ("bos_token_id", "eos_token_id", "pad_token_id")
        template = (its.chat_template or "") == (tokenizer.chat_template or "")
        special = all(getattr(its, name) == getattr(tokenizer, name) for name in named if getattr(tokenizer, name))
        ends = its.eos_token_id == tokenizer.eos_token_id
        return {
            "template": "" if template else "The chat template isn't the one it was trained with.",
            "special": "" if special or not ends else "The special tokens aren't those it was trained with.",
            "end": "" if ends else "It ends its turns at another token than the model that was trained.",
        }


def _settings(config: Any) -> dict[str, Any]:
    """How it generates; where it ends is compared apart, and who wrote the file is no matter."""
    apart = ("eos_token_id", "transformers_version", "_from_model_config")
    return {name: value for name, value in config.to_diff_dict().items() if name not in apart}


def _as_set(ids: int | list[int] | None) -> set[int]:
    return set(ids) if isinstance(ids, list) else {ids} if ids is not None else set()
