"""Pushing to the hub: what is sent in which order, what is never overwritten, and that it can be ended and taken up."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import huggingface_hub
import pytest
from huggingface_hub import HfApi as RealApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from studio.core.errors import ConfigError, StudioError
from studio.core.job import JobFolder, read_json
from studio.workspace import pushing
from studio.workspace.push import Push, Pushes
from tests.fake_worker import until

SECRET = "hf_canaryCanaryCanaryCanaryCanary"


class FakeApi:
    """The hub's client, as far as a push uses it: keeps what it is told, and refuses what it is told to."""

    there: ClassVar[set[str]] = set()
    sent: ClassVar[list[tuple[str, list[str]]]] = []
    made: ClassVar[list[dict[str, Any]]] = []

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        if repo_id in self.there and not exist_ok:
            raise refusal(409)
        self.made.append({"repo": repo_id, "private": private})
        self.there.add(repo_id)
        return _Url(repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str) -> None:
        kept = huggingface_hub.utils.filter_repo_objects(
            [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()],
            allow_patterns=allow_patterns,
        )
        self.sent.append((repo_id, sorted(kept)))


class _Url(str):
    """As the hub's client answers: an address that knows its model."""

    def __new__(cls, repo_id: str) -> _Url:
        made = super().__new__(cls, f"https://hub.invalid/{repo_id}")
        made.repo_id = repo_id
        return made

    repo_id: str


def refusal(status: int) -> HfHubHTTPError:
    """The error that the client raises for an answer of the hub."""
    error = HfHubHTTPError.__new__(HfHubHTTPError)
    Exception.__init__(error, f"{status} with {SECRET} in its text")
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    fresh = type("Hub", (FakeApi,), {"there": set(), "sent": [], "made": []})
    monkeypatch.setattr(huggingface_hub, "HfApi", fresh)
    return fresh


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An export of two shards."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name, size in {
        "model-1[a].safetensors": 3000,
        "model-2.safetensors": 1000,
        "config.json": 10,
        "README.md": 5,
    }.items():
        (folder / name).write_bytes(b"x" * size)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "hidden.safetensors").write_bytes(b"x")
    return folder


def send(source: Path, repo: str = "me/it", *, private: bool = True, ours: bool = False) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    request = {"source": str(source), "repo": repo, "private": private, "ours": ours}
    pushing.push(request, lambda **fields: told.append(fields))
    return told


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_weights_go_one_by_one_and_what_describes_them_last(hub: type[FakeApi], source: Path) -> None:
    told = send(source, "it")
    assert hub.made == [{"repo": "it", "private": True}]
    assert hub.sent == [
        ("me/it", ["model-2.safetensors"]),
        ("me/it", ["model-1[a].safetensors"]),
        ("me/it", ["README.md", "config.json"]),
    ]
    assert told[0] == {"url": "https://hub.invalid/me/it"}
    assert [one["done"] for one in told[1:]] == [0, 1000, 4000, 4015]
    assert {one["total"] for one in told[1:]} == {4015}
    assert told[1]["file"] == "model-2.safetensors"


def test_a_model_that_is_there_already_is_left_alone_unless_it_is_ours(hub: type[FakeApi], source: Path) -> None:
    hub.there.add("me/it")
    with pytest.raises(pushing.Taken):
        send(source)
    assert hub.sent == []
    send(source, ours=True)
    assert len(hub.sent) == 3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal(401), "hf auth login"),
        (LocalTokenNotFoundError(SECRET), "hf auth login"),
        (refusal(403), "may not write"),
        (refusal(500), "(500)"),
        (OfflineModeIsEnabled(SECRET), "HF_HUB_OFFLINE"),
        (HFValidationError(SECRET), "can't be a name"),
        (ConnectionError(SECRET), "can't be reached"),
        (pushing.Taken("me/it"), "on the hub already"),
        (ZeroDivisionError(SECRET), "ZeroDivisionError"),
    ],
)
def test_S19_each_mishap_is_one_plain_sentence_that_holds_no_secret(error: Exception, words: str) -> None:
    message, hint = pushing.sentence(error, "me/it")
    assert words in f"{message} {hint}"
    assert message.endswith(".")
    assert hint.endswith(".") or hint == ""
    assert SECRET not in message + hint


def test_the_stand_in_is_called_as_the_hub_s_client_can_be(hub: type[FakeApi]) -> None:
    for name in ("create_repo", "upload_folder"):
        theirs = inspect.signature(getattr(RealApi, name)).parameters
        ours = inspect.signature(getattr(FakeApi, name)).parameters
        assert set(ours) <= set(theirs)


# -- as a process -----------------------------------------------------------------------------------------------------

CHILD = """
import json, os, sys, time
request = json.loads(sys.stdin.readline())
tell = lambda **fields: print(json.dumps(fields), flush=True)
tell(url="https://hub.invalid/" + request["repo"], ours=request["ours"])
print("not ours", flush=True)
tell(done=0, total=100, file="a.safetensors")
time.sleep(0.05)
tell(done=40, total=100, file="b.safetensors")
if os.path.exists(request["source"] + "/wait"):
    sys.stdin.read()
    os._exit(1)
if os.path.exists(request["source"] + "/die"):
    os._exit(3)
if os.path.exists(request["source"] + "/fail"):
    tell(state="failed", error="The hub said no.", hint="Ask it nicely.")
else:
    open(request["source"] + "/ours", "a").write(str(request["ours"]) + " ")
    tell(done=100, total=100, file="")
    tell(state="finished")
"""


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    folder = tmp_path / "20260101-1200-job"
    folder.mkdir()
    return JobFolder(folder)


@pytest.fixture
def pushes() -> Any:
    made = Pushes([sys.executable, "-c", CHILD])
    yield made
    made.close()


def end_of(pushes: Pushes, job: JobFolder) -> Push:
    def ended() -> Push | None:
        push = pushes.of(job)
        return push if push is not None and push.state != "running" else None

    found: Push = until(ended)
    return found


def test_it_is_followed_to_its_end_and_kept(pushes: Pushes, job: JobFolder, source: Path) -> None:
    assert pushes.of(job) is None
    assert pushes.start(job, source, " me/it ").state == "running"
    end = end_of(pushes, job)
    assert (end.state, end.url, end.done, end.total) == ("finished", "https://hub.invalid/me/it", 100, 100)
    assert end.rate is not None
    assert not pushes.live
    assert (read_json(job.path / "push.json") or {})["state"] == "finished", "kept before anybody sees it"
    later = Pushes().of(job)
    assert later is not None
    assert (later.state, later.url, later.private) == ("finished", end.url, True)


def test_it_can_be_ended_and_taken_up_again_as_ours(pushes: Pushes, job: JobFolder, source: Path) -> None:
    (source / "wait").touch()
    pushes.start(job, source, "me/it")
    until(lambda: (pushes.of(job) or Push("", True, "")).done == 40)
    with pytest.raises(StudioError, match="already"):
        pushes.start(job, source, "me/it")
    pushes.stop(job)
    assert end_of(pushes, job).state == "stopped"
    assert (read_json(job.path / "push.json") or {})["state"] == "stopped"
    (source / "wait").unlink()
    pushes.start(job, source, "me/it")
    assert end_of(pushes, job).state == "finished"
    pushes.start(job, source, "me/another")
    assert end_of(pushes, job).state == "finished"
    assert (source / "ours").read_text() == "True False ", "only what this export made before is its own"


@pytest.mark.parametrize(("file", "words"), [("fail", "The hub said no."), ("die", "process ended")])
def test_what_went_wrong_is_told(pushes: Pushes, job: JobFolder, source: Path, file: str, words: str) -> None:
    (source / file).touch()
    pushes.start(job, source, "me/it")
    end = end_of(pushes, job)
    assert end.state == "failed"
    assert words in end.error
    assert end.hint


HANGS = """
import time, huggingface_hub
class Hangs:
    def create_repo(self, *repo, **options):
        print('{"file": "hanging"}', flush=True)
        time.sleep(60)
huggingface_hub.HfApi = Hangs
from studio.workspace import pushing
pushing.main()
"""


def test_the_sending_process_ends_with_the_studio(job: JobFolder, source: Path) -> None:
    pushes = Pushes([sys.executable, "-c", HANGS])
    pushes.start(job, source, "me/it")
    until(lambda: (pushes.of(job) or Push("", True, "")).file == "hanging")
    child = pushes._work[job.path].process
    assert child.poll() is None
    assert child.stdin is not None
    child.stdin.close()  # as the system does it for a process that has ended
    until(lambda: child.poll() is not None)
    assert end_of(pushes, job).state == "failed"


def test_a_push_that_a_killed_studio_left_is_one_to_take_up(job: JobFolder) -> None:
    told = {
        "repo": "me/it",
        "private": False,
        "state": "running",
        "total": 5,
        "url": "https://x",
        "error": "",
        "hint": "",
    }
    (job.path / "push.json").write_text(json.dumps(told), encoding="utf-8")
    push = Pushes().of(job)
    assert push is not None
    assert (push.state, push.repo, push.private) == ("stopped", "me/it", False)
    (job.path / "push.json").write_text('{"what": 1}', encoding="utf-8")
    assert Pushes().of(job) is None


@pytest.mark.parametrize("repo", ["", "a/b/c", "../x", "a b", "-a", "a--b", "me/", "x" * 200, "me\n/it"])
def test_a_name_that_can_be_none_starts_nothing(pushes: Pushes, job: JobFolder, source: Path, repo: str) -> None:
    with pytest.raises(ConfigError) as raised:
        pushes.start(job, source, repo)
    assert raised.value.field == "repo"
    assert pushes.of(job) is None


def test_S19_the_token_is_kept_nowhere(
    job: JobFolder, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real sending process, cut off from the hub: it fails, and says nothing of what it knows."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    pushes = Pushes()
    pushes.start(job, source, "me/it")
    assert SECRET not in " ".join(pushes._work[job.path].process.args)  # type: ignore[arg-type]
    end = end_of(pushes, job)
    assert end.state == "failed"
    assert "HF_HUB_OFFLINE" in end.error
    pushes.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
