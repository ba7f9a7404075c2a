"""A row as a model is trained on it, as HTML: every token, and which of them carry loss.

In: what the worker answers for a row (`show`). Out: HTML. Where training cuts the row, a line is drawn; the model's own
marks are chips, so that they are told from text that only looks like them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from studio.ui import shown
from studio.ui.rowview import SIDES
from studio.ui.text_data import say

_MOST_TOKENS = 4096
_SHOWN_BEHIND_CUT = 400  # what is lost is of interest where it begins


def trained(told: Mapping[str, Any]) -> str:
    """Every token of a row; of a preference pair the chosen answer's row, and the rejected one's under it."""
    rejected = told.get("rejected")
    if not rejected:
        return _tokens(told) + _legend(told)
    sides = "".join(
        f'<section class="{side}"><h3>{escape(say(SIDES[side]))}</h3>{_tokens(answer)}</section>'
        for side, answer in (("chosen", told), ("rejected", rejected))
    )
    return f'<div class="pair under-each-other">{sides}</div>{_legend(told, rejected)}'


def _kept(told: Mapping[str, Any]) -> int:
    cut = told.get("cut")
    return len(told["tokens"]) if cut is None else int(cut)


def _tokens(told: Mapping[str, Any]) -> str:
    tokens, loss = list(told["tokens"]), list(told["loss"])
    special = list(told.get("special") or [False] * len(tokens))
    kept = _kept(told)
    last = min(len(tokens), _MOST_TOKENS, kept + _SHOWN_BEHIND_CUT)
    spans = []
    for place in range(last):
        if place == kept:
            spans.append(f'<span class="cut-line" role="separator">{escape(say("rows.tokens.cut_here"))}</span>')
        spans.append(_token(str(tokens[place]), loss[place], place < kept, special[place]))
    hidden = len(tokens) - last
    more = f'<p class="st-hint">{say("rows.tokens.more", count=shown.count(hidden))}</p>' if hidden else ""
    return f'{_counted(loss, kept)}<div class="tokens" tabindex="0">{"".join(spans)}</div>{more}'


def _token(token: str, learned: bool, kept: bool, special: bool) -> str:
    kind = "cut" if not kept else "loss" if learned else "context"
    breaks = "\n" * token.count("\n")
    chip = " special" if special else ""
    return f'<span class="token {kind}{chip}">{shown.text(token.replace(chr(10), "↵"))}</span>{breaks}'


def _counted(loss: Sequence[bool], kept: int) -> str:
    learned = sum(map(bool, loss[1:kept]))  # the first token is never predicted
    numbers = {"total": len(loss), "loss": learned, "kept": kept, "lost": len(loss) - kept}
    key = "rows.tokens" if kept >= len(loss) else "rows.tokens.cut"
    sentence = say(key, **{name: shown.count(number) for name, number in numbers.items()})
    warning = "" if learned else f'<p class="st-note warn">{escape(say("rows.tokens.no_loss"))}</p>'
    return f'<p class="st-hint">{escape(sentence)}</p>{warning}'


def _legend(*rows: Mapping[str, Any]) -> str:
    kinds = ["loss", "context"]
    if any(any(row.get("special") or ()) for row in rows):
        kinds.append("special")
    if any(_kept(row) < len(row["tokens"]) for row in rows):
        kinds.append("cut")
    keys = "".join(
        f'<span><i class="token {kind}">abc</i> {escape(say(f"rows.legend.{kind}"))}</span>' for kind in kinds
    )
    return f'<p class="legend">{keys}</p>'
