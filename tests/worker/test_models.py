"""Models fetched and loaded: right where they are there, told in a sentence where they aren't, never run as code."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.core.configfile import parse_config
from studio.core.errors import ModelError
from studio.core.inputs import ModelInput
from studio.worker.device import resolve
from studio.worker.models import fetch, load_model, load_tokenizer
from tests.tiny import make_tiny_model

ROOT = Path(__file__).parents[2]
TOKEN = "hf_canaryCanaryCanaryCanaryCanary0000"
SHA = "0123456789" * 4


def load(folder: Path, **section: Any) -> Any:
    config = parse_config({"model": {"dtype": "float32", **section}, "hardware": {"device": "cpu"}})
    return load_model(folder, config.model, resolve(config))


# -- the hub ----------------------------------------------------------------------------------------------------------


def git_hash(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """A stand-in for the Hugging Face hub: repositories by name, each a folder of files, a refusal, or silence."""

    folders: dict[str, Path]
    refusals: dict[str, tuple[int, str]]
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    closing: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        self.asked.append((request.command, path))
        self.tokens.add(request.headers.get("Authorization", ""))
        is_api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name = "/".join(parts[:2])
        if name == "silent/model":
            self.closing.wait(60)
            return None
        if name in self.refusals and name not in self.folders:
            return self.refuse(request, *self.refusals[name])
        if name not in self.folders:
            return self.refuse(request, 404, "RepoNotFound")
        folder = self.folders[name]
        if is_api:
            if parts[-1] not in ("main", SHA, name.split("/")[1]):
                return self.refuse(request, 404, "RevisionNotFound")
            if parts[2:3] == ["tree"]:
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": git_hash(file)}
                    for file in sorted(folder.iterdir())
                ]
                return self.send(request, json.dumps(tree).encode())
            return self.send(request, json.dumps({"id": name, "sha": SHA, "siblings": []}).encode())
        if name in self.refusals:
            return self.refuse(request, *self.refusals[name])
        file = folder / parts[-1]
        return self.send(request, file.read_bytes(), {"X-Repo-Commit": SHA, "ETag": f'"{git_hash(file)}"'})

    @staticmethod
    def send(request: Any, body: bytes, headers: dict[str, str] | None = None) -> None:
        request.send_response(200)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    @staticmethod
    def refuse(request: Any, status: int, code: str) -> None:
        request.send_response(status)
        if code:
            request.send_header("X-Error-Code", code)
        request.send_header("Content-Length", "0")
        request.end_headers()


# Asks for every model named in its arguments and prints what came of it, a JSON object a line.
ASKER = """
import json, sys, time
from studio.core.errors import ModelError
from studio.core.inputs import ModelInput
from studio.worker import models
from studio.worker.models import fetch

models._PATIENCE = 2.0
for name in sys.argv[1:]:
    name, _, revision = name.partition("@")
    told, began = [], time.monotonic()
    try:
        folder = fetch(ModelInput("hub", name, None, revision or None), lambda *words: told.append(words))
        found = {"folder": str(folder)}
    except ModelError as error:
        found = {"message": error.message, "hint": error.hint}
    print(json.dumps({**found, "told": told, "seconds": time.monotonic() - began}), flush=True)
"""


def ask(home: Path, endpoint: str, names: list[str], **more: str) -> tuple[dict[str, dict[str, Any]], str]:
    """What `fetch` makes of hub models, in a process of its own: huggingface_hub reads its variables at import."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "1",
        **more,
    }
    asked = subprocess.run(
        [sys.executable, "-c", ASKER, *names], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110
    )
    found = [json.loads(line) for line in asked.stdout.splitlines()]
    assert len(found) == len(names), asked.stderr
    return dict(zip(names, found, strict=True)), asked.stdout + asked.stderr


REFUSED = {
    "gated/api": (401, "GatedRepo"),
    "gated/files": (403, "GatedRepo"),
    "hidden/model": (401, "RepoNotFound"),
    "private/model": (401, ""),
    "busy/model": (429, ""),
    "broken/model": (503, ""),
}
ASKED = ["good/model", "good/model@other", "pickled/model", "packed/model", "missing/model", "silent/model", *REFUSED]


@dataclass(frozen=True)
class Asked:
    """What came of asking a hub, and of asking for the same when it had gone."""

    hub: Hub
    online: dict[str, dict[str, Any]]
    offline: dict[str, dict[str, Any]]
    printed: str
    home: Path


@pytest.fixture(scope="module")
def asked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    place = tmp_path_factory.mktemp("hub")
    good = shutil.copytree(tiny_model, place / "good")
    (good / "pytorch_model.bin").write_bytes(b"a pickle")
    (good / "modeling_own.py").write_text("raise SystemExit", encoding="utf-8")
    pickled = place / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}", encoding="utf-8")
    (pickled / "pytorch_model.bin").write_bytes(b"a pickle")
    packed = shutil.copytree(tiny_model, place / "packed")
    (packed / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}', encoding="utf-8")
    hub = Hub({"good/model": good, "pickled/model": pickled, "packed/model": packed, "gated/files": good}, REFUSED)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.answer(self)

        do_HEAD = do_GET

        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        online, printed = ask(place / "home", endpoint, ASKED)
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
    offline, more = ask(place / "home", endpoint, ["good/model", "missing/model"])
    yield Asked(hub, online, offline, printed + more, place / "home")


def test_a_hub_model_is_fetched_without_its_pickles_and_code(asked: Asked, tiny_model: Path) -> None:
    folder = Path(asked.online["good/model"]["folder"])
    assert {path.name for path in folder.iterdir()} == {path.name for path in tiny_model.iterdir()}
    for path in tiny_model.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert not any("pytorch_model.bin" in path or path.endswith(".py") for _, path in asked.hub.asked)
    told = asked.online["good/model"]["told"]
    assert told[0] == ["Downloading good/model", None, None]
    rest = [path for path in tiny_model.iterdir() if path.name != "config.json"]  # which was looked at before the rest
    assert told[-1][1] == told[-1][2] == sum(path.stat().st_size for path in rest)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        pytest.param("gated/api", "accept its licence first", "hf auth login", id="F45-gated"),
        pytest.param("gated/files", "accept its licence first", "hf auth login", id="F45-gated-files"),
        pytest.param("hidden/model", "no model 'hidden/model', or it is private", "hf auth login", id="F45-private"),
        pytest.param("private/model", "refused private/model (status 401)", "your token", id="F45-token"),
        pytest.param("missing/model", "no model 'missing/model'", "spelling", id="F44-missing"),
        pytest.param("good/model@other", "no revision 'other'", "model.revision", id="F44-revision"),
        pytest.param("busy/model", "(status 429)", "later", id="F44-busy"),
        pytest.param("broken/model", "(status 503)", "later", id="F44-broken"),
        pytest.param("silent/model", "can't be reached", "Connect", id="F44-silent"),
        pytest.param("pickled/model", "no safetensors weights", "Choose", id="S13-pickled"),
        pytest.param("packed/model", "stored quantized (GPTQ)", "16-bit original", id="F48-packed"),
    ],
)
def test_F44_F45_S13_what_the_hub_refuses_is_told_in_a_sentence(
    asked: Asked, name: str, message: str, hint: str
) -> None:
    found = asked.online[name]
    assert message in found["message"]
    assert hint in found["hint"]
    assert "\n" not in found["message"]
    assert "http" not in found["message"]
    assert found["seconds"] < 30


def test_F48_a_packed_model_is_refused_before_its_weights_are_fetched(asked: Asked) -> None:
    fetched = {path.rpartition("/")[2] for _, path in asked.hub.asked if path.startswith("/packed/model/")}
    assert fetched == {"config.json"}


def test_F44_a_hub_in_trouble_isnt_asked_over_and_over(asked: Asked) -> None:
    for name in ("busy/model", "broken/model", "silent/model"):
        assert len([path for _, path in asked.hub.asked if name in path]) <= 3


def test_F44_a_model_that_was_fetched_once_needs_no_hub(asked: Asked) -> None:
    assert asked.offline["good/model"]["folder"] == asked.online["good/model"]["folder"]
    assert "can't be reached" in asked.offline["missing/model"]["message"]


def test_F45_the_token_goes_to_the_hub_and_nowhere_else(asked: Asked) -> None:
    assert f"Bearer {TOKEN}" in asked.hub.tokens
    assert TOKEN not in asked.printed
    files = [path for path in asked.home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_loaded_as_it_is_in_the_format_asked_for(tiny_model: Path, dtype: str) -> None:
    model = load(tiny_model, dtype=dtype)
    right = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=getattr(torch, dtype))
    torch.testing.assert_close(model.state_dict(), right.state_dict(), rtol=0, atol=0)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize(("quantization", "nested"), [("nf4", True), ("nf4", False), ("fp4", True)])
def test_a_4_bit_base_is_quantized_as_was_asked(tiny_model: Path, quantization: str, nested: bool) -> None:
    model = load(tiny_model, quantization=quantization, double_quant=nested)
    layer = model.model.layers[0].mlp.up_proj
    state = layer.weight.quant_state
    assert layer.weight.dtype is torch.uint8
    assert (state.quant_type, state.nested, layer.compute_dtype) == (quantization, nested, torch.float32)
    right = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.tensor([list(range(10, 40))])
    with torch.no_grad():
        found, exact = model(input_ids=ids).logits, right(input_ids=ids).logits
    # Coarser, but the same model.
    assert 0.7 < torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) < 0.999


def test_an_architecture_without_sdpa_is_loaded_all_the_same(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "gemma", "gemma2", head_dim=16, num_key_value_heads=2)
    assert load(folder).config._attn_implementation == "eager"
    with pytest.raises(ModelError, match="attention"):
        load(folder, attn_implementation="sdpa")


def test_a_tokenizer_is_loaded_with_its_template(tiny_model: Path) -> None:
    found, right = load_tokenizer(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    assert found.chat_template == right.chat_template
    assert found("the fox")["input_ids"] == right("the fox")["input_ids"]


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is gone"):
        fetch(ModelInput("folder", "gone", str(tmp_path / "gone")), lambda *words: None)


@pytest.fixture
def damaged(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "damaged"))


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -1])
def test_F25_weights_that_are_cut_off_are_told(damaged: Path, size: int) -> None:
    weights = damaged / "model.safetensors"
    os.truncate(weights, size if size >= 0 else weights.stat().st_size - 1)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(damaged)


def test_weights_that_are_missing_are_told_and_never_made_up(damaged: Path) -> None:
    """transformers fills them with random numbers and goes on."""
    tensors = load_file(damaged / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        load(damaged)


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "nonesuch"}', "[]"])
def test_a_damaged_config_is_told(damaged: Path, text: str) -> None:
    (damaged / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="can't be loaded"):
        load(damaged)


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_a_damaged_tokenizer_is_told(damaged: Path, text: str | None) -> None:
    (damaged / "tokenizer.json").unlink()
    if text is not None:
        (damaged / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(damaged)


# -- attacks ----------------------------------------------------------------------------------------------------------

CODE = """
from pathlib import Path
Path({mark!r}).mkdir(exist_ok=True)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = {model_type!r}
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def infect(folder: Path, mark: Path, model_type: str) -> None:
    """Make the folder's configs point to code of its own, which leaves a mark when it is imported."""
    (folder / "own.py").write_text(CODE.format(mark=str(mark), model_type=model_type), encoding="utf-8")
    maps = {
        "config.json": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
        "tokenizer_config.json": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]},
    }
    for name, auto_map in maps.items():
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        config["auto_map"] = auto_map
        if name == "config.json":
            config["model_type"] = model_type
        else:
            config["tokenizer_class"] = "OwnTokenizer"
        (folder / name).write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("model_type", ["llama", "own-llama"])
def test_S12_code_that_comes_with_a_model_is_never_run(damaged: Path, tmp_path: Path, model_type: str) -> None:
    mark = tmp_path / "mark"
    infect(damaged, mark, model_type)
    if model_type == "llama":
        assert type(load(damaged)).__module__.startswith("transformers.")
    else:
        with pytest.raises(ModelError):
            load(damaged)
    with contextlib.suppress(ModelError):
        load_tokenizer(damaged)
    assert not mark.exists()
    AutoModelForCausalLM.from_pretrained(damaged, trust_remote_code=True)
    assert mark.exists()  # it would have worked


@pytest.mark.parametrize("nested", [False, True])
def test_S12_a_config_that_names_a_kernel_on_the_hub_is_refused(damaged: Path, nested: bool) -> None:
    """transformers would fetch it and run it, even where it was told another attention."""
    config = json.loads((damaged / "config.json").read_text(encoding="utf-8"))
    place = config.setdefault("extra", {}) if nested else config
    place["_attn_implementation"] = "attacker/kernel"
    (damaged / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="attacker/kernel"):
        load(damaged)
    place["_attn_implementation"] = "eager"
    (damaged / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load(damaged)


class Evil:
    """A pickle that leaves a mark where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize("alone", [True, False])
def test_S13_weights_that_are_a_pickle_are_never_opened(damaged: Path, tmp_path: Path, alone: bool) -> None:
    mark = tmp_path / "mark"
    (damaged / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark)))
    if alone:
        (damaged / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="can't be loaded"):
            load(damaged)
    else:
        load(damaged)
    assert not mark.exists()
    pickle.loads((damaged / "pytorch_model.bin").read_bytes())
    assert mark.exists()  # it would have worked
