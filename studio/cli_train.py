"""The commands `studio train` and `studio runs ...`: one thin function each.

In: arguments. Out: a run followed to its end, its folder as the last line; tables or one JSON object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from studio.say import Json, put, say

runs = typer.Typer(help="List, stop, resume and delete runs.", no_args_is_help=True, rich_markup_mode=None)


def train(
    config: Annotated[list[Path], typer.Argument(metavar="RUN.yaml...", help="A run.yaml or a preset, or several.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="knob=value, such as training.max_steps=10.")] = None,
    name: Annotated[str, typer.Option(help="What to call the run.")] = "",
) -> None:
    """Train. Exit code 0: finished, 1: failed, 2: bad config, 130: stopped. The last line is the run's folder.

    Several files are trained one after the other; in a later one run:@1 stands for the run of the first.
    """
    from studio.core.chain import check_chain, with_runs
    from studio.core.configfile import override, parse_config, read_yaml
    from studio.workspace.hardware import torch_build_problem

    files = [override(read_yaml(path), set_ or ()) for path in config]
    check_chain(files)
    for said in files:
        parse_config(said)
    supervisor, code = foretelling_supervisor(), 0
    begun: list[str] = []
    for number, said in enumerate(files, start=1):
        label = f"{name} {number}" if name and len(files) > 1 else name
        begun.append(supervisor.submit(parse_config(with_runs(said, begun)), label))
        if number == 1 and (problem := torch_build_problem(deadline=5.0)):
            say(problem)
        code = _followed(supervisor, begun[-1])
        if code:
            break
    supervisor.close()
    raise typer.Exit(code)


def _followed(supervisor: Any, run_id: str) -> int:
    """Follow a run of a Supervisor to its end; its folder is the last line, its exit code is returned."""
    from studio.workspace.follow import follow_run

    code = follow_run(supervisor, run_id, say)
    put(None, False, str(supervisor.runs.folder / run_id))
    return code


def foretelling_supervisor() -> Any:
    """A Supervisor that keeps beside each run what was forecast of it."""
    from studio.workspace.estimating import Estimating
    from studio.workspace.home import home
    from studio.workspace.supervisor import Supervisor

    supervisor = Supervisor()
    supervisor.predict = Estimating(home(), supervisor.desk, supervisor.learning).predict
    return supervisor


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
    code = _followed(supervisor, run_id)
    supervisor.close()
    raise typer.Exit(code)


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


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
