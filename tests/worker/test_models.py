"""Models fetched and loaded: right where they are there, told in a sentence where they aren't, never run as code."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.core.configfile import parse_config
from studio.worker.device import resolve
from studio.worker.models import load_model

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
        if name in self.refusals and (is_api or name not in self.folders):
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
from studio.worker.models import fetch

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
