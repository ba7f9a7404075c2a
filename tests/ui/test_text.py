"""The table of words: every word that is asked for is there, and none is there for nobody."""

from __future__ import annotations

import re
from pathlib import Path

import studio.ui
from studio.ui.text import ENGLISH, say
from studio.workspace.home import bundled

_ASKED = re.compile(r"""\bsay\(\s*f?(["'`])(?P<key>[^"'`]+)\1""")
_NAMED = re.compile(r"""["'](?P<key>[a-z]+(?:\.[a-z_]+)+)["']""")
_OPEN = re.compile(r"\$?\{.*")


def sources() -> dict[str, str]:
    """The modules that speak from this table, and the page's scripts."""
    modules = [path for path in Path(studio.ui.__file__).parent.glob("*.py") if not path.name.startswith("text")]
    speaks = re.compile(r"import ENGLISH|ui\.text(_data|_export|_fit|_sweep)? import")
    ours = [path for path in modules if speaks.search(path.read_text())]
    scripts = [bundled("assets") / "studio.js", *bundled("assets").glob("js/*.js")]
    return {path.name: path.read_text(encoding="utf-8") for path in (*ours, *scripts)}


def test_every_word_that_is_asked_for_is_in_the_table() -> None:
    for name, source in sources().items():
        for match in _ASKED.finditer(source):
            key = match["key"]
            beginning = _OPEN.sub("", key)
            known = key in ENGLISH if beginning == key else any(entry.startswith(beginning) for entry in ENGLISH)
            assert known, f"{name} asks for {key!r}"


def test_every_word_in_the_table_is_asked_for() -> None:
    asked: set[str] = set()
    beginnings: set[str] = set()
    for source in sources().values():
        asked |= {match["key"] for match in _NAMED.finditer(source)}
        beginnings |= {_OPEN.sub("", m["key"]) for m in _ASKED.finditer(source) if _OPEN.search(m["key"])}
    unused = [key for key in ENGLISH if key not in asked and not any(key.startswith(begin) for begin in beginnings)]
    assert not unused


def test_values_are_filled_in() -> None:
    assert say("server.taken", taken=7860, port=7861) == "Port 7860 is taken, so it is on port 7861."
