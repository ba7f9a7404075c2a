"""inputs.json: what a run's names meant, kept as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.inputs import DatasetInput, Inputs, ModelInput

TEXT = st.text(max_size=20)
MODELS = st.builds(ModelInput, st.sampled_from(["starter", "folder", "hub"]), TEXT, st.none() | TEXT, st.none() | TEXT)
DATASETS = st.builds(
    DatasetInput, TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=3), st.none() | TEXT, st.none() | TEXT
)


@given(st.builds(Inputs, TEXT, MODELS, DATASETS))
def test_inputs_come_back_as_they_were(inputs: Inputs) -> None:
    assert Inputs.from_dict(json.loads(inputs.to_json())) == inputs


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"label": "a", "model": {}, "dataset": {}}'])
def test_F57_a_damaged_file_raises_what_it_says(tmp_path: Path, content: str) -> None:
    path = tmp_path / "inputs.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        Inputs.read(path)
