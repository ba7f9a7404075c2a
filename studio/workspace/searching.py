"""What to try next, and what to give up: Optuna's TPE sampler and median pruner, fed with the trials so far.

In: a SweepConfig, its trials. Out: values; a verdict. Keeps nothing: the study is made anew each time, so that it is
the same whoever asks. TPE: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization".
"""

from __future__ import annotations

import functools
from typing import Any

from studio.core.sweep import SweepConfig, Trial, Vary

_FIRST = 3  # trials that are seen to their end before others are measured by them


def suggest(config: SweepConfig, trials: list[Trial]) -> dict[str, Any]:
    """The values of the next trial, by knob."""
    study, ranges = _study(config, trials)
    found = study.ask(ranges).params
    return {vary.path: _plain(vary, found[vary.path]) for vary in config.ranges}


def hopeless(config: SweepConfig, before: list[Trial], trial: Trial) -> bool:
    """Whether a running trial's figures are worse than the median of the others' at that step."""
    if not trial.seen:
        return False
    study, ranges = _study(config, before)
    study.enqueue_trial(_params(config, trial))
    running = study.ask(ranges)
    for step, value in trial.seen:
        running.report(value, step)
    return bool(running.should_prune())


def _study(config: SweepConfig, trials: list[Trial]) -> tuple[Any, dict[str, Any]]:
    optuna = _optuna()
    ranges = {vary.path: _distribution(optuna, vary) for vary in config.ranges}
    study = optuna.create_study(
        direction="maximize" if config.maximize else "minimize",
        sampler=optuna.samplers.TPESampler(seed=config.seed + len(trials), n_startup_trials=_FIRST),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_FIRST, n_warmup_steps=0),
    )
    for trial in trials:
        if trial.outcome in ("finished", "pruned") and trial.value is not None:
            study.add_trial(_made(optuna, config, trial, ranges))
    return study, ranges


def _made(optuna: Any, config: SweepConfig, trial: Trial, ranges: dict[str, Any]) -> Any:
    states = optuna.trial.TrialState
    return optuna.trial.create_trial(
        params=_params(config, trial),
        distributions=ranges,
        value=trial.value,
        intermediate_values=dict(trial.seen),
        state=states.COMPLETE if trial.outcome == "finished" else states.PRUNED,
    )


def _params(config: SweepConfig, trial: Trial) -> dict[str, Any]:
    """A trial's values as Optuna has them: a choice by its place."""
    found = {}
    for vary in config.ranges:
        value = trial.values[vary.path]
        found[vary.path] = vary.choices.index(value) if vary.choices else value
    return found


def _distribution(optuna: Any, vary: Vary) -> Any:
    if vary.choices:  # by place: Optuna takes no lists and maps as choices
        return optuna.distributions.CategoricalDistribution(tuple(range(len(vary.choices))))
    if vary.whole:
        return optuna.distributions.IntDistribution(int(vary.low), int(vary.high), log=vary.log)
    return optuna.distributions.FloatDistribution(vary.low, vary.high, log=vary.log)


def _plain(vary: Vary, value: Any) -> Any:
    if vary.choices:
        return vary.choices[value]
    return int(value) if vary.whole else float(f"{value:.4g}")  # digits that a person can copy


@functools.cache
def _optuna() -> Any:
    """Imported when it is needed: a fifth of a second that no start should wait for."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
