"""Starting, being found, and ending: ports, hosts, signals; and the whole window behind its guard."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from studio.core.errors import ConfigError, StudioError
from studio.ui import port, server
from studio.ui.context import Studio
from studio.ui.page import TABS
from studio.workspace.chat import Chat
from studio.workspace.home import bundled
from studio.workspace.supervisor import Supervisor
from tests.ui.made_runs import make_run, metrics

ORIGIN = {"origin": "http://127.0.0.1:7860"}
TOKEN = "a-token-that-is-long-enough"


@contextmanager
def taken_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


def test_F61_a_taken_port_gives_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "_PATIENCE", 0.2)  # the one who holds it says nothing
    with taken_port() as taken, closing(port.open_port("127.0.0.1", taken, "ours")) as listener:
        bound = listener.getsockname()[1]
        assert taken < bound <= taken + 19
        with closing(socket.create_connection(("127.0.0.1", bound), timeout=5)):
            pass  # whoever asks before the server is up waits instead of being refused


@pytest.mark.parametrize(("home", "found"), [("ours", True), ("another", False)])
def test_F61_an_own_server_on_the_port_is_found(home: str, found: bool) -> None:
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"app": "studio", "home": home}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        taken = other.server_address[1]
        if found:
            with pytest.raises(port.OwnServer) as told:
                port.open_port("127.0.0.1", taken, "ours")
            assert told.value.port == taken
        else:
            with closing(port.open_port("127.0.0.1", taken, "ours")) as listener:
                assert listener.getsockname()[1] != taken
        other.shutdown()


def test_a_host_that_is_not_this_machine_is_refused() -> None:
    with pytest.raises(StudioError, match=r"192\.0\.2\.1"):
        port.open_port("192.0.2.1", 0, "ours")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_S04_others_are_let_in_only_with_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "open_port", lambda *_: pytest.fail("it listened"))
    with pytest.raises(ConfigError, match="token") as refused:
        server.serve(host=host, open_browser=False)
    assert refused.value.field == "host" and refused.value.exit_code == 2
    with pytest.raises(ConfigError, match="at least"):
        server.serve(host=host, open_browser=False, token="short")


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The whole application, Gradio and all."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        supervisor = Supervisor()
        app = server.create_app(Studio(supervisor, Chat(supervisor.launcher, supervisor.runs)))
        with TestClient(app, base_url="http://127.0.0.1:7860") as client:
            yield client
        supervisor.close()


def test_the_page_is_ours_and_fetches_nothing_from_elsewhere(window: TestClient) -> None:
    answer = window.get("/")
    page = answer.text
    assert answer.status_code == 200
    fetched = re.findall(r"""(?:\b(?:src|href|content)=|url\()["']?((?:https?:)?//[^"')\s]+)""", page)
    assert not fetched, fetched
    assert all(f'id="nav-{tab}"' in page for tab in TABS)
    assert "Gradio" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_s_policy_lets_no_foreign_script_run(window: TestClient) -> None:
    answer = window.get("/")
    policy = dict(part.split(None, 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src-attr"] == "'none'"
    assert "unsafe-inline" not in policy["script-src"]
    assert not re.search(r"https?:|\*", answer.headers["content-security-policy"])
    nonce = re.search(r"'nonce-([^']+)'", policy["script-src"])
    assert nonce is not None
    scripts = re.findall(r"<script\b([^>]*)>", answer.text)
    assert scripts and all(f'nonce="{nonce[1]}"' in script for script in scripts)
    again = window.get("/").headers["content-security-policy"]
    assert nonce[1] not in again, "a number used once is used once"


def test_every_file_the_page_names_is_served(window: TestClient) -> None:
    page = window.get("/").text
    names = set(re.findall(r"""["'(](studio/[0-9a-f]{12}/[^"')]+)""", page))
    scripts = {path.relative_to(bundled("assets")).as_posix() for path in bundled("assets").glob("js/*.js")}
    version = next(iter(names)).split("/")[1]
    for name in names | {f"studio/{version}/{script}" for script in scripts}:
        answer = window.get("/" + name)
        assert answer.status_code == 200, name
        assert "immutable" in answer.headers["cache-control"]
    assert any(name.endswith(".woff2") for name in names)


@pytest.mark.parametrize(
    "name", ["datasets/quickstart-sft/train.jsonl", "../pyproject.toml", "%2e%2e/pyproject.toml", "fonts/", "nope.js"]
)
def test_S06_only_the_page_s_files_are_served(window: TestClient, name: str) -> None:
    assert window.get(f"/studio/x/{name}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "file:///etc/passwd",
        "{}/secret",
    ],
)
def test_S06_gradio_serves_no_file_of_this_machine(window: TestClient, path: str) -> None:
    home = Path(os.environ["STUDIO_HOME"])
    (home / "secret").write_text("canary")
    answer = window.get(f"/gradio_api/file={path.format(home)}")
    assert answer.status_code in (403, 404)
    assert "canary" not in answer.text and "root:" not in answer.text


def test_S03_gradio_s_own_posts_need_json(window: TestClient) -> None:
    body = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"})
    assert window.post("/gradio_api/queue/join", content=body, headers=ORIGIN).status_code == 422


def test_building_the_window_imports_nothing_heavy() -> None:
    """And leaves Gradio's files as they are: the stubs it writes at import stay unwritten."""
    script = """
import os, sys, tempfile
os.environ["STUDIO_HOME"] = tempfile.mkdtemp()
import studio.ui.build, studio.ui.server
from pathlib import Path
from studio.ui.context import Studio
from studio.workspace.chat import Chat
from studio.workspace.supervisor import Supervisor
supervisor = Supervisor()
studio.ui.server.create_app(Studio(supervisor, Chat(supervisor.launcher, supervisor.runs)))
heavy = {"torch", "transformers", "datasets", "trl", "peft", "bitsandbytes", "accelerate"} & set(sys.modules)
import gradio.component_meta as meta
assert not heavy, heavy
assert meta.create_or_modify_pyi.__module__ == "studio.ui.gradio_import", "Gradio's import does more than it needs"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def running_studio(home: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with taken_port() as free:
        pass
    code = "import sys; from studio.ui.server import serve; import os\n"
    code += "serve(port=int(sys.argv[1]), open_browser=False, token=os.environ.get('STUDIO_TOKEN'))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(free), *arguments],
        env={**os.environ, "STUDIO_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"http://\S+", line):
            return match[0]
    raise AssertionError("it printed no address")


def test_F09_a_signal_ends_the_window_and_no_run(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as worker:
        try:
            folder = make_run(tmp_path / "runs", "run-1", metrics(1))
            record = {"pid": worker.pid, "create_time": psutil.Process(worker.pid).create_time(), "attempt": 1}
            (folder / "process.json").write_text(json.dumps(record))
            with running_studio(tmp_path) as process:
                url = address(process)
                with urllib.request.urlopen(f"{url}gradio_api/heartbeat/x", timeout=20) as stream:
                    stream.read(1)  # a page that is open holds a stream; the end doesn't wait for it
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(timeout=30) == 0
                assert process.stdout is not None
                said = process.stdout.read()
                assert "Training goes on" in said
                assert "Traceback" not in said and "ERROR" not in said
            assert worker.poll() is None, "the run's worker lives on"
            assert not (folder / "stop").exists()
        finally:
            worker.kill()


def test_S02_an_upload_from_elsewhere_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_studio(tmp_path) as process:
        with httpx.Client(base_url=(url := address(process)), timeout=20) as client:
            own = {"origin": url.rstrip("/")}
            files = {"files": ("rows.jsonl", b"canary")}
            for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {}, {**own, "host": "evil.example"}):
                assert client.post("/gradio_api/upload", files=files, headers=headers).status_code == 403
            assert not list(tmp_path.rglob("rows*"))
            assert client.post("/gradio_api/upload", files=files, headers=own).status_code == 200
        assert [path.read_bytes() for path in (tmp_path / "uploads").rglob("rows.jsonl")] == [b"canary"]


def test_F61_a_second_start_names_the_first_and_S11_the_token_is_not_logged(tmp_path: Path) -> None:
    with running_studio(tmp_path, STUDIO_TOKEN=TOKEN) as first:
        url = address(first)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert opener.open(f"{url}?token={TOKEN}", timeout=20).status == 200
        assert opener.open(f"{url}api/live", timeout=20).status == 200
        code = (
            f"from studio.ui.server import serve; serve(port={url.rstrip('/').rpartition(':')[2]}, open_browser=False)"
        )
        environment = {**os.environ, "STUDIO_HOME": str(tmp_path)}
        second = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 0 and url in second.stdout
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=30) == 0
        assert first.stdout is not None
        assert TOKEN not in first.stdout.read()
