"""What the Data tab asks: pages, rows in three lights, kept answers; and that a name opens nothing but a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from studio.core.errors import DataError, StudioError
from studio.ui import api, api_data, api_datawork
from studio.ui.guard import Guard
from tests.ui.fake_desk import FakeDesk, FakeStudio, chat, entry
from tests.ui.test_checkview import problem, report


@pytest.fixture
def desk() -> FakeDesk:
    desk = FakeDesk()
    desk.keep(entry("mine", exclude=("duplicate",)), [chat(f"ask {place}", f"say {place}") for place in range(45)])
    desk.keep(entry("shipped", bundled=True), [])
    return desk


@pytest.fixture
def client(desk: FakeDesk, tmp_path: Path) -> Iterator[TestClient]:
    """The Data tab's routes behind the guard, without Gradio."""
    studio: Any = FakeStudio(desk, tmp_path)
    app = FastAPI()
    app.add_exception_handler(StudioError, api.studio_error)
    for routes in (api_data, api_datawork):
        app.include_router(routes.router(studio))
    app.add_middleware(Guard)
    with TestClient(app, base_url="http://127.0.0.1:7860", headers={"origin": "http://127.0.0.1:7860"}) as client:
        yield client


def test_the_list_and_the_head_are_told(client: TestClient) -> None:
    told = client.get("/api/data/list").json()
    assert [one["name"] for one in told["datasets"]] == ["mine", "shipped"]
    assert 'data-pick="mine"' in told["html"]
    one = client.get("/api/data/of/mine").json()
    assert (one["title"], one["exclude"], one["bundled"]) == ("Mine", ["duplicate"], False)
    assert "<h2>" in one["html"]


@pytest.mark.parametrize("path", ["", "/rows", "/row/0", "/check", "/stats", "/map", "/layout"])
@pytest.mark.parametrize("name", ["gone", "%2Fetc%2Fpasswd", "..%2F..%2Fetc", "%00", "a" * 3000])
def test_a_name_that_is_no_dataset_opens_nothing(client: TestClient, desk: FakeDesk, name: str, path: str) -> None:
    answer = client.get(f"/api/data/of/{name}{path}")
    assert answer.status_code in (400, 404)
    assert desk.asked == []


@pytest.mark.parametrize(
    ("start", "chosen", "first", "count", "picked"),
    [(0, -1, 0, 20, 0), (20, 33, 20, 20, 33), (40, -1, 40, 5, 40), (40, 3, 40, 5, 40), (100, -1, 100, 0, None)],
)
def test_pages_end_where_the_rows_end(
    client: TestClient, start: int, chosen: int, first: int, count: int, picked: int | None
) -> None:
    told = client.get("/api/data/of/mine/rows", params={"start": start, "chosen": chosen}).json()
    assert (told["start"], told["count"], told["total"], told["chosen"]) == (first, count, 45, picked)
    assert told["html"].count("data-pick") == count


def test_a_row_is_shown_in_each_light(client: TestClient, desk: FakeDesk) -> None:
    def light(name: str, **asked: Any) -> dict[str, Any]:
        answer: dict[str, Any] = client.get("/api/data/of/mine/row/7", params={"light": name, **asked}).json()
        return answer

    assert "say 7" in light("conversation")["html"]
    assert "&quot;messages&quot;" in light("raw")["html"]
    assert '"say 7"' in light("edit")["written"]
    assert light("conversation")["place"] == '<h3 class="row-place">Row 8</h3>'
    desk.told["trained"] = {"tokens": ["a", "b"], "loss": [False, True], "cut": 1, "special": [True, False]}
    assert "cut from here" in light("trained", model="tiny", max_length=64)["html"]
    assert desk.asked[-1] == ("trained", "mine", 7, "tiny", 64)


def test_what_a_row_cannot_be_trained_on_with_is_told_in_its_place(client: TestClient, desk: FakeDesk) -> None:
    def trained(**asked: Any) -> str:
        answer: str = client.get("/api/data/of/mine/row/7", params={"light": "trained", **asked}).json()["html"]
        return answer

    assert "Choose a model" in trained(model="")
    desk.told["trained"] = DataError("Line 8 can't be used: <b>")
    assert "can&#x27;t be used: &lt;b&gt;" in trained(model="tiny")
    desk.told["trained"] = StudioError("The model's process ended.")
    assert "st-error" in trained(model="tiny")
    desk.rows["mine"][7] |= {"problem": "torn", "row": None}
    assert "torn" in trained(model="tiny")


@pytest.mark.parametrize("asked", [{"max_length": 3}, {"max_length": "x"}, {"model": "m" * 500}, {"start": -1}])
def test_nonsense_is_refused(client: TestClient, asked: dict[str, Any]) -> None:
    assert client.get("/api/data/of/mine/rows", params=asked).status_code == 422


def test_a_kept_check_is_told_and_leads_to_its_rows(client: TestClient, desk: FakeDesk, tmp_path: Path) -> None:
    assert client.get("/api/data/of/mine/check").json() == {"strip": None, "full": None, "kinds": []}
    refused = client.get("/api/data/of/mine/rows", params={"kind": "duplicate"})
    assert refused.status_code == 400
    desk.kept["check"] = report(tmp_path, problem("unreadable", 2), problem("duplicate", 3), rows=45)
    told = client.get("/api/data/of/mine/check", params={"model": "tiny", "max_length": 256}).json()
    assert "40 of 45 rows are learned from." in told["strip"]
    assert [(kind["kind"], kind["count"]) for kind in told["kinds"]] == [("unreadable", 2), ("duplicate", 3)]
    desk.found[f"{tmp_path}/duplicate.npy"] = [10, 11, 12]
    rows = client.get("/api/data/of/mine/rows", params={"kind": "duplicate"}).json()
    assert (rows["count"], rows["total"], rows["chosen"]) == (3, 3, 10)


@pytest.mark.parametrize("kind", ["../../etc/passwd", "nothing", "duplicate/../x"])
def test_a_kind_of_problem_that_there_is_not_names_no_file(
    client: TestClient, desk: FakeDesk, tmp_path: Path, kind: str
) -> None:
    desk.kept["check"] = report(tmp_path, problem("duplicate"))
    assert client.get("/api/data/of/mine/rows", params={"kind": kind}).status_code == 400
    assert not any(asked[0] == "last" for asked in desk.asked)


def test_the_rows_of_a_search_are_its_own_datasets(client: TestClient, desk: FakeDesk) -> None:
    task = desk.begin("search", "mine", text="x")
    asked = {"search": task.id}
    assert client.get("/api/data/of/mine/rows", params=asked).status_code == 400, "it isn't done yet"
    task.state, task.result = "done", {"positions": "/cache/found.npy", "count": 2}
    desk.found["/cache/found.npy"] = [5, 44]
    assert client.get("/api/data/of/mine/rows", params=asked).json()["total"] == 2
    assert client.get("/api/data/of/shipped/rows", params=asked).status_code == 400
    assert client.get("/api/data/of/mine/rows", params={"search": 99}).status_code == 400


def test_statistics_follow_what_the_check_leaves(client: TestClient, desk: FakeDesk, tmp_path: Path) -> None:
    from tests.ui.test_statsview import figures

    assert client.get("/api/data/of/mine/stats").json() == {"html": None}
    desk.kept["stats"] = figures()
    assert "<dd>90</dd>" in client.get("/api/data/of/mine/stats").json()["html"]
    np.save(tmp_path / "duplicate.npy", np.arange(50).astype("<u8"))
    desk.kept["check"] = report(tmp_path, problem("duplicate", 50), rows=100)
    assert "<dd>45</dd>" in client.get("/api/data/of/mine/stats").json()["html"]


def test_the_map_is_told_once_it_is_drawn(client: TestClient, desk: FakeDesk) -> None:
    assert client.get("/api/data/of/mine/map").json() == {"map": None}
    desk.kept["map"] = {"points": [[0, 1, 0, 4]], "clusters": [{"label": "a", "rows": 1, "example": 4}]}
    assert client.get("/api/data/of/mine/map").json()["map"]["points"] == [[0.0, 1.0, 0, 4]]


def test_the_layout_is_told(client: TestClient) -> None:
    told = client.get("/api/data/of/mine/layout").json()
    assert (told["format"], told["question"]) == ("messages", None)


def test_a_hub_dataset_is_looked_at_before_it_is_fetched(client: TestClient, desk: FakeDesk) -> None:
    from tests.ui.fake_desk import line

    desk.keep(entry("far", kind="hub", source="owner/name", split="train"), [chat("all", "of it")] * 3)
    desk.on_hub = {"lines": [line(0, chat("first", "of them"))], "rows": 3, "bytes": 1234, "configs": [], "splits": []}
    first = client.get("/api/data/of/far/rows").json()
    assert (first["count"], first["preview"]) == (1, {"rows": 3, "bytes": 1234})
    assert "of them" in client.get("/api/data/of/far/row/0").json()["html"]
    assert client.get("/api/data/of/far/layout").json()["format"] == "messages"
    assert client.get("/api/data/of/far/row/1").status_code == 400
    assert [asked for asked in desk.asked if asked[0] == "hub"] == [("hub", "owner/name", None, "train")], "asked once"
    desk.begin("fetch", "far").state = "done"
    then = client.get("/api/data/of/far/rows").json()
    assert (then["count"], then["preview"]) == (3, None)
