"""The map: points keep their rows, groups' names are only text."""

from __future__ import annotations

from studio.ui import mapview


def test_points_keep_their_rows_and_names_are_only_text() -> None:
    found = {
        "points": [[0.1, 0.9, 0, 17], [1, 0, 1, 3]],
        "clusters": [{"label": "<img src=x>", "rows": 1, "example": 17}, {"label": "bread", "rows": 1, "example": 3}],
        "explained": "2 rows in 2 groups",
    }
    drawn = mapview.drawn(found)
    assert drawn["points"] == [[0.1, 0.9, 0, 17], [1.0, 0.0, 1, 3]]
    assert [group["example"] for group in drawn["groups"]] == [17, 3]
    assert "<img" not in drawn["groups"][0]["html"]
    assert "bread" in drawn["groups"][1]["html"]
