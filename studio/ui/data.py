"""The Data tab: the registered datasets, their rows page by page, and one row in three lights.

In: clicks, an upload. Out: HTML. The page keeps which dataset, page and row are looked at, nothing else; each look
reads the file anew, by offsets. How a row is trained on is asked of the worker, which may have to be started first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from studio.core.configfile import parse_config
from studio.core.errors import ConfigError, DataError, StudioError
from studio.core.rows import Line
from studio.ui import choices, datasetview, dataview, rowview, shown
from studio.ui.context import Studio
from studio.ui.gradio_import import gr
from studio.ui.opened import on_open
from studio.ui.text_forms import say
from studio.workspace.datasets import DatasetEntry, Page, add_dataset, list_datasets, read_page, remove_dataset

PAGE = 20
Place = tuple[str, int]  # a dataset's name, and a row of it, from 0
Updates = dict[Any, Any]


def build_tab(studio: Studio) -> None:
    DataTab(studio, dataview.build()).connect()


class DataTab:
    """What the tab's controls do."""

    def __init__(self, studio: Studio, view: dataview.DataView) -> None:
        self.studio = studio
        self.view = view

    def connect(self) -> None:
        view, quiet = self.view, {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        slow = {"show_progress": "minimal", "show_progress_on": [view.told]}  # a large file takes its time
        at = [view.at, view.start]
        moves = [
            on_open(self.opened, at, view.everything, at_load=False),
            view.list.click(self.dataset_chosen, None, view.everything, **{**quiet, **slow}),
            view.previous.click(self.turned_back, at, view.paged, **quiet),
            view.next.click(self.turned_on, at, view.paged, **quiet),
            view.go.submit(self.gone_to, [*at, view.go], view.paged, **quiet),
            view.rows.click(self.row_chosen, at, view.paged, **quiet),
            view.upload.upload(self.added, view.upload, view.everything, **{**quiet, **slow}),
            view.yes.click(self.removed, view.at, view.everything, **quiet),
        ]
        view.remove.click(self.removal_asked, view.at, [view.ask, view.question], **quiet)
        view.keep.click(lambda: gr.update(visible=False), None, [view.ask], **quiet)
        view.light.input(lambda light: gr.update(visible=light == "trained"), view.light, [view.options], **quiet)
        # A look may wait for a worker to start: it must not keep others waiting, and only the last one counts.
        waits = {"concurrency_limit": 8, "show_progress": "hidden", "api_visibility": "private"}
        looks = [view.light.input, view.model.input, view.max_length.submit, view.max_length.blur]
        for after in (partial(gr.on, looks, trigger_mode="always_last"), *(move.then for move in moves)):
            after(self.row_shown, view.looking, [view.row_view], **waits)

    # -- datasets -----------------------------------------------------------------------------------------------------

    def opened(self, at: Place, start: int) -> Updates:
        """The tab was come to: the list may have changed, what is looked at stays."""
        return {**self._everything(at[0], start, at[1]), self.view.model: gr.update(choices=choices.models())}

    def dataset_chosen(self, event: gr.EventData) -> Updates:
        return self._everything(str(event._data.get("pick")))

    def added(self, file: str | None) -> Updates:
        """A file was uploaded: a copy of it is registered, the upload itself is cleared away."""
        if not file:
            return {self.view.told: ""}
        try:
            entry = add_dataset(Path(file))
        except StudioError as error:
            return {self.view.told: shown.problem(str(error))}
        finally:
            with contextlib.suppress(OSError):
                Path(file).unlink()
        return {**self._everything(entry.name), self.view.told: _said("data.added", name=entry.title)}

    def removal_asked(self, at: Place) -> Updates:
        entry = _entry(at[0])
        question = say("data.remove.ask", name=shown.text(entry.title if entry is not None else at[0]))
        return {self.view.ask: gr.update(visible=True), self.view.question: f"<p>{question}</p>"}

    def removed(self, at: Place) -> Updates:
        try:
            remove_dataset(at[0])
        except StudioError as error:
            return {self.view.told: shown.problem(str(error)), self.view.ask: gr.update(visible=False)}
        return {**self._everything(""), self.view.told: _said("data.removed", name=at[0])}

    def _everything(self, name: str, start: int = 0, row: int = 0) -> Updates:
        """The whole tab, one dataset chosen: the one of this name, else the first."""
        entries = list_datasets()
        entry = next((entry for entry in entries if entry.name == name), entries[0])
        page, problem = _page(entry, start)
        view = self.view
        return {
            view.list: datasetview.dataset_list(entries, entry.name),
            view.main: gr.update(visible=True),
            view.head: datasetview.head(entry, page.total),
            view.remove: gr.update(visible=not entry.bundled),
            view.ask: gr.update(visible=False),
            **self._paged(entry, page, row, problem),
        }

    # -- pages --------------------------------------------------------------------------------------------------------

    def turned_back(self, at: Place, start: int) -> Updates:
        return self._turn(at, max(start - PAGE, 0))

    def turned_on(self, at: Place, start: int) -> Updates:
        return self._turn(at, start + PAGE)

    def gone_to(self, at: Place, start: int, typed: str | None) -> Updates:
        """A row's number was typed, counted from 1 as it is shown."""
        entry = _entry(at[0])
        if entry is None:
            return self._everything(at[0])
        total = _page(entry, start)[0].total
        number = _whole(typed, 0) - 1
        if not 0 <= number < total:
            return {self.view.told: shown.problem(say("data.go.bad", total=shown.count(total)))}
        return self._turn(at, number - number % PAGE, number)

    def row_chosen(self, event: gr.EventData, at: Place, start: int) -> Updates:
        return self._turn(at, start, _whole(event._data.get("pick"), start))

    def _turn(self, at: Place, start: int, row: int | None = None) -> Updates:
        entry = _entry(at[0])
        if entry is None:
            return self._everything(at[0])
        page, problem = _page(entry, start)
        return self._paged(entry, page, start if row is None else row, problem)

    def _paged(self, entry: DatasetEntry, page: Page, row: int, problem: str = "") -> Updates:
        last = page.start + len(page.lines)
        row = min(max(row, page.start), max(last - 1, 0))
        told = say("data.page.none")
        if page.lines:
            numbers = {"first": page.start + 1, "last": last, "total": page.total}
            told = say("data.page", **{name: shown.count(number) for name, number in numbers.items()})
        view = self.view
        return {
            view.at: (entry.name, row),
            view.start: page.start,
            view.where: told,
            view.rows: rowview.row_list(page, row, entry),
            view.previous: gr.update(interactive=page.start > 0),
            view.next: gr.update(interactive=last < page.total),
            view.go: "",
            view.told: shown.problem(problem),
        }

    # -- one row ------------------------------------------------------------------------------------------------------

    def row_shown(self, at: Place, light: str, model: str, max_length: str) -> Iterator[str]:
        """The row in the chosen light. As trained it is asked of the worker, and says so until it answers."""
        entry = _entry(at[0])
        line = _line(entry, at[1]) if entry is not None else None
        if entry is None or line is None:
            yield shown.empty(say("data.empty"), say("data.empty.next"))
        elif light == "trained":
            yield f'<p class="loading" role="status">{say("data.loading")}</p>'
            yield self._trained(entry, at[1], model, max_length)
        else:
            yield rowview.raw(line) if light == "raw" else rowview.conversation(line, entry)

    def _trained(self, entry: DatasetEntry, row: int, model: str, max_length: str) -> str:
        try:
            knobs = parse_config({"training": {"max_length": max_length}}).training
            told = self.studio.chat.show_row(entry.name, row, model=model or "", max_length=knobs.max_length)
        except ConfigError as error:
            field = say("data.max_length") if error.field == "training.max_length" else say("data.model")
            return shown.problem(say("train.field", title=field, message=f"{error.message} {error.hint}"))
        except DataError as error:
            return rowview.unusable(error.message)
        except StudioError as error:
            return shown.problem(str(error))
        return rowview.trained(told)


def _whole(typed: Any, otherwise: int) -> int:
    """A whole number as it was typed; `otherwise` for anything else."""
    text = str(typed).strip()
    return int(text) if text.isdecimal() and len(text) < 16 else otherwise


def _entry(name: str) -> DatasetEntry | None:
    """A registered dataset. Names only: a path that a request may hold is nothing that its user chose to open."""
    return next((entry for entry in list_datasets() if entry.name == name), None)


def _page(entry: DatasetEntry, start: int) -> tuple[Page, str]:
    """A page of a dataset, and what is wrong with the file, if it can't be read."""
    try:
        page = read_page(entry.path, max(int(start), 0), PAGE)
        if page.lines or not page.total:
            return page, ""
        return read_page(entry.path, (page.total - 1) // PAGE * PAGE, PAGE), ""  # the file has become shorter
    except StudioError as error:
        return Page([], 0, 0), str(error)
    except OSError as error:
        return Page([], 0, 0), f"{entry.path} can't be read ({error.strerror})."


def _line(entry: DatasetEntry, row: int) -> Line | None:
    with contextlib.suppress(StudioError, OSError):
        lines = read_page(entry.path, row, 1).lines
        return lines[0] if lines else None
    return None


def _said(key: str, name: str) -> str:
    return f'<p class="st-hint" role="status">{say(key, name=shown.text(name))}</p>'
