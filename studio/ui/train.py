"""The Train tab: what to teach to which model and how, what that run will be, and Start.

In: presets, runs to repeat, what a person picks and types. Out: a run handed to the supervisor. The page keeps the
values and draws the controls; every look at them and every start goes through core again, and what is to be said of
them goes back as one JSON object (`told`). What core refuses is said at the field.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml
from studio.core.errors import ConfigError, StudioError
from studio.core.packages import is_here
from studio.core.shapes import ModelShape
from studio.ui import advice, choices, exportplanview, offered, plan, shown, trainview
from studio.ui.context import Studio
from studio.ui.form import (
    PICKED,
    as_json,
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
PRESET = "preset"
MODEL, DATASET = PICKED
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
        self._answers = itertools.count()
        self._started: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Tie the handlers to the controls. None of them takes long, so none waits in a queue behind a chat.

        Every look goes by the drawn form's event, one after the other: an answer to older values never comes last.
        """
        view, quiet = self.view, {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        state = [view.base, view.faulty, *view.inputs]
        look = {"fn": None, "js": trainview.LOOK}
        # What the page's own scripts say of the form goes by the same event; first, as it must be quick.
        view.drawn.input(None, view.inputs, [], js=trainview.TELL, **quiet)
        view.drawn.input(self.looked_at, state, view.looks, trigger_mode="always_last", **quiet)
        picks = list(view.picks.values())
        view.taken.submit(None, [view.taken, *picks], picks, js=trainview.TAKE, **quiet).then(**look)
        gr.on([pick.input for pick in picks], **look)
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
        return self._answer(self.view.read(values), base, faulty, forgiving=not event._data.get("left"))

    def opened(self) -> Updates:
        """The tab was come to: what can be picked may have changed."""
        return {
            self.view.preset: gr.update(choices=choices.presets()),
            self.view.picks[MODEL]: gr.update(choices=choices.models()),
            self.view.picks[DATASET]: gr.update(choices=choices.datasets()),
        }

    def preset_picked(self, preset: str, base: str, faulty: str, *values: Any) -> Updates:
        try:
            config = laid_over(self.view.read(values), load_preset(preset))
        except StudioError as error:
            return self._refused(error, faulty, self.view.read(values), name=PRESET)
        return self._filled(config, f"preset:{preset}", faulty)

    def handed(self, given: str, base: str, faulty: str, *values: Any) -> Updates:
        """What another tab gives: a run to repeat, or a dataset (a JSON object) to train on."""
        if not str(given).startswith("{"):
            return self.repeated(given, base, faulty, *values)
        taken = read_handed(str(given))
        shown_now = {**self.view.read(values), **taken}
        return self._answer(shown_now, base, faulty, put=taken)

    def repeated(self, run_id: str, base: str, faulty: str, *values: Any) -> Updates:
        """ "Repeat with a change": the form takes a run's settings."""
        try:
            run = self.studio.supervisor.runs.get(str(run_id))
        except StudioError as error:
            return self._refused(error, faulty, self.view.read(values), name=PRESET)
        updates = self._filled(run.config, f"run:{run.id}", faulty)
        told = trainview.preset_note("", say("train.from_run", name=run.label))
        return {**updates, self.view.preset: gr.update(value=None, info=told, elem_classes=classes(PRESET))}

    def mended(self, event: gr.EventData, base: str, faulty: str, *values: Any) -> Updates:
        """A piece of advice was taken: the values it names change."""
        shown_now = self.view.read(values)
        try:
            config = to_config(shown_now)
        except ConfigError as error:
            return self._refused(error, faulty, shown_now)
        found = {one.key: one for one in advice.advice(config, self._facts(config))}
        taken = found.get(str(event._data.get("mend")))
        changes = dict(taken.changes) if taken else {}
        return self._answer({**shown_now, **changes}, base, faulty, put=changes)

    def started(self, name: str, base: str, faulty: str, *values: Any) -> Updates:
        """Start: the run's id goes to `view.run`, from where the page goes on to it."""
        shown_now = self.view.read(values)
        try:
            run_id = self._start_once(to_config(shown_now), name or "")
        except StudioError as error:
            return {**self._refused(error, faulty, shown_now), self.view.run: ""}
        return {**self._answer(shown_now, base, faulty), self.view.run: run_id, self.view.name: ""}

    def saved(self, name: str, base: str, faulty: str, *values: Any) -> Updates:
        """Save as preset."""
        shown_now = self.view.read(values)
        try:
            entry = save_preset(name or "", to_config(shown_now))
        except ConfigError as error:
            if error.field:
                return self._refused(error, faulty, shown_now)
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
        return {
            **self._answer(values, base, faulty, put=values),
            self.view.base: base,
            self.view.preset: gr.update(info=trainview.preset_note(base)),
        }

    def _answer(
        self,
        values: Mapping[str, Any],
        base: str,
        faulty: str,
        *,
        forgiving: bool = False,
        put: Mapping[str, Any] | None = None,
    ) -> Updates:
        """Everything that follows from what stands in the controls; `put` are values that they are to show."""
        given = {name: value for name, value in (put or {}).items() if name in PICKED}
        try:
            config = to_config(values)
            notes = self._notes(config)
        except ConfigError as error:
            if forgiving:
                return {self.view.problem: gr.skip()}
            updates = self._refused(error, faulty, values, put)
            return {**updates, **self._picked(given, updates)}
        shape = self._shape(config)
        facts = self._facts(config, shape)
        view = self.view
        updates = {
            view.card: plan.card(config, facts),
            view.waits: plan.waits(facts),
            view.advice: advice.advice_html(advice.advice(config, facts)),
            view.yaml: shown.code(config_to_yaml(config), say("copy"), say("train.yaml.note")),
            view.command: shown.code(self._command(config, base), say("copy"), say("train.command.note")),
            view.problem: "",
            view.faulty: "",
            view.told: self._told(
                put,
                bad=None,
                effective=plan.effective(config),
                rate=plan.schedule(config, facts),
                misfits=advice.misfits(facts.type),
                modules=offered.modules(shape),
                suggestions=offered.suggestions(config, self.studio.supervisor.runs.list()),
            ),
        }
        for name, told in {**self._healed(faulty), **notes}.items():
            updates[self._control(name)] = gr.update(info=told, elem_classes=classes(name))
        return {**updates, **self._picked(given, updates)}

    def _picked(self, given: Mapping[str, Any], updates: Updates) -> Updates:
        """The two dropdowns, with new values."""
        picks = {name: self.view.picks[name] for name in given}
        return {pick: gr.update(**{**updates.get(pick, {}), "value": given[name]}) for name, pick in picks.items()}

    def _told(self, put: Mapping[str, Any] | None, **more: Any) -> str:
        """What the page's script is told; the number makes it another text each time, so that it is taken note of."""
        drawn = {name: value for name, value in (put or {}).items() if name not in PICKED}
        return as_json({"number": next(self._answers), **more, **({"values": drawn} if drawn else {})})

    def _refused(
        self,
        error: StudioError,
        faulty: str,
        values: Mapping[str, Any],
        put: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> Updates:
        """An error, said at its field and at Start; the fold it lies in opens."""
        name = name or (at(error.field, values) or "" if isinstance(error, ConfigError) else "")
        updates: Updates = {}
        for healed, told in self._healed(faulty).items():
            updates[self._control(healed)] = gr.update(info=told, elem_classes=classes(healed))
        sentence = f"{fault(name, error.message)} {error.hint}".strip() if name else str(error)
        drawn = name not in ("", PRESET, *PICKED)
        if name and not drawn:
            told = note(name, unmarked(sentence))
            updates[self._control(name)] = gr.update(info=told, elem_classes=classes(name, bad=True))
        return {
            **updates,
            self.view.problem: shown.problem(sentence),
            self.view.faulty: "" if drawn else name,
            self.view.told: self._told(put, bad={"name": name, "text": sentence} if drawn else None),
        }

    def _healed(self, faulty: str) -> dict[str, str]:
        """What the dropdown that was at fault says once it isn't any more."""
        return {faulty: trainview.preset_note("") if faulty == PRESET else note(faulty)} if faulty else {}

    def _control(self, name: str) -> Any:
        return self.view.preset if name == PRESET else self.view.picks[name]

    def _notes(self, config: RunConfig) -> dict[str, str]:
        """The line under what was picked. Raises ConfigError for a model or dataset that isn't there."""
        return {
            MODEL: note(MODEL, choices.model_note(config.model.name_or_path)),
            DATASET: note(DATASET, choices.dataset_note(config.dataset.path)),
        }

    def _shape(self, config: RunConfig) -> ModelShape | None:
        """The model's shape where it is known at once."""
        if self.studio.estimating is None:
            return None
        return self.studio.estimating.shape_soon(config.model.name_or_path, config.model.revision).shape

    def _facts(self, config: RunConfig, shape: ModelShape | None = None) -> plan.Facts:
        try:
            rows = choices.rows_of_named(config.dataset.path)
        except ConfigError:
            rows = None
        return plan.Facts(
            rows,
            choices.longest_row_of(config.model.name_or_path),
            any(run.live for run in self.studio.supervisor.runs.list(most=10)),
            exportplanview.later(config, self.studio.estimating),
            offered.row_type(config.dataset),
            offered.parameters(shape or self._shape(config)),
            is_here("flash_attn"),
        )

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
