"""Commands run in this process: what they print, and the code they end with.

In: pytest's monkeypatch and capfd. Out: a function that runs `studio ARGS`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from studio import cli


@dataclass
class Said:
    """What a command left: its exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must be one JSON object and nothing else."""
        assert self.out.count("\n") == 1

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


Command = Callable[..., Said]


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *first: str) -> Command:
    """Runs `studio` with the arguments `first` and those it is called with."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["studio", *first, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return run
