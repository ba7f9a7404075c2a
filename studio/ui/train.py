"""The Train tab: what to teach to which model and how, what that run will be, and Start.

In: presets, runs to repeat, what a person picks and types. Out: a run handed to the supervisor. The page keeps the
values; every look at them and every start goes through core again, and what core refuses is said at the field. Typing
asks for a new look once it pauses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml
from studio.core.errors import ConfigError, StudioError
from studio.ui import choices, exportplanview, plan, shown, trainview
from studio.ui.context import Studio
from studio.ui.form import (
    ADAPTER,
    KNOBS,
    METHOD,
    ONLY_QUANTIZED,
    at,
    classes,
    fault,
    laid_over,
    note,
    read_handed,
    to_config,
    to_values,
    unmarked,
)
from studio.ui.gradio_import import gr
from studio.ui.opened import on_open
from studio.ui.text_forms import say
from studio.workspace.presets import list_presets, load_preset, save_preset

FIRST_PRESET = "quickstart"
MODEL, DATASET, PRESET = "model.name_or_path", "dataset.path", "preset"
_ONE_CLICK = (
    3.0  # seconds within which the same settings, started again, are the same start: a double click, two windows
)

Updates = dict[Any, Any]


def build_tab(studio: Studio) -> None:
    """The whole tab, with the first preset loaded."""
    first = laid_over({}, load_preset(FIRST_PRESET))
    tab = TrainTab(studio, trainview.build(to_values(first), FIRST_PRESET))
    tab.connect()


class TrainTab:
    """What the tab's controls do. `base` names what the form was filled from: `preset:<name>` or `run:<id>`."""

    def __init__(self, studio: Studio, view: trainview.TrainView) -> None:
        self.studio = studio
        self.view = view
        self.form = view.form
        self._started: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Tie the handlers to the controls. None of them takes long, so none waits in a queue behind a chat.

        Every look goes through the pulse, one after the other: an answer to older values never comes last.
        """
        view, quiet = self.view, {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        state = [view.base, view.faulty, *self.form.inputs]
        look = {"fn": None, "js": trainview.LOOK}
        view.pulse.input(self.looked_at, state, view.looks, trigger_mode="always_last", **quiet)
        gr.on(view.picks, **look)
        on_open(self.opened, [], view.picked).then(**look)
        view.preset.input(self.preset_picked, [view.preset, *state], view.everything, **quiet).then(**look)
        view.advice.click(self.mended, state, view.everything, **quiet).then(**look)
        start = view.start.click(self.started, [view.name, *state], view.everything, **quiet)
        start.then(fn=None, inputs=[view.run], js=trainview.GO)
        view.save.click(self.saved, [view.save_name, *state], view.everything, **quiet).then(**look)
        handoff = self.studio.handoff.get("train")
        if handoff is not None:
            handoff.submit(self.handed, [handoff, *state], view.everything, **quiet).then(**look)

    # -- handlers -----------------------------------------------------------------------------------------------------

    def looked_at(self, event: gr.EventData, base: str, faulty: str, *values: Any) -> Updates:
        """Something changed; while it is still being typed, half a number is no mistake yet."""
        return self._answer(self.form.read(values), base, faulty, forgiving=not event._data.get("left"))

    def opened(self) -> Updates:
        """The tab was come to: what can be picked may have changed."""
        return {
            self.view.preset: gr.update(choices=choices.presets()),
            self.form.controls[MODEL]: gr.update(choices=choices.models()),
            self.form.controls[DATASET]: gr.update(choices=choices.datasets()),
        }

    def preset_picked(self, preset: str, base: str, faulty: str, *values: Any) -> Updates:
        try:
            config = laid_over(self.form.read(values), load_preset(preset))
        except StudioError as error:
            return self._refused(error, faulty, name=PRESET)
        return self._filled(config, f"preset:{preset}", faulty)

    def handed(self, given: str, base: str, faulty: str, *values: Any) -> Updates:
        """What another tab gives: a run to repeat, or a dataset (a JSON object) to train on."""
        if not str(given).startswith("{"):
            return self.repeated(given, base, faulty, *values)
        taken = read_handed(str(given))
        shown_now = {**self.form.read(values), **taken}
        updates = self._answer(shown_now, base, faulty)
        for name, value in taken.items():
            control = self.form.controls[name]
            updates[control] = gr.update(**{**updates.get(control, {}), "value": value})
        return updates

    def repeated(self, run_id: str, base: str, faulty: str, *values: Any) -> Updates:
        """ "Repeat with a change": the form takes a run's settings."""
        try:
            run = self.studio.supervisor.runs.get(str(run_id))
        except StudioError as error:
            return self._refused(error, faulty, name=PRESET)
        updates = self._filled(run.config, f"run:{run.id}", faulty)
        told = trainview.preset_note("", say("train.from_run", name=run.label))
        return {**updates, self.view.preset: gr.update(value=None, info=told, elem_classes=classes(PRESET))}

    def mended(self, event: gr.EventData, base: str, faulty: str, *values: Any) -> Updates:
        """A piece of advice was taken: the values it names change."""
        shown_now = self.form.read(values)
        try:
            config = to_config(shown_now)
        except ConfigError as error:
            return self._refused(error, faulty)
        found = {one.key: one for one in plan.advice(config, self._facts(config))}
        taken = found.get(str(event._data.get("mend")))
        changes = dict(taken.changes) if taken else {}
        updates = self._answer({**shown_now, **changes}, base, faulty)
        for name, value in changes.items():
            control = self.form.controls[name]
            updates[control] = gr.update(**{**updates.get(control, {}), "value": value})
        return updates

    def started(self, name: str, base: str, faulty: str, *values: Any) -> Updates:
        """Start: the run's id goes to `view.run`, from where the page goes on to it."""
        try:
            config = to_config(self.form.read(values))
            run_id = self._start_once(config, name or "")
        except StudioError as error:
            return {**self._refused(error, faulty), self.view.run: ""}
        return {**self._answer(self.form.read(values), base, faulty), self.view.run: run_id, self.view.name: ""}

    def saved(self, name: str, base: str, faulty: str, *values: Any) -> Updates:
        """Save as preset."""
        shown_now = self.form.read(values)
        try:
            entry = save_preset(name or "", to_config(shown_now))
        except ConfigError as error:
            if error.field:
                return self._refused(error, faulty)
            return {self.view.saved: shown.problem(str(error))}
        except StudioError as error:
            return {self.view.saved: shown.problem(str(error))}
        base = f"preset:{entry.name}"
        told = say("train.saved", title=shown.text(entry.title))
        return {
            **self._answer(shown_now, base, faulty),
            self.view.base: base,
            self.view.preset: gr.update(choices=choices.presets(), value=entry.name, info=trainview.preset_note(base)),
            self.view.saved: f'<p class="st-hint" role="status">{told}</p>',
            self.view.save_name: "",
        }

    # -- what they share ----------------------------------------------------------------------------------------------

    def _start_once(self, config: RunConfig, label: str) -> str:
        key = f"{label}\n{config_to_yaml(config)}"
        with self._lock:
            now = time.monotonic()
            self._started = {k: v for k, v in self._started.items() if now - v[0] < _ONE_CLICK}
            if key not in self._started:
                self._started[key] = now, self.studio.supervisor.submit(config, label)
            return self._started[key][1]

    def _filled(self, config: RunConfig, base: str, faulty: str) -> Updates:
        """The form takes a config."""
        values = to_values(config)
        updates = self._answer(values, base, faulty)
        for name, value in values.items():
            control = self.form.controls[name]
            updates[control] = gr.update(**{**updates.get(control, {}), "value": value})
        return {
            **updates,
            self.view.base: base,
            self.view.preset: gr.update(info=trainview.preset_note(base)),
        }

    def _answer(self, values: Mapping[str, Any], base: str, faulty: str, *, forgiving: bool = False) -> Updates:
        """Everything that follows from what stands in the controls."""
        try:
            config = to_config(values)
            notes = self._notes(config)
        except ConfigError as error:
            return {self.view.problem: gr.skip()} if forgiving else self._refused(error, faulty)
        facts, kind = self._facts(config), values[ADAPTER]
        view, controls = self.view, self.form.controls
        updates: Updates = {
            view.card: plan.card(config, facts),
            view.effective: plan.effective(config),
            view.advice: plan.advice_html(plan.advice(config, facts)),
            view.yaml: shown.code(config_to_yaml(config), say("copy"), say("train.yaml.note")),
            view.command: shown.code(self._command(config, base), say("copy"), say("train.command.note")),
            view.problem: "",
            view.faulty: "",
            self.form.folds[ADAPTER]: gr.update(visible=kind != "full"),
            **{controls[name]: gr.update(visible=kind == "qlora") for name in ONLY_QUANTIZED},
        }
        for name, told in {**self._healed(faulty), **notes}.items():
            control = self._control(name)
            updates[control] = {**updates.get(control, {}), **gr.update(info=told, elem_classes=classes(name))}
        return updates

    def _refused(self, error: StudioError, faulty: str, name: str = "") -> Updates:
        """An error, said at its field and at Start; the fold it lies in opens."""
        name = name or (at(error.field) or "" if isinstance(error, ConfigError) else "")
        updates: Updates = {}
        for healed, told in self._healed(faulty).items():
            updates[self._control(healed)] = gr.update(info=told, elem_classes=classes(healed))
        sentence = f"{fault(name, error.message)} {error.hint}".strip() if name else str(error)
        if name:
            updates[self._control(name)] = gr.update(
                info=note(name, unmarked(sentence)), elem_classes=classes(name, bad=True)
            )
        group = KNOBS[name].group if name in KNOBS else ""
        if group in self.form.folds:
            updates[self.form.folds[group]] = gr.update(open=True)
        return {**updates, self.view.problem: shown.problem(sentence), self.view.faulty: name}

    def _healed(self, faulty: str) -> dict[str, str]:
        """What the control that was at fault says once it isn't any more."""
        return {faulty: trainview.preset_note("") if faulty == PRESET else note(faulty)} if faulty else {}

    def _control(self, name: str) -> Any:
        return self.view.preset if name == PRESET else self.form.controls[name]

    def _notes(self, config: RunConfig) -> dict[str, str]:
        """The line under each thing that was picked. Raises ConfigError for a model or dataset that isn't there."""
        kind = to_values(config)[ADAPTER]
        return {
            MODEL: note(MODEL, choices.model_note(config.model.name_or_path)),
            DATASET: note(DATASET, choices.dataset_note(config.dataset.path)),
            METHOD: note(METHOD, say(f"train.method.{config.method.name}.note")),
            ADAPTER: note(ADAPTER, say(f"train.adapter.{kind}.note")),
        }

    def _facts(self, config: RunConfig) -> plan.Facts:
        try:
            rows = choices.rows_of_named(config.dataset.path)
        except ConfigError:
            rows = None
        busy = any(run.live for run in self.studio.supervisor.runs.list(most=10))
        merge = exportplanview.later(config)
        return plan.Facts(rows, choices.longest_row_of(config.model.name_or_path), busy, merge)

    def _command(self, config: RunConfig, base: str) -> str:
        kind, _, name = base.partition(":")
        try:
            if kind == "run":
                run = self.studio.supervisor.runs.get(name)
                return plan.command(config, run.config.model_dump(mode="json"), run.folder.run_config)
            entry = next(entry for entry in list_presets() if entry.name == name)
            return plan.command(config, load_preset(name), entry.path)
        except (StudioError, StopIteration):  # it was deleted meanwhile
            return plan.command(config, config.model_dump(mode="json"), Path("run.yaml"))
