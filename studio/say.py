"""How commands speak: words for people on stderr, answers on stdout, as JSON where it is asked for.

In: text and values. Out: bytes on the two streams, whatever the terminal's encoding lacks.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def say(text: str = "") -> None:
    """Words for a person: they go to stderr, so that stdout stays a program's."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def put(value: Any, as_json: bool, text: str = "") -> None:
    """A command's answer: JSON for programs, else text for people."""
    from studio.core.events import spell

    write(json.dumps(spell(value), default=str, allow_nan=False) + "\n" if as_json else text + "\n")


def write(text: str) -> None:
    """Text on stdout. Spell out what the terminal's encoding lacks: a run may be called anything."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
