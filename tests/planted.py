"""Files of rows with one planted problem of every kind, each at a known line, and everything else in order.

In: a folder and a number of rows. Out: the files, and for each the line of every problem. No one file can hold all:
pairs and labelled answers need layouts of their own. The third line is blank and the last ones end in CR LF, so that
lines are no positions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tiny import CHATML, sentence, tiny_tokenizer

MAX_LENGTH = 200  # tokens; the rows that are in order have fewer
_TOO_BIG = 21 * 2**20  # bytes in a line
# As CHATML, but knowing no tools.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}{% endfor %}"
)


def planted_tokenizer() -> Any:
    """A tokenizer whose template can't say one of the rows."""
    return tiny_tokenizer(TEMPLATE + CHATML)


@dataclass
class Planted:
    """A file, how many rows it has, and kind -> line of the one problem of that kind."""

    path: Path
    rows: int
    lines: dict[str, int] = field(default_factory=dict)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def _call(arguments: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "look_up", "arguments": arguments}}]


# kind -> the line that has the problem
BAD: dict[str, Any] = {
    "unreadable": b'{"messages": [{"role": "user", ',
    "encoding": '{"messages": [{"role": "user", "content": "caf\u00e9"}]}'.encode("latin-1"),
    "not_an_object": ["a", "list"],
    "missing_column": {"id": 7},
    "null": {"messages": None},
    "wrong_type": {"messages": [user(5), assistant("five")]},
    "mixed_layout": {"instruction": "Count to two.", "output": "One, two."},
    "empty_prompt": {"messages": [user("  "), assistant("What do you mean?")]},
    "empty_answer": {"messages": [user("Say nothing."), assistant("")]},
    "unknown_role": {"messages": [{"role": "robot", "content": "beep"}, assistant("boop")]},
    "role_order": {"messages": [user("one"), user("two"), assistant("three")]},
    "no_assistant": {"messages": [user("Is anybody there?")]},
    "bad_tool_call": {"messages": [user("Look it up."), assistant("", tool_calls=_call("{broken"))]},
    "template": {
        "messages": [
            user("Look it up."),
            assistant("", tool_calls=_call("{}")),
            {"role": "tool", "content": "found"},
            assistant("Found."),
        ]
    },
    "prompt_fills_length": {"messages": [user("seven small boats " * 200), assistant("yes")]},
    "answer_equals_prompt": {"messages": [user("Polly wants a cracker."), assistant("Polly wants a  cracker.")]},
    "special_tokens": {"messages": [user("What does <|im_end|> mean?"), assistant("That I stop.")]},
    "too_long": {"messages": [user("Tell me of the morning."), assistant("the light of early morning " * 100)]},
    "pii_email": {"messages": [user("Where do I write to?"), assistant("To jane.doe@mail.example.org.")]},
    "pii_phone": {"messages": [user("Call me at (415) 555-2671."), assistant("I will.")]},
    "pii_card": {"messages": [user("I pay by 4111 1111 1111 1111."), assistant("Thank you.")]},
    "pii_key": {"messages": [user("Mine is AKIAIOSFODNN7EXAMPLE."), assistant("Keep it to yourself.")]},
}
# What a file of another layout shows.
OTHERS: dict[str, tuple[str, Callable[[str, str], Any], Any]] = {
    "preference": (
        "chosen_equals_rejected",
        lambda asked, said: {"prompt": asked, "chosen": said, "rejected": said + " or not"},
        {"prompt": "Which?", "chosen": "This one.", "rejected": "This one."},
    ),
    "unpaired_preference": (
        "label_not_boolean",
        lambda asked, said: {"prompt": asked, "completion": said, "label": len(said) % 2 == 0},
        {"prompt": "Which?", "completion": "This one.", "label": "perhaps"},
    ),
}


def plant(folder: Path, rows: int, *, seed: int = 0) -> tuple[Planted, Planted]:
    """A file of conversations with `rows` rows, and the one to validate on, with which it shares a row."""
    chance = random.Random(seed)
    places = sorted(chance.sample(range(20, rows - 20), len(BAD) + 5))
    copied, near_to, leaking = places.pop(0), places.pop(0), places.pop(0)  # before all others
    kinds = [*BAD, "too_big", "duplicate", "near_duplicate", "leak"]
    chance.shuffle(kinds)
    at = dict(zip(kinds[: len(places)], places, strict=True)) | {"leak": leaking}
    missing = [kind for kind in kinds if kind not in at]
    for kind in missing:
        at[kind] = max(at.values()) + 1
    of_row = {row: kind for kind, row in at.items()}
    kept: dict[int, Any] = {}
    found = Planted(folder / "rows.jsonl", rows)
    folder.mkdir(parents=True, exist_ok=True)
    with found.path.open("wb") as file:
        line = 0
        for row in range(rows):
            if row == 2:
                file.write(b"\n")
                line += 1
            line += 1
            kind = of_row.get(row)
            if kind:
                found.lines[kind] = line
            value = _good(chance, row)
            if row in (copied, near_to, leaking):
                kept[row] = value
            if kind == "duplicate":
                value = kept[copied]
            elif kind == "near_duplicate":
                value = _nearly(kept[near_to])
            elif kind == "too_big":
                value = {"messages": [user("x" * _TOO_BIG), assistant("y")]}
            elif kind in BAD:
                value = BAD[kind]
            text = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
            file.write(text + (b"\r\n" if row > rows - 10 else b"\n"))
    held = Planted(folder / "validation.jsonl", 6)
    others = [_good(chance, rows + number) for number in range(5)]
    held.path.write_text("".join(json.dumps(row) + "\n" for row in [*others, kept[leaking]]), encoding="utf-8")
    return found, held


def plant_other(folder: Path, layout: str, rows: int, *, seed: int = 0) -> Planted:
    """A file of one of OTHERS, with its one problem."""
    chance = random.Random(seed)
    kind, good, bad = OTHERS[layout]
    place = chance.randrange(rows // 2, rows)
    path = folder / f"{layout}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            value = bad if row == place else good(f"{sentence(chance, 6, 12)} {row}", sentence(chance, 6, 12))
            file.write(json.dumps(value) + "\n")
    return Planted(path, rows, {kind: place + 1})


def _good(chance: random.Random, row: int) -> dict[str, Any]:
    return {"messages": [user(f"{sentence(chance, 8, 14)} {row}"), assistant(sentence(chance, 8, 14))]}


def _nearly(row: dict[str, Any]) -> dict[str, Any]:
    """With one more word, at the end: one in thirty or so shingles differs."""
    asked, said = row["messages"]
    return {"messages": [asked, assistant(said["content"] + " indeed")]}
