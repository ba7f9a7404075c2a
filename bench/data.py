"""Datasets of any size: first page, far page, check; beside `datasets.load_dataset` on the same file.

STUDIO_BENCH_DATA_GB says how large the jsonl is (5), the json array has a fifth of it. Every figure of a reader is
taken from a fresh process of its own; the window's process is this one.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.rows import Row
from studio.workspace.desk import DataDesk
from studio.workspace.launcher import Launcher, worker_env
from studio.workspace.tasks import Task

_WORDS = "river stone light paper engine garden winter signal copper window teacher market island thread"
_CHECKED = 200_000  # rows of the file that is checked
_FAR = 1_000_000
_SEED = 7


def measure(home: Path) -> list[Row]:
    gigabytes = float(os.environ.get("STUDIO_BENCH_DATA_GB", "5"))
    lines, array, small = home / "large.jsonl", home / "large.json", home / "checked.jsonl"
    count = _write_lines(lines, int(gigabytes * 1e9))
    _write_array(array, int(gigabytes * 2e8))
    _write_lines(small, 10**15, most=_CHECKED)
    desk = DataDesk(Launcher(standby=False))
    try:
        rows = [*_pages(desk, lines, min(_FAR, count - 20)), *_pages(desk, array, None), *_checks(desk, small)]
    finally:
        desk.close()
    return rows


# -- what is read -----------------------------------------------------------------------------------------------------


def _sentences() -> Iterator[str]:
    """Rows of a chat, a third of a kilobyte to one and a half, no two alike: each is numbered and has its own words."""
    draw, words = random.Random(_SEED), _WORDS.split()
    passages = [" ".join(draw.choices(words, k=draw.randrange(15, 100))) for _ in range(5000)]
    for number in itertools.count(1):
        asked, *answer = draw.choices(passages, k=3)
        turns = [
            {"role": "user", "content": f"{number}: {asked[:80]}"},
            {"role": "assistant", "content": f"{' '.join(answer)} {number}"},
        ]
        yield json.dumps({"messages": turns})


def _write_lines(path: Path, size: int, most: int = 10**12) -> int:
    written = count = 0
    with path.open("w", encoding="utf-8", buffering=2**20) as file:
        for row in _sentences():
            written += file.write(row + "\n")
            count += 1
            if written >= size or count >= most:
                return count
    return count


def _write_array(path: Path, size: int) -> None:
    written = 0
    with path.open("w", encoding="utf-8", buffering=2**20) as file:
        for row in _sentences():
            written += file.write(("[\n" if not written else ",\n") + row)
            if written >= size:
                break
        file.write("\n]\n")


# -- the studio -------------------------------------------------------------------------------------------------------


def _pages(desk: DataDesk, path: Path, far: int | None) -> list[Row]:
    """`far`: the row of the page far behind; None takes the middle of the file."""
    name = f"{path.suffix[1:]} of {path.stat().st_size / 1e9:.1f} GB"
    before = psutil.Process().memory_info().rss
    began = time.monotonic()
    entry = desk.add(str(path))[0]
    desk.page(entry.name, 0, 20)
    first = time.monotonic() - began
    index = desk.begin("index", entry.name)  # the page has begun it already; the same question is the same task
    indexing, worker = _followed(desk, index)
    assert index.result is not None, index.error
    far = index.result["total"] // 2 if far is None else far
    began = time.monotonic()
    page = desk.page(entry.name, far, 20)
    turned = time.monotonic() - began
    assert page["lines"][0]["position"] == far
    grown = psutil.Process().memory_info().rss - before
    seconds, peak = _plain(_LOAD, path, str(far))
    return [
        Row(f"{name}: added and first page shown", first, "s", "load_dataset, one row", first / seconds),
        Row(f"{name}: indexed, hashed, in the background", indexing, "s", "load_dataset", indexing / seconds),
        Row(f"{name}: page at row {far:,}", turned, "s"),
        Row(f"{name}: the window's process grew by", grown / 1e6, "MB"),
        Row(f"{name}: peak of the data worker", worker / 1e6, "MB", "load_dataset", worker / peak),
        Row(f"{name}: load_dataset and that row", seconds, "s", note="cold cache, a fresh process"),
        Row(f"{name}: load_dataset's peak", peak / 1e6, "MB"),
    ]


def _checks(desk: DataDesk, path: Path) -> list[Row]:
    entry = desk.add(str(path))[0]
    _followed(desk, desk.begin("index", entry.name))
    seconds, peak = _plain(_LOAD, path, "0")
    found = []
    for what, fields in (
        ("every row read", {"near": False}),
        ("with near duplicates", {"near": True}),
        ("with the starter's tokens", {"near": False, "model": "starter"}),
    ):
        task = desk.begin("check", entry.name, max_length=512, **fields)
        took, worker = _followed(desk, task)
        assert task.state == "done", task.error
        against = "load_dataset"
        found.append(Row(f"check of {_CHECKED:,} rows, {what}", took, "s", against, took / seconds))
        found.append(Row(f"check of {_CHECKED:,} rows, {what}: peak", worker / 1e6, "MB", against, worker / peak))
    return [*found, Row(f"load_dataset of {_CHECKED:,} rows", seconds, "s", note=f"{peak / 1e6:.0f} MB")]


def _followed(desk: DataDesk, task: Task) -> tuple[float, float]:
    """Seconds until the task is done, and the most memory that any worker of this process took meanwhile."""
    most, began = 0.0, time.monotonic()
    me = psutil.Process()
    ended = threading.Event()
    while task.state == "running":
        for child in me.children(recursive=True):
            try:
                most = max(most, child.memory_info().rss)
            except psutil.Error:
                continue
        ended.wait(0.05)
    return time.monotonic() - began, most


# -- beside it --------------------------------------------------------------------------------------------------------

_LOAD = """
import json, resource, sys, tempfile, time
began = time.monotonic()
import datasets
datasets.disable_progress_bars()
with tempfile.TemporaryDirectory() as cache:
    rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=cache)
    rows[int(sys.argv[2])]
    print(json.dumps([time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def _plain(script: str, path: Path, *arguments: str) -> tuple[float, float]:
    """Seconds and bytes of a plain script in a process of its own."""
    command = [sys.executable, "-c", script, str(path), *arguments]
    done = subprocess.run(command, env=worker_env(), capture_output=True, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return float(seconds), float(peak) * unit
