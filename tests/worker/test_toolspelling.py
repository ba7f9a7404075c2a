"""Arguments as text: what JSON reads back is what was there."""

from __future__ import annotations

import json

from studio.worker.toolspelling import as_text
from tests.written import CALL, TURNS, USES_TOOL


def test_arguments_become_json_text_and_nothing_else_changes() -> None:
    spelled = as_text(USES_TOOL)
    assert spelled is not None
    function = spelled[1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == CALL["tool_calls"][0]["function"]["arguments"]
    assert [spelled[i] for i in (0, 2, 3)] == [USES_TOOL[i] for i in (0, 2, 3)]
    assert isinstance(CALL["tool_calls"][0]["function"]["arguments"], dict)  # the row is as before


def test_where_there_is_nothing_to_spell_there_is_none() -> None:
    assert as_text(TURNS) is None
    spelled = as_text(USES_TOOL)
    assert spelled is not None
    assert as_text(spelled) is None
