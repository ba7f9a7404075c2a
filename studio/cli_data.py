"""The commands `studio data ...`: one thin function each, all without a window.

In: arguments. Out: a table or the row for people, one JSON object with --json. What they compute is the data worker's,
called in this process.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.core.errors import ModelError, StudioError
from studio.say import Json, put, say

data = typer.Typer(help="Check, look at and reshape datasets.", no_args_is_help=True, rich_markup_mode=None)

Dataset = Annotated[str, typer.Argument(metavar="PATH", help="A registered dataset, a file, a folder or a hub id.")]
Layout = Annotated[str, typer.Option("--format", help="The rows' layout; auto recognises it.")]
Model = Annotated[str, typer.Option(help="Whose template and tokens; none: don't count tokens.")]
Length = Annotated[int, typer.Option(help="Where training cuts rows, in tokens.")]
Config = Annotated[str | None, typer.Option(help="Of a dataset on the hub: which configuration.")]
Part = Annotated[str | None, typer.Option("--split", help="Of a dataset on the hub: which split.")]
Written = Annotated[str, typer.Option("--as", help="jsonl or parquet.")]
New = Annotated[Path, typer.Option(help="A new folder.")]


@data.command("check")
def check(
    path: Dataset,
    format: Layout = "auto",
    model: Model = "starter",
    max_length: Length = 1024,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Look for near duplicates too.")] = True,
    validation: Annotated[str | None, typer.Option(help="Rows to validate on: none may stand in both.")] = None,
    config: Config = None,
    split: Part = None,
    as_json: Json = False,
) -> None:
    """Read every row: what can be learned from, and each kind of problem with its lines."""
    section = {"path": path, "format": format, "validation_path": validation}
    request = _request(section, _model(model), config, split, max_length=max_length)
    told = _ask("check", {**request, "near": near})
    put({key: value for key, value in told.items() if key != "findings"}, as_json, "" if as_json else _report(told))


@data.command("show")
def show(
    path: Dataset,
    format: Layout = "auto",
    model: Annotated[str, typer.Option(help="Whose template and tokens.")] = "starter",
    row: Annotated[int, typer.Option(help="Which row, from 0.")] = 0,
    train_on: Annotated[str, typer.Option(help="assistant, last_assistant or all.")] = "assistant",
    max_length: Length = 1024,
    config: Config = None,
    split: Part = None,
    as_json: Json = False,
) -> None:
    """Show a row as trained on: text, tokens, and which of them carry loss."""
    section = {"path": path, "format": format, "train_on": train_on}
    request = _request(section, model, config, split, max_length=max_length)
    from studio.worker.show import show_row

    shown = show_row({**request, "position": row})
    put(shown, as_json, "" if as_json else _coloured(shown))


@data.command("stats")
def stats(
    path: Dataset,
    format: Layout = "auto",
    model: Model = "starter",
    max_length: Length = 1024,
    config: Config = None,
    split: Part = None,
    as_json: Json = False,
) -> None:
    """Count lengths, turns, languages and openings, and say which max_length fits."""
    from studio.core.config import TrainingSection

    training = TrainingSection(max_length=max_length).model_dump(mode="json")
    request = _request({"path": path, "format": format}, _model(model), config, split, max_length=max_length)
    told = _ask("stats", {**request, "training": training})
    put(told, as_json, "" if as_json else _numbers(told))


@data.command("convert")
def convert(
    path: Dataset,
    out: New,
    to: Annotated[str, typer.Option(help="The layout to write; empty keeps the rows as they are.")] = "",
    recipe: Annotated[Path | None, typer.Option(help="A YAML file of more steps: filters, sample, edits.")] = None,
    format: Layout = "auto",
    model: Annotated[str, typer.Option(help="Whose tokens count, where a step asks for a length in tokens.")] = "",
    written_as: Written = "jsonl",
    config: Config = None,
    split: Part = None,
    as_json: Json = False,
) -> None:
    """Write rows in another layout, filtered or edited, as a new dataset; the original is not touched."""
    from studio.core.configfile import read_yaml

    asked: dict[str, Any] = dict(read_yaml(recipe)) if recipe else {}
    if to:
        asked["steps"] = [*asked.get("steps", []), {"do": "convert", "format": to}]
    request = _request({"path": path, "format": format}, model, config, split)
    told = _ask("shape", {**request, "recipe": asked, "out": str(_new(out)), "format": written_as})
    put(told, as_json, str(told["path"]))


@data.command("split")
def split_(
    path: Dataset,
    out: New,
    validation_split: Annotated[float, typer.Option(help="A share below 1, or a number of rows.")] = 0.1,
    test_split: Annotated[float, typer.Option(help="A share below 1, or a number of rows.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split.")] = 42,
    stratify_by: Annotated[str | None, typer.Option(help="A column to keep in proportion.")] = None,
    group_duplicates: Annotated[str, typer.Option(help="exact, near or off: never torn apart.")] = "exact",
    format: Layout = "auto",
    written_as: Written = "jsonl",
    config: Config = None,
    split: Part = None,
    as_json: Json = False,
) -> None:
    """Write rows as training, validation and test files in a new folder; the original is not touched."""
    section = {
        "path": path,
        "format": format,
        "validation_split": validation_split,
        "test_split": test_split,
        "stratify_by": stratify_by,
        "group_duplicates": group_duplicates,
    }
    request = _request(section, "", config, split)
    told = _ask("split", {**request, "seed": seed, "out": str(_new(out)), "format": written_as})
    parts = [(name, told[name]) for name in ("train", "validation", "test") if told.get(name)]
    lines = [f"{name:<12}{part['rows']:>12,}  {part['path']}" for name, part in parts]
    put(told, as_json, "\n".join(lines))


@data.command("prefer")
def prefer(
    path: Dataset,
    out: New,
    model: Annotated[str, typer.Option(help="A run's id or a model: whose answers.")],
    reward_model: Annotated[str, typer.Option(help="run:<id> of a reward run, or a reward model.")],
    samples: Annotated[int, typer.Option(help="Answers to each question.")] = 4,
    most: Annotated[int | None, typer.Option(help="Questions at most; all, where it isn't said.")] = None,
    temperature: Annotated[float, typer.Option(help="How freely answers are drawn.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 42,
    format: Layout = "auto",
    config: Config = None,
    split: Part = None,
    as_json: Json = False,
) -> None:
    """Make preference data: of several answers to each question the best and the worst, by a reward model."""
    from studio.workspace.chat import check_samples, resolve_target, target_of
    from studio.workspace.extras import resolve_extra
    from studio.workspace.runs import Runs

    check_samples(temperature, samples)
    fields = resolve_target(Runs(), target_of(model))[1]
    reward = dataclasses.asdict(resolve_extra(reward_model, "reward_model", "reward"))
    request = _request({"path": path, "format": format}, "", config, split)
    drawn = {"temperature": temperature, "top_p": 1.0, "max_new_tokens": max_new_tokens, "seed": seed}
    named = {"dataset_name": path, "model_name": model, "reward_name": reward_model}
    wishes = {"reward": reward, "samples": samples, "most": most, "out": str(_new(out))}
    told = _preferred(fields, {**request, **wishes, **drawn, **named})
    say(f"{told['rows']:,} pairs of {told['read']:,} questions; {told['alike']:,} had answers all alike.")
    put(told, as_json, str(told["path"]))


def _preferred(model: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    from studio.worker.bestof import BestOf
    from studio.worker.chat import ChatModel
    from studio.workspace.follow import ProgressLine

    line, chat = ProgressLine(say), ChatModel()

    def part(fields: dict[str, Any]) -> None:
        line.show(str(fields.get("text", "")), fields.get("done"), fields.get("total"), "rows")

    try:
        chat.load(model, part)
        return BestOf(chat).prefer(request, part)
    finally:
        line.end()


# -- asking -----------------------------------------------------------------------------------------------------------


def _request(section: dict[str, Any], model: str, config: str | None, split: str | None, **more: Any) -> dict[str, Any]:
    """What the data worker's ops are asked with. Raises ConfigError."""
    from studio.core.configfile import parse_config
    from studio.workspace.datasets import get_dataset, resolve_dataset
    from studio.workspace.home import home
    from studio.workspace.models import resolve_model

    entry = get_dataset(section["path"])
    left_out = {"exclude": list(entry.exclude), "exclude_rows": list(entry.exclude_rows)}
    given = {"dataset": {**entry.knobs, **left_out, **section}}
    if "max_length" in more:
        given["training"] = {"max_length": more["max_length"]}
    knobs = parse_config(given).dataset
    dataset = dataclasses.replace(resolve_dataset(section["path"]))
    if config or split:
        dataset = dataclasses.replace(dataset, config=config or dataset.config, split=split or dataset.split)
    os.environ["STUDIO_HOME"] = str(home())
    return {
        "dataset": dataclasses.asdict(dataset),
        "section": knobs.model_dump(mode="json"),
        "model": dataclasses.asdict(resolve_model(model)) if model else None,
        "validation": dataclasses.asdict(resolve_dataset(knobs.validation_path)) if knobs.validation_path else None,
        **more,
    }


def _model(name: str) -> str:
    """The model to count tokens with. The starter is only a default: where it can't be had, nothing is counted."""
    if name in ("", "none"):
        return ""
    if name != "starter":
        return name
    from studio.worker.models import fetch
    from studio.workspace.follow import ProgressLine
    from studio.workspace.home import home
    from studio.workspace.models import resolve_model

    os.environ["STUDIO_HOME"] = str(home())
    line = ProgressLine(say)
    try:
        fetch(resolve_model("starter"), line.show)
    except (ModelError, OSError) as error:
        say(f"Tokens are not counted: {error} Give a model by --model.")
        return ""
    finally:
        line.end()
    return name


def _ask(op: str, request: dict[str, Any]) -> dict[str, Any]:
    import threading

    from studio.worker.data.serving import ops
    from studio.workspace.follow import ProgressLine

    line = ProgressLine(say)

    def part(fields: dict[str, Any]) -> None:
        line.show(str(fields.get("text", "")), fields.get("done"), fields.get("total"), "rows")

    try:
        return ops(threading.Event())[op](request, part)
    finally:
        line.end()


def _new(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudioError(f"{out} exists and isn't empty.", "Give a new folder.")
    return out.expanduser().absolute()


# -- for people -------------------------------------------------------------------------------------------------------


def _report(told: dict[str, Any]) -> str:
    lines = [f"{told['format']} ({told['type']}): {told['usable']:,} of {told['rows']:,} rows can be learned from."]
    for severity, title in (("error", "Always left out:"), ("warning", "Left out where dataset.exclude names them:")):
        found = [problem for problem in told["problems"] if problem["severity"] == severity]
        lines += ["", title] if found else []
        for problem in found:
            where = ", ".join(map(str, problem["lines"][:5])) + (", …" if problem["count"] > 5 else "")
            lines.append(f"{problem['count']:>9,}  {problem['title']} ({problem['kind']}): line {where}")
            if problem["example"]:
                lines.append(f"{'':>11}{problem['example']!r}")
    tokens = told["tokens"]
    if tokens["counted"]:
        lines += [
            "",
            f"{tokens['total']:,} tokens, of which {tokens['loss']:,} carry loss; the longest row has "
            f"{tokens['longest']:,}. {tokens['rows_cut']:,} rows are longer than {tokens['max_length']:,}: "
            f"{tokens['tokens_lost']:,} tokens are cut off.",
        ]
    return "\n".join(lines)


def _numbers(told: dict[str, Any]) -> str:
    tokens = told.get("tokens")
    lengths, unit = (tokens["parts"], "tokens") if tokens else (told["characters"], "characters")
    lines = [f"{told['format']} ({told['type']}): {told['usable']:,} of {told['rows']:,} rows can be used.", ""]
    lines.append(f"{unit:<12}{'mean':>9}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for part, of in lengths.items():
        lines.append(f"{part:<12}{of['mean']:>9,.0f}{of['p50']:>9,}{of['p95']:>9,}{of['p99']:>9,}{of['max']:>9,}")
    if tokens:
        lines += ["", f"{tokens['total']:,} tokens, {100 * tokens['loss_share']:.0f} % of them carry loss."]
        lines += [f"{'max_length':<12}{'rows cut':>9}{'tokens lost':>13}"]
        lines += [f"{c['max_length']:<12,}{c['rows_cut']:>9,}{c['tokens_lost']:>13,}" for c in tokens["cuts"]]
        lines += [f"Suggested: {tokens['suggested']['why']}"] if tokens.get("suggested") else []
    shares = ", ".join(f"{one['name']} {100 * one['share']:.0f} %" for one in told["languages"][:8])
    lines += ["", f"languages   {shares}", "answers open with"]
    lines += [f"{100 * one['share']:>9.1f} %  {one['words']}" for one in told["openings"][:8]]
    if epoch := told.get("epoch"):
        tokens_of = f", {epoch['tokens']:,} tokens" if epoch["tokens"] is not None else ""
        lines += ["", f"An epoch: {epoch['train_rows']:,} rows, {epoch['steps']:,} steps{tokens_of}."]
    return "\n".join(lines)


def _coloured(shown: dict[str, Any]) -> str:
    """The row's tokens; those that carry loss in bold green, those that are cut off dimmed (on a terminal)."""
    learnt = sum(shown["loss"][: shown["cut"]])
    head = f"line {shown['line']}, {shown['format']}: {len(shown['ids'])} tokens, {learnt} carry loss"
    text = f"{head}\n{_tokens(shown)}"
    if shown.get("rejected"):
        text += f"\n\nrejected:\n{_tokens({'cut': shown['cut'], **shown['rejected']})}"
    return text


def _tokens(shown: dict[str, Any]) -> str:
    plain = not sys.stdout.isatty()
    pieces = []
    for i, (token, loss) in enumerate(zip(shown["tokens"], shown["loss"], strict=True)):
        style = "2" if i >= shown["cut"] else "1;32" if loss else ""
        pieces.append(token if plain or not style else f"\x1b[{style}m{token}\x1b[0m")
    return "".join(pieces)
