"""Figures agree with what is counted by hand, under the very encoder that training uses."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.core.config import DatasetSection, RunConfig, TrainingSection
from studio.core.formats import FORMATS, Layout, to_example
from studio.core.inputs import DatasetInput
from studio.core.schedule import optimizer_steps
from studio.worker.data import stats as module
from studio.worker.data.findings import find
from studio.worker.data.source import Cancelled, Source, open_source
from studio.worker.data.stats import stats, stats_op
from studio.worker.encode import Encoder
from tests.tiny import make_tiny_llama, tiny_rows, tiny_tokenizer, write_rows


def source_of(folder: Path, rows: list[dict[str, Any]]) -> Source:
    return open_source(DatasetInput("made", str(write_rows(folder / "rows.jsonl", rows))))


def encoded(rows: list[dict[str, Any]], format: str, train_on: str = "assistant") -> list[Any]:
    encoder = Encoder(tiny_tokenizer(), train_on)
    return [encoder.encode(to_example(row, Layout(FORMATS[format]))) for row in rows]


def test_lengths_in_characters_are_those_of_the_strings(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * n, "completion": "y" * (2 * n)} for n in range(1, 101)]
    told = stats(source_of(tmp_path, rows), DatasetSection())
    assert (told["rows"], told["usable"], told["counted"], told["left_out"]) == (100, 100, 100, {})
    assert (told["format"], told["type"]) == ("prompt_completion", "prompt_completion")
    assert told["tokens"] is None
    prompt, answer, whole = (told["characters"][name] for name in ("prompt", "answer", "whole"))
    assert (prompt["p50"], prompt["p90"], prompt["max"], prompt["mean"]) == (50, 90, 100, 50.5)
    assert (answer["p50"], answer["p99"], whole["max"]) == (100, 198, 300)
    assert sum(prompt["histogram"]["counts"]) == 100
    json.dumps(told)


@pytest.mark.parametrize("train_on", ["assistant", "last_assistant", "all"])
def test_lengths_in_tokens_are_those_of_the_encoder(tmp_path: Path, train_on: Any) -> None:
    rows = tiny_rows(120, turns=2, longest=20)
    section = DatasetSection(train_on=train_on)
    told = stats(source_of(tmp_path, rows), section, tokenizer=tiny_tokenizer(), max_length=100)["tokens"]
    trained, by_answer = encoded(rows, "messages", train_on), encoded(rows, "messages")
    lengths = np.array([len(row.ids) for row in trained])
    answers = np.array([sum(row.loss) for row in by_answer])
    for name, expected in (("whole", lengths), ("answer", answers), ("prompt", lengths - answers)):
        assert told["parts"][name]["p90"] == np.quantile(expected, 0.9, method="inverted_cdf")
        assert told["parts"][name]["max"] == expected.max()
    assert told["total"] == lengths.sum()
    assert told["loss"] == sum(sum(row.loss) for row in trained)
    assert told["loss_share"] == pytest.approx(told["loss"] / told["total"], abs=1e-6)
    at_100 = next(cut for cut in told["cuts"] if cut["max_length"] == 100)
    assert at_100["rows_cut"] == (lengths > 100).sum() > 0
    assert at_100["tokens_lost"] == np.maximum(lengths - 100, 0).sum()
    at_64 = next(cut for cut in told["cuts"] if cut["max_length"] == 64)
    assert at_64["rows_without_loss"] == sum(not any(row.loss[1:64]) for row in trained)


def test_a_preference_row_is_two_sequences(tmp_path: Path) -> None:
    rows = [{"prompt": "a b", "chosen": "fox " * n, "rejected": "dog " * (40 - n)} for n in range(1, 40)]
    tokenizer = tiny_tokenizer()
    told = stats(source_of(tmp_path, rows), DatasetSection(), tokenizer=tokenizer, max_length=64)
    encoder = Encoder(tokenizer, "assistant")
    pairs = [encoder.encode_pair(to_example(row, Layout(FORMATS["preference"]))) for row in rows]
    assert told["type"] == "preference"
    assert told["tokens"]["total"] == sum(len(one.ids) for pair in pairs for one in pair)
    assert told["tokens"]["parts"]["rejected"]["max"] == max(sum(pair[1].loss) for pair in pairs)
    assert told["tokens"]["parts"]["whole"]["max"] == max(len(one.ids) for pair in pairs for one in pair)
    assert told["characters"]["rejected"]["max"] == 4 * 39


def test_turns_roles_labels_and_openings_are_counted(tmp_path: Path) -> None:
    rows = tiny_rows(40, turns=1) + tiny_rows(10, turns=3)
    told = stats(source_of(tmp_path, rows), DatasetSection())
    assert told["turns"] == {"2": 40, "6": 10}
    roles = Counter(message["role"] for row in rows for message in row["messages"])
    assert told["roles"] == dict(roles)
    assert told["labels"] is None
    firsts = Counter(
        " ".join(message["content"].split()[:3])
        for row in rows
        for message in row["messages"]
        if message["role"] == "assistant"
    )
    top = told["openings"][0]
    assert top["count"] == firsts[top["words"]] == max(firsts.values())
    assert top["share"] == pytest.approx(top["count"] / firsts.total(), abs=1e-6) and top["exact"]
    assert len(told["openings"]) == 20

    rated = [{"prompt": "a", "completion": "b", "label": n % 4 == 0} for n in range(40)]
    assert stats(source_of(tmp_path / "kto", rated), DatasetSection())["labels"] == {"true": 10, "false": 30}


def test_a_frequent_opening_is_found_among_more_than_can_be_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 50)
    rows = [{"text": f"number {n} is" if n % 3 else "Of course I can"} for n in range(600)]
    top = stats(source_of(tmp_path, rows), DatasetSection())["openings"][0]
    assert (top["words"], top["count"], top["exact"]) == ("Of course I", 200, False)


def test_an_opening_in_a_script_without_spaces_is_its_first_letters(tmp_path: Path) -> None:
    rows = [{"text": "今天天气很好我们去公园散步吧"}] * 3
    assert stats(source_of(tmp_path, rows), DatasetSection())["openings"][0]["words"] == "今天天气很好我们"


def test_languages_and_scripts_are_told_from_a_fair_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        "Where can I find a good restaurant in this town tonight?",
        "Wo finde ich heute Abend ein gutes Restaurant in dieser Stadt?",
        "Где сегодня вечером можно найти хороший ресторан в этом городе?",
    ]
    rows = [{"text": said[0 if n < 300 else 1 if n < 500 else 2]} for n in range(600)]
    told = stats(source_of(tmp_path, rows), DatasetSection())
    assert {entry["name"]: entry["count"] for entry in told["languages"]} == {"en": 300, "de": 200, "ru": 100}
    assert {entry["name"] for entry in told["scripts"]} == {"Latin", "Cyrillic"}
    monkeypatch.setattr(module, "_SAMPLED", 200)
    told = stats(source_of(tmp_path, rows), DatasetSection())
    assert told["languages_told_from"] == 200
    shares = {entry["name"]: entry["share"] for entry in told["languages"]}
    # Five standard deviations of a share drawn from 200.
    assert shares["en"] == pytest.approx(1 / 2, abs=0.18) and shares["ru"] == pytest.approx(1 / 6, abs=0.14)


def test_whatever_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(20)]
    rows[3] = {"prompt": "q", "completion": None}
    rows[4] = {"prompt": "q", "completion": "  "}
    rows[9] = rows[8]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    path.write_bytes(path.read_bytes() + b'{"prompt": "torn\n')
    source = open_source(DatasetInput("made", str(path)))
    section = DatasetSection(exclude=["duplicate"], exclude_rows=[0])
    told = stats(source, section, found=find(source, section, ["duplicate"]))
    assert told["left_out"] == {"null": 1, "empty_answer": 1, "unreadable": 1, "duplicate": 1, "exclude_rows": 1}
    assert (told["rows"], told["usable"], told["counted"]) == (21, 18, 16)
    assert stats(source, DatasetSection(max_samples=3))["rows"] == 3


def test_rows_that_the_template_refuses_are_counted(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    rows = tiny_rows(10)
    told = stats(source_of(tmp_path, rows), DatasetSection(), tokenizer=tiny_tokenizer(template), max_length=64)
    assert told["left_out"] == {"template": sum(row["messages"][0]["role"] == "system" for row in rows)}
    assert told["counted"] == told["tokens"]["parts"]["whole"]["count"]


@pytest.mark.parametrize("packing", [False, True])
def test_an_epoch_is_as_long_as_the_schedule_says(tmp_path: Path, packing: bool) -> None:
    rows = tiny_rows(200)
    section = DatasetSection(validation_split=0.1)
    training = TrainingSection(num_train_epochs=2, packing=packing, max_length=128)
    tokenizer = tiny_tokenizer()
    told = stats(source_of(tmp_path, rows), section, tokenizer=tokenizer, max_length=128, training=training)
    epoch, lengths = told["epoch"], [min(len(row.ids), 128) for row in encoded(rows, "messages")]
    assert epoch["train_rows"] == 180
    assert epoch["tokens"] == pytest.approx(0.9 * sum(lengths), abs=1)
    computed = math.ceil(epoch["tokens"] / 128) if packing else 180
    assert epoch["run_steps"] == optimizer_steps(RunConfig(training=training), computed)
    assert epoch["steps"] == math.ceil(computed / 16)


def test_validation_rows_of_their_own_leave_all_rows_to_train_on(tmp_path: Path) -> None:
    told = stats(source_of(tmp_path, tiny_rows(50)), DatasetSection(validation_path="other.jsonl"))
    assert told["epoch"]["train_rows"] == 50 and not told["epoch"]["estimated"]


def test_of_no_rows_there_are_figures_too(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": ""}] * 3
    told = stats(source_of(tmp_path, rows), DatasetSection(), tokenizer=tiny_tokenizer(), max_length=64)
    assert (told["rows"], told["counted"], told["epoch"]["steps"]) == (3, 0, 0)
    assert told["tokens"]["suggested"] is None
    json.dumps(told)


def test_the_pass_tells_how_far_it_is_and_stops_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORD_EVERY", 10)
    source = source_of(tmp_path, tiny_rows(50))
    heard: list[int | None] = []
    stats(source, DatasetSection(), progress=lambda text, done, total: heard.append(done))
    assert heard[:5] == [10, 20, 30, 40, 50]
    with pytest.raises(Cancelled):
        stats(source, DatasetSection(), progress=lambda *_: None, stopped=lambda: True)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """Four times as many rows take no more memory than what the sample and the counters may hold."""
    import tracemalloc

    def peak(count: int) -> int:
        path = write_rows(tmp_path / f"{count}.jsonl", [{"text": f"number {n} {'word ' * 1500}"} for n in range(count)])
        source = open_source(DatasetInput("made", str(path)))
        tracemalloc.start()
        stats(source, DatasetSection())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    from unittest import mock

    with mock.patch.object(module, "_SAMPLED", 100), mock.patch.object(module, "_REMEMBERED", 100):
        peak(50)  # whatever is loaded once is loaded
        # The rows themselves are 11 MB more; a file is read in blocks of up to 4 MB.
        assert peak(2000) < peak(500) + 4_500_000


def test_the_op_loads_the_models_tokenizer(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", tiny_rows(30))
    folder = make_tiny_llama(tmp_path / "model")
    heard: list[dict[str, Any]] = []
    request = {
        "dataset": {"name": "made", "path": str(path)},
        "section": {"exclude": ["too_long"]},
        "model": {"kind": "folder", "name": "tiny", "path": str(folder)},
        "max_length": 40,
        "training": {"max_length": 40, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1},
    }
    told = stats_op(request, heard.append)
    rows = encoded(tiny_rows(30), "messages")
    # A row that is cut before its answer is another kind of problem, which longer cuts would mend.
    gone = [len(row.ids) > 40 and any(row.loss[1:40]) for row in rows]
    assert told["left_out"] == {"too_long": sum(gone)} and any(gone)
    assert told["tokens"]["total"] == sum(len(row.ids) for row, out in zip(rows, gone, strict=True) if not out)
    assert heard and set(heard[0]) == {"text", "done", "total"}
    assert stats_op({**request, "model": None, "section": {}}, heard.append)["tokens"] is None
