"""LLaMA-Factory's dataset_info.json: which datasets it names, and how their rows are laid out.

In: its content as a dict. Out: one Entry a dataset, in this studio's terms. What can't be taken over (a loading
script, pictures, unknown keys) is told in `Entry.problem`, never guessed. Meanings and defaults are those that
LLaMA-Factory's data/README.md documents. Knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.core.cells import shown, type_name
from studio.core.conversation import TAGS

SOURCES = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "file_name")
_TEXTS = ("subset", "split", "revision", "folder")
_KNOWN = {*SOURCES, *_TEXTS, "formatting", "ranking", "num_samples", "columns", "tags", "file_sha1"}
_MEDIA = ("images", "videos", "audios")
_USUAL = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_COLUMNS = (*_USUAL, "history", "system", "tools", "chosen", "rejected", "kto_tag", *_MEDIA)
_ELSEWHERE = {
    "ms_hub_url": "it lies on the ModelScope hub",
    "om_hub_url": "it lies on the Modelers hub",
    "script_url": "it is loaded by a script, and scripts from datasets are never run",
    "cloud_file_name": "it lies in a cloud storage",
}


@dataclass(frozen=True)
class Entry:
    """A dataset that dataset_info.json names.

    `columns` maps what `format` (one of FORMATS) expects to the dataset's own names; "" is a column that LLaMA-Factory
    would not read, and so isn't read here. `num_samples` rows are taken. `problem` says why it can't be used, "" where
    it can.
    """

    name: str
    file_name: str | None = None
    hf_hub_url: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    folder: str | None = None
    num_samples: int | None = None
    formatting: str = "alpaca"
    ranking: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    format: str = "auto"
    problem: str = ""


class _Unusable(Exception):
    """Why an entry can't be used."""


def read_dataset_info(content: Any) -> list[Entry]:
    """Every entry, good or not, in the file's order; [] where the content is no object."""
    if not isinstance(content, Mapping):
        return []
    return [_entry(str(name), info) for name, info in content.items()]


def _entry(name: str, info: Any) -> Entry:
    try:
        return _read(name, info)
    except _Unusable as why:
        return Entry(name, problem=f"{why}.")


def _read(name: str, info: Any) -> Entry:
    if not isinstance(info, Mapping):
        raise _Unusable(f"its entry is {type_name(info)} instead of an object")
    if unknown := sorted(map(str, set(info) - _KNOWN)):
        raise _Unusable(f"its key {shown(unknown[0])} is unknown")
    source = next((key for key in SOURCES if info.get(key)), None)
    if source is None:
        raise _Unusable("it names neither a file_name nor a hf_hub_url")
    if source in _ELSEWHERE:
        raise _Unusable(_ELSEWHERE[source])
    place = {source: _text(info, source)}
    texts = {key: _text(info, key) for key in _TEXTS if info.get(key) is not None}
    formatting, ranking, samples = info.get("formatting", "alpaca"), info.get("ranking", False), info.get("num_samples")
    if not isinstance(ranking, bool):
        raise _Unusable(f"its ranking is {shown(ranking)} instead of true or false")
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise _Unusable(f"its num_samples is {shown(samples)} instead of a number of rows")
    yours = _columns(info)
    tags = _named(info, "tags", TAGS)
    if formatting == "alpaca":
        format, columns = _alpaca(yours, ranking)
        tags = {}  # read for conversations only
    elif formatting in ("sharegpt", "openai"):
        format, columns = _conversations(yours, ranking, formatting)
        tags = _openai_tags(tags, format) if formatting == "openai" else tags
    else:
        raise _Unusable(f"its formatting is {shown(formatting)} instead of alpaca, sharegpt or openai")
    return Entry(
        name,
        **place,
        **texts,
        num_samples=samples,
        formatting=formatting,
        ranking=ranking,
        columns={expected: own for expected, own in columns.items() if own != expected},
        tags=tags,
        format=format,
    )


def _text(info: Mapping[str, Any], key: str) -> str:
    if not isinstance(info[key], str):
        raise _Unusable(f"its {key} is {shown(info[key])} instead of text")
    return str(info[key])


def _named(info: Mapping[str, Any], key: str, known: tuple[str, ...]) -> dict[str, str]:
    """The names under `columns` or `tags`; null is as good as not named."""
    names = info.get(key) or {}
    if not isinstance(names, Mapping):
        raise _Unusable(f"its {key} are {type_name(names)} instead of an object")
    if unknown := sorted(map(str, set(names) - set(known))):
        raise _Unusable(f"its {key} have the unknown key {shown(unknown[0])}")
    if wrong := [name for name, yours in names.items() if not isinstance(yours, (str, type(None)))]:
        raise _Unusable(f"its {key} have no name for {wrong[0]}")
    return {name: yours for name, yours in names.items() if yours}


def _columns(info: Mapping[str, Any]) -> dict[str, str]:
    """LLaMA-Factory's column -> the dataset's. Where any is named, one that isn't is not read; else the usual ones."""
    named = _named(info, "columns", _COLUMNS)
    if media := [name for name in _MEDIA if name in named]:
        raise _Unusable(f"its rows have {media[0]}, and only text is taught")
    return named or dict(_USUAL)


def _judging(yours: Mapping[str, str], ranking: bool) -> str:
    """Which family of layouts is meant: of pairs, of labels, or neither."""
    if ranking and "kto_tag" in yours:
        raise _Unusable("it is a ranking and names a kto_tag: pairs and labels exclude each other")
    if ranking and not {"chosen", "rejected"} <= set(yours):
        raise _Unusable("it is a ranking, but its columns don't name chosen and rejected")
    return "preference" if ranking else "unpaired" if "kto_tag" in yours else ""


def _alpaca(yours: Mapping[str, str], ranking: bool) -> tuple[str, dict[str, str]]:
    """The layout and the columns of `formatting: alpaca`; a prompt alone is text to continue, as in pre-training."""
    kind = _judging(yours, ranking)
    if "prompt" not in yours:
        raise _Unusable("its columns name no prompt")
    if not kind and set(yours) == {"prompt"}:
        return "text", {"text": yours["prompt"]}
    if kind != "preference" and "response" not in yours:
        raise _Unusable("its columns name a prompt, but no response")
    columns = {"instruction": yours["prompt"], "input": yours.get("query", "")}
    columns |= {name: yours.get(name, "") for name in ("system", "history", "tools")}
    columns |= _judged(yours, kind, {"output": yours.get("response", "")})
    return f"alpaca_{kind}" if kind else "alpaca", columns


def _conversations(yours: Mapping[str, str], ranking: bool, formatting: str) -> tuple[str, dict[str, str]]:
    """The layout and the columns of `formatting: sharegpt` and its special case `openai`."""
    kind = _judging(yours, ranking)
    if "messages" not in yours:
        raise _Unusable("its columns name no messages")
    plain = "messages" if formatting == "openai" else "sharegpt"
    columns = {"messages" if plain == "messages" and not kind else "conversations": yours["messages"]}
    columns |= {name: yours.get(name, "") for name in ("system", "tools")}
    return f"sharegpt_{kind}" if kind else plain, columns | _judged(yours, kind, {})


def _judged(yours: Mapping[str, str], kind: str, answer: dict[str, str]) -> dict[str, str]:
    if kind == "preference":
        return {name: yours[name] for name in ("chosen", "rejected")}
    return answer | ({"kto_tag": yours["kto_tag"]} if kind else {})


def _openai_tags(tags: dict[str, str], format: str) -> dict[str, str]:
    """Layouts named after ShareGPT read from/value, unless told that messages are OpenAI's."""
    return tags if format == "messages" else {"role_tag": "role", "content_tag": "content"} | tags
