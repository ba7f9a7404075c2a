"""Rows that are left: errors always go, other kinds where they are excluded, and no row is counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.ui.leftover import read_positions, remaining


def report(folder: Path, rows: int, **kinds: list[int]) -> dict[str, Any]:
    """`error_x` are errors; the positions of each kind lie in the folder, as a check leaves them."""
    problems = []
    for name, positions in kinds.items():
        np.save(folder / f"{name}.npy", np.array(sorted(positions), "<u8"))
        severity = "error" if name.startswith("error") else "warning"
        problems.append({"kind": name, "severity": severity, "count": len(positions)})
    return {"rows": rows, "problems": problems, "findings": str(folder)}


def test_a_row_with_several_problems_is_left_out_once(tmp_path: Path) -> None:
    told = report(tmp_path, 10, error_a=[1, 2], error_b=[2], duplicate=[2, 5], too_long=[7])
    assert remaining(told, [], []) == 8
    assert remaining(told, ["duplicate"], []) == 7
    assert remaining(told, ["duplicate", "too_long"], [7, 9, 9, 400, -1]) == 5


def test_findings_that_are_gone_are_no_number(tmp_path: Path) -> None:
    told = report(tmp_path, 10, error_a=[1])
    (tmp_path / "error_a.npy").unlink()
    assert remaining(told, [], []) is None
    assert remaining({**told, "findings": None}, [], []) is None
    assert remaining({**told, "problems": []}, [], [3]) == 9


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no numpy at all, but long enough"])
def test_a_file_that_holds_no_positions_is_none(tmp_path: Path, content: bytes) -> None:
    told = report(tmp_path, 10, error_a=[1])
    (tmp_path / "error_a.npy").write_bytes(content)
    assert remaining(told, [], []) is None


@given(st.lists(st.integers(0, 2**63), max_size=50), st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_positions_are_read_as_numpy_wrote_them(tmp_path_factory: Any, numbers: list[int], version: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "some.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.array(numbers, "<u8"), version=version)
    assert list(read_positions(path)) == numbers


def test_other_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", np.array([1.5]))
    with pytest.raises(ValueError, match="holds no positions"):
        read_positions(tmp_path / "some.npy")
