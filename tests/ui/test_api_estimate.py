"""What the card asks: answers by the form as it stands, at once, whatever stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from studio.core.config import RunConfig
from studio.core.errors import StudioError
from studio.ui import api, api_estimate, form
from studio.ui.context import Studio
from studio.ui.guard import Guard
from studio.workspace.chat import Chat
from studio.workspace.estimating import LengthsState, ShapeState
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers
from tests.ui.fake_estimating import FakeEstimating, card, rows

ORIGIN = {"origin": "http://127.0.0.1:7860"}
BATCH = "training.per_device_train_batch_size"


@pytest.fixture
def fake() -> FakeEstimating:
    return FakeEstimating(lengths=rows(*[900] * 100))


@pytest.fixture
def client(workers: FakeWorkers, fake: FakeEstimating) -> Iterator[TestClient]:
    supervisor, app = Supervisor(), FastAPI()
    app.add_exception_handler(StudioError, api.studio_error)
    chat = Chat(supervisor.launcher, supervisor.runs)
    app.include_router(api_estimate.router(Studio(supervisor, chat, estimating=fake)))  # type: ignore[arg-type]
    app.add_middleware(Guard)
    with TestClient(app, base_url="http://127.0.0.1:7860", headers=ORIGIN) as client:
        yield client
    supervisor.close()


def values(**changed: Any) -> dict[str, Any]:
    return {**form.to_values(RunConfig()), **{name.replace("__", "."): value for name, value in changed.items()}}


def ask(client: TestClient, path: str = "", **body: Any) -> Any:
    return client.post(f"/api/estimate{path}", json={"values": values(), **body}).json()


def test_the_first_answer_is_the_verdict_the_second_has_what_takes_longer(client: TestClient) -> None:
    first = ask(client)
    assert first["state"] == "ready"
    assert first["verdict"]["state"] == "fits"
    assert "more" not in first
    second = ask(client, more=True)
    assert second["verdict"] == first["verdict"]
    assert {row["title"] for row in second["more"]["largest"]} == {"Largest batch", "Largest length"}


def test_it_moves_with_the_form(client: TestClient) -> None:
    sizes = [ask(client, values=values(**{BATCH: size}))["instant"] for size in ("1", "2", "8")]
    assert sizes == sorted(set(sizes))
    full, lora, qlora = (ask(client, values=values(adapter=kind))["instant"] for kind in ("full", "lora", "qlora"))
    assert full > lora > qlora


def test_another_card_is_judged_and_this_machine_not_forgotten(client: TestClient, fake: FakeEstimating) -> None:
    fake.here = card(8)
    other = ask(client, card=48)
    assert (other["verdict"]["state"], other["here"]) == ("fits", "over")
    assert "48.0 GB" in other["verdict"]["text"]


@pytest.mark.parametrize("typed", ["", "2e", "many", None, -1, [], {}])
def test_half_a_value_is_no_error(client: TestClient, typed: Any) -> None:
    assert ask(client, values=values(training__learning_rate=typed)) | {"took": 0} == {"state": "invalid", "took": 0}


@pytest.mark.parametrize("value", [None, {"a": 1}])
def test_any_value_of_any_control_is_answered(client: TestClient, value: Any) -> None:
    for name in form.NAMES:
        told = client.post("/api/estimate", json={"values": {**values(), name: value}})
        assert told.status_code == 200, name
        assert told.json()["state"] in ("ready", "invalid"), name


@pytest.mark.parametrize(
    "body", [{}, {"values": []}, {"values": {}, "card": 0}, {"values": {}, "card": "x"}, {"values": {}, "else": 1}]
)
def test_what_is_no_question_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/api/estimate", json=body).status_code == 422


def test_a_shape_that_is_being_fetched_is_asked_for_again(client: TestClient, fake: FakeEstimating) -> None:
    fake.state = ShapeState(None, busy=True)
    told = ask(client, values=values(model__name_or_path="owner/<model>"))
    assert (told["state"], told["again"]) == ("fetching", True)
    assert "owner/<model>" in told["text"]
    fake.state = None
    assert ask(client)["state"] == "ready"


def test_a_model_that_nobody_knows_is_told_with_the_reason(client: TestClient, fake: FakeEstimating) -> None:
    fake.state = ShapeState(None, "model.name_or_path: there is no model 'x'. Pick another.")
    told = ask(client)
    assert (told["state"], told["note"]) == ("unknown", "There is no model 'x'. Pick another.")
    assert ask(client, "/methods") == {"methods": [], "busy": False}


def test_rows_that_are_being_counted_are_asked_for_again(client: TestClient, fake: FakeEstimating) -> None:
    assert ask(client)["again"] is False
    fake.lengths = LengthsState(None, busy=True)
    assert ask(client)["again"] is True


def test_every_way_to_train_is_judged_by_itself(client: TestClient, fake: FakeEstimating) -> None:
    fake.here = card(12)
    found = {one["kind"]: one["state"] for one in ask(client, "/methods")["methods"]}
    assert found == {"lora": "over", "qlora": "fits", "full": "over"}
    assert {one["state"] for one in ask(client, "/methods", card=192)["methods"]} == {"fits"}


def test_the_models_are_those_of_the_form(client: TestClient) -> None:
    assert client.get("/api/estimate/models").json()["models"][0]["name"] == "starter"


def test_the_exact_answer_stands_beside_the_instant_one(client: TestClient, fake: FakeEstimating) -> None:
    begun = ask(client, "/exact")
    assert begun["state"] == "running"
    fake.task.text = "Tracing layer 2"
    assert client.get(f"/api/estimate/exact/{begun['id']}").json()["text"] == "Tracing layer 2"
    instant = ask(client)["instant"]
    fake.task.result, fake.task.state = {"device": instant * 2}, "done"
    told = client.get(f"/api/estimate/exact/{begun['id']}").json()
    assert told["text"] == f"Exact: {instant * 2 / 2**30:.1f} GB (said at once: {instant / 2**30:.1f}, \u221250 %)"


def test_a_trace_can_be_stopped_and_can_fail(client: TestClient, fake: FakeEstimating) -> None:
    stopped: list[bool] = []
    fake.task._cancel = lambda: stopped.append(True)
    begun = ask(client, "/exact")
    client.post(f"/api/estimate/exact/{begun['id']}/stop", json={})
    assert stopped == [True]
    fake.task.state, fake.task.error, fake.task.hint = "failed", "It broke.", "Try again."
    assert client.get(f"/api/estimate/exact/{begun['id']}").json()["text"] == "It broke. Try again."
    assert client.get("/api/estimate/exact/999").status_code == 400


def test_without_an_estimator_the_card_says_so(workers: FakeWorkers) -> None:
    supervisor, app = Supervisor(), FastAPI()
    app.add_exception_handler(StudioError, api.studio_error)
    app.include_router(api_estimate.router(Studio(supervisor, Chat(supervisor.launcher, supervisor.runs))))
    with TestClient(app) as client:
        assert ask(client)["state"] == "unknown"
        assert ask(client, "/methods")["methods"] == []
        assert client.post("/api/estimate/exact", json={"values": values()}).status_code == 400
    supervisor.close()


def test_what_merging_will_take_comes_with_every_answer(client: TestClient, fake: FakeEstimating) -> None:
    """A base that is still on the hub has its figures as soon as the hub has told them."""
    there = values(model__name_or_path="someone/elsewhere")
    assert "to download, once" in ask(client, values=there)["merge"]
    fake.state = ShapeState(None, busy=True)
    assert "being asked for" in ask(client, values=there)["merge"]
    assert ask(client, values={**there, "adapter": "full"})["merge"] == ""
