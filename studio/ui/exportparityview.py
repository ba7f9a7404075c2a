"""Whether an export is the same model: the word for it, the figures behind it, the replies side by side.

In: an export job's result. Out: HTML, in which what models said is text.
"""

from __future__ import annotations

from html import escape
from typing import Any

from studio.ui import shown
from studio.ui.text_export import say
from studio.workspace.runs import ExportJob

_CHECKS = ("template", "generation", "special", "end", "tokens")
_TRUSTED = 1.0  # share of equal tokens from which on nobody would notice a difference
_ROUNDED = 0.5  # ... and below which it says mostly other words


def verdict(job: ExportJob) -> str:
    """good, fair (only rounding), coarse (a great deal of it), bad or none."""
    parity = job.result.get("parity")
    if isinstance(parity, dict) and parity.get("same") is False:
        return "bad"
    if not isinstance(parity, dict) or parity.get("max_logit_diff") is None:
        return "none"
    equal = parity.get("greedy_match") or 0
    return "good" if equal >= _TRUSTED else "fair" if equal >= _ROUNDED else "coarse"


def parity_html(job: ExportJob) -> str:
    found = verdict(job)
    parity = job.result.get("parity")
    if not isinstance(parity, dict) or found == "none":
        skipped = parity.get("skipped") if isinstance(parity, dict) else ""
        why = str(skipped or say("export.parity.off"))
        word = escape(say("export.parity.skipped"))
        return (
            f'<p class="parity-line"><span class="parity" data-parity="none">{word}</span> {shown.text(why, 300)}</p>'
        )
    figures = []
    if parity.get("max_logit_diff") is not None:
        figures.append(say("export.parity.diff", diff=f"{parity['max_logit_diff']:.2g}"))
        figures.append(say("export.parity.greedy", share=f"{100 * (parity.get('greedy_match') or 0):.1f} %"))
    problems = "".join(f'<p class="st-error">{shown.text(str(one), 400)}</p>' for one in parity.get("problems") or ())
    return (
        f'<details class="st-fold" data-fold="parity"><summary><span class="parity" data-parity="{found}">'
        f'{escape(say(f"export.parity.{found}"))}</span> <span class="figures num">{escape("; ".join(figures))}</span>'
        f'</summary><div class="inside">{problems}{_explained(parity)}{_checks(parity)}{_replies(parity)}</div>'
        "</details>"
    )


def _explained(parity: dict[str, Any]) -> str:
    told = []
    if parity.get("proven") and isinstance(parity.get("proven_diff"), (int, float)):
        told.append(say("export.parity.proven", kind=str(parity["proven"]), diff=f"{parity['proven_diff']:.2g}"))
    told += [
        say(f"export.parity.{key}", **{key: f"{parity[key]:.2g}"})
        for key in ("explained", "moved")
        if isinstance(parity.get(key), (int, float))
    ]
    line = "; ".join(told)
    return f'<p class="st-hint num">{escape(line[:1].upper() + line[1:])}.</p>' if told else ""


def _checks(parity: dict[str, Any]) -> str:
    """Each of the small things that was compared, with what came out."""
    checks = parity.get("checks")
    if not isinstance(checks, dict):
        return ""
    rows = []
    for name in _CHECKS:
        found = checks.get(name)
        came_out = "unsaid" if found is None else "same" if found else "other"
        value = f'<span data-check="{came_out}">{escape(say(f"export.parity.check.{came_out}"))}</span>'
        rows.append((say(f"export.parity.check.{name}"), value))
    return f"<h4>{escape(say('export.parity.checks'))}</h4>{shown.facts(rows)}"


def _replies(parity: dict[str, Any]) -> str:
    replies = [one for one in parity.get("replies") or () if isinstance(one, dict)]
    if not replies:
        return ""
    columns = ("prompt", "before", "after")
    head = "".join(f"<th>{escape(say(f'export.parity.{name}'))}</th>" for name in columns)
    rows = "".join(f"<tr>{''.join(_cell(one.get(name)) for name in columns)}</tr>" for one in replies)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h4>{escape(say("export.parity.replies"))}</h4><div class="replies">{table}</div>'


def _cell(said: Any) -> str:
    return f"<td>{shown.text(str(said or ''), 600)}</td>"
