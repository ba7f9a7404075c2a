"""Which modules an adapter takes, what can't be laid, going on from an adapter, and training on a merged one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.core.configfile import parse_config
from studio.core.errors import ConfigError, ModelError
from studio.core.inputs import Inputs, ModelInput
from studio.worker.adapters.configs import norms, peft_config
from studio.worker.adapters.freeze import freeze
from studio.worker.adapters.laying import fresh_config, lay_over, with_folder
from studio.worker.adapters.merged import merge_into
from studio.worker.adapters.targets import linear_modules
from studio.worker.models import fetch
from tests.tiny import make_tiny_gpt2, make_tiny_llama, make_tiny_model
from tests.worker.export.made import laid_over, logits, make_adapter


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def wish(**adapter: Any) -> Any:
    return parse_config({"adapter": {"type": "lora", **adapter}})


def laid(model: Any, tmp_path: Path, **adapter: Any) -> Any:
    return lay_over(wish(**adapter), model, rows=None, base=None, kept=tmp_path)


ATTENTION = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "gpt2": {"c_attn", "c_proj"},
    "gpt_neox": {"query_key_value", "dense"},
    "falcon": {"query_key_value", "dense"},
    "phi": {"q_proj", "k_proj", "v_proj", "dense"},
    "bloom": {"query_key_value", "dense"},
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_is_found_by_whatever_name(kind: str, tmp_path: Path) -> None:
    made = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / kind, kind))
    found = peft_config(wish(target_modules="attention").adapter, made).target_modules
    assert {name.rpartition(".")[2] for name in found} == ATTENTION[kind]
    inside = [path for path in linear_modules(made) if any(path.endswith(name) for name in found)]
    assert inside and not [path for path in inside if ".mlp." in path]


def test_layers_are_picked_and_norms_found(model: Any) -> None:
    from peft import get_peft_model

    made = peft_config(wish(layers_to_transform=[1]).adapter, model)
    names = [n for n, p in get_peft_model(make(model), made).named_parameters() if p.requires_grad]
    assert len(names) == 14 and all(".layers.1." in name for name in names)
    assert len(norms(model)) == 2 * 2 + 1
    assert norms(model) == [path for path, module in model.named_modules() if "RMSNorm" in type(module).__name__]


def make(model: Any) -> Any:
    return AutoModelForCausalLM.from_config(model.config)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("adapter.target_modules", {"target_modules": ["no_proj"]}),
    ("adapter.target_modules", {"target_modules": ".*nothing"}),
    ("adapter.layers_to_transform", {"layers_to_transform": [7]}),
    ("adapter.modules_to_save", {"modules_to_save": ["nowhere"]}),
    ("adapter.modules_to_save", {"type": "vera", "modules_to_save": ["embed_tokens"]}),
    ("adapter.trainable_token_indices", {"trainable_token_indices": [100_000]}),
    ("adapter.oft_block_size", {"type": "oft", "oft_block_size": 24}),
    ("adapter.boft_block_size", {"type": "boft", "boft_block_size": 5}),
    ("adapter.boft_n_butterfly_factor", {"type": "boft", "boft_n_butterfly_factor": 2}),
    ("adapter.feedforward_modules", {"type": "ia3", "target_modules": ["q_proj"], "feedforward_modules": ["up_proj"]}),
    ("adapter.trained_layers", {"type": "freeze", "trained_layers": 3}),
]


@pytest.mark.parametrize(("field", "adapter"), REFUSED)
def test_what_the_model_cant_have_is_refused(model: Any, tmp_path: Path, field: str, adapter: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        laid(model, tmp_path, **adapter)
    assert refused.value.field == field and refused.value.hint


def test_what_peft_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    """LoHa knows no layers that are stored turned, as GPT-2's are."""
    from peft import get_peft_model

    from studio.worker.adapters.laying import refusing

    config = wish(type="loha")
    made = AutoModelForCausalLM.from_pretrained(make_tiny_gpt2(tmp_path / "gpt2"))
    with pytest.raises(ConfigError, match=r"PEFT can't lay a loha adapter .*Conv1D"), refusing(config):
        get_peft_model(made, fresh_config(config, made))


@pytest.mark.parametrize("saved", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_matrix_that_is_embedding_and_head_stays_one(tiny_model: Path, saved: list[str]) -> None:
    from peft import get_peft_model

    tied = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert tied.config.tie_word_embeddings
    made = get_peft_model(tied, peft_config(wish(modules_to_save=saved).adapter, tied))
    tables = {p.data_ptr() for n, p in made.named_parameters(remove_duplicate=False) if "modules_to_save" in n}
    assert len(tables) == 1


@pytest.mark.parametrize("head", [True, False])
def test_only_the_last_layers_have_gradients(tmp_path: Path, head: bool) -> None:
    folder = make_tiny_llama(tmp_path / "m", tied=False, num_hidden_layers=3)
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    freeze(made, wish(type="freeze", trained_layers=2, train_head=head).adapter)
    trained = {name for name, p in made.named_parameters() if p.requires_grad}
    inside = {name for name, _ in made.named_parameters() if name.startswith(("model.layers.1.", "model.layers.2."))}
    assert trained == inside | ({"lm_head.weight", "model.norm.weight"} if head else set())
    # Updates of a step are smaller than 16 bits resolve; the rest stays small.
    assert {p.dtype for p in made.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in made.parameters() if not p.requires_grad} == {torch.bfloat16}


# -- on top of an older one -------------------------------------------------------------------------------------------


@pytest.fixture
def older(tiny_model: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig

    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    return make_adapter(tiny_model, tmp_path / "older", config)


def test_an_adapter_goes_on_where_it_was(tiny_model: Path, older: Path, tmp_path: Path) -> None:
    config = with_folder(wish(continue_from="run:older"), str(older))
    made = lay_over(config, AutoModelForCausalLM.from_pretrained(tiny_model), rows=None, base=None, kept=tmp_path)
    torch.testing.assert_close(logits(made), logits(laid_over(tiny_model, older)), rtol=0, atol=0)
    trained = [p for p in made.parameters() if p.requires_grad]
    assert len(trained) == 8 and made.peft_config["default"].r == 4
    assert fresh_config(config, made) is None  # nothing is left for a trainer to lay


@pytest.mark.parametrize(
    ("adapter", "said"), [({"type": "loha"}, "of kind lora, not loha"), ({"type": "lora"}, "doesn't fit this base")]
)
def test_F47_an_adapter_of_another_kind_or_base_is_refused(
    tiny_model: Path, older: Path, tmp_path: Path, adapter: dict[str, Any], said: str
) -> None:
    base = tiny_model if adapter["type"] != "lora" else make_tiny_llama(tmp_path / "other", hidden_size=32)
    config = with_folder(wish(**adapter, continue_from="x"), str(older))
    with pytest.raises(ConfigError, match=said) as refused:
        lay_over(config, AutoModelForCausalLM.from_pretrained(base), rows=None, base=None, kept=tmp_path)
    assert refused.value.field == "adapter.continue_from"


def test_a_merged_run_is_made_once_and_read_like_any_model(tiny_model: Path, older: Path, tmp_path: Path) -> None:
    base = ModelInput("folder", "tiny", str(tiny_model))
    wanted = ModelInput("merged", "run:older", str(tmp_path / "merged" / "key"), None, base, str(older))
    folder = fetch(wanted, lambda text, done, total: None)
    assert folder == tmp_path / "merged" / "key" and not list(folder.parent.glob("*.new"))
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(logits(merged), logits(laid_over(tiny_model, older)), rtol=1e-4, atol=1e-5)
    stamp = (folder / "config.json").stat().st_mtime_ns
    assert (
        fetch(wanted, lambda text, done, total: None) == folder and (folder / "config.json").stat().st_mtime_ns == stamp
    )
    read = Inputs.from_dict({"label": "", "model": {**vars(wanted), "base": vars(base)}, "dataset": {"name": "x"}})
    assert read.model == wanted


def test_a_merge_that_fails_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is gone"):
        merge_into(tmp_path / "merged", tiny_model, tmp_path / "nowhere", lambda text, done, total: None)

    def stop(text: str, done: int | None, total: int | None) -> None:
        raise KeyboardInterrupt

    from peft import LoraConfig

    adapter = make_adapter(
        tiny_model, tmp_path / "a", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    )
    with pytest.raises(KeyboardInterrupt):
        merge_into(tmp_path / "merged", tiny_model, adapter, stop)
    assert not (tmp_path / "merged").exists() and not list(tmp_path.glob("*.new"))


def test_a_taken_out_start_is_put_back(tiny_model: Path, tmp_path: Path) -> None:
    """With the start in it again and no adapter, the base is what it was."""
    from studio.worker.adapters import starts

    made = laid(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path, init_lora_weights="olora", r=4)
    original = load_file(tiny_model / "model.safetensors")
    layers = dict(starts.layers(made))
    path = "model.layers.0.self_attn.q_proj"
    taken = original[f"{path}.weight"] - layers[path].get_base_layer().weight
    assert torch.linalg.matrix_rank(taken, atol=1e-4) == 4
    starts.put_back(made, tmp_path / starts.KEPT)
    for path, layer in layers.items():
        torch.testing.assert_close(layer.get_base_layer().weight.data, original[f"{path}.weight"], rtol=1e-5, atol=1e-6)
