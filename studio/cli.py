"""The command `studio`: one thin function a command.

In: arguments. Out: words for people on stderr, one JSON object on stdout with --json, an exit code: 0 done, 1 failed,
2 bad input, 130 stopped. Whatever a command does is done in core, workspace, worker or ui, which are imported only
when it is called.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from studio.cli_data import data
from studio.cli_estimate import estimate
from studio.cli_export import export, merge
from studio.cli_interchange import command, import_
from studio.cli_sweep import find_rate, sweep
from studio.cli_train import runs, train
from studio.core.errors import StudioError
from studio.say import Json, put, say, write

app = typer.Typer(
    name="studio",
    help="Fine-tune a language model on your own machine.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="List and fetch models.", no_args_is_help=True, rich_markup_mode=None)
app.command("train")(train)
app.command("estimate")(estimate)
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(runs, name="runs")
app.command("import")(import_)
app.command("command")(command)
app.command("sweep")(sweep)
app.command("find-rate")(find_rate)
app.command("export")(export)
app.command("merge")(merge)


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


@app.command()
def chat(
    target: Annotated[str, typer.Argument(help="A run's id or a model.")],
    prompt: Annotated[str, typer.Option(help="Ask this once and end.")] = "",
    temperature: Annotated[
        float | None, typer.Option(help="0, the usual: always the likeliest word. With --best-of, 1 is usual.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 256,
    best_of: Annotated[int, typer.Option(help="Draw so many answers and give the best, by --reward-model.")] = 1,
    reward_model: Annotated[str, typer.Option(help="run:<id> of a reward run, or a reward model.")] = "",
    as_json: Json = False,
) -> None:
    """Talk to a run beside its base, or to a model."""
    from studio.workspace.conversation import Conversation

    if best_of > 1 or reward_model:
        _chat_best(target, prompt, reward_model, best_of, temperature, max_new_tokens, as_json)
        return
    temperature = temperature or 0.0
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


def _chat_best(
    target: str, prompt: str, reward: str, samples: int, temperature: float | None, max_new_tokens: int, as_json: bool
) -> None:
    """The best of several answers, by a reward model; with --json all of them, with their scores."""
    import dataclasses

    from studio.core.errors import ConfigError
    from studio.workspace.chat import check_samples
    from studio.workspace.conversation import Conversation

    temperature = 1.0 if temperature is None else temperature
    check_samples(temperature, samples)
    if not reward:
        raise ConfigError("reward_model", "nothing says which answer is best.", "Give --reward-model run:<id>.")
    conversation = Conversation(target, say)
    try:
        question = prompt or sys.stdin.read()
        found = conversation.best(question, reward, samples, temperature, max_new_tokens)
        told = [dataclasses.asdict(one) for one in found]
        put({"target": target, "prompt": question, "answer": found[0].text, "samples": told}, as_json, found[0].text)
    finally:
        conversation.close()
