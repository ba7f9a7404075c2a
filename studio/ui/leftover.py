"""How many rows are left to learn from.

In: a check's report with the folder of its findings, what is left out. Out: a number. A row may have several problems,
so that counts can't be added: the positions of each kind are laid over each other.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_MAGIC = b"\x93NUMPY"


def remaining(report: Mapping[str, Any], exclude: Iterable[str], exclude_rows: Iterable[int]) -> int | None:
    """Rows that no error, no excluded kind and no hand has left out; None where the findings are gone."""
    rows, folder = int(report["rows"]), report.get("findings")
    left_out = set(exclude)
    kinds = [p["kind"] for p in report["problems"] if p["severity"] == "error" or p["kind"] in left_out]
    gone = bytearray(rows)
    for kind in kinds:
        if not folder:
            return None
        try:
            positions = read_positions(Path(folder) / f"{kind}.npy")
        except (OSError, ValueError):
            return None
        for position in positions:
            if position < rows:
                gone[position] = 1
    for position in exclude_rows:
        if 0 <= position < rows:
            gone[position] = 1
    return rows - sum(gone)


def read_positions(path: Path) -> array[int]:
    """The numbers of a one-dimensional little-endian <u8 .npy file (NEP 1). Raises OSError, ValueError."""
    data = path.read_bytes()
    if not data.startswith(_MAGIC) or len(data) < 12:
        raise ValueError(f"{path.name} is no .npy file")
    wide = data[6] > 1  # version 1 has two bytes for the header's length, later ones four
    begin = 12 if wide else 10
    length = int.from_bytes(data[8:begin], "little")
    header = data[begin : begin + length]
    if b"'<u8'" not in header:
        raise ValueError(f"{path.name} holds no positions")
    found: array[int] = array("Q")
    with contextlib.suppress(ValueError):
        found.frombytes(data[begin + length :])
    return found
