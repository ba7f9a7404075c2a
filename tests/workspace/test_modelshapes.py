"""Shapes by name: folders, the starter, runs, and a hub that is asked by range requests alone."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.errors import ConfigError, ModelError
from studio.core.shapes import from_config
from studio.workspace.home import models_dir
from studio.workspace.modelshapes import ModelShapes
from tests.core.published import LLAMA_8B
from tests.fake_worker import until
from tests.tiny import make_tiny_llama

ROOT = Path(__file__).parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=3)


@pytest.fixture
def shapes(studio_home: Path) -> ModelShapes:
    return ModelShapes(studio_home / "cache" / "shapes")


def config_only(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_folder_is_read_from_its_headers_and_config_json_is_enough(
    shapes: ModelShapes, tiny: Path, tmp_path: Path
) -> None:
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    whole, bare = shapes.shape(str(tiny)), shapes.shape(str(config_only(tmp_path / "bare", config)))
    assert sorted(whole.tensors) == sorted(bare.tensors)
    assert shapes.files(str(tiny)) and shapes.files(str(tmp_path / "bare")) == []


def test_a_folder_that_changes_is_read_again(shapes: ModelShapes, tmp_path: Path) -> None:
    folder = config_only(tmp_path / "m", LLAMA_8B)
    assert len(shapes.shape(str(folder)).layers) == 32
    config_only(folder, {**LLAMA_8B, "num_hidden_layers": 30, "changed": "so that its size differs"})
    assert len(shapes.shape(str(folder)).layers) == 30


def test_the_starter_is_known_before_it_is_fetched_and_read_after(shapes: ModelShapes, tiny: Path) -> None:
    assert shapes.shape("starter").numel == 134_515_008  # as its card says
    assert shapes.files("starter") is None
    shutil.copytree(tiny, models_dir() / "starter")
    assert len(shapes.shape("starter").layers) == 3 and shapes.files("starter")


def test_a_name_that_is_no_model_says_so(shapes: ModelShapes) -> None:
    with pytest.raises(ConfigError, match="no model"):
        shapes.shape("no such model")
    assert "no run" in shapes.soon("run:nothing").problem


def test_an_architecture_that_no_table_knows_is_built_once(studio_home: Path, tmp_path: Path) -> None:
    config = {**LLAMA_8B, "model_type": "nobody_knows_it"}
    folder = config_only(tmp_path / "odd", config)
    with pytest.raises(ModelError, match="nobody_knows_it"):
        ModelShapes(studio_home / "cache").shape(str(folder))
    asked = []

    def build(given: Any) -> dict[str, Any]:
        asked.append(given["model_type"])
        return {"config": given, "tensors": [[t.name, t.shape, t.dtype] for t in from_config(LLAMA_8B).tensors]}

    for _ in range(2):  # the second finds it in the cache
        assert ModelShapes(studio_home / "cache", build).shape(str(folder)).numel == from_config(LLAMA_8B).numel
    assert asked == ["nobody_knows_it"]


# -- the hub ----------------------------------------------------------------------------------------------------------


class Hub(http.server.ThreadingHTTPServer):
    """One repository, `good/model`; files by range."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.sent = folder, dict[str, int]()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        parts = path.removeprefix("/api/models").strip("/").split("/")
        if parts[:2] != ["good", "model"]:
            return self.say(404, b"", {"X-Error-Code": "RepoNotFound"})
        if path.startswith("/api/"):
            siblings = [{"rfilename": file.name} for file in self.server.folder.iterdir()]
            return self.say(200, json.dumps({"id": "good/model", "sha": SHA, "siblings": siblings}).encode())
        file = self.server.folder / parts[-1]
        if not file.is_file():
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
        body, headers = file.read_bytes(), {"X-Repo-Commit": SHA, "ETag": f'"{file.name}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            return self.say(206, body[int(first) : int(last or len(body) - 1) + 1], headers)
        return self.say(200, body, headers)

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            name = self.path.rsplit("/", 1)[-1]
            self.server.sent[name] = self.server.sent.get(name, 0) + len(body)
            self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub(tiny: Path, tmp_path: Path) -> Iterator[Hub]:
    place = shutil.copytree(tiny, tmp_path / "hub")
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + bytes(3_000_000))  # so that reading the whole would be seen
    server = Hub(place)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


# huggingface_hub reads its variables when it is imported, so each asker is a process of its own.
ASKER = """
import json, sys
from studio.core.errors import StudioError
from studio.workspace.home import home
from studio.workspace.modelshapes import ModelShapes
for name in sys.argv[1:]:
    try:
        shape = ModelShapes(home() / "cache" / "shapes").shape(name)
        print(json.dumps({"numel": shape.numel, "layers": len(shape.layers)}))
    except StudioError as error:
        print(json.dumps({"problem": str(error)}))
"""


def ask(home: Path, url: str, *names: str) -> list[dict[str, Any]]:
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "0",
           "STUDIO_HOME": str(home)}  # fmt: skip
    asked = subprocess.run(
        [sys.executable, "-c", ASKER, *names], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100
    )
    assert not asked.returncode, asked.stderr
    return [json.loads(line) for line in asked.stdout.splitlines()]


def test_a_hub_model_is_read_from_its_headers_and_kept(hub: Hub, tiny: Path, studio_home: Path) -> None:
    found, missing = ask(studio_home, hub.url, "good/model", "missing/model")
    own = ModelShapes(studio_home / "cache").shape(str(tiny))
    assert found == {"numel": own.numel, "layers": 3}
    assert "no model 'missing/model'" in missing["problem"]
    assert 0 < hub.sent["model.safetensors"] < 1_000_000  # of more than three million
    # the hub is gone: what was asked once is still known, the rest is a plain sentence
    kept, lost = ask(studio_home, "http://127.0.0.1:9", "good/model", "other/model")
    assert kept == found
    assert "can't be reached" in lost["problem"]


def test_asking_in_the_background_never_waits(studio_home: Path) -> None:
    shapes = ModelShapes(studio_home / "cache")  # HF_HUB_OFFLINE: the hub can't be asked
    until(lambda: not shapes.soon("nobody/nothing").busy)
    state = shapes.soon("nobody/nothing")
    assert state.shape is None and "can't be reached" in state.problem
