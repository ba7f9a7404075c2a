"""What the Export tab asks: nothing on trust, no path from a request, and a download that is what was written."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from studio.core.errors import StudioError
from studio.ui import api, api_export
from studio.ui.context import Studio
from studio.ui.guard import Guard
from studio.workspace.chat import Chat
from studio.workspace.push import Pushes
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers, until
from tests.ui.made_exports import SAME, done, make_export
from tests.ui.made_runs import ended, make_run, metrics
from tests.workspace.test_push import CHILD

ORIGIN = {"origin": "http://127.0.0.1:7860"}
SECRET = "hf_canaryCanaryCanaryCanaryCanary"


@pytest.fixture
def supervisor(workers: FakeWorkers) -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.close()


@pytest.fixture
def client(supervisor: Supervisor) -> Iterator[TestClient]:
    """The tab's interface behind its guard; what is pushed goes nowhere."""
    app, pushes = FastAPI(), Pushes([sys.executable, "-c", CHILD])
    app.add_exception_handler(StudioError, api.studio_error)
    studio = Studio(supervisor, Chat(supervisor.launcher, supervisor.runs))
    app.include_router(api_export.router(studio, pushes))
    app.add_middleware(Guard)
    with TestClient(app, base_url="http://127.0.0.1:7860", headers=ORIGIN) as client:
        yield client
    pushes.close()


@pytest.fixture
def run(supervisor: Supervisor) -> Path:
    folder = make_run(supervisor.runs.folder, "20260101-1200-a", metrics(100), ended())
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def written(tmp_path: Path) -> tuple[str, Path]:
    """A finished export: its id and its folder."""
    out = tmp_path / "taken away"
    return make_export(out, done(out, SAME)).name, out


def asked(folder: Path, **more: Any) -> dict[str, Any]:
    return {"run": folder.name, "format": "adapter", **more}


# -- the form ---------------------------------------------------------------------------------------------------------


def test_only_runs_with_a_result_are_offered(client: TestClient, supervisor: Supervisor, run: Path) -> None:
    make_run(supervisor.runs.folder, "20260102-1200-b", metrics(1), ended("failed"))
    assert client.get("/api/export/runs").json() == {
        "runs": [{"id": run.name, "label": "A run"}],
        "chosen": run.name,
    }


def test_a_plan_suggests_a_target_and_an_export_to_it_starts(
    client: TestClient, supervisor: Supervisor, run: Path
) -> None:
    told = client.post("/api/export/plan", json=asked(run)).json()
    assert told["reason"] == ""
    target = told["suggested"]
    started = client.post("/api/export/start", json=asked(run, out=target))
    assert started.status_code == 200
    job = supervisor.exports()[0]
    assert (job.id, job.config.run, job.config.out) == (started.json()["job"], run.name, target)
    assert client.post("/api/export/plan", json=asked(run)).json()["suggested"] != target


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"out": ""}, "Type the folder"),
        ({"out": None}, "Type the folder"),
        ({"out": "/x", "format": "zip"}, "format"),
        ({"out": "/x", "dtype": "int3"}, "Number format"),
        ({"out": "/x", "shard_size": "much"}, "Largest file"),
        ({"out": "/x", "shard_size": 0}, "Largest file"),
        ({"out": "/x", "format": "merged", "quantization": "q8_0"}, "has none"),
        ({"out": "/x", "run": "../../x"}, "no run"),
    ],
)
def test_what_is_no_choice_starts_nothing(
    client: TestClient, supervisor: Supervisor, run: Path, more: dict[str, Any], words: str
) -> None:
    refused = client.post("/api/export/start", json=asked(run, **more))
    assert refused.status_code == 400
    assert words in refused.json()["message"] + refused.json()["hint"]
    assert supervisor.exports() == []


def test_what_can_t_be_written_so_is_refused_by_the_server_too(
    client: TestClient, supervisor: Supervisor, run: Path, tmp_path: Path
) -> None:
    (run / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "P_TUNING"}), encoding="utf-8")
    refused = client.post("/api/export/start", json=asked(run, format="merged", out=str(tmp_path / "x")))
    assert "P_TUNING" in refused.json()["message"]
    assert supervisor.exports() == []


def test_F49_a_target_with_something_in_it_is_refused(client: TestClient, run: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    refused = client.post("/api/export/start", json=asked(run, out=str(tmp_path / "x")))
    assert "isn't empty" in refused.json()["message"]
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["mine"]


# -- exports there have been ------------------------------------------------------------------------------------------


def test_the_list_is_sent_once_until_it_changes(
    client: TestClient, supervisor: Supervisor, run: Path, workers: FakeWorkers, tmp_path: Path
) -> None:
    workers.script = "sign start obey end:stopped"
    job = client.post("/api/export/start", json=asked(run, out=str(tmp_path / "x"))).json()["job"]
    until(lambda: supervisor.exports()[0].state.status == "running")
    first = client.get("/api/export/jobs").json()
    assert first["live"] is True
    assert first["jobs"][0]["id"] == job
    assert client.get("/api/export/jobs", params={"known": first["version"]}).json()["jobs"] is None
    client.post(f"/api/export/jobs/{job}/cancel", json={})
    until(lambda: supervisor.exports()[0].state.status == "stopped")
    last = client.get("/api/export/jobs", params={"known": first["version"]}).json()
    assert last["live"] is False
    assert "Cancelled" in last["jobs"][0]["html"]


def test_older_exports_come_when_they_are_asked_for(client: TestClient, tmp_path: Path) -> None:
    for number in range(3):
        out = tmp_path / str(number)
        make_export(out, done(out), job_id=f"20260102-153{number}-a")
    told = client.get("/api/export/jobs", params={"most": 2}).json()
    assert [job["id"][-3] for job in told["jobs"]] == ["2", "1"]
    assert told["more"] == 1


def test_the_last_that_was_asked_for_comes_first(client: TestClient, tmp_path: Path) -> None:
    for moment, name in enumerate(("b", "c", "a")):
        folder = make_export(tmp_path / name, done(tmp_path / name), job_id=f"20260102-1530-{name}")
        os.utime(folder / "export.yaml", (1000 + moment, 1000 + moment))
    assert [job["id"][-1] for job in client.get("/api/export/jobs").json()["jobs"]] == ["a", "c", "b"]


# -- away from here ---------------------------------------------------------------------------------------------------


def test_the_zip_holds_the_same_files(client: TestClient, written: tuple[str, Path]) -> None:
    job, out = written
    got = client.get(f"/api/export/jobs/{job}/zip")
    assert got.headers["content-type"] == "application/zip"
    assert int(got.headers["content-length"]) == len(got.content)
    assert 'filename="taken-away.zip"' in got.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(got.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"taken-away/{path.name}": path.read_bytes() for path in out.iterdir()
        }


@pytest.mark.parametrize("job", ["nothing", "..", "%2e%2e", "..%2f..%2fetc", ".new-x", "taken away"])
def test_S16_only_exports_of_the_studio_are_known(client: TestClient, written: tuple[str, Path], job: str) -> None:
    for path in ("zip",):
        assert client.get(f"/api/export/jobs/{job}/{path}").status_code in (400, 404)
    for path in ("cancel", "push/stop"):
        assert client.post(f"/api/export/jobs/{job}/{path}", json={}).status_code in (400, 404, 405)


def test_a_folder_beside_the_exports_is_none_of_them(client: TestClient, written: tuple[str, Path]) -> None:
    from studio.workspace.home import exports_dir

    (exports_dir() / "linked").symlink_to(exports_dir() / written[0])
    (exports_dir() / "plain").mkdir()
    for name in ("linked", "plain"):
        assert client.get(f"/api/export/jobs/{name}/zip").status_code == 400


def test_what_isn_t_there_can_t_be_downloaded(client: TestClient, tmp_path: Path) -> None:
    job = make_export(tmp_path / "never", ended("failed")).name
    refused = client.get(f"/api/export/jobs/{job}/zip")
    assert refused.status_code == 400
    assert "isn't there" in refused.json()["message"]


def test_another_site_downloads_nothing(client: TestClient, written: tuple[str, Path]) -> None:
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}):
        assert client.get(f"/api/export/jobs/{written[0]}/zip", headers=headers).status_code == 403


def test_a_push_is_followed_in_the_list(client: TestClient, written: tuple[str, Path]) -> None:
    job, _ = written
    assert client.post(f"/api/export/jobs/{job}/push", json={"repo": "a b"}).status_code == 400
    assert client.post(f"/api/export/jobs/{job}/push", json={"repo": "me/it"}).status_code == 200

    def html() -> str:
        return str(client.get("/api/export/jobs").json()["jobs"][0]["html"])

    until(lambda: "https://hub.invalid/me/it</a>" in html())
    assert "On the hub" in html()


def test_S19_whether_there_is_a_token_is_told_but_never_which(
    client: TestClient, written: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'data-token="no"' in client.get("/api/export/jobs").text.replace('\\"', '"')
    monkeypatch.setenv("HF_TOKEN", SECRET)
    told = client.get("/api/export/jobs").text.replace('\\"', '"')
    assert 'data-token="yes"' in told
    assert SECRET not in told
