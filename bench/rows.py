"""A measured figure, the table of them, and where the measuring happens.

In: figures. Out: text and JSON. Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Row:
    """`value` in `unit`; `against` what it is compared with in the same run, `ratio` value / that."""

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    note: str = ""


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    lines = [f"{'what':<52} {'value':>10} {'unit':<9} {'ratio':>6}  against / note", "-" * 118]
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        words = "; ".join(part for part in (row.against, row.note) if part)
        lines.append(f"{row.name:<52} {row.value:>10.2f} {row.unit:<9} {ratio:>6}  {words}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    from studio.workspace.hardware import read_machine, versions

    here = read_machine(Path.cwd())
    return {
        "cpu": here.cpu_name,
        "cores": here.cpu_count,
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": [gpu.name for gpu in here.gpus],
        "system": platform.platform(),
        "versions": versions(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def save(rows: list[Row], folder: Path) -> Path:
    """Write the rows with the machine they came from."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now():%Y%m%d-%H%M%S}.json"
    report = {"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return path


@contextlib.contextmanager
def fresh_home() -> Iterator[Path]:
    """A studio's home of its own for the time of the measuring, with the starter model in it."""
    from studio.worker.starter import fetch_starter
    from studio.workspace.home import home

    cache = Path(os.environ.get("STUDIO_TEST_CACHE") or home() / "models")
    starter = fetch_starter(cache, lambda text, done, total: None)
    before = os.environ.get("STUDIO_HOME")
    with tempfile.TemporaryDirectory(prefix="studio-bench-") as folder:
        os.environ["STUDIO_HOME"] = folder
        try:
            shutil.copytree(starter, Path(folder) / "models" / "starter")
            yield Path(folder)
        finally:
            os.environ.pop("STUDIO_HOME")
            if before is not None:
                os.environ["STUDIO_HOME"] = before
