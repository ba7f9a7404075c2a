"""Nothing of a text that isn't ours becomes more than text."""

from __future__ import annotations

import json
import unicodedata
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.ui import chatview, rowview, shown
from studio.ui.chatview import Answer, Turn
from tests.ui.fake_desk import entry, line

OURS = {
    *("bdi", "span", "p", "pre", "h2", "h3", "h4", "div", "button", "i", "article", "header", "details", "summary"),
    *("code", "dl", "dt", "dd", "section", "h5", "b"),
}
ATTRIBUTES = {
    *("class", "title", "data-role", "data-pick", "aria-pressed", "aria-selected", "type", "tabindex", "role"),
    "aria-busy",
}
HOSTILE = st.text(max_size=40) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '"><b onclick=alert(1)>',
        "${alert(1)}",
        "{{value}}",
        "`x`",
        "\u202egnp.exe\u202c",
        "\x00\x07\x1b[31m\x7f",
        "[a](javascript:alert(1))",
        "</bdi></p></div><style>*{}</style>",
        "\u2066\u2069\u200b\ufeff\U000e0041",
    ]
)
ROWS = st.recursive(
    HOSTILE | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=8,
)
CHATS = st.builds(
    lambda asked, said: {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]},
    HOSTILE,
    HOSTILE,
)


class Reader(HTMLParser):
    """Collects what a browser would make of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment of somebody else's")

    handle_decl = unknown_decl = handle_pi = handle_comment


def read(html: str) -> Reader:
    """HTML that is well-formed and made of our own elements alone."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    for tag, attributes in reader.tags:
        assert tag in OURS, tag
        assert set(attributes) <= ATTRIBUTES, attributes
    return reader


@given(HOSTILE)
def test_a_text_is_an_island_that_says_all_of_itself(text: str) -> None:
    reader = read(shown.text(text))
    assert reader.tags[0] == ("bdi", {"class": "foreign"})
    told = "".join(
        f"U+{ord(sign):04X}" if shown.text(sign) != shown.text("x").replace("x", _escaped(sign)) else sign
        for sign in text
    )
    assert reader.said == told


def _escaped(sign: str) -> str:
    return {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}.get(sign, sign)


@given(st.characters())
def test_no_sign_that_steers_the_reading_order_or_is_unseen_stays(sign: str) -> None:
    said = read(shown.text(sign)).said
    for left in said:
        assert unicodedata.bidirectional(left) not in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        assert unicodedata.category(left) not in {"Cc", "Cs", "Co"} or left in "\n\t"


@pytest.mark.parametrize("sign", ["\u202e", "\u2067", "\x1b", "\x00", "\u200b", "\u00ad", "\ufeff", "\U000e0041"])
def test_what_is_not_seen_is_shown_by_its_number(sign: str) -> None:
    reader = read(shown.text(f"a{sign}b"))
    assert reader.said == f"aU+{ord(sign):04X}b"


def test_joined_emoji_and_scripts_that_need_joiners_stay_whole() -> None:
    for text in ("👩\u200d💻", "क्\u200dष", "می\u200cخواهم"):
        assert read(shown.text(text)).said == text


@given(HOSTILE)
def test_where_there_is_no_html_a_text_holds_nothing_unseen_either(text: str) -> None:
    told = shown.plain(text)
    assert all(read(shown.text(sign)).said == sign for sign in told)
    assert told == "".join(sign if read(shown.text(sign)).said == sign else f"[U+{ord(sign):04X}]" for sign in text)


@given(HOSTILE, st.integers(1, 5))
def test_a_cut_text_says_that_it_is_cut(text: str, most: int) -> None:
    assert read(shown.text(text, most)).said.endswith("…") == (len(text) > most or text.endswith("…"))


@given(ROWS | CHATS, HOSTILE)
def test_rows_in_every_light_hold_nothing_but_text(row: Any, problem: str) -> None:
    for told in (line(1, row), line(1, None, problem=problem or "no reason"), line(1, row, where=problem, cut=True)):
        read(rowview.row_list([told, told], 1, entry()))
        read(rowview.conversation(told, entry()))
        read(rowview.raw(told))
        read(rowview.place(told))


@given(HOSTILE, HOSTILE, HOSTILE)
def test_answers_hold_nothing_but_text(asked: str, said: str, name: str) -> None:
    turns = [Turn(asked, {"base": Answer(said, 3, 0.5, done=True, stopped=True)}), Turn(said, {"base": Answer(asked)})]
    read(chatview.conversation(turns, "base", ""))
    read(chatview.column_head(name, asked))


def test_a_raw_row_reads_back_as_itself() -> None:
    row = {"messages": [{"role": "user", "content": 'a\n<b>"é"'}], "n": [1, None, 2.5]}
    assert json.loads(read(rowview.raw(line(0, row))).said) == row


def test_sizes_have_few_digits() -> None:
    told = [shown.size(count) for count in (0, 999, 1000, 9_949, 92_400, 269_060_000, 5_300_000_000, 2 * 10**15)]
    assert told == ["0 bytes", "999 bytes", "1.0 kB", "9.9 kB", "92 kB", "269 MB", "5.3 GB", "2000 TB"]
