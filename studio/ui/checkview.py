"""What a check found, as HTML: what is left to learn from, and each kind of problem with its buttons.

In: a check's report, the dataset's entry. Out: HTML; `data-*` attributes say what a click means. Examples are other
people's rows and go through `shown`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from studio.core.problems import PROBLEMS
from studio.ui import shown
from studio.ui.charts import percent
from studio.ui.leftover import remaining
from studio.ui.text_data import say
from studio.workspace.registration import DatasetEntry

IN_STRIP = 4  # kinds that stand above the sections; all of them stand in the check's own
_MOST_EXAMPLE = 600  # characters
_MOST_LINES = 10
_MOST_NAMES = 3  # of kinds that only the check's own section shows
# What is said otherwise here than to those who write run.yaml, because it is done by a click.
_BY_CLICK = ("missing_column", "unknown_role", "too_long", "prompt_fills_length")
_BY_LAYOUT = ("missing_column", "unknown_role")

Report = Mapping[str, Any]


def strip(report: Report, entry: DatasetEntry, question: Mapping[str, Any]) -> str:
    """The check in short."""
    problems = report["problems"]
    listed = "".join(_finding(problem, entry, brief=True) for problem in _foremost(problems))
    more = len(problems) - IN_STRIP
    findings = f'<ul class="findings">{listed}</ul>{_rest(problems) if more > 0 else ""}' if problems else ""
    return f'<div class="learned-line">{_learned(report, entry)}{_by(report, question)}</div>{findings}'


def _rest(problems: Sequence[Mapping[str, Any]]) -> str:
    """The button that leads to the kinds for which there is no room, with their names."""
    shown_kinds = {problem["kind"] for problem in _foremost(problems)}
    names = [PROBLEMS[p["kind"]].title for p in problems if p["kind"] not in shown_kinds]
    told = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    words = say("check.more", count=len(names), names=told)
    return f'<button type="button" class="st-button small more" data-section="check">{escape(words)}</button>'


def _foremost(problems: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The most frequent errors and warnings, half of each where there are enough of both."""
    if len(problems) <= IN_STRIP:
        return problems
    kinds = {
        severity: sorted((p for p in problems if p["severity"] == severity), key=lambda p: -int(p["count"]))
        for severity in ("error", "warning")
    }
    warnings = kinds["warning"][: max(IN_STRIP - len(kinds["error"]), IN_STRIP // 2)]
    return kinds["error"][: IN_STRIP - len(warnings)] + warnings


def full(report: Report, entry: DatasetEntry) -> str:
    """The whole report: every kind with what to do about it, and the tokens."""
    listed = "".join(_finding(problem, entry, brief=False) for problem in report["problems"])
    findings = f'<ul class="findings full">{listed}</ul>' if listed else f"<p>{escape(say('check.clean'))}</p>"
    return findings + _by_hand(entry) + _tokens(report)


def _learned(report: Report, entry: DatasetEntry) -> str:
    rows = int(report["rows"])
    left = remaining(report, entry.exclude, entry.exclude_rows)
    usable = int(report["usable"]) if left is None else left
    key = "check.learned.all" if usable == rows else "check.learned" if usable else "check.learned.none"
    tone = "" if usable else " bad"
    clean = "" if report["problems"] else f" {escape(say('check.clean'))}"
    sentence = escape(say(key, usable=shown.count(usable), rows=shown.count(rows)))
    return f'<p class="learned{tone}">{sentence}{clean}</p>'


def _by(report: Report, question: Mapping[str, Any]) -> str:
    model, length = question.get("model"), question.get("max_length")
    told = [say("check.by", model=shown.line(str(model), 60), length=length) if model else say("check.by.plain")]
    when = _when(report)
    if when:
        told.append(escape(say("check.when", when=when)))
    again = f'<button type="button" class="link" data-act="check">{escape(say("check.again"))}</button>'
    return f'<p class="st-hint">{" ".join(told)} · {again}</p>'


def _when(report: Report) -> str:
    """When the check was made: its findings were written then."""
    try:
        then = datetime.fromtimestamp(Path(report["findings"]).stat().st_mtime)
    except (KeyError, TypeError, OSError):
        return ""
    return f"{then.day} {then:%b, %H:%M}"


def _finding(problem: Mapping[str, Any], entry: DatasetEntry, *, brief: bool) -> str:
    kind = str(problem["kind"])
    about = PROBLEMS[kind]
    count = shown.count(int(problem["count"]))
    title = f'<span class="num">{count}</span><span class="what">{escape(about.title)}</span>'
    where = f'<span class="where">{_where(problem["lines"], int(problem["count"]))}</span>'
    inside = f'<div class="inside"><p>{_help(kind)}</p>{_example(problem.get("example"))}</div>'
    opened = "" if brief else " open"
    show = (
        f'<button type="button" class="st-button small" data-show="{kind}">{escape(say("check.show"))}</button>'
        if problem["count"]
        else ""
    )
    return (
        f'<li class="finding" data-severity="{about.severity}"><details data-kind="{kind}"{opened}>'
        f"<summary>{title}{where}</summary>{inside}</details>"
        f'<div class="acts">{show}{_leave(kind, about.severity, entry)}</div></li>'
    )


def _help(kind: str) -> str:
    if kind not in _BY_CLICK:
        return escape(PROBLEMS[kind].help)
    words = escape(say(f"check.help.{kind}"))
    if kind not in _BY_LAYOUT:
        return words
    return f'{words} <button type="button" class="link" data-act="layout">{escape(say("check.layout"))}</button>'


def _where(lines: Sequence[Any], count: int) -> str:
    told = ", ".join(shown.line(str(line), 60) for line in lines[:_MOST_LINES])
    key = "check.where" if len(lines) == 1 else "check.where.several"
    return say(key, lines=told + (", …" if count > len(lines[:_MOST_LINES]) else "")) if lines else ""


def _example(example: Any) -> str:
    if example in (None, "", {}, []):
        return ""
    text = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False, default=str)
    return f'<p class="example"><b>{escape(say("check.example"))}</b> {shown.text(text, _MOST_EXAMPLE)}</p>'


def _leave(kind: str, severity: str, entry: DatasetEntry) -> str:
    if severity == "error":
        return f'<span class="always">{escape(say("check.always"))}</span>'
    checked = " checked" if kind in entry.exclude else ""
    return (
        f'<label class="switch"><input type="checkbox" data-leave="{kind}"{checked}>'
        f"<span>{escape(say('check.leave'))}</span></label>"
    )


def _by_hand(entry: DatasetEntry) -> str:
    count = len(entry.exclude_rows)
    if not count:
        return ""
    told = say("check.rows_left.one") if count == 1 else say("check.rows_left", count=shown.count(count))
    back = (
        f'<button type="button" class="st-button small" data-act="rows-back">{escape(say("check.rows_back"))}</button>'
    )
    return f'<p class="by-hand">{escape(told)} {back}</p>'


def _tokens(report: Report) -> str:
    tokens = report.get("tokens") or {}
    title = f"<h3>{escape(say('check.tokens'))}</h3>"
    if not tokens.get("counted"):
        return f'{title}<p class="st-hint">{escape(say("check.tokens.none"))}</p>'
    length = shown.count(int(tokens["max_length"]))
    share = f" ({percent(tokens['loss'] / tokens['total'])})" if tokens.get("total") else ""
    figures = [
        (say("check.tokens.total"), shown.count(int(tokens["total"]))),
        (say("check.tokens.loss"), shown.count(int(tokens["loss"])) + escape(share)),
        (say("check.tokens.longest"), shown.count(int(tokens["longest"]))),
        (say("check.tokens.cut", length=length), shown.count(int(tokens["rows_cut"]))),
        (say("check.tokens.lost"), shown.count(int(tokens["tokens_lost"]))),
        (say("check.tokens.without"), shown.count(int(tokens["rows_without_loss"]))),
    ]
    cells = "".join(f'<div><dt>{escape(name)}</dt><dd class="num">{value}</dd></div>' for name, value in figures)
    return f'{title}<dl class="data-figures">{cells}</dl>'
