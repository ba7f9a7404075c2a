"""The estimate on a processor against real runs of the tiny model; `python -m bench cpu_memory` has larger ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.cpu_memory import Case, config_of, measured, predicted, write_rows
from tests.tiny import make_tiny_llama

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the heap is glibc's")


@pytest.mark.parametrize(
    "case", [Case("tiny", "lora", 2, 64, {}), Case("tiny", "full", 16, 512, {})], ids=lambda case: case.how
)
def test_a_runs_resident_set_is_what_was_estimated(case: Case, tmp_path: Path, studio_home: Path) -> None:
    folder = make_tiny_llama(tmp_path / "tiny")
    config = config_of(case, str(folder), write_rows(tmp_path, case), steps=2)
    assert predicted(config, folder) == pytest.approx(measured(config), rel=0.25)
