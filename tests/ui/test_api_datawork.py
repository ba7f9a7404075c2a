"""What the Data tab does: tasks, changes, adding; nothing of an upload stays but its dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from studio.ui import api_datawork
from tests.ui.fake_desk import FakeDesk, entry
from tests.ui.test_api_data import client, desk
from tests.ui.test_checkview import problem, report

__all__ = ["client", "desk"]  # fixtures


def begin(client: TestClient, **body: Any) -> Any:
    return client.post("/api/data/of/mine/begin", json=body)


def test_a_task_is_begun_watched_and_found_again(client: TestClient, desk: FakeDesk) -> None:
    told = begin(client, op="check", asked={"model": "tiny", "max_length": 64}).json()
    assert (told["state"], told["op"], told["done"]) == ("running", "check", None)
    task = desk.begun[0]
    assert (task.question["model"], task.question["max_length"]) == ("tiny", 64)
    task.text, task.done, task.total = "Reading", 250, 1000
    watched = client.get(f"/api/data/tasks/{told['id']}").json()
    assert (watched["text"], watched["done"], watched["total"]) == ("Reading", 250, 1000)
    assert client.get("/api/data/of/mine/tasks").json()["check"]["id"] == told["id"]
    assert client.get("/api/data/of/shipped/tasks").json() == {}


def test_a_task_that_failed_says_why(client: TestClient, desk: FakeDesk) -> None:
    task = desk.begin("stats", "mine")
    task.state, task.error, task.hint = "failed", "It broke.", "Mend it."
    told = client.get("/api/data/tasks/1").json()
    assert (told["state"], told["error"], told["hint"]) == ("failed", "It broke.", "Mend it.")


def test_a_task_is_stopped(client: TestClient, desk: FakeDesk) -> None:
    task = desk.begin("check", "mine")
    task._cancel = lambda: setattr(task, "state", "cancelled")
    assert client.post("/api/data/tasks/1/stop", json={}).json()["state"] == "cancelled"
    assert client.post("/api/data/tasks/7/stop", json={}).status_code == 400


def test_a_result_is_told_in_short(client: TestClient, desk: FakeDesk) -> None:
    task = desk.begin("search", "mine")
    task.state, task.result = "done", {"count": 3, "complete": True, "rows": [1] * 100_000}
    assert client.get("/api/data/tasks/1").json()["result"] == {"count": 3, "complete": True}
    task = desk.begin("check", "mine")
    task.state, task.result = "done", {"usable": 3}
    assert client.get("/api/data/tasks/2").json()["result"] == {}


def test_a_search_says_what_it_looks_for(client: TestClient, desk: FakeDesk) -> None:
    begin(client, op="search", search={"text": "boat", "longer": 3})
    asked = client.get("/api/data/of/mine/tasks").json()["search"]["search"]
    assert asked == {"text": "boat", "role": None, "longer": 3, "shorter": None, "kind": None}


@pytest.mark.parametrize("op", ["", "train", "index; rm", "hub", "search", "shape"])
def test_what_is_no_task_or_lacks_its_question_is_refused(client: TestClient, desk: FakeDesk, op: str) -> None:
    assert begin(client, op=op).status_code == 400
    assert desk.begun == []


def test_a_search_among_problems_needs_a_check(client: TestClient, desk: FakeDesk, tmp_path: Path) -> None:
    search = {"text": "a", "kind": "duplicate", "longer": 3}
    assert begin(client, op="search", search=search).status_code == 400
    desk.kept["check"] = report(tmp_path, problem("duplicate"))
    assert begin(client, op="search", search=search).status_code == 200
    assert desk.begun[-1].question["findings"] == str(tmp_path)
    assert begin(client, op="search", search={"text": "a"}).status_code == 200
    assert desk.begun[-1].question["findings"] is None


def test_a_recipe_is_carried_out_or_only_counted(client: TestClient, desk: FakeDesk) -> None:
    shape = {"steps": [{"do": "sample", "rows": 5}], "title": "Few"}
    assert begin(client, op="shape", shape=shape).status_code == 200
    assert desk.begun[-1].question["title"] == "Few"
    assert begin(client, op="preview", shape={**shape, "preview": True}).status_code == 200
    assert "title" not in desk.begun[-1].question
    for op, preview in (("shape", True), ("preview", False)):
        assert begin(client, op=op, shape={**shape, "preview": preview}).status_code == 400
    wrong = begin(client, op="shape", shape={"steps": [{"do": "sample", "rows": 0}]})
    assert wrong.status_code == 400
    assert "message" in wrong.json()


# -- changes --


def change(client: TestClient, **body: Any) -> Any:
    return client.post("/api/data/of/mine/change", json=body)


def test_what_is_left_out_is_kept_with_the_dataset(client: TestClient, desk: FakeDesk) -> None:
    assert change(client, exclude=["too_long"]).json()["exclude"] == ["too_long"]
    assert change(client, leave_out=7).json()["exclude_rows"] == [7]
    assert change(client, leave_out=3).json()["exclude_rows"] == [3, 7]
    assert change(client, leave_out=3).json()["exclude_rows"] == [3, 7]
    assert change(client, take_back=7).json()["exclude_rows"] == [3]
    assert change(client, exclude_rows=[]).json()["exclude_rows"] == []
    assert change(client, leave_out=-1).json()["exclude_rows"] == []


def test_only_what_is_named_changes(client: TestClient, desk: FakeDesk) -> None:
    change(client, format="alpaca", columns={"instruction": "q"})
    assert desk.asked[-1] == ("change", "mine", {"format": "alpaca", "columns": {"instruction": "q"}})
    assert change(client, path="/etc").status_code == 422


def test_the_split_is_checked_and_kept_where_it_is_not_as_by_default(client: TestClient, desk: FakeDesk) -> None:
    kept = change(client, knobs={"validation_split": 0.2, "test_split": 0, "stratify_by": None}).json()["knobs"]
    assert kept == {"validation_split": 0.2}
    assert change(client, knobs={"stratify_by": "label"}).json()["knobs"] == {
        "validation_split": 0.2,
        "stratify_by": "label",
    }
    assert change(client, knobs={"validation_split": 0.1}).json()["knobs"] == {"stratify_by": "label"}
    for wrong in ({"validation_split": 0.9, "test_split": 0.2}, {"validation_split": "much"}, {"nothing": 1}):
        refused = change(client, knobs=wrong)
        assert refused.status_code == 400, wrong
        assert refused.json()["message"]


def test_a_dataset_is_removed_and_a_shipped_one_stays(client: TestClient, desk: FakeDesk) -> None:
    assert client.post("/api/data/of/mine/remove", json={}).status_code == 200
    assert client.post("/api/data/of/shipped/remove", json={}).status_code == 400
    assert list(desk.datasets) == ["shipped"]


# -- adding --


def upload(client: TestClient, name: str, content: bytes = b'{"text": "a"}\n', **headers: str) -> Any:
    return client.post("/api/data/upload", params={"name": name}, content=content, headers=headers)


def test_an_upload_is_copied_and_cleared_away(client: TestClient, desk: FakeDesk, tmp_path: Path) -> None:
    assert upload(client, "chats.jsonl").json() == {"added": [{"name": "chats", "title": "Chats"}]}
    assert desk.asked == [("add", "chats.jsonl", b'{"text": "a"}\n', {"copy": True})]
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../x.jsonl", "x.jsonl"),
        ("C:\\data\\x.jsonl", "x.jsonl"),
        ("/etc/.x.jsonl", "x.jsonl"),
        ("..", "rows.jsonl"),
    ],
)
def test_an_upload_lies_nowhere_else_whatever_it_is_called(
    client: TestClient, desk: FakeDesk, tmp_path: Path, name: str, plain: str
) -> None:
    assert upload(client, name).status_code == 200
    assert desk.asked[0][1] == plain
    assert {path.name for path in tmp_path.iterdir()} == {"uploads"}


def test_an_upload_that_won_t_do_leaves_nothing(client: TestClient, tmp_path: Path) -> None:
    refused = upload(client, "refused.jsonl")
    assert (refused.status_code, refused.json()["message"]) == (400, "It is refused.")
    assert list((tmp_path / "uploads").iterdir()) == []


def test_S10_an_upload_without_room_is_refused_before_it_is_read(
    client: TestClient, desk: FakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_datawork, "LARGEST_UPLOAD", 10)
    refused = upload(client, "big.jsonl", b"x" * 11)
    assert refused.status_code == 413
    assert desk.asked == []
    assert list((tmp_path / "uploads").iterdir()) == []
    monkeypatch.setattr(api_datawork, "LARGEST_UPLOAD", 10**9)
    usage = shutil.disk_usage(tmp_path)._replace(free=600_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert upload(client, "any.jsonl").status_code == 413


def test_something_named_is_added(client: TestClient, desk: FakeDesk) -> None:
    named = client.post("/api/data/add", json={"source": " owner/name ", "split": "train"})
    assert named.json()["added"][0]["name"] == "name"
    assert desk.asked[-1][3] == {"copy": False, "config": None, "split": "train"}
    assert client.post("/api/data/add", json={"source": ""}).status_code == 422


def test_the_parts_of_a_hub_dataset_are_told(client: TestClient, desk: FakeDesk) -> None:
    desk.on_hub = {"configs": ["en", "de"], "splits": ["train"], "lines": [], "rows": None, "bytes": None}
    told = client.get("/api/data/hub", params={"id": "owner/name", "config": "de"}).json()
    assert told == {"configs": ["en", "de"], "splits": ["train"]}
    assert desk.asked == [("hub", "owner/name", "de", None)]


def test_datasets_are_mixed(client: TestClient, desk: FakeDesk) -> None:
    parts = [{"name": "mine", "weight": 2.5}, {"name": "shipped"}]
    client.post("/api/data/mix", json={"title": "Both", "parts": parts, "stopping": "all_exhausted"})
    assert desk.asked == [("mix", "Both", [("mine", 2.5), ("shipped", None)], "all_exhausted")]
    bad = client.post("/api/data/mix", json={"title": "Both", "parts": [{"name": "mine", "weight": -1}]})
    assert bad.status_code == 422


def test_another_page_changes_nothing(client: TestClient, desk: FakeDesk) -> None:
    foreign = {"origin": "http://evil.example"}
    for path, body in (("of/mine/change", {"exclude": []}), ("of/mine/remove", {}), ("add", {"source": "/etc"})):
        answer = client.post(f"/api/data/{path}", content=json.dumps(body), headers=foreign)
        assert answer.status_code == 403
    assert upload(client, "x.jsonl", **foreign).status_code == 403
    assert desk.asked == []
    assert desk.datasets["mine"] == entry("mine", exclude=("duplicate",))
