"""The page's questions: what they answer, and that nothing is taken on trust."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from studio.core.errors import StudioError
from studio.ui import api
from studio.ui.context import Studio
from studio.ui.guard import Guard
from studio.workspace.chat import Chat
from studio.workspace.supervisor import Supervisor
from tests.ui.made_runs import add, ended, make_run, metrics

ORIGIN = {"origin": "http://127.0.0.1:7860"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    """The JSON interface behind its guard, without Gradio."""
    supervisor = Supervisor()
    app = FastAPI()
    app.add_exception_handler(StudioError, api.studio_error)
    app.include_router(api.router(Studio(supervisor, Chat(supervisor.launcher, supervisor.runs))))
    app.add_middleware(Guard)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client
    supervisor.close()


def test_an_empty_studio_answers(client: TestClient) -> None:
    told = client.get("/api/live").json()
    assert (told["live"], told["run"], told["runs_total"], told["queued"]) == (None, None, 0, 0)
    assert told["device"]["total"] > 0
    assert client.get("/api/runs").json() == []


def test_a_live_run_is_told_and_followed_by_offset(client: TestClient, home: Path) -> None:
    folder = make_run(home / "runs", "run-1", metrics(1), label="Näme", alive=True)
    first = client.get("/api/live", params={"run": "run-1", "offset": 0}).json()
    assert first["live"] == {
        "id": "run-1", "name": "Näme", "status": "running", "step": 1, "max_steps": 100, "eta": first["live"]["eta"],
    }  # fmt: skip
    assert first["run"]["series"]["loss"]["steps"] == [1]
    assert "log" not in first["run"]
    add(folder, metrics(2))
    second = client.get("/api/live", params={"run": "run-1", "offset": first["run"]["offset"]}).json()
    assert [event["step"] for event in second["run"]["events"]] == [2]
    assert second["runs_version"] == first["runs_version"]


def test_the_log_comes_only_when_asked_for(client: TestClient, home: Path) -> None:
    folder = make_run(home / "runs", "run-1", metrics(1))
    (folder / "worker.log").write_text("loading\n")
    told = client.get("/api/live", params={"run": "run-1", "log_offset": -1}).json()["run"]
    assert (told["log"], told["log_offset"]) == ("loading\n", 8)
    told = client.get("/api/live", params={"run": "run-1", "log_offset": 8}).json()["run"]
    assert (told["log"], told["log_offset"]) == ("", 8)


@pytest.mark.parametrize("run", ["nope", "..", "../../etc", "a/b", "%2e%2e", "run-1\x00", "C:\\x"])
def test_S16_a_run_that_is_not_there_is_said_to_be_gone(client: TestClient, home: Path, run: str) -> None:
    (home / "run.yaml").write_text("secret: true")
    told = client.get("/api/live", params={"run": run}).json()["run"]
    assert told["status"] is None and told["cause"]
    assert "secret" not in str(told)


def test_F41_numbers_that_json_does_not_have_are_null(client: TestClient, home: Path) -> None:
    make_run(home / "runs", "run-1", metrics(1, loss=math.nan, eval_loss=math.inf), ended())
    line = client.get("/api/runs").json()[0]
    assert (line["loss"], line["eval_loss"], line["best_eval_loss"]) == (None, None, None)
    assert client.get("/api/live", params={"run": "run-1"}).status_code == 200


def test_stop_asks_the_run_and_delete_removes_it(client: TestClient, home: Path) -> None:
    folder = make_run(home / "runs", "run-1", metrics(1), alive=True)
    assert client.post("/api/runs/run-1/delete", json={}, headers=ORIGIN).status_code == 400
    assert folder.exists(), "a live run isn't deleted"
    assert client.post("/api/runs/run-1/stop", json={}, headers=ORIGIN).json() == {"run": "run-1"}
    assert (folder / "stop").exists()
    assert client.get("/api/runs").json()[0]["status"] == "stopping"
    add(folder, ended("stopped"))
    assert client.post("/api/runs/run-1/delete", json={}, headers=ORIGIN).status_code == 200
    assert not folder.exists()
    assert client.get("/api/runs").json() == []


def test_a_refusal_is_one_sentence_with_the_next_step(client: TestClient, home: Path) -> None:
    make_run(home / "runs", "run-1", metrics(1), ended())
    refused = client.post("/api/runs/run-1/resume", json={}, headers=ORIGIN)
    assert refused.status_code == 400
    assert "finished" in refused.json()["message"] and refused.json()["hint"]
    missing = client.post("/api/runs/nope/stop", json={}, headers=ORIGIN)
    assert missing.status_code == 400 and "nope" in missing.json()["message"]
    assert client.get("/api/runs/nope").status_code == 400


@pytest.mark.parametrize(
    ("body", "kind"), [("{}", None), ("{}", "text/plain"), ("x=1", "application/x-www-form-urlencoded"), ("", None)]
)
def test_S03_a_body_that_is_not_declared_json_is_refused(
    client: TestClient, home: Path, body: str, kind: str | None
) -> None:
    folder = make_run(home / "runs", "run-1", metrics(1), alive=True)
    headers = {**ORIGIN, **({"content-type": kind} if kind else {})}
    assert client.post("/api/runs/run-1/stop", content=body, headers=headers).status_code == 422
    assert not (folder / "stop").exists()


def test_S05_a_body_with_more_than_was_asked_for_is_refused(client: TestClient, home: Path) -> None:
    folder = make_run(home / "runs", "run-1", metrics(1), alive=True)
    assert client.post("/api/runs/run-1/stop", json={"grace": 0}, headers=ORIGIN).status_code == 422
    assert client.post("/api/runs/run-1/stop", json=["x"], headers=ORIGIN).status_code == 422
    assert client.get("/api/runs/run-1/stop").status_code == 405
    assert not (folder / "stop").exists()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000", None])
def test_S02_a_foreign_page_stops_nothing(client: TestClient, home: Path, origin: str | None) -> None:
    folder = make_run(home / "runs", "run-1", metrics(1), alive=True)
    headers = {"origin": origin} if origin else {}
    assert client.post("/api/runs/run-1/stop", json={}, headers=headers).status_code == 403
    assert not (folder / "stop").exists()


def test_the_machine_says_what_it_is_and_where_files_lie(client: TestClient, home: Path) -> None:
    told = client.get("/api/machine").json()
    assert told["cpu_count"] >= 1 and told["ram_total"] > 0
    assert told["versions"]["gradio"]
    assert told["places"]["runs"] == str(home / "runs")


def test_hello_gives_the_home_away_to_nobody(client: TestClient, home: Path) -> None:
    told = client.get("/api/hello").json()
    assert told["app"] == "studio"
    assert str(home) not in str(told)
