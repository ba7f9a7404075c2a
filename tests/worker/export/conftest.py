"""Bases that are made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.worker.export import parity, run
from tests.worker.export.made import make_base

Base = Callable[..., Path]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A kind's name (and a dtype) -> the folder of a tiny model that nobody may change."""
    made: dict[tuple[str, str], Path] = {}

    def find(kind: str, dtype: str = "float32") -> Path:
        if (kind, dtype) not in made:
            made[kind, dtype] = make_base(kind, tmp_path_factory.mktemp("bases") / kind, dtype)
        return made[kind, dtype]

    return find


@pytest.fixture
def short_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons in this process of two replies of four tokens: where many are made, and a logit tells as much."""
    monkeypatch.setattr(parity, "_NEW", 4)
    monkeypatch.setattr(parity, "PROMPTS", parity.PROMPTS[:2])


@pytest.fixture
def compared_here(monkeypatch: pytest.MonkeyPatch, short_replies: None) -> None:
    """The comparison after an export in this process: a fresh one takes seconds to begin."""
    monkeypatch.setattr(
        run, "compare_in_fresh_process", lambda job, request: dataclasses.asdict(parity.compare(request))
    )
