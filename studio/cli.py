"""The command `studio`: one thin function a command.

In: arguments. Out: words for people on stderr, one JSON object on stdout with --json, an exit code: 0 done, 1 failed,
2 bad input, 130 stopped. Whatever a command does is done in core, workspace, worker or ui, which are imported only
when it is called.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli_data import data
from studio.core.errors import StudioError
from studio.say import Json, put, say, write

Dtype = Annotated[str, typer.Option(help="auto (as the base), bfloat16, float16 or float32.")]
ShardSize = Annotated[float, typer.Option(help="Gigabytes a file at most.")]
Parity = Annotated[
    bool, typer.Option("--parity/--no-parity", help="Load what was written and compare it with base and adapter.")
]

app = typer.Typer(
    name="studio",
    help="Fine-tune a language model on your own machine.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="List and fetch models.", no_args_is_help=True, rich_markup_mode=None)
runs = typer.Typer(help="List, stop, resume and delete runs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(runs, name="runs")


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
            answers = conversation.ask(question, None if as_json else write, temperature, max_new_tokens)
            if as_json:
                put({"target": target, "prompt": question, "answers": answers}, True)
            return
        say("Type a message; an empty line ends.")
        while question := input("> ").strip():
            conversation.ask(question, write, temperature, max_new_tokens)
    except EOFError:
        return
    finally:
        conversation.close()


@app.command()
def export(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    format: Annotated[str, typer.Option(help="adapter, merged, gguf, gguf-lora, ollama or bnb.")] = "merged",
    dtype: Dtype = "auto",
    quantization: Annotated[
        str, typer.Option(help="gguf and ollama: f32, f16, bf16, q8_0; bnb: nf4, fp4, int8.")
    ] = "auto",
    shard_size: ShardSize = 5.0,
    quantized_base: Annotated[
        str, typer.Option(help="For a run on a 4- or 8-bit base: merge into the original, or dequantized weights.")
    ] = "original",
    parity: Parity = True,
    as_json: Json = False,
) -> None:
    """Write what a run has learnt as files that other programs load, and compare them with what was trained."""
    from studio.core.config import ExportConfig
    from studio.core.configfile import parse_as
    from studio.workspace.supervisor import Supervisor

    fields = {"run": run_id, "format": format, "out": str(out), "dtype": dtype, "shard_size": shard_size}
    more = {"quantization": quantization, "quantized_base": quantized_base, "parity": parity}
    config = parse_as(ExportConfig, {**fields, **more})
    supervisor = Supervisor()
    _follow_export(supervisor, supervisor.export(config), as_json)


@app.command()
def merge(
    base: Annotated[str, typer.Argument(help="starter, a folder or a name on the hub.")],
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Folders of adapters, or runs.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    dtype: Dtype = "auto",
    shard_size: ShardSize = 5.0,
    weights: Annotated[str, typer.Option(help="One number for each adapter, such as 0.7,0.3.")] = "",
    combination: Annotated[
        str, typer.Option(help="How several become one: cat (their exact sum), linear, svd, ties, dare_linear, ...")
    ] = "cat",
    density: Annotated[float, typer.Option(help="The share of changes that ties and dare keep.")] = 0.5,
    parity: Parity = True,
    as_json: Json = False,
) -> None:
    """Merge adapters that were trained elsewhere into their base."""
    from studio.core.config import MergeConfig
    from studio.core.configfile import parse_as
    from studio.workspace.supervisor import Supervisor

    fields = {"base": base, "adapters": adapters, "out": str(out), "dtype": dtype, "shard_size": shard_size}
    ways = {"combination": combination, "density": density, "weights": [w for w in weights.split(",") if w.strip()]}
    config = parse_as(MergeConfig, {**fields, **ways, "parity": parity})
    supervisor = Supervisor()
    _follow_export(supervisor, supervisor.merge(config), as_json)


def _follow_export(supervisor: Any, job: Any, as_json: bool) -> None:
    """Follow an export of a Supervisor to its end; what it made is the answer."""
    from studio.workspace.follow import follow_export

    ended = follow_export(supervisor, job, say)
    supervisor.close()
    if ended.state.status != "finished":
        raise StudioError(ended.state.cause or "The export was stopped.", ended.state.hint)
    for note in ended.progress.notes:
        say(note.text)
    put(ended.result, as_json, str(ended.result["path"]))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
