"""The commands `studio sweep` and `studio find-rate`: a search over knobs, trial by trial, and what came out.

In: arguments. Out: a line a trial on stderr, the table or one JSON object on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli_train import foretelling_supervisor
from studio.say import Json, put, say

Run = Annotated[str, typer.Argument(metavar="RUN.yaml", help="A run or a preset; or a sweep's id, to go on with it.")]
Vary = Annotated[list[str] | None, typer.Option(help="knob=low:high[:log] or knob=a,b,c; as often as needed.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="knob=value, the same in every trial.")]


def sweep(
    run: Run,
    vary: Vary = None,
    trials: Annotated[int, typer.Option(help="How many runs to try.")] = 8,
    overrides: Set = None,
    metric: Annotated[str, typer.Option(help="The figure that says how good a run is.")] = "eval_loss",
    maximize: Annotated[bool, typer.Option("--maximize", help="High is good, as with an accuracy.")] = False,
    prune: Annotated[bool, typer.Option("--prune/--no-prune", help="End hopeless trials early.")] = True,
    seed: Annotated[int, typer.Option(help="The same seed tries the same values.")] = 42,
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    as_json: Json = False,
) -> None:
    """Look for better knobs: trials are runs in the queue, chosen by what the earlier ones showed."""
    from studio.core.configfile import load_config
    from studio.core.sweep import SweepConfig
    from studio.workspace.sweeps import Sweeps

    supervisor = foretelling_supervisor()
    sweeps = Sweeps(supervisor)
    try:
        if run in sweeps.ids():
            (sweeps.folder / run / "stop").unlink(missing_ok=True)
            sweep_id = run
        else:
            base = load_config(Path(run), overrides or ())
            wishes = {"trials": trials, "metric": metric, "maximize": maximize, "prune": prune, "seed": seed}
            sweep_id = sweeps.create(_config(SweepConfig, {"name": name, "base": base, "vary": vary or [], **wishes}))
        say(f"Sweep {sweep_id}.")
        _follow(sweeps, sweep_id)
        done = sweeps.get(sweep_id)
    finally:
        sweeps.close()
        supervisor.close()
    put(_told(done), as_json, "" if as_json else _table(done))
    raise typer.Exit(0 if done.status == "finished" and done.best else 130 if done.status == "stopped" else 1)


def _config(kind: Any, data: dict[str, Any]) -> Any:
    from studio.core.configfile import parse_as
    from studio.core.errors import ConfigError

    if not data["vary"]:
        raise ConfigError("", "There is nothing to vary.", "Add --vary training.learning_rate=1e-5:1e-3:log.")
    return parse_as(kind, {**data, "base": data["base"].model_dump()})


def _follow(sweeps: Any, sweep_id: str) -> None:
    """Drive it; Ctrl-C ends the sweep, and its trial keeps a checkpoint."""
    try:
        sweeps.drive(sweep_id, lambda trial: say(_line(trial)))
    except KeyboardInterrupt:
        say("Stopping the sweep; its trial saves a checkpoint.")
        sweeps.stop(sweep_id)
        sweeps.drive(sweep_id)


def _line(trial: Any) -> str:
    values = "  ".join(f"{path.rpartition('.')[2]}={_spelt(value)}" for path, value in trial.values.items())
    figure = "" if trial.value is None else f"  {trial.value:.4f}"
    return f"trial {trial.number + 1:>3}  {values}{figure}  {trial.outcome}"


def _spelt(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(sweep: Any) -> str:
    lines = [_line(trial) for trial in sweep.trials]
    if sweep.best is not None:
        sets = " ".join(f"--set {path}={_spelt(value)}" for path, value in sweep.best.values.items())
        lines += [
            "",
            f"Best: trial {sweep.best.number + 1}, {sweep.config.metric} {sweep.best.value:.4f}.",
            f"  {sets}",
        ]
    return "\n".join(lines)


def _told(sweep: Any) -> dict[str, Any]:
    def one(trial: Any) -> dict[str, Any]:
        return {
            "number": trial.number + 1,
            "run": trial.run_id,
            "values": dict(trial.values),
            "outcome": trial.outcome,
            "value": trial.value,
        }

    return {
        "id": sweep.id,
        "status": sweep.status,
        "metric": sweep.config.metric,
        "trials": [one(trial) for trial in sweep.trials],
        "best": one(sweep.best) if sweep.best else None,
    }


def find_rate(
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="A run or a preset.")],
    overrides: Set = None,
    steps: Annotated[int, typer.Option(help="Steps of the short run.")] = 80,
    as_json: Json = False,
) -> None:
    """Suggest a learning rate: a short run whose rate rises at every step, and where its loss falls fastest."""
    from studio.core.configfile import load_config
    from studio.workspace.follow import follow_run
    from studio.workspace.supervisor import Supervisor

    wishes = [*(overrides or ()), "training.find_learning_rate=true", f"training.max_steps={steps}"]
    supervisor = Supervisor()
    run_id = supervisor.submit(load_config(config, wishes), "Learning rate")
    code = follow_run(supervisor, run_id, lambda text: None)
    run = supervisor.runs.get(run_id)
    supervisor.close()
    found = run.progress.ended.result if run.progress.ended else {}
    if code:
        say(f"{run.state.cause} {run.state.hint}".strip())
        raise typer.Exit(code)
    rate = found.get("suggested")
    words = f"training.learning_rate={_spelt(rate)}" if rate else "The loss fell at no rate; look at the data first."
    put({"run": run_id, **found}, as_json, words)
    raise typer.Exit(0 if rate else 1)
