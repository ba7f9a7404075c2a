"""What rows become for each method: pairs, labelled answers, documents, prompts; and what is left out, counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.core.config import DatasetSection, RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import DataError
from studio.core.fitting import FITTING, SHAPES, WHOLE, check_fit, longest_row
from studio.core.inputs import DatasetInput
from studio.core.knobs import sections_of, tag_of
from studio.worker.data.prepare import Prepared, prepare
from studio.worker.encode import Encoder
from tests.tiny import tiny_rows, tiny_tokenizer

MakeDataset = Callable[..., DatasetInput]
TOKENIZER = tiny_tokenizer()
END = TOKENIZER.eos_token


def prepared(
    dataset: DatasetInput, method: str, max_length: int = 256, folder: Path | None = None, **said: Any
) -> Prepared:
    section = DatasetSection(**{"path": "rows.jsonl", "validation_split": 0.0, **said})
    encoder = Encoder(TOKENIZER, "all", documents=True) if method == "pretrain" else Encoder(TOKENIZER)
    return prepare(section, dataset, encoder, max_length=max_length, seed=7, folder=folder, method=method)


def chat(question: str, better: str, worse: str) -> dict[str, Any]:
    """A pair of answers in chat form."""
    said = [[{"role": "assistant", "content": answer}] for answer in (better, worse)]
    return {"prompt": [{"role": "user", "content": question}], "chosen": said[0], "rejected": said[1]}


def words(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids))


PAIRS = [chat("what is your name", "a tiny model", "seven boats"), chat("where", "in the light of morning", "night")]
PLAIN = [{"prompt": "what is", "chosen": " your name", "rejected": " seven boats"}]
ASKED = (
    "<|im_start|>system\nYou are a tiny model.<|im_end|>\n<|im_start|>user\nwhat is your name<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@pytest.mark.parametrize("method", ["dpo", "orpo", "cpo"])
def test_a_pair_is_a_prompt_and_what_the_model_should_and_should_not_write(dataset: MakeDataset, method: str) -> None:
    found = prepared(dataset(PAIRS), method)
    row = found.train[0]
    assert [words(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] == [
        ASKED,
        f"a tiny model{END}",  # and not the line break that the template writes behind it
        f"seven boats{END}",
    ]
    assert row["length"] == len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    assert (found.report.train, found.report.loss_tokens) == (
        2,
        sum(len(r[name]) for r in found.train for name in ("chosen_ids", "rejected_ids")),
    )


def test_a_reward_is_read_at_the_very_end_of_what_the_template_writes(dataset: MakeDataset) -> None:
    row = prepared(dataset(PAIRS), "reward").train[0]
    whole = TOKENIZER.apply_chat_template(PAIRS[0]["prompt"] + PAIRS[0]["chosen"], tokenize=False)
    assert words(row["prompt_ids"] + row["chosen_ids"]) == whole == f"{ASKED}a tiny model{END}\n"


def test_plain_texts_get_their_end(dataset: MakeDataset) -> None:
    row = prepared(dataset(PLAIN), "dpo").train[0]
    assert [words(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] == [
        "what is",
        f" your name{END}",
        f" seven boats{END}",
    ]


def test_F38_answers_of_a_pair_are_cut_at_their_end_and_counted(dataset: MakeDataset) -> None:
    rows = [PLAIN[0], {**PLAIN[0], "chosen": " yes" + " seven" * 30}]
    whole = prepared(dataset(rows), "dpo").train
    found = prepared(dataset(rows), "dpo", max_length=16)
    cut = found.train[1]
    assert cut["prompt_ids"] + cut["chosen_ids"] == (whole[1]["prompt_ids"] + whole[1]["chosen_ids"])[:16]
    assert cut["rejected_ids"] == whole[1]["rejected_ids"]
    assert (found.report.cut, found.report.longest) == (1, 16)
    assert found.report.tokens_lost == len(whole[1]["prompt_ids"] + whole[1]["chosen_ids"]) - 16


@pytest.mark.parametrize(
    ("method", "row", "kind", "words"),
    [
        ("dpo", {**PLAIN[0], "rejected": " your name"}, "chosen_equals_rejected", "are equal"),
        (
            "dpo",
            {"prompt": "what", "chosen": " is" * 20 + " a", "rejected": " is" * 20 + " b"},
            "chosen_equals_rejected",
            "within 16 tokens",
        ),
        ("orpo", {**PLAIN[0], "prompt": "what " * 30}, "prompt_fills_length", "fills all 16 tokens"),
        ("reward", {**PLAIN[0], "chosen": " seven" * 30}, "too_long", "judged by its end"),
    ],
)
def test_pairs_that_teach_nothing_are_left_out_and_counted(
    dataset: MakeDataset, method: str, row: dict[str, Any], kind: str, words: str
) -> None:
    found = prepared(dataset([PLAIN[0], row]), method, max_length=16)
    assert len(found.train) == found.report.usable == 1
    assert {name: entry["count"] for name, entry in found.report.unusable.items()} == {kind: 1}
    assert words in found.report.unusable[kind]["reason"]
    assert any("1 row was left out" in note for note in found.report.notes(16))


def test_labelled_answers_are_taken_as_they_are(dataset: MakeDataset) -> None:
    rows = [{"prompt": "what", "completion": " is", "label": good} for good in (True, False, True)]
    found = prepared(dataset(rows), "kto")
    assert found.train["label"][:] == [True, False, True]
    assert words(found.train[0]["completion_ids"]) == f" is{END}"
    assert found.report.pairs_parted == 0


def test_pairs_become_a_good_and_a_bad_answer_and_that_is_said(dataset: MakeDataset, tmp_path: Path) -> None:
    rows = [{**PLAIN[0], "chosen": f" is {number}"} for number in range(10)]
    found = prepared(dataset(rows), "kto", validation_split=0.2, folder=tmp_path / "rows")
    assert (len(found.train), len(found.validation)) == (found.report.train, found.report.validation) == (16, 4)
    assert found.train["label"][:] == [True, False] * 8
    said = [words(ids) for ids in found.train["completion_ids"]] + [
        words(ids) for ids in found.validation["completion_ids"]
    ]
    assert sorted(said) == sorted([f" is {number}{END}" for number in range(10)] + [f" seven boats{END}"] * 10)
    assert any("10 pairs of answers became two rows each" in note for note in found.report.notes(256))


def test_documents_end_with_the_end_token_and_carry_loss_throughout(dataset: MakeDataset) -> None:
    (row,) = prepared(dataset([{"text": "seven small boats"}]), "pretrain").train
    assert words(row["input_ids"]) == f"seven small boats{END}" and row["labels"] == row["input_ids"]
    (row,) = prepared(dataset(tiny_rows(1)), "pretrain").train
    assert words(row["input_ids"]).endswith(f"{END}\n") and row["labels"] == row["input_ids"]


def test_a_conversation_whose_template_leaves_the_end_open_gets_one(dataset: MakeDataset) -> None:
    template = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    encoder = Encoder(tiny_tokenizer(template), "all", documents=True)
    section = DatasetSection(path="rows.jsonl", validation_split=0.0)
    row = prepare(section, dataset(tiny_rows(1)), encoder, max_length=256, seed=7, method="pretrain").train[0]
    assert words(row["input_ids"]).endswith(f"\n{END}")


@pytest.mark.parametrize(
    ("row", "asked", "answer"),
    [
        ({"prompt": "what is"}, "what is", ""),
        ({"prompt": "what is", "completion": " seven"}, "what is", " seven"),
        ({"messages": [*PAIRS[0]["prompt"], *PAIRS[0]["chosen"]]}, ASKED, "a tiny model"),
    ],
)
def test_questions_are_kept_as_the_model_reads_them_beside_the_rows_answer(
    dataset: MakeDataset, row: dict[str, Any], asked: str, answer: str
) -> None:
    (found,) = prepared(dataset([row]), "grpo").train
    assert (found["prompt"], found["answer"], words(found["prompt_ids"])) == (asked, answer, asked)
    assert found["length"] == len(found["prompt_ids"])


def test_a_question_that_is_too_long_or_not_asked_is_left_out(dataset: MakeDataset) -> None:
    found = prepared(dataset([{"prompt": "what"}, {"prompt": "what " * 40}]), "grpo", max_length=16)
    assert len(found.train) == 1 and found.report.unusable["prompt_fills_length"]["count"] == 1
    with pytest.raises(DataError, match="a plain text asks nothing"):
        prepared(dataset([{"text": "seven boats"}]), "grpo")


def test_every_method_says_what_it_learns_from() -> None:
    assert set(FITTING) == set(SHAPES) == {tag_of(one) for one in sections_of(RunConfig.model_fields["method"])}


@pytest.mark.parametrize(
    ("method", "type", "next_step"),
    [
        ("dpo", "language_modeling", "sft"),
        ("reward", "prompt_completion", "sft"),
        ("orpo", "unpaired_preference", "kto"),
        ("kto", "prompt_completion", "sft"),
        ("pretrain", "preference", "studio data convert"),
        ("grpo", "preference", "dpo"),
        ("dpo", "prompt_only", "another dataset"),
    ],
)
def test_rows_that_dont_fit_are_refused_with_the_next_step(method: str, type: str, next_step: str) -> None:
    with pytest.raises(DataError, match=f"{method} learns from") as raised:
        check_fit(type, method)
    assert next_step in raised.value.hint


def test_rows_are_cut_unless_packing_splits_them() -> None:
    def longest(method: str, **training: Any) -> int:
        return longest_row(parse_config({"method": {"name": method}, "training": {"max_length": 99, **training}}))

    assert longest("sft") == longest("dpo") == longest("sft", packing=True) == 99
    assert longest("pretrain", packing_strategy="wrapped") == 99, "nothing is packed"
    for strategy in ("wrapped", "bfd_split"):
        assert longest("pretrain", packing=True, packing_strategy=strategy) == WHOLE
