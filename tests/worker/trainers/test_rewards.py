"""Each reward by itself, against answers whose worth is plain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.core.errors import ConfigError
from studio.worker.trainers.rewards import (
    contains,
    exact_match,
    file_reward,
    format_reward,
    is_json,
    length_reward,
    reward_functions,
)


def nobody(name: str) -> Any:
    raise AssertionError(name)


def test_format_asks_for_the_whole_answer_and_gives_up_on_runaway_expressions() -> None:
    judge = format_reward(r"<think>.*</think>.+")
    assert judge(completions=["<think>a\nb</think> yes", " <think></think>x ", "<think>a</think>", "no"]) == [
        1,
        1,
        0,
        0,
    ]
    assert format_reward(r"(a+)+$")(completions=["a" * 5000 + "b"]) == [0]


@pytest.mark.parametrize(
    ("text", "wanted", "worth"),
    [
        ("42", "42", 1),
        ("  Paris ", "paris", 1),
        ("1,000.0", "1000", 1),
        ("so it is \\boxed{7}", "7", 1),
        ("steps\n#### 12", "It's\n#### 12", 1),
        ("Let me see.\nAnswer: $3.50", "3.5", 1),
        ("41", "42", 0),
        ("Paris, France", "Paris", 0),
        ("", "", 1),
    ],
)
def test_exact_match_compares_what_an_answer_comes_to(text: str, wanted: str, worth: float) -> None:
    assert exact_match(completions=[text], answer=[wanted]) == [worth]


def test_contains_length_and_json() -> None:
    assert contains(completions=["It is  PARIS.", "It is Rome."], answer=["is paris", "paris"]) == [1, 0]
    assert length_reward(10)(completion_ids=[[0] * 10, [0] * 5, [], [0] * 20, [0] * 90]) == [1, 0.5, 0, 0, 0]
    texts = ['{"a": 1}', "```json\n[1]\n```", "7", "{a: 1}", "[" * 100_000]
    assert is_json(completions=texts) == [1, 1, 0, 0, 0]


def test_a_file_s_function_judges_and_its_faults_are_told_in_a_sentence(tmp_path: Path) -> None:
    def written(text: str) -> Path:
        path = tmp_path / "reward-0.py"
        path.write_text(text, encoding="utf-8")
        return path

    asked = {"completions": ["ab", "c"], "prompts": ["p", "q"], "answer": ["x", "y"]}
    good = file_reward(written("def reward(completions, prompts, answers):\n    return [len(c) for c in completions]"))
    assert good(**asked) == [2, 1]
    for text, words in (
        ("x = 1", "no function"),
        ("raise ValueError('no')", "can't be loaded"),
    ):
        with pytest.raises(ConfigError, match=words):
            file_reward(written(text))
    for text, words in (
        ("def reward(*a): return [1]", "1 numbers for 2"),
        ("def reward(*a): raise KeyError('x')", "failed"),
    ):
        with pytest.raises(ConfigError, match=words):
            file_reward(written(text))(**asked)


def test_every_reward_has_a_curve_of_its_own(tmp_path: Path) -> None:
    found = reward_functions(["json", "length:3", "length:9", "json", "contains"], tmp_path, nobody)
    assert [one.__name__ for one in found] == ["json_0", "length_1", "length_2", "json_3", "contains"]
