"""The best of several answers: judged as plain transformers would, and made into preference data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from studio.core.config import DatasetSection
from studio.core.errors import DataError, ModelError
from studio.core.example import Example
from studio.core.inputs import DatasetInput, ExtraModel, ModelInput
from studio.worker.bestof import BestOf
from studio.worker.chat import ChatModel
from tests.commands import runner
from tests.tiny import make_tiny_llama, tiny_rows, tiny_tokenizer, write_rows

ASKED = [{"role": "user", "content": "tell me about the water"}]
DRAWN = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6, "seed": 5}


@pytest.fixture(scope="module")
def judge(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1, dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def best(tiny_model: Path) -> BestOf:
    chat = ChatModel()
    base = asdict(ModelInput("folder", "base", str(tiny_model)))
    chat.load({"base": base, "model": {"dtype": "float32"}, "tuned": None}, lambda part: None)
    return BestOf(chat)


def reward(judge: Path) -> dict[str, Any]:
    return asdict(ExtraModel(ModelInput("folder", "judge", str(judge))))


def test_answers_come_with_their_scores_the_best_first(best: BestOf, judge: Path, tiny_model: Path) -> None:
    request = {"conversation": ASKED, "reward": reward(judge), "samples": 5, **DRAWN}
    found = best.answer(request, lambda part: None)["answers"]
    assert len(found) == 5 and len({one["text"] for one in found}) > 1
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert best.answer(request, lambda part: None)["answers"] == found, "the same seed, the same answers"

    drawn = best.chat.sample([Example(prompt=tuple(ASKED))] * 5, request)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    plain = AutoModelForSequenceClassification.from_pretrained(judge, dtype=torch.float32).eval()
    expected = []
    for prompt, answer in drawn:
        ended = answer[-1] == tokenizer.eos_token_id
        assert len(answer) <= 6 and tokenizer.eos_token_id not in answer[:-1]
        ids = [*prompt, *answer, *(tokenizer("\n")["input_ids"] if ended else [])]
        with torch.no_grad():
            expected.append(float(plain(input_ids=torch.tensor([ids])).logits[0, 0]))
    assert [one["score"] for one in found] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)


def test_a_greedy_sample_is_what_the_chat_says(best: BestOf) -> None:
    (_, answer), *_ = best.chat.sample([Example(prompt=tuple(ASKED))], {**DRAWN, "temperature": 0})
    parts: list[dict[str, Any]] = []
    best.chat.generate({"conversations": {"base": ASKED}, **DRAWN, "temperature": 0}, parts.append)
    said = "".join(part["text"] for part in parts)
    assert best.chat.tokenizer.decode(answer, skip_special_tokens=True) == said


def test_a_judge_of_other_tokens_is_refused(best: BestOf, tmp_path: Path) -> None:
    other = make_tiny_llama(tmp_path / "other", tokenizer=tiny_tokenizer(size=380))
    with pytest.raises(ModelError, match="other tokens"):
        best.load(reward(other), lambda part: None)


def test_preference_data_is_made_by_the_command(
    judge: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [*tiny_rows(6), {"messages": []}])
    out = tmp_path / "pairs"
    studio = runner(monkeypatch, capfd, "data", "prefer", str(rows), "--json", "--max-new-tokens", "6")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    said = studio("--model", tiny_model, "--reward-model", judge, "--samples", 4, "--out", out)
    assert said.code == 0, said.err
    told = said.json
    pairs = [json.loads(line) for line in (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert told["rows"] == len(pairs) and told["read"] == 7 and told["unusable"] == 1
    assert told["rows"] + told["alike"] == 6 and pairs
    asked = [[m for m in row["messages"] if m["role"] != "assistant"] for row in tiny_rows(6)]
    for pair in pairs:
        assert pair["prompt"] in asked
        assert pair["score_chosen"] > pair["score_rejected"]
        assert pair["chosen"][0]["role"] == pair["rejected"][0]["role"] == "assistant"
        assert pair["chosen"][0]["content"] != pair["rejected"][0]["content"]
    checked = runner(monkeypatch, capfd, "data", "check")(out, "--model", "none", "--json").json
    assert (checked["format"], checked["usable"]) == ("preference", len(pairs))
    again = studio("--model", tiny_model, "--reward-model", judge, "--out", out)
    assert again.code == 1 and "isn't empty" in again.err


def test_nothing_is_left_where_no_pair_is_found(best: BestOf, judge: Path, tmp_path: Path) -> None:
    """Answers of one token that is drawn with certainty are all the same one."""
    rows = write_rows(tmp_path / "rows.jsonl", tiny_rows(2))
    request = {
        "dataset": asdict(DatasetInput("rows", str(rows))),
        "section": DatasetSection().model_dump(mode="json"),
        "reward": reward(judge),
        "samples": 3,
        "out": str(tmp_path / "out"),
        **DRAWN,
        "temperature": 0,
    }
    with pytest.raises(DataError, match="different worth"):
        best.prefer(request, lambda part: None)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
