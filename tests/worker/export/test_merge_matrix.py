"""Every kind of adapter on every build of model: merged a tensor at a time, each weight is the one that PEFT merges."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora.config import CordaConfig
from transformers import AutoModelForCausalLM

from studio.worker.export.combine import combination
from studio.worker.export.merge import write_merged
from studio.worker.export.plain import plain_stream
from studio.worker.export.source import Source
from tests.worker.export.cases import (
    BUILDS,
    CROSSED,
    MODELS,
    NOT_BUILT,
    SHORT,
    UNTIES,
    WIDER,
    Build,
    config_of,
    laid,
)  # fmt: skip
from tests.worker.export.made import files_of, load, logits, merge, moved

Base = Callable[..., Path]
InMemory = Callable[[str], Any]
# PEFT warns of what these tests are about: saved, resized and untied embeddings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]


@pytest.fixture(scope="module")
def in_memory(base: Base) -> InMemory:
    """A kind's name -> a model of its own, copied from the one that was loaded once."""
    known: dict[str, Any] = {}

    def find(kind: str) -> Any:
        if kind not in known:
            known[kind] = load(base(kind))
        return copy.deepcopy(known[kind])

    return find


def trained(model: Any, config: Any, folder: Path) -> Any:
    """PEFT's model with every trained number moved, saved to the folder. Raises whatever PEFT can't build it for."""
    torch.manual_seed(3)
    model = moved(peft.get_peft_model(model, config))
    model.save_pretrained(folder)
    return model


def untied(model: Any) -> Any:
    """The same model with a head of its own."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    return model


def laid_over_apart(model: Any, folder: Path) -> Any:
    """The adapter on a model whose head is its own; what PEFT keeps tied it has saved for both."""
    config: Any = PeftConfig.from_pretrained(str(folder))
    if any("lm_head.lora_A" in key for key in files_of(folder)):
        config.ensure_weight_tying = False
        config.target_modules = {*config.target_modules, "lm_head"}
    return PeftModel.from_pretrained(model, str(folder), config=config)


def compare(out: Path, said: torch.Tensor, right: dict[str, torch.Tensor]) -> Any:
    """What was written, loaded by transformers: PEFT's weights, and the answers of base and adapter."""
    model = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(logits(model), said, rtol=1e-4, atol=5e-4)
    found = model.state_dict()
    assert set(found) == set(right)
    for key, value in found.items():
        # The sums behind a number may differ in float32's own last places.
        torch.testing.assert_close(value, right[key], rtol=2e-6, atol=2e-6, msg=key)
    return model


@pytest.mark.parametrize(("case", "name"), CROSSED)
def test_F50_each_weight_is_the_one_that_peft_merges_and_the_model_says_the_same(
    base: Base, in_memory: InMemory, tmp_path: Path, case: str, name: str
) -> None:
    """Where PEFT merges into a weight that two layers share, and so twice or into the one that was never trained, what
    is right is its merge into a model whose layers share nothing.
    """
    tokens = 416 if case in WIDER else 400
    model = in_memory(name)
    if tokens > 400:
        model.resize_token_embeddings(tokens)
    apart = untied(copy.deepcopy(model)) if (case, name) in UNTIES or case == "kept tied" else None
    if (case, name) in NOT_BUILT:
        with pytest.raises((TypeError, RuntimeError)) as refused:
            logits(trained(model, config_of(case, name), tmp_path / "adapter"))
        pytest.skip(f"PEFT: {refused.value}")
    model = trained(model, config_of(case, name), tmp_path / "adapter")
    said = logits(model)
    assert (said[..., :400] - logits(in_memory(name))).abs().max() > 0.005, "the adapter changes nothing"
    if apart is not None:
        model = laid_over_apart(apart, tmp_path / "adapter")
        torch.testing.assert_close(logits(model), said, rtol=1e-4, atol=5e-4)
    out = merge(base(name), tmp_path / "adapter", tmp_path / "out")
    merged = compare(out, said, model.merge_and_unload().state_dict())
    unties = (case, name) in UNTIES
    assert merged.config.vocab_size == tokens
    assert merged.config.tie_word_embeddings is (in_memory(name).config.tie_word_embeddings and not unties)
    own = {"lm_head.weight"} if unties else set()
    assert set(files_of(out)) == set(files_of(base(name))) | own, "the files' own names are kept"
    source = Source(base(name), tmp_path / "adapter", "auto", lambda text, done, total: None)
    plain = case in SHORT and (case, name) != ("all-linear", "mixtral")  # there it takes the experts, too
    assert (plain_stream(source) is not None) is plain


@pytest.mark.parametrize(
    "name", [name if name in ("llama", "gpt2") else pytest.param(name, marks=pytest.mark.nightly) for name in MODELS]
)
@pytest.mark.parametrize("way", ["linear", "cat", "svd", "ties", "dare_linear", "dare_ties"])
def test_several_adapters_are_put_together_as_peft_does_it(
    base: Base, in_memory: InMemory, tmp_path: Path, way: str, name: str
) -> None:
    ranks = (4, 6) if way in ("cat", "svd") else (4, 4)
    folders = [tmp_path / "0", tmp_path / "1"]
    for seed, (folder, rank) in enumerate(zip(folders, ranks, strict=True)):
        moved(peft.get_peft_model(in_memory(name), laid(BUILDS[name], r=rank)), seed).save_pretrained(folder)
    source = Source(base(name), folders[0], "auto", lambda *words: None, others=(folders[1],))
    (tmp_path / "out").mkdir()
    write_merged(source, tmp_path / "out", combination(way, [0.7, 0.4], 0.5))
    model = PeftModel.from_pretrained(in_memory(name), str(folders[0]), adapter_name="one")
    model.load_adapter(str(folders[1]), adapter_name="two")
    more = {} if way in ("linear", "cat", "svd") else {"density": 0.5}
    torch.manual_seed(0)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.4], "both", combination_type=way, **more)
    model.set_adapter("both")
    said = logits(model)
    assert (said - logits(in_memory(name))).abs().max() > 0.005
    compare(tmp_path / "out", said, model.merge_and_unload().state_dict())


def look_at_inputs(model: Any, build: Build) -> None:
    """What CorDA (arXiv:2406.05223, section 3.2) finds of a layer's inputs: W C = U S V, and V C^-1 for V; of random
    inputs here, as PEFT's own looking needs a package that the studio has no other use for.
    """
    chance = torch.Generator().manual_seed(6)
    for path, layer in model.named_modules():
        if path.endswith(build.some):
            weight = layer.weight.T if build.turned else layer.weight
            inputs = torch.randn(4 * weight.shape[1], weight.shape[1], generator=chance)
            seen = inputs.T @ inputs / len(inputs)
            u, s, v = torch.linalg.svd(weight @ seen, full_matrices=False)
            layer.eigens = SimpleNamespace(U_WC=u[:, :4], S_WC=s[:4], V_WC=(v[:4] @ torch.linalg.inv(seen)).T)


@pytest.mark.parametrize("name", MODELS)
def test_corda_turned_into_plain_lora_by_peft(base: Base, in_memory: InMemory, tmp_path: Path, name: str) -> None:
    """As it is it is refused (`test_merge_kinds`): what its start has left of the base, no adapter carries."""
    model = in_memory(name)
    with torch.no_grad():
        look_at_inputs(model, BUILDS[name])
    config = laid(BUILDS[name], init_lora_weights="corda", corda_config=CordaConfig(corda_method="kpm"))
    model = peft.get_peft_model(model, config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "corda"
    said = logits(moved(model))
    model.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    assert (said - logits(in_memory(name))).abs().max() > 0.005
    out = merge(base(name), tmp_path / "adapter", tmp_path / "out")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), said, rtol=1e-4, atol=5e-4)
