"""What a dataset holds, as pictures: lengths, what a cut costs, turns, loss, languages, labels, openings, an epoch.

In: the worker's figures (`stats`), the dataset's entry, the knobs by which it would be trained. Out: HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from studio.core.config import DatasetSection, RunConfig, TrainingSection
from studio.core.configfile import parse_as
from studio.core.errors import StudioError
from studio.core.schedule import optimizer_steps, split_sizes
from studio.ui import shown
from studio.ui.charts import Bar, Mark, bars, histogram, percent
from studio.ui.dataquestion import Reading
from studio.ui.text_data import say
from studio.workspace.registration import DatasetEntry

_MOST_BARS = 10
_PARTS = ("whole", "prompt", "answer", "rejected")
Figures = Mapping[str, Any]


def panel(figures: Figures, entry: DatasetEntry, asked: Reading, left: int | None) -> str:
    """All pictures. `left`: rows that are left to learn from, where a check has told."""
    cards = [
        _lengths(figures, asked),
        _cuts(figures, asked),
        _epoch(figures, entry, asked, left),
        _turns(figures),
        _shares(say("stats.languages"), say("stats.languages.head"), figures.get("languages") or []),
        _shares(say("stats.scripts"), say("stats.scripts.head"), figures.get("scripts") or []),
        _labels(figures),
        _openings(figures),
    ]
    return f'<div class="stats">{"".join(cards)}</div>'


def _lengths(figures: Figures, asked: Reading) -> str:
    tokens = figures.get("tokens")
    parts = tokens["parts"] if tokens else figures["characters"]
    unit = say("stats.tokens") if tokens else say("stats.characters")
    drawn = "".join(_length(name, parts[name], unit, tokens, asked) for name in _PARTS if name in parts)
    loss = _loss(tokens) if tokens else f'<p class="st-hint">{escape(say("stats.no_model"))}</p>'
    title = escape(say("stats.lengths", unit=unit))
    return f'<section class="st-card stat wide"><h3>{title}</h3>{loss}<div class="stat-lengths">{drawn}</div></section>'


def _length(name: str, part: Mapping[str, Any], unit: str, tokens: Any, asked: Reading) -> str:
    marks = []
    if tokens and name == "whole":
        marks.append(Mark(asked.max_length, "present", say("stats.mark.present", length=shown.count(asked.max_length))))
        suggested = (tokens.get("suggested") or {}).get("max_length")
        if suggested and suggested != asked.max_length:
            marks.append(Mark(suggested, "suggested", say("stats.mark.suggested", length=shown.count(suggested))))
    title = say(f"stats.part.{name}")
    figures = say("stats.quantiles", **{key: shown.count(int(part[key])) for key in ("p50", "p95", "max")})
    drawn = histogram(title, part["histogram"]["edges"], part["histogram"]["counts"], unit, marks)
    return f"<figure><figcaption>{escape(title)} <span>{escape(figures)}</span></figcaption>{drawn}</figure>"


def _loss(tokens: Mapping[str, Any]) -> str:
    share = float(tokens["loss_share"])
    words = say(
        "stats.loss", loss=shown.count(tokens["loss"]), total=shown.count(tokens["total"]), share=percent(share)
    )
    return (
        f'<div class="loss-share"><p>{escape(words)}</p>'
        f'<div class="meter" aria-hidden="true"><span class="fill" style="width:{100 * share:.1f}%"></span></div></div>'
    )


def _cuts(figures: Figures, asked: Reading) -> str:
    """What each length would cost, and the one that is suggested."""
    tokens = figures.get("tokens")
    if not tokens:
        return ""
    suggested = tokens.get("suggested")
    lines = {int(cut["max_length"]): cut for cut in tokens["cuts"]}
    if suggested:
        lines.setdefault(int(suggested["max_length"]), suggested)
    body = "".join(_cut(cut, asked, suggested) for _, cut in sorted(lines.items()))
    heads = "".join(f"<th>{escape(say(f'stats.cut.{name}'))}</th>" for name in ("length", "rows", "share", "lost"))
    why = f'<p class="st-hint">{shown.text(str(suggested["why"]), 500)}</p>' if suggested else ""
    return (
        f'<section class="st-card stat wide"><h3>{escape(say("stats.cuts"))}</h3><div class="cuts-frame">'
        f'<table class="st-table cuts"><thead><tr>{heads}<th></th></tr></thead><tbody>{body}</tbody></table></div>'
        f"{why}</section>"
    )


def _cut(cut: Mapping[str, Any], asked: Reading, suggested: Any) -> str:
    length = int(cut["max_length"])
    best = bool(suggested) and length == suggested["max_length"]
    if length == asked.max_length:
        act = f'<span class="st-pill">{escape(say("stats.cut.present"))}</span>'
    else:
        looks = "st-button small" + (" primary" if best else "")
        act = f'<button type="button" class="{looks}" data-length="{length}">{escape(say("stats.cut.use"))}</button>'
    told = f'<span class="st-pill" data-status="finished">{escape(say("stats.cut.suggested"))}</span> ' if best else ""
    share = float(cut["share_cut"])
    return (
        f'<tr class="{"best" if best else ""}"><th scope="row" class="num">{told}{shown.count(length)}</th>'
        f'<td class="num">{shown.count(cut["rows_cut"])}</td><td class="num share">'
        f'<i style="width:{100 * share:.1f}%"></i><span>{escape(percent(share))}</span></td>'
        f'<td class="num">{shown.count(cut["tokens_lost"])}</td><td class="act">{act}</td></tr>'
    )


def _epoch(figures: Figures, entry: DatasetEntry, asked: Reading, left: int | None) -> str:
    usable = int(figures["usable"]) if left is None else left
    config = RunConfig(
        training=TrainingSection(
            num_train_epochs=asked.epochs,
            per_device_train_batch_size=asked.batch,
            gradient_accumulation_steps=asked.accumulation,
            max_length=asked.max_length,
        )
    )
    train = _train_rows(entry, usable)
    once = config.model_copy(update={"training": config.training.model_copy(update={"num_train_epochs": 1.0})})
    pairs = [
        (say("stats.epoch.rows"), shown.count(train)),
        (say("stats.epoch.batch"), f"{asked.batch * asked.accumulation} ({asked.batch} × {asked.accumulation})"),
        (say("stats.epoch.steps"), shown.count(optimizer_steps(once, train)) if train else "0"),
        (
            say("stats.epoch.run_steps", epochs=f"{asked.epochs:g}"),
            shown.count(optimizer_steps(config, train)) if train else "0",
        ),
    ]
    known = figures.get("epoch") or {}
    for key in ("tokens", "loss_tokens"):
        if known.get(key) is not None and known.get("train_rows"):
            pairs.append((say(f"stats.epoch.{key}"), shown.count(round(known[key] * train / known["train_rows"]))))
    note = f'<p class="st-hint">{escape(say("stats.epoch.note"))}</p>'
    return f'<section class="st-card stat"><h3>{escape(say("stats.epoch"))}</h3>{shown.facts(pairs)}{note}</section>'


def _train_rows(entry: DatasetEntry, usable: int) -> int:
    try:
        section = parse_as(DatasetSection, {"path": entry.name, **entry.knobs})
        if section.validation_path:
            section = section.model_copy(update={"validation_split": 0.0})
        return split_sizes(section, usable).train if usable > 0 else 0
    except StudioError:  # so few rows that a split leaves none
        return 0


def _turns(figures: Figures) -> str:
    turns = figures.get("turns") or {}
    whole = sum(turns.values())
    lines = [Bar(escape(str(number)), count, count / whole) for number, count in turns.items()]
    if len(lines) > _MOST_BARS:
        rest = sum(line.rows for line in lines[_MOST_BARS:])
        first = escape(say("stats.turns.more", turns=list(turns)[_MOST_BARS]))
        lines = [*lines[:_MOST_BARS], Bar(first, rest, rest / whole)]
    return bars(say("stats.turns"), lines, say("stats.turns.head")) if lines else ""


def _shares(title: str, heading: str, shares: Sequence[Mapping[str, Any]]) -> str:
    lines = [Bar(shown.line(str(one["name"]), 40), int(one["count"]), float(one["share"])) for one in shares]
    other = say("stats.more", count=len(lines) - _MOST_BARS) if len(lines) > _MOST_BARS else ""
    return bars(title, lines[:_MOST_BARS], heading, other=other) if lines else ""


def _labels(figures: Figures) -> str:
    labels = figures.get("labels") or {}
    whole = sum(labels.values())
    lines = [
        Bar(escape(say(f"stats.label.{name}")), labels[name], labels[name] / whole)
        for name in ("true", "false")
        if name in labels
    ]
    return bars(say("stats.labels"), lines, say("stats.labels.head")) if lines else ""


def _openings(figures: Figures) -> str:
    openings = (figures.get("openings") or [])[:_MOST_BARS]
    lines = [Bar(shown.line(str(one["words"]), 60), int(one["count"]), float(one["share"])) for one in openings]
    inexact = any(not one.get("exact", True) for one in openings)
    note = say("stats.openings.inexact") if inexact else ""
    return bars(say("stats.openings"), lines, say("stats.openings.head"), other=note) if lines else ""
