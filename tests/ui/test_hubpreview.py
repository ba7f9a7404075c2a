"""The first rows of a hub dataset: a layout is recognised by them, or asked about."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.errors import StudioError
from studio.ui.hubpreview import HubPreviews
from tests.ui.fake_desk import FakeDesk, entry, line

FAR = entry("far", kind="hub", source="owner/name")


def previews(*rows: Any) -> HubPreviews:
    desk: Any = FakeDesk(
        on_hub={"lines": [line(place, row) for place, row in enumerate(rows)], "rows": 9, "bytes": None}
    )
    return HubPreviews(desk)


def test_files_are_none_of_its_business() -> None:
    one = previews({"text": "a"})
    assert (one.page(entry(), 0, 20), one.row(entry(), 0), one.columns(entry())) == (None, None, None)


@pytest.mark.parametrize(
    ("row", "name"), [({"text": "a"}, "text"), ({"question": "a", "answer": "b"}, None), ("no object", None)]
)
def test_the_columns_are_those_of_the_first_rows(row: Any, name: str | None) -> None:
    found = previews(row).columns(FAR)
    assert found is not None
    assert found["format"] == name
    assert bool(found["question"]) == (name is None)


def test_rows_that_were_not_streamed_are_not_there_yet() -> None:
    one = previews({"text": "a"}, {"text": "b"})
    page = one.page(FAR, 1, 20)
    assert page is not None
    assert [told["position"] for told in page["lines"]] == [1]
    for position in (2, -1):
        with pytest.raises(StudioError, match="isn't on this machine"):
            one.row(FAR, position)


@pytest.mark.parametrize("op", ["fetch", "check", "stats"])
def test_whatever_has_read_all_rows_has_fetched_them(op: str) -> None:
    desk = FakeDesk(on_hub={"lines": [], "rows": None, "bytes": None})
    one = HubPreviews(desk)  # type: ignore[arg-type]
    task = desk.begin(op, "far")
    assert one.page(FAR, 0, 20) is not None
    task.state = "done"
    assert one.page(FAR, 0, 20) is None
