"""GGUF files, loaded back through transformers' own loader: the same logits, the same tokens, the same ends."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from studio.core.errors import ModelError
from studio.worker.export.gguf.architectures import architecture_of, rope_factors
from studio.worker.export.gguf.file import GgufFile
from studio.worker.export.gguf.lora import lay_over, write_lora
from studio.worker.export.gguf.reading import split_as_named
from studio.worker.export.gguf.vocabulary import splitting
from studio.worker.export.merge import open_stream
from studio.worker.export.parity import compare
from studio.worker.export.source import Source
from tests.tiny import make_tiny_model, sentence, tiny_tokenizer
from tests.worker.export.made import files_of, laid_over, logits, make_adapter

Made = Callable[[str], tuple[Path, Path]]
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys:RuntimeWarning"),
    pytest.mark.usefixtures("short_replies"),
]

HALF = {"num_key_value_heads": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**HALF, "tie_word_embeddings": False}),
    "tied": ("llama", {**HALF, "tie_word_embeddings": True}),
    "mistral": ("mistral", HALF),
    "qwen2": ("qwen2", HALF),
    "qwen3": ("qwen3", {**HALF, "head_dim": 32}),
    "gemma2": ("gemma2", {**HALF, "head_dim": 16}),
    "gemma3": ("gemma3_text", {**HALF, "head_dim": 16}),
    "phi3": ("phi3", HALF),
    "gpt2": ("gpt2", {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model's name -> its folder and that of an adapter for it."""
    known: dict[str, tuple[Path, Path]] = {}

    def find(name: str) -> tuple[Path, Path]:
        if name not in known:
            kind, shape = MODELS[name]
            folder = tmp_path_factory.mktemp(name)
            base = make_tiny_model(folder / "base", kind, initializer_range=0.2, **shape)
            config = LoraConfig(
                task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=name == "gpt2"
            )
            known[name] = base, make_adapter(base, folder / "adapter", config)
        return known[name]

    return find


def source(base: Path, adapter: Path) -> Source:
    return Source(base, adapter, "float32", lambda text, done, total: None)


def write(base: Path, adapter: Path, folder: Path, wished: str) -> Path:
    folder.mkdir()
    config, tokenizer = AutoConfig.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        file = GgufFile(folder / "m.gguf", open_stream(source(base, adapter)), config, wished, lambda *words: None)
        file.write(tokenizer, lambda writer: writer.add_name("tiny"))
    return folder / "m.gguf"


def load(path: Path, base: Path) -> Any:
    """By the file alone, but for GPT-2's and Gemma's few fields that transformers doesn't read from it."""
    config = AutoConfig.from_pretrained(base)
    given = {} if config.model_type in ("mistral", "llama", "qwen2") else {"config": config}
    quantized = GgufConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=quantized, dtype=torch.float32, **given
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_file_in_float32_is_the_very_model(made: Made, tmp_path: Path, name: str) -> None:
    base, adapter = made(name)
    back = load(write(base, adapter, tmp_path / "out", "f32"), base)
    said = logits(laid_over(base, adapter))
    assert (said - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 0.1
    torch.testing.assert_close(logits(back), said, rtol=1e-4, atol=1e-4)


# One of each rounding, and builds that differ in what is turned or scaled; each in float32 is told above.
BY_DAY = (
    ("llama", "f16"), ("llama", "bf16"), ("llama", "q8_0"), ("gpt2", "q8_0"), ("gemma3", "q8_0"), ("phi3", "q8_0"),
)  # fmt: skip
ROUNDED = [
    pytest.param(name, wished, marks=[] if (name, wished) in BY_DAY else pytest.mark.nightly)
    for name in MODELS
    for wished in ("f16", "bf16", "q8_0")
]


@pytest.mark.parametrize(("name", "wished"), ROUNDED)
def test_other_formats_cost_what_they_round(made: Made, tmp_path: Path, name: str, wished: str) -> None:
    """Judged as every export is: nothing may differ that rounding the weights doesn't explain."""
    base, adapter = made(name)
    path = write(base, adapter, tmp_path / "out", wished)
    fields = {"base": str(base), "adapters": [str(adapter)], "written": str(path.parent)}
    found = compare({**fields, "format": "gguf", "quantization": wished})
    assert found.same is True, found.problems
    assert found.moved is not None and found.max_logit_diff is not None and found.explained is not None
    assert 0 < found.max_logit_diff < 0.5 * found.moved
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) > 1}
    assert kinds == {wished.upper()}
    assert {t.tensor_type.name for t in gguf.GGUFReader(path).tensors if len(t.shape) == 1} == {"F32"}


def test_each_value_in_eight_bits_is_within_half_a_step(made: Made, tmp_path: Path) -> None:
    base, adapter = made("qwen2")
    exact = {t.name: t.data for t in gguf.GGUFReader(write(base, adapter, tmp_path / "a", "f32")).tensors}
    for tensor in gguf.GGUFReader(write(base, adapter, tmp_path / "b", "q8_0")).tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0:
            truth = torch.from_numpy(exact[tensor.name].copy()).reshape(-1, 32)
            found = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).reshape(-1, 32)
            step = truth.abs().amax(1, keepdim=True) / 127
            assert ((found - truth).abs() <= step * 0.51 + truth.abs() * 2**-10).all(), tensor.name


def test_the_heads_are_tied_as_they_were(made: Made, tmp_path: Path) -> None:
    for name, own in (("tied", False), ("llama", True)):
        base, adapter = made(name)
        reader = gguf.GGUFReader(write(base, adapter, tmp_path / name, "f32"))
        assert ("output.weight" in {tensor.name for tensor in reader.tensors}) is own


def test_the_numbers_are_what_llama_cpp_asks_for(made: Made, tmp_path: Path) -> None:
    base, adapter = made("qwen3")
    reader = gguf.GGUFReader(write(base, adapter, tmp_path / "out", "f16"))
    config = AutoConfig.from_pretrained(base)
    for key, value in {
        "general.architecture": "qwen3",
        "general.file_type": gguf.LlamaFileType.MOSTLY_F16,
        "qwen3.block_count": config.num_hidden_layers,
        "qwen3.context_length": config.max_position_embeddings,
        "qwen3.embedding_length": config.hidden_size,
        "qwen3.feed_forward_length": config.intermediate_size,
        "qwen3.attention.head_count": config.num_attention_heads,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 32,
        "qwen3.attention.value_length": 32,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": config.eos_token_id,
        "tokenizer.ggml.add_bos_token": False,
    }.items():
        field = reader.get_field(key)
        assert field is not None and field.contents() == value, key
    rate = reader.get_field("qwen3.attention.layer_norm_rms_epsilon")
    assert rate is not None and rate.contents() == pytest.approx(config.rms_norm_eps)


def strings(count: int) -> list[str]:
    """Words, code, numbers, emoji, several alphabets, special tokens, odd spaces; from a seed."""
    chance = random.Random(1)
    odd = [
        "🙂👩‍👩‍👧", "東京タワー", "Привет", "مرحبا", "नमस्ते", "naïve café", "\t\t", "\n\n", "  ", "12345.678",
        "a'll don't I'm", "def f(x):\n    return x**2", '{"a": [1, 2]}', "<|im_end|>", "<|im_start|>user\n", "\u00a0",
        "ﬁ", "e\u0301", "x=1;y=2",
    ]  # fmt: skip
    made = []
    for _ in range(count):
        parts = [chance.choice(odd) if chance.random() < 0.5 else sentence(chance, 1, 6) for _ in range(4)]
        made.append(chance.choice(["", " "]).join(parts))
    return made


def tokenizers_of(tmp_path: Path, tokenizer: Any) -> tuple[Any, Any]:
    base = make_tiny_model(tmp_path / "base", "llama", tokenizer=tokenizer, **HALF)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    path = write(base, make_adapter(base, tmp_path / "adapter", config), tmp_path / "out", "f16")
    back = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    split_as_named(back, path)
    return AutoTokenizer.from_pretrained(base), back


def named(name: str) -> Any:
    """A tokenizer that splits text in a way that llama.cpp has a name for."""
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    tokenizer = tiny_tokenizer()
    if name == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        rule = Regex(GGUF_PRE_TOKENIZER_SPLITS[name])
        steps = [
            pre_tokenizers.Split(rule, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_a_thousand_strings_give_the_same_tokens(tmp_path: Path, name: str) -> None:
    one, two = tokenizers_of(tmp_path, tiny_tokenizer() if name == "gpt-2" else named(name))
    assert splitting(json.loads(one.backend_tokenizer.to_str())) == name
    texts = strings(1000)
    assert [one(text)["input_ids"] for text in texts] == [two(text)["input_ids"] for text in texts]
    assert two.chat_template == one.chat_template
    assert (two.eos_token, two.pad_token) == (one.eos_token, one.pad_token)


def sentencepiece_like() -> Any:
    """As Gemma's: pieces with ▁ for spaces, bytes for what has no piece."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    chance = random.Random(2)
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *bytes_], show_progress=False)
    tokenizer.train_from_iterator([sentence(chance, 5, 9) for _ in range(200)], trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.pad_token = "<unk>"
    return made


def test_a_tokenizer_like_sentencepiece_carries_scores_that_order_its_merges(tmp_path: Path) -> None:
    """llama.cpp joins the neighbours whose joint piece scores highest, first."""
    base = make_tiny_model(tmp_path / "base", "llama", tokenizer=sentencepiece_like(), **HALF)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    path = write(base, make_adapter(base, tmp_path / "adapter", config), tmp_path / "out", "f16")
    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        found = reader.get_field(f"tokenizer.ggml.{name}")
        assert found is not None
        return found.contents()

    assert field("model") == "llama" and field("add_space_prefix") is True
    pieces, kinds = field("tokens"), field("token_type")
    scores = dict(zip(pieces, field("scores"), strict=True))
    assert {pieces[n] for n, kind in enumerate(kinds) if kind == gguf.TokenType.BYTE} == {
        f"<0x{n:02X}>" for n in range(256)
    }
    tokenizer = AutoTokenizer.from_pretrained(base)
    for text in (sentence(random.Random(seed), 1, 12) for seed in range(200)):
        parts = list("▁" + text.replace(" ", "▁"))
        while True:
            joined = [(scores.get(a + b, -1e9), -n) for n, (a, b) in enumerate(itertools.pairwise(parts))]
            if not joined or max(joined)[0] <= -1e9:
                break
            place = -max(joined)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        assert tokenizer.convert_tokens_to_ids(parts) == tokenizer(text, add_special_tokens=False)["input_ids"], text


# -- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "phi3"])
@pytest.mark.parametrize("fields", [{}, {"use_rslora": True, "alpha_pattern": {"down_proj": 9, "c_fc": 9}}])
def test_an_adapter_laid_over_the_bases_file_is_the_merged_file(
    made: Made, tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    """As llama.cpp does it: W + alpha / rank B A, of the tensors in the two files."""
    base, _ = made(name)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=name == "gpt2", **fields
    )
    adapter = make_adapter(base, tmp_path / "adapter", config)
    nothing = make_adapter(
        base, tmp_path / "nothing", LoraConfig(task_type="CAUSAL_LM", r=1, target_modules="all-linear")
    )
    zero = {key: torch.zeros_like(value) for key, value in files_of(nothing).items()}
    from safetensors.torch import save_file

    save_file(zero, nothing / "adapter_model.safetensors")
    plain, merged = (
        {
            t.name: torch.from_numpy(t.data.copy())
            for t in gguf.GGUFReader(write(base, each, tmp_path / to, "f32")).tensors
        }
        for each, to in ((nothing, "plain"), (adapter, "merged"))
    )
    write_lora(source(base, adapter), tmp_path / "lora.gguf")
    laid = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lay_over(laid, tmp_path / "lora.gguf")
    torch.testing.assert_close(logits(laid), logits(laid_over(base, adapter)), rtol=1e-4, atol=1e-4)
    reader = gguf.GGUFReader(tmp_path / "lora.gguf")
    alpha = reader.get_field("adapter.lora.alpha")
    assert alpha is not None
    factors = {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}
    changed = 0
    for key, value in plain.items():
        if f"{key}.lora_a" in factors:
            a, b = factors.pop(f"{key}.lora_a"), factors.pop(f"{key}.lora_b")
            value = value + alpha.contents() / a.shape[0] * (b @ a)
            changed += 1
        torch.testing.assert_close(value, merged[key], rtol=1e-5, atol=1e-5, msg=key)
    assert changed >= 8 and not factors


@pytest.mark.parametrize("fields", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}])
def test_adapters_that_are_more_than_a_and_b_are_refused(made: Made, tmp_path: Path, fields: dict[str, Any]) -> None:
    base, _ = made("qwen2")
    adapter = make_adapter(
        base, tmp_path / "adapter", LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], **fields)
    )
    with pytest.raises(ModelError, match="nothing but LoRA"):
        write_lora(source(base, adapter), tmp_path / "lora.gguf")


@pytest.mark.parametrize("fields", [{"target_modules": ["lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}])
def test_a_head_that_is_the_embedding_is_refused(made: Made, tmp_path: Path, fields: dict[str, Any]) -> None:
    """llama.cpp lays A and B over tensors of the base's file, and such a head is none of them."""
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, **fields)
    tied, adapter = made("tied")[0], tmp_path / "adapter"
    with pytest.raises(ModelError, match="nothing over that") as raised:
        write_lora(source(tied, make_adapter(tied, adapter, config)), tmp_path / "lora.gguf")
    assert "merged" in raised.value.hint
    assert not (tmp_path / "lora.gguf").exists()
    own = made("llama")[0]
    write_lora(source(own, make_adapter(own, tmp_path / "other", config)), tmp_path / "lora.gguf")
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "lora.gguf").tensors}
    assert {"output.weight.lora_a", "output.weight.lora_b"} <= names


# -- what isn't known -------------------------------------------------------------------------------------------------


def test_llama_3s_scaling_is_the_one_transformers_computes() -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = AutoConfig.for_model(
        "llama", hidden_size=512, num_attention_heads=4, rope_parameters=rope, max_position_embeddings=131072
    )
    factors = rope_factors(config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (torch.arange(0, 128, 2).float() / 128)
    assert factors is not None
    torch.testing.assert_close(plain / factors, scaled)
    assert factors.min() == 1 and factors.max() == 8


@pytest.mark.parametrize("name", ["mixtral", "gpt_neox", "mamba"])
def test_architectures_that_arent_written_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="aren't written as GGUF") as raised:
        architecture_of(SimpleNamespace(model_type=name))
    assert "convert_hf_to_gguf" in raised.value.hint


def test_a_way_of_splitting_without_a_name_is_refused() -> None:
    from tokenizers import pre_tokenizers

    tokenizer = tiny_tokenizer()
    for steps in (pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=True)):
        tokenizer.backend_tokenizer.pre_tokenizer = steps
        with pytest.raises(ModelError, match="splits text"):
            splitting(json.loads(tokenizer.backend_tokenizer.to_str()))
