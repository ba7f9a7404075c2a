"""LLaMA-Factory's dataset_info.json: what each of its keys means here, and what can't be taken over is told.

The entries are those that its data/README.md shows for each kind of dataset.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.conversation import TAGS
from studio.core.datasetinfo import Entry, read_dataset_info
from studio.core.formats import FORMATS, Layout, to_example
from tests.core.any_example import openai, said, sharegpt, turns

OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
               "system_tag": "system"}  # fmt: skip
ALPACA_PAIR = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}


def entry(**info: Any) -> Entry:
    (only,) = read_dataset_info({"mine": {"file_name": "data.json", **info}})
    assert only.name == "mine"
    return only


def layout(entry: Entry) -> Layout:
    assert entry.problem == ""
    return Layout(FORMATS[entry.format], entry.columns, entry.tags)


ENTRIES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({}, "alpaca", {"instruction": "Hi", "input": "", "output": "Ho"}),
    ({"columns": {"prompt": "q", "response": "a"}}, "alpaca", {"q": "Hi", "a": "Ho"}),
    ({"columns": {"prompt": "text"}}, "text", {"text": "Once"}),
    ({"ranking": True, "columns": ALPACA_PAIR}, "alpaca_preference",
     {"instruction": "Hi", "chosen": "Ho", "rejected": "No"}),
    ({"columns": {"prompt": "instruction", "response": "output", "kto_tag": "good"}}, "alpaca_unpaired",
     {"instruction": "Hi", "output": "Ho", "good": True}),
    ({"formatting": "sharegpt"}, "sharegpt", sharegpt(("human", "Hi"), ("gpt", "Ho"))),
    ({"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS}, "sharegpt",
     {"messages": openai(("user", "Hi"), ("assistant", "Ho"))}),
    ({"formatting": "sharegpt", "ranking": True,
      "columns": {"messages": "conversations", "chosen": "good", "rejected": "bad"}}, "sharegpt_preference",
     sharegpt(("human", "Hi"), good={"from": "gpt", "value": "Ho"}, bad={"from": "gpt", "value": "No"})),
    ({"formatting": "sharegpt", "columns": {"messages": "conversations", "kto_tag": "label"}}, "sharegpt_unpaired",
     sharegpt(("human", "Hi"), ("gpt", "Ho"), label=True)),
    ({"formatting": "openai", "columns": {"messages": "messages"}}, "messages",
     {"messages": openai(("user", "Hi"), ("assistant", "Ho"))}),
    ({"formatting": "openai", "ranking": True,
      "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}}, "sharegpt_preference",
     {"messages": openai(("user", "Hi")), "chosen": openai(("assistant", "Ho"))[0],
      "rejected": openai(("assistant", "No"))[0]}),
]  # fmt: skip


@pytest.mark.parametrize(("info", "format", "row"), ENTRIES)
def test_an_entry_is_a_layout_that_reads_its_rows(info: dict[str, Any], format: str, row: dict[str, Any]) -> None:
    found = entry(**info)
    assert found.format == format
    example = to_example(row, layout(found))
    if format == "text":
        assert example.text == "Once"
    elif example.messages:
        assert example.messages == turns("Hi", "Ho")
    else:
        assert example.prompt == turns("Hi")
        assert example.chosen == said("Ho") if "preference" in format else example.completion == said("Ho")


def test_columns_that_are_not_named_are_not_read() -> None:
    """LLaMA-Factory reads a system prompt, a history or tools only where they are named; the input by default."""
    row = {"instruction": "Hi", "input": "there", "output": "Ho", "system": "S", "history": [["a", "b"]]}
    assert to_example(row, layout(entry())).messages == turns("Hi\nthere", "Ho")
    named = {"prompt": "instruction", "response": "output"}
    assert to_example(row, layout(entry(columns=named))).messages == turns("Hi", "Ho")
    named |= {"system": "system", "history": "history"}
    assert to_example(row, layout(entry(columns=named))).messages == turns("system:S", "a", "b", "Hi", "Ho")
    named |= {"system": None}  # type: ignore[dict-item]
    assert to_example(row, layout(entry(columns=named))).messages == turns("a", "b", "Hi", "Ho")
    talk = sharegpt(("human", "Hi"), ("gpt", "Ho"), system="S")
    assert to_example(talk, layout(entry(formatting="sharegpt"))).messages == turns("Hi", "Ho")


def test_where_the_rows_are_and_how_many_is_kept() -> None:
    found = read_dataset_info(
        {
            "here": {"file_name": "data.json", "num_samples": 100},
            "there": {
                "hf_hub_url": "some/data",
                "file_name": "ignored.json",
                "script_url": "ignored",
                "ms_hub_url": "ignored/too",
                "subset": "en",
                "split": "train[:10]",
                "folder": "sub",
                "revision": "v1",
            },
        }
    )
    here, there = found
    assert (here.file_name, here.hf_hub_url, here.num_samples, here.split) == ("data.json", None, 100, "train")
    assert (there.file_name, there.hf_hub_url, there.num_samples) == (None, "some/data", None)
    assert (there.subset, there.split, there.folder, there.revision) == ("en", "train[:10]", "sub", "v1")
    assert (here.problem, there.problem) == ("", "")


def test_tags_are_for_conversations_only() -> None:
    assert entry(tags=OPENAI_TAGS).tags == {}
    assert entry(formatting="sharegpt", tags=OPENAI_TAGS).tags == OPENAI_TAGS


def test_a_checksum_changes_nothing() -> None:
    assert entry(file_sha1="0" * 40) == entry()


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ("data.json", "its entry is text instead of an object"),
        ({}, "names neither a file_name nor a hf_hub_url"),
        ({"file_name": ""}, "names neither a file_name nor a hf_hub_url"),
        ({"file_name": 7}, "its file_name is 7 instead of text"),
        ({"script_url": "loader", "file_name": "a.json"}, "loaded by a script"),
        ({"cloud_file_name": "s3://b/a.json", "file_name": "a.json"}, "lies in a cloud storage"),
        ({"ms_hub_url": "some/data"}, "lies on the ModelScope hub"),
        ({"om_hub_url": "some/data"}, "lies on the Modelers hub"),
        ({"file_name": "a.json", "shuffle": True}, "its key 'shuffle' is unknown"),
        ({"file_name": "a.json", "formatting": "chatml"}, "its formatting is 'chatml' instead of"),
        ({"file_name": "a.json", "formatting": ["alpaca"]}, "its formatting is a list instead of"),
        ({"file_name": "a.json", "ranking": "yes"}, "its ranking is 'yes' instead of true or false"),
        ({"file_name": "a.json", "num_samples": "9"}, "its num_samples is '9' instead of a number"),
        ({"file_name": "a.json", "num_samples": 0}, "its num_samples is 0 instead of a number"),
        ({"file_name": "a.json", "num_samples": True}, "its num_samples is True instead of a number"),
        ({"file_name": "a.json", "split": 3}, "its split is 3 instead of text"),
        ({"file_name": "a.json", "columns": ["prompt"]}, "its columns are a list instead of an object"),
        ({"file_name": "a.json", "columns": {"prmpt": "q"}}, "its columns have the unknown key 'prmpt'"),
        ({"file_name": "a.json", "columns": {"prompt": 1}}, "its columns have no name for prompt"),
        ({"file_name": "a.json", "columns": {"prompt": "q", "images": "i"}}, "its rows have images"),
        ({"file_name": "a.json", "columns": {"response": "a"}}, "its columns name no prompt"),
        ({"file_name": "a.json", "columns": {"prompt": "q", "query": "i"}}, "name a prompt, but no response"),
        ({"file_name": "a.json", "ranking": True}, "don't name chosen and rejected"),
        ({"file_name": "a.json", "ranking": True, "columns": {**ALPACA_PAIR, "kto_tag": "k"}}, "exclude each other"),
        ({"file_name": "a.json", "formatting": "sharegpt", "columns": {"tools": "t"}}, "name no messages"),
        ({"file_name": "a.json", "formatting": "sharegpt", "tags": {"bot_tag": "gpt"}}, "the unknown key 'bot_tag'"),
    ],
)
def test_what_cannot_be_taken_over_is_told(info: Any, problem: str) -> None:
    good, bad = read_dataset_info({"good": {"file_name": "a.json"}, "bad": info})
    assert (good.problem, bad.name) == ("", "bad")
    assert problem in bad.problem
    assert bad.problem.endswith(".")


@pytest.mark.parametrize("content", [None, [], "x", 3, {}])
def test_no_entries_are_none(content: Any) -> None:
    assert read_dataset_info(content) == []


JSON = st.recursive(st.none() | st.booleans() | st.integers(), lambda inner: st.lists(inner, max_size=2), max_leaves=3)
COLUMNS = st.sampled_from(["prompt", "query", "response", "messages", "chosen", "rejected", "kto_tag", "system"])
LIKELY = st.fixed_dictionaries(
    {"file_name": st.just("a.json"), "columns": st.dictionaries(COLUMNS, st.text(max_size=2), min_size=2)},
    optional={
        "formatting": st.sampled_from(["sharegpt", "openai", "alpaca"]),
        "ranking": st.booleans(),
        "tags": st.dictionaries(st.sampled_from(TAGS), st.text(max_size=2)),
        "hf_hub_url": st.text(max_size=2),
    },
)
KEYS = st.sampled_from(
    ["file_name", "hf_hub_url", "formatting", "ranking", "split", "num_samples", "columns", "tags", "else"]
)
ENTRY = LIKELY | st.dictionaries(KEYS, JSON | st.text(max_size=2)) | JSON


@given(st.dictionaries(st.text(max_size=3), ENTRY, max_size=4))
def test_no_content_raises_and_every_entry_is_usable_or_told(content: dict[str, Any]) -> None:
    found = read_dataset_info(content)
    assert [entry.name for entry in found] == list(content)
    for entry in found:
        if entry.problem:
            continue
        assert (entry.file_name is None) != (entry.hf_hub_url is None)
        format = FORMATS[entry.format]
        assert set(entry.columns) <= {*format.needs, *format.reads}
        assert all(entry.columns.get(name, name) for name in format.needs)
        assert set(entry.tags) <= set(TAGS)
