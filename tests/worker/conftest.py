"""A tiny model for every test that wants one, and folders of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.core.inputs import DatasetInput
from tests.tiny import make_tiny_llama, write_rows

# What the libraries say of each other; nothing of it is the studio's to change.
OF_OTHERS = (
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks transformers by the old name
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for warning in OF_OTHERS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer Llama. Shared: nobody may change it."""
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., DatasetInput]:
    """Rows -> the input of a dataset that holds them."""

    def make(rows: list[dict[str, Any]], name: str = "rows.jsonl", **fields: Any) -> DatasetInput:
        return DatasetInput(name, str(write_rows(tmp_path / name, rows)), **fields)

    return make
