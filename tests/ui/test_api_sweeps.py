"""Searches as the page asks for them: checked, started once, seen, stopped, gone on with, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from studio.core.config import RunConfig
from studio.core.errors import ConfigError, StudioError
from studio.ui import api, api_sweeps, form
from studio.ui.context import Studio
from studio.ui.guard import Guard
from studio.workspace import sweeps
from studio.workspace.chat import Chat
from studio.workspace.supervisor import Supervisor
from studio.workspace.sweeps import Sweeps
from tests.fake_worker import FakeWorkers, until
from tests.ui.fake_estimating import FakeEstimating, rows

ORIGIN = {"origin": "http://127.0.0.1:7860"}
RATE = {"path": "training.learning_rate", "by": "range", "low": "1e-5", "high": "1e-1", "log": True, "choices": ""}
JUDGED = "sign start judge:1 judge:2 adapter end:finished"


@pytest.fixture
def studio(workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.setattr(sweeps, "_POLL", 0.02)
    monkeypatch.setattr(sweeps, "_ASIDE", 0.05)
    workers.script = JUDGED
    supervisor = Supervisor()
    found = FakeEstimating(lengths=rows(*[900] * 100))
    chat = Chat(supervisor.launcher, supervisor.runs)
    made = Studio(supervisor, chat, estimating=found, sweeps=Sweeps(supervisor))  # type: ignore[arg-type]
    yield made
    assert made.sweeps is not None
    made.sweeps.close()
    supervisor.close()


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    app = FastAPI()
    app.add_exception_handler(StudioError, api.studio_error)
    app.include_router(api_sweeps.router(studio))
    app.add_middleware(Guard)
    with TestClient(app, base_url="http://127.0.0.1:7860", headers=ORIGIN) as client:
        yield client


def wish(**more: Any) -> dict[str, Any]:
    return {"values": form.to_values(RunConfig()), "vary": [RATE], "trials": "2", "name": "Rates", **more}


def start(client: TestClient, **more: Any) -> str:
    return str(client.post("/api/sweeps", json=wish(**more)).json()["sweep"])


def seen(client: TestClient, sweep: str) -> dict[str, Any]:
    return dict(client.get(f"/api/sweeps/{sweep}").json()["sweep"])


def test_a_search_is_started_and_watched_to_its_end(client: TestClient) -> None:
    sweep = start(client)
    done = until(lambda: (told := seen(client, sweep))["status"] == "finished" and told)
    assert [row["outcome"] for row in done["rows"]] == ["finished", "finished"] and done["best"] is not None
    listed = client.get("/api/sweeps").json()
    assert [(line["id"], line["ended"]) for line in listed["sweeps"]] == [(sweep, 2)]
    assert client.get("/api/sweeps", params={"version": listed["version"]}).json()["sweeps"] is None
    one = client.get(f"/api/sweeps/{sweep}").json()
    assert client.get(f"/api/sweeps/{sweep}", params={"version": one["version"]}).json()["sweep"] is None


def test_a_double_click_is_one_search_and_one_run(client: TestClient, studio: Studio) -> None:
    assert start(client) == start(client) != start(client, name="Another")
    body = {"values": form.to_values(RunConfig())}
    first, second = (client.post("/api/sweeps/rate", json=body).json()["run"] for _ in range(2))
    assert first == second
    assert studio.supervisor.runs.get(first).config.training.find_learning_rate


def test_what_is_typed_is_judged_and_its_time_told(client: TestClient) -> None:
    told = client.post("/api/sweeps/check", json=wish(vary=None)).json()
    assert told["first"] == ["training.learning_rate", "adapter.r"]
    assert {figure["name"] for figure in told["figures"]} >= {"eval_loss", "loss"}
    assert client.post("/api/sweeps/check", json=wish()).json()["problems"] == []
    bad = client.post("/api/sweeps/check", json=wish(vary=[{**RATE, "high": "9"}])).json()
    assert bad["problems"][0]["field"] == "vary.0" and bad["time"] == ""
    broken = client.post("/api/sweeps/check", json=wish(values={"training.learning_rate": "2e"})).json()
    assert broken["knobs"] is None and broken["problems"][0]["field"] == ""


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"values": []},
        {"values": {}, "vary": "x"},
        {"values": {}, "vary": [{"path": "a", "by": "magic"}]},
        {"values": {}, "vary": [{"path": "a" * 200}]},
        {"values": {}, "vary": [RATE] * 17},
        {"values": {}, "trials": "9" * 50},
        {"values": {}, "vary": [RATE], "folder": "/etc"},
    ],
)
def test_S05_what_is_no_wish_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/api/sweeps", json=body).status_code == 422
    assert client.post("/api/sweeps/check", json=body).status_code == 422


def test_S05_core_judges_again_at_the_start(client: TestClient, studio: Studio) -> None:
    assert studio.sweeps is not None
    refusals: list[dict[str, Any]] = [
        {"vary": []},
        {"vary": [{**RATE, "high": "9"}]},
        {"trials": "0"},
        {"metric": "../x"},
    ]
    for more in refusals:
        refused = client.post("/api/sweeps", json=wish(**more))
        assert refused.status_code == 400 and refused.json()["message"]
    assert client.post("/api/sweeps/rate", json={"values": {"method": {"a": 1}}}).status_code == 400
    assert studio.sweeps.ids() == [] and studio.supervisor.runs.ids() == []


@pytest.mark.parametrize("name", ["none", "..", "%2e%2e%2fruns", "a b", "x" * 300])
def test_S16_a_search_that_is_not_there_is_a_sentence(client: TestClient, name: str) -> None:
    for answer in (client.get(f"/api/sweeps/{name}"), client.post(f"/api/sweeps/{name}/delete", json={})):
        assert answer.status_code in (400, 404, 405)


def test_stop_go_on_and_delete(client: TestClient, studio: Studio, workers: FakeWorkers) -> None:
    workers.script = "sign start judge:1 obey save:1 end:stopped"
    sweep = start(client, trials="3", prune=False)
    until(lambda: seen(client, sweep)["rows"])
    refused = client.post(f"/api/sweeps/{sweep}/delete", json={})
    assert refused.status_code == 400 and "Stop it" in refused.json()["hint"]
    client.post(f"/api/sweeps/{sweep}/stop", json={})
    until(lambda: seen(client, sweep)["status"] == "stopped")
    workers.script = JUDGED
    until(lambda: not studio.sweeps._drivers[sweep].is_alive())  # type: ignore[union-attr]
    client.post(f"/api/sweeps/{sweep}/resume", json={})
    done = until(lambda: (told := seen(client, sweep))["status"] == "finished" and told)
    assert [row["outcome"] for row in done["rows"]] == ["stopped", "finished", "finished"]
    until(lambda: client.post(f"/api/sweeps/{sweep}/delete", json={}).status_code == 200)
    assert client.get("/api/sweeps").json()["sweeps"] == []
    assert len(studio.supervisor.runs.ids()) == 3, "its trials stay"


def test_F54_a_trial_that_cannot_start_says_why_until_it_goes_on(
    client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> str:
        raise ConfigError("dataset.path", "There is no dataset <b>x</b>.", "Pick another.")

    with monkeypatch.context() as patched:
        patched.setattr(studio.supervisor, "submit", gone)
        sweep = start(client, name="<img src=x>")
        told = until(lambda: (now := seen(client, sweep))["status"] == "failed" and now)
    assert "no dataset <b>x</b>" in told["problem"] and told["name"] == "<img src=x>", "text; the page sets it as text"
    until(lambda: not studio.sweeps._drivers[sweep].is_alive())  # type: ignore[union-attr]
    client.post(f"/api/sweeps/{sweep}/resume", json={})
    assert seen(client, sweep)["problem"] == ""
    until(lambda: seen(client, sweep)["status"] == "finished")


def test_the_list_sees_a_trial_whose_run_was_deleted_and_passes_over_a_damaged_search(
    client: TestClient, studio: Studio, studio_home: Path
) -> None:
    sweep = start(client)
    done = until(lambda: (told := seen(client, sweep))["status"] == "finished" and told)
    client.get("/api/sweeps")
    studio.supervisor.delete(done["rows"][done["best_trial"]]["run"])
    line = client.get("/api/sweeps").json()["sweeps"][0]
    assert line["best"] != done["best"] and line["ended"] == 2
    damaged = studio_home / "sweeps" / "20260101-0000-damaged"
    damaged.mkdir()
    (damaged / "sweep.yaml").write_text(json.dumps({"vary": "x"}))
    assert [line["id"] for line in client.get("/api/sweeps").json()["sweeps"]] == [sweep]


def test_without_searches_the_page_still_answers(workers: FakeWorkers) -> None:
    supervisor, app = Supervisor(), FastAPI()
    app.add_exception_handler(StudioError, api.studio_error)
    app.include_router(api_sweeps.router(Studio(supervisor, Chat(supervisor.launcher, supervisor.runs))))
    with TestClient(app) as client:
        assert client.get("/api/sweeps").json()["sweeps"] == []
        assert client.post("/api/sweeps", json=wish()).status_code == 400
    supervisor.close()
