"""The Export tab: a finished run, taken away as files that other programs load.

In: a run, a format, a target. Out: an export job handed to the supervisor; the list of all of them. While one is at
work the page looks once a second, and is sent something only when it has got further. What the supervisor refuses is
said at the field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from studio.core.config import ExportConfig
from studio.core.configfile import parse_as
from studio.core.errors import ConfigError, StudioError, TargetError
from studio.core.progress import LIVE
from studio.ui import exportview, shown
from studio.ui.context import Studio
from studio.ui.form import unmarked
from studio.ui.gradio_import import gr
from studio.ui.opened import on_open
from studio.ui.text_forms import say
from studio.workspace.home import exports_dir, slug
from studio.workspace.runs import Run

_MOST_RUNS = 200
Updates = dict[Any, Any]


def build_tab(studio: Studio) -> None:
    ExportTab(studio, exportview.build()).connect()


class ExportTab:
    """What the tab's controls do."""

    def __init__(self, studio: Studio, view: exportview.ExportView) -> None:
        self.studio = studio
        self.view = view

    def connect(self) -> None:
        view, quiet = self.view, {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        on_open(self.opened, view.choices, view.everything, at_load=False)
        gr.on([view.run.input, view.format.input], self.chosen, view.choices, view.everything, **quiet)
        view.start.click(self.started, [*view.choices, view.dtype], view.everything, **quiet)
        view.timer.tick(self.looked_at, view.seen, [view.history, view.seen, view.timer], **quiet)
        view.history.click(self.cancelled, None, [view.history, view.seen, view.timer], **quiet)
        handoff = self.studio.handoff.get("export")
        if handoff is not None:
            handoff.submit(self.handed, [handoff, *view.choices], view.everything, **quiet)

    # -- handlers -----------------------------------------------------------------------------------------------------

    def opened(self, run_id: str | None, format: str, out: str | None, suggested: str) -> Updates:
        """The tab was come to: runs may have finished."""
        return {**self._form(run_id, format, out, suggested), **self._look()}

    def handed(self, named: str, run_id: str | None, format: str, out: str | None, suggested: str) -> Updates:
        """Another tab, or the address, names a run to export."""
        return self.opened(str(named), format, out, suggested)

    def chosen(self, run_id: str | None, format: str, out: str | None, suggested: str) -> Updates:
        return self._form(run_id, format, out, suggested)

    def started(self, run_id: str | None, format: str, out: str | None, suggested: str, dtype: str) -> Updates:
        view = self.view
        if not run_id:
            return {view.problem: shown.problem(say("export.choose"))}
        try:
            config = parse_as(
                ExportConfig, {"run": run_id, "format": format, "out": (out or "").strip(), "dtype": dtype}
            )
            self.studio.supervisor.export(config)
        except (TargetError, ConfigError) as error:
            if isinstance(error, TargetError) or error.field == "out":
                told = say("export.out.needed") if isinstance(error, ConfigError) else str(error)
                told = f"`out` {unmarked(told)}"
                return {view.out: gr.update(info=told, elem_classes=["knob", "bad"]), view.problem: ""}
            return {view.problem: shown.problem(str(error))}
        except StudioError as error:
            return {view.problem: shown.problem(str(error))}
        return {**self._form(run_id, format, suggested, suggested), **self._look()}

    def looked_at(self, seen: str) -> Updates:
        """A second has passed."""
        updates = self._look()
        if updates[self.view.seen] == seen:
            return {self.view.history: gr.skip()}
        return updates

    def cancelled(self, event: gr.EventData) -> Updates:
        """Cancel: the job obeys its stop file, as a run does."""
        picked = str(event._data.get("pick"))
        for job in self.studio.supervisor.exports():
            if job.id == picked and job.state.status in LIVE:
                self.studio.supervisor.stop_export(job)
        return self._look()

    # -- what they share ----------------------------------------------------------------------------------------------

    def _form(self, run_id: str | None, format: str, out: str | None, suggested: str) -> Updates:
        """The form for a run: the one that is named, else the newest there is something to export of."""
        view = self.view
        runs = [run for run in self.studio.supervisor.runs.list(most=_MOST_RUNS) if run.output is not None]
        if not runs:
            button = f'<button type="button" class="st-button primary" data-go>{say("export.empty.go")}</button>'
            empty = shown.empty(say("export.empty"), say("export.empty.next"), button)
            return {view.empty: empty, view.form: gr.update(visible=False)}
        run = next((run for run in runs if run.id == run_id), runs[0])
        formats = exportview.FORMATS if run.output == run.folder.adapter else exportview.FORMATS[:1]
        format = format if format in formats else formats[0]
        taken = {job.config.out for job in self.studio.supervisor.exports()}  # written to now, or once
        target = str(suggestion(run, format, taken))
        missing = bool(run_id) and run.id != run_id
        return {
            view.empty: "",
            view.form: gr.update(visible=True),
            view.run: gr.update(choices=[(f"{one.label} ({one.id})", one.id) for one in runs], value=run.id),
            view.format: gr.update(choices=exportview.cards(formats), value=format),
            view.out: gr.update(
                value=target if not out or out == suggested else out, info=say("export.out.note"), elem_classes=["knob"]
            ),
            view.suggested: target,
            view.problem: shown.problem(say("export.missing")) if missing else "",
        }

    def _look(self) -> Updates:
        """The list of exports, and whether there is anything to wait for."""
        jobs = self.studio.supervisor.exports()
        told = exportview.history(jobs)
        return {
            self.view.history: told,
            self.view.seen: hashlib.sha256(told.encode()).hexdigest(),
            self.view.timer: gr.Timer(active=any(job.state.status in LIVE for job in jobs)),
        }


def suggestion(run: Run, format: str, taken: Collection[str]) -> Path:
    """A folder for an export: one that isn't there, and isn't the target of another."""
    first = exports_dir() / f"{slug(run.label, 'run')}-{format}"
    places = (first, *(first.with_name(f"{first.name}-{number}") for number in range(2, 1000)))
    return next((place for place in places if str(place) not in taken and not place.exists()), first)
