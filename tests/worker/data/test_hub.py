"""Datasets of the hub, with a local server in its place: asked, streamed, fetched, read again without it."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.worker.data.hub import HubSource

NAME, SHA = "somebody/chats", "0123456789" * 4
README = b"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.jsonl
  - split: test
    path: test.jsonl
- config_name: other
  data_files: other.jsonl
---
"""
FILES = {
    "README.md": README,
    "train.jsonl": b"".join(b'{"text": "row %d"}\n' % at for at in range(50)),
    "test.jsonl": b'{"text": "held"}\n',
    "other.jsonl": b'{"text": "a", "n": 1}\n',
    "evil.py": b"open('canary', 'w').close()\nraise SystemExit('never run')\n",
}


def _blob(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository, in the hub's way. `status` other than 200 refuses everything."""

    status = 200
    asked: list[str]
    files = FILES

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        begin, size = 0, len(body)
        if status == 200 and (given := self.headers.get("Range", "")).startswith("bytes="):
            first, _, last = given[6:].partition("-")
            begin, end = int(first), int(last) + 1 if last else size
            body = body[begin:end]
            headers["Content-Range"] = f"bytes {begin}-{begin + len(body) - 1}/{size}"
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": _blob(self.files[name])}

    def _answer(self) -> None:
        path = self.path.partition("?")[0].replace("%2F", "/")
        self.asked.append(path)
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        api = f"/api/datasets/{NAME}"
        if self.status != 200:
            error = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}.get(self.status, "")
            self._send(b"{}", self.status, X_Error_Code=error, X_Error_Message="No.")
        elif path in (api, f"{api}/revision/{SHA}", f"{api}/revision/main"):
            siblings = [
                {"rfilename": name, "size": len(body), "blobId": _blob(body)} for name, body in self.files.items()
            ]
            info = {"_id": "1", "id": NAME, "sha": SHA, "siblings": siblings, "tags": [], "private": False}
            self._send(json.dumps(info).encode(), Content_Type="application/json")
        elif path.startswith(f"{api}/tree/{SHA}"):
            self._send(json.dumps([self._entry(name) for name in self.files]).encode(), Content_Type="application/json")
        elif path == f"{api}/paths-info/{SHA}":
            wanted = json.loads(sent)["paths"] if sent.startswith(b"{") else []
            found = [self._entry(name) for name in wanted if name in self.files]
            self._send(json.dumps(found).encode(), Content_Type="application/json")
        elif (name := path.removeprefix(f"/datasets/{NAME}/resolve/{SHA}/")) in self.files:
            self._send(self.files[name], ETag=f'"{_blob(self.files[name])}"', X_Repo_Commit=SHA, Accept_Ranges="bytes")
        else:
            self._send(b"{}", 404, X_Error_Code="EntryNotFound")

    do_GET = do_HEAD = do_POST = _answer


@pytest.fixture
def hub() -> Iterator[Any]:
    """A server; its class's `status` and `asked` may be set and read."""
    handler = type("Handler", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


ASK = """
import json, sys
from studio.core.errors import StudioError
from studio.core.inputs import DatasetInput
from studio.worker.data.hub import fetch_op, hub_op
from studio.worker.data.source import open_source
answers = []
for what, fields in json.loads(sys.stdin.read()):
    try:
        if what == "hub":
            answers.append(hub_op(fields, lambda part: None))
        elif what == "fetch":
            answers.append(fetch_op({"dataset": fields}, lambda part: None))
        else:
            source = open_source(DatasetInput.from_dict(fields))
            before = source.fingerprint()
            rows = [line.row for line in source.iterate()]
            found = [line.row for line in source.rows([0])]
            answers.append({"rows": rows, "found": found, "total": source.total, "fingerprint": source.fingerprint(),
                            "changed": before != source.fingerprint(), "sha256": source.sha256()})
    except StudioError as error:
        answers.append({"message": error.message, "hint": error.hint})
print(json.dumps(answers))
"""


@pytest.fixture
def ask(tmp_path: Path, studio_home: Path) -> Any:
    """Asks in a process of its own: huggingface_hub reads its variables when it is imported."""

    def asked(endpoint: str, *questions: tuple[str, dict[str, Any]], **more: str) -> list[dict[str, Any]]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"STUDIO_HOME": str(studio_home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", **more}
        root = Path(__file__).parents[3]
        command = [sys.executable, "-c", ASK]
        text = json.dumps(questions)
        env["PYTHONPATH"] = str(root)
        done = subprocess.run(command, input=text, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=100)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "canary").exists()
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    return asked


def test_S18_the_hub_is_asked_streamed_and_fetched_and_no_code_of_it_runs(hub: Any, ask: Any) -> None:
    about, other, fetched, train, test, asking = ask(
        hub.url,
        ("hub", {"id": NAME, "revision": None, "config": None, "split": None}),
        ("hub", {"id": NAME, "config": "other"}),
        ("fetch", {"name": NAME, "kind": "hub"}),
        ("read", {"name": NAME, "kind": "hub"}),
        ("read", {"name": NAME, "kind": "hub", "split": "test", "revision": SHA}),
        ("read", {"name": NAME, "kind": "hub", "split": "nowhere"}),
    )
    assert sorted(about["configs"]) == ["default", "other"] and sorted(about["splits"]) == ["test", "train"]
    assert about["revision"] == SHA and about["bytes"] == sum(map(len, FILES.values()))
    assert [line["row"] for line in about["lines"]] == [{"text": f"row {at}"} for at in range(20)]
    assert "splits" in other, other
    assert other["splits"] == ["train"] and other["lines"][0]["row"] == {"text": "a", "n": 1}
    assert fetched["total"] == 50 and fetched["revision"] == SHA
    assert train["rows"] == [{"text": f"row {at}"} for at in range(50)] and train["total"] == 50
    assert train["found"] == train["rows"][:1]
    assert test["rows"] == [{"text": "held"}] and test["fingerprint"] != train["fingerprint"]
    assert "nowhere" in asking["message"] and asking["hint"]
    # What was fetched is read without the hub, and without importing its libraries.
    again = ask("http://127.0.0.1:9", ("read", {"name": NAME, "kind": "hub"}))[0]
    assert again["rows"] == train["rows"] and not again["changed"] and again["sha256"] == train["sha256"]


def test_S18_a_dataset_that_is_a_program_is_refused(hub: Any, ask: Any) -> None:
    hub.files = {**FILES, "chats.py": FILES["evil.py"]}
    for answer in ask(hub.url, ("hub", {"id": NAME}), ("read", {"name": NAME, "kind": "hub"})):
        assert "never run" in answer["message"] and answer["hint"]


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "has no dataset"), (403, "accept its terms"), (404, "has no dataset"), (500, "status 500")],
)
def test_F44_F45_what_the_hub_refuses_is_said_in_plain_words(hub: Any, ask: Any, status: int, said: str) -> None:
    hub.status = status
    token = "hf_" + "canary" * 6
    answers = ask(hub.url, ("hub", {"id": NAME}), ("read", {"name": NAME, "kind": "hub"}), HF_TOKEN=token)
    for answer in answers:
        assert said in answer["message"] and answer["hint"]
        assert token not in json.dumps(answer)
    assert len(hub.asked) < 40


def test_F44_a_hub_out_of_reach_is_said_so(ask: Any) -> None:
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        for answer in ask("http://127.0.0.1:9", ("hub", {"id": NAME}), ("read", {"name": NAME, "kind": "hub"}), **more):
            assert "can't be reached" in answer["message"] and answer["hint"]


def test_nothing_is_fetched_by_opening() -> None:
    source = HubSource(DatasetInput(NAME, kind="hub"))
    assert not source.fetched and source.total is None and not source.indexed and source.bytes == 0
    assert source.fingerprint() != HubSource(DatasetInput(NAME, kind="hub", split="test")).fingerprint()
    with pytest.raises(DataError):
        next(source.iterate())
