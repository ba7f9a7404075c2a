"""The command `studio`: one thin function a command.

In: arguments. Out: words for people on stderr, one JSON object on stdout with --json, an exit code: 0 done, 1 failed,
2 bad input, 130 stopped. Whatever a command does is done in core, workspace, worker or ui, which are imported only
when it is called.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.core.errors import StudioError

app = typer.Typer(
    name="studio",
    help="Fine-tune a language model on your own machine.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Look at datasets.", no_args_is_help=True, rich_markup_mode=None)
models = typer.Typer(help="List and fetch models.", no_args_is_help=True, rich_markup_mode=None)
runs = typer.Typer(help="List, stop, resume and delete runs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(runs, name="runs")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def main() -> None:
    """Run the command line; errors are one sentence, or a traceback with --debug."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app(standalone_mode=True)
    except StudioError as error:
        if debug:
            traceback.print_exc()
        say(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os._exit(1)  # the reader of our output has gone; nothing is left to say to it


def say(text: str = "") -> None:
    """Words for a person: they go to stderr, so that stdout stays a program's."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def put(value: Any, as_json: bool, text: str = "") -> None:
    """A command's answer: JSON for programs, else text for people."""
    from studio.core.events import spell

    _write(json.dumps(spell(value), default=str, allow_nan=False) + "\n" if as_json else text + "\n")


def _write(text: str) -> None:
    """Spell out what the terminal's encoding lacks: a run may be called anything."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Fine-tune a language model on your own machine. Without a command: open the window."""
    if context.invoked_subcommand is None:
        ui()


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Where to listen; anything but this machine needs --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to try first; if it is taken, the next free one.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
    token: Annotated[str, typer.Option(help="A secret that visitors must know.", envvar="STUDIO_TOKEN")] = "",
) -> None:
    """Open the window."""
    from studio.ui.server import serve

    serve(host, port, open_browser=browser, token=token or None)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A run.yaml or a preset.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="knob=value, such as training.max_steps=10.")] = None,
    name: Annotated[str, typer.Option(help="What to call the run.")] = "",
) -> None:
    """Train. Exit code 0: finished, 1: failed, 2: bad config, 130: stopped. The last line is the run's folder."""
    from studio.core.configfile import load_config
    from studio.workspace.hardware import torch_build_problem
    from studio.workspace.supervisor import Supervisor

    supervisor = Supervisor()
    run_id = supervisor.submit(load_config(config, set_ or ()), name)
    if problem := torch_build_problem(deadline=5.0):
        say(problem)
    raise typer.Exit(_followed(supervisor, run_id))


def _followed(supervisor: Any, run_id: str) -> int:
    """Follow a run of a Supervisor to its end; its folder is the last line, its exit code is returned."""
    from studio.workspace.follow import follow_run

    code = follow_run(supervisor, run_id, say)
    supervisor.close()
    put(None, False, str(supervisor.runs.folder / run_id))
    return code


@data.command("show")
def data_show(
    path: Annotated[str, typer.Argument(help="A registered dataset or a file.")],
    format: Annotated[str, typer.Option(help="The rows' layout.")] = "auto",
    model: Annotated[str, typer.Option(help="Whose template and tokens.")] = "starter",
    row: Annotated[int, typer.Option(help="Which row, from 0.")] = 0,
    train_on: Annotated[str, typer.Option(help="assistant, last_assistant or all.")] = "assistant",
    max_length: Annotated[int, typer.Option(help="Where training cuts rows.")] = 1024,
    as_json: Json = False,
) -> None:
    """Show a row as trained on: text, tokens, and which of them carry loss."""
    import dataclasses

    from studio.core.configfile import parse_config
    from studio.workspace.datasets import resolve_dataset
    from studio.workspace.home import home
    from studio.workspace.models import resolve_model

    section = {"path": path, "format": format, "train_on": train_on}
    knobs = parse_config({"dataset": section, "training": {"max_length": max_length}}).dataset
    request = {
        "dataset": dataclasses.asdict(resolve_dataset(path)),
        "model": dataclasses.asdict(resolve_model(model)),
        "section": knobs.model_dump(),
        "row": row,
        "max_length": max_length,
    }
    os.environ["STUDIO_HOME"] = str(home())
    from studio.worker.show import show_row

    shown = show_row(request)
    put(shown, as_json, "" if as_json else _coloured(shown))


def _coloured(shown: dict[str, Any]) -> str:
    """The row's tokens; those that carry loss in bold green, those that are cut off dimmed (on a terminal)."""
    plain = not sys.stdout.isatty()
    pieces = []
    for i, (token, loss) in enumerate(zip(shown["tokens"], shown["loss"], strict=True)):
        style = "2" if i >= shown["cut"] else "1;32" if loss else ""
        pieces.append(token if plain or not style else f"\x1b[{style}m{token}\x1b[0m")
    learnt = sum(shown["loss"][: shown["cut"]])
    head = f"line {shown['line']}, {shown['format']}: {len(shown['ids'])} tokens, {learnt} carry loss"
    return f"{head}\n{''.join(pieces)}"


@models.command("list")
def models_list(as_json: Json = False) -> None:
    """The models that are here."""
    from studio.workspace.models import list_models

    found = list_models()
    rows = [f"{m.name:<40} {m.bytes / 1e9:>6.2f} GB  {m.note or m.title}" for m in found]
    put({"models": [{"name": m.name, "path": m.path, "bytes": m.bytes} for m in found]}, as_json, "\n".join(rows))


@models.command("get")
def models_get(
    name: Annotated[str, typer.Argument(help="starter, or a name on the hub.")], as_json: Json = False
) -> None:
    """Fetch a model so that runs find it here."""
    from studio.workspace.follow import ProgressLine
    from studio.workspace.home import home
    from studio.workspace.models import resolve_model

    model = resolve_model(name)
    os.environ["STUDIO_HOME"] = str(home())
    from studio.worker.models import fetch

    line = ProgressLine(say)
    folder = fetch(model, line.show)
    line.end()
    put({"name": name, "path": str(folder)}, as_json, str(folder))


@runs.command("list")
def runs_list(as_json: Json = False) -> None:
    """All runs, newest first."""
    import dataclasses

    from studio.workspace.runs import Runs, summarise

    found = [summarise(run) for run in Runs().list()]
    rows = [f"{r.id:<44} {r.status:<12} {r.step:>6}/{r.max_steps:<6} {_number(r.loss):>8}  {r.name}" for r in found]
    put({"runs": [dataclasses.asdict(r) for r in found]}, as_json, "\n".join(rows) or "No runs yet.")


@runs.command("show")
def runs_show(run_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """One run: its state, its numbers, its settings."""
    import dataclasses

    from studio.core.configfile import config_to_yaml
    from studio.workspace.runs import Runs, summarise

    run = Runs().get(run_id)
    summary = dataclasses.asdict(summarise(run))
    summary["folder"] = str(run.folder.path)
    summary["hint"] = run.state.hint
    summary["notes"] = [note.text for note in run.progress.notes]
    summary["result"] = run.progress.ended.result if run.progress.ended else {}
    summary["config"] = run.config.model_dump(mode="json")
    lines = [f"{key:<16} {value}" for key, value in summary.items() if key not in ("config", "notes", "result")]
    text = "\n".join([*lines, "", *summary["notes"], "", config_to_yaml(run.config)])
    put(summary, as_json, text)


@runs.command("stop")
def runs_stop(run_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Let a run save a checkpoint and end."""
    from studio.workspace.follow import wait_until_ended
    from studio.workspace.supervisor import Supervisor

    supervisor = Supervisor()
    supervisor.stop(run_id)
    run = wait_until_ended(supervisor, run_id)
    supervisor.close()
    put(
        {"id": run_id, "status": run.state.status, "cause": run.state.cause},
        as_json,
        f"{run_id} is {run.state.status}.",
    )


@runs.command("resume")
def runs_resume(run_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Let a run go on from its last complete checkpoint, and follow it."""
    from studio.workspace.supervisor import Supervisor

    supervisor = Supervisor()
    supervisor.resume(run_id)
    raise typer.Exit(_followed(supervisor, run_id))


@runs.command("delete")
def runs_delete(
    run_id: Annotated[str, typer.Argument(metavar="ID")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a run and all it made."""
    from studio.workspace.supervisor import Supervisor

    supervisor = Supervisor()
    folder = supervisor.runs.get(run_id).folder.path
    if not yes:
        typer.confirm(f"Delete {folder} with its checkpoints and adapter?", abort=True, err=True)
    supervisor.delete(run_id)
    put({"id": run_id, "deleted": True}, as_json, f"{run_id} is deleted.")


@app.command()
def chat(
    target: Annotated[str, typer.Argument(help="A run's id or a model.")],
    prompt: Annotated[str, typer.Option(help="Ask this once and end.")] = "",
    temperature: Annotated[float, typer.Option(help="0: always the likeliest word.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 256,
    as_json: Json = False,
) -> None:
    """Talk to a run beside its base, or to a model."""
    from studio.workspace.conversation import Conversation

    conversation = Conversation(target, say)
    try:
        if prompt or as_json or not sys.stdin.isatty():
            question = prompt or sys.stdin.read()
            answers = conversation.ask(question, None if as_json else _write, temperature, max_new_tokens)
            if as_json:
                put({"target": target, "prompt": question, "answers": answers}, True)
            return
        say("Type a message; an empty line ends.")
        while question := input("> ").strip():
            conversation.ask(question, _write, temperature, max_new_tokens)
    except EOFError:
        return
    finally:
        conversation.close()


@app.command()
def export(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    format: Annotated[str, typer.Option(help="adapter, or merged: base and adapter in one.")] = "merged",
    dtype: Annotated[str, typer.Option(help="auto (as the base), bfloat16, float16 or float32.")] = "auto",
    as_json: Json = False,
) -> None:
    """Write a run's adapter, or its base with the adapter merged in, as a folder that other programs load."""
    from studio.core.config import ExportConfig
    from studio.core.configfile import parse_as
    from studio.workspace.follow import follow_export
    from studio.workspace.supervisor import Supervisor

    fields = {"run": run_id, "format": format, "out": str(out), "dtype": dtype}
    supervisor = Supervisor()
    job = supervisor.export(parse_as(ExportConfig, fields))
    ended = follow_export(supervisor, job, say)
    supervisor.close()
    if ended.state.status != "finished":
        raise StudioError(ended.state.cause or "The export was stopped.", ended.state.hint)
    put(ended.result, as_json, str(ended.result["path"]))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
