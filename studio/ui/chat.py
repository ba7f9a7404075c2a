"""The Chat tab: a base model and what was trained on it answer the same question side by side.

In: a target, questions, settings. Out: answers as they come. The page keeps the conversation; the model is loaded and
asked through the workspace, one conversation at a time for the whole studio. Leaving the page ends the answer that is
being given to it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from studio.core.errors import StudioError
from studio.ui import chatview, shown
from studio.ui.chatview import COLUMNS, Answer, Turn
from studio.ui.context import Studio
from studio.ui.gradio_import import gr
from studio.ui.opened import on_open
from studio.ui.text_forms import say
from studio.workspace.chat import ChatTarget, list_targets

_REDRAW = 0.08  # seconds between two looks at an answer that is being written
Updates = dict[Any, Any]


def build_tab(studio: Studio) -> None:
    ChatTab(studio, chatview.build()).connect()


class ChatTab:
    """What the tab's controls do."""

    def __init__(self, studio: Studio, view: chatview.ChatView) -> None:
        self.studio = studio
        self.view = view
        self._talking = threading.Lock()  # from loading a model to its last word: nobody loads another in between
        self._halted = threading.Event()

    def connect(self) -> None:
        view, quiet = self.view, {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        # Several may wait for their turn, each told so; generators go through the queue.
        streams = {"concurrency_limit": 8, "show_progress": "hidden", "api_visibility": "private"}
        on_open(self.opened, [view.target, view.turns], view.everything, at_load=False)
        view.target.input(self.target_chosen, view.target, view.everything, **quiet)
        said = [view.target, view.turns, view.input, *view.settings]
        gr.on([view.send.click, view.input.submit], self.asked, said, view.talk, trigger_mode="once", **streams)
        view.again.click(self.asked_again, [view.target, view.turns, *view.settings], view.talk, **streams)
        view.stop.click(self.stopped, None, [view.stop], **quiet)
        view.clear.click(self.cleared, view.target, view.everything, **quiet)
        view.unload.click(self.unloaded, None, [view.status, view.unload], **quiet)
        handoff = self.studio.handoff.get("chat")
        if handoff is not None:
            handoff.submit(self.handed, handoff, view.everything, **quiet)

    # -- what to talk to ----------------------------------------------------------------------------------------------

    def opened(self, target: str | None, turns: list[Turn]) -> Updates:
        """The tab was come to: runs may have finished. What is being talked to stays."""
        return self._targets(target, turns)

    def target_chosen(self, target: str | None) -> Updates:
        return self._targets(target, [])

    def cleared(self, target: str | None) -> Updates:
        return self._targets(target, [])

    def handed(self, run_id: str) -> Updates:
        """Another tab, or the address, names a run to talk to."""
        return self._targets(f"run:{run_id}", [])

    def _targets(self, target_id: str | None, turns: list[Turn]) -> Updates:
        targets = list_targets(self.studio.supervisor.runs)
        found = next((one for one in targets if one.id == target_id), None)
        missing = bool(target_id) and found is None
        target = found or targets[0]
        view = self.view
        notes = {"base": say("chat.base.note", model=target.base), "tuned": target.note}
        names = {"base": say("chat.base"), "tuned": target.title}
        if not target.tuned:
            names, notes = {"base": target.title, "tuned": ""}, {"base": target.note, "tuned": ""}
        return {
            **self._idle([] if missing else turns, target),
            view.target: gr.update(choices=[(_title(one), one.id) for one in targets], value=target.id),
            view.tuned: gr.update(visible=target.tuned),
            **{view.heads[column]: chatview.column_head(names[column], notes[column]) for column in COLUMNS},
            view.problem: shown.problem(say("chat.gone")) if missing else "",
        }

    def unloaded(self) -> Updates:
        self._halted.set()
        self.studio.chat.unload()
        return {
            self.view.status: f'<p class="st-hint">{say("chat.unloaded")}</p>',
            self.view.unload: gr.update(visible=False),
        }

    # -- talking ------------------------------------------------------------------------------------------------------

    def asked(self, target: str | None, turns: list[Turn], question: str | None, *settings: Any) -> Iterator[Updates]:
        """A question: the answers to it, as they are written."""
        question = (question or "").strip()
        if not question:
            yield {self.view.problem: ""}
            return
        yield from self._talk(target, [*turns, Turn(question)], settings)

    def asked_again(self, target: str | None, turns: list[Turn], *settings: Any) -> Iterator[Updates]:
        """The last question once more."""
        if turns:
            yield from self._talk(target, [*turns[:-1], Turn(turns[-1].question)], settings)
        else:
            yield {self.view.problem: ""}

    def stopped(self) -> Updates:
        self._halted.set()
        self.studio.chat.stop()
        return {self.view.stop: gr.update(interactive=False)}

    def _talk(self, target_id: str | None, turns: list[Turn], settings: tuple[Any, ...]) -> Iterator[Updates]:
        """One question, from waiting for its turn to the last word."""
        view, turn = self.view, turns[-1]
        if not target_id:
            yield {view.problem: shown.problem(say("chat.choose"))}
            return
        yield {**self._busy(turns), view.input: ""}
        while not self._talking.acquire(timeout=0.5):
            yield {view.status: _waits(say("chat.waiting"))}
        whole = False
        try:
            self._halted.clear()
            target = yield from self._load(target_id)
            if not self._halted.is_set():
                yield from self._answers(target, turns, settings)
            whole = True
        except StudioError as error:
            whole = True
            told = {view.problem: shown.problem(str(error))}
            if any(answer.text for answer in turn.answers.values()):
                yield {**self._idle(_closed(turns)), **told}
            else:  # nothing was said: as if it hadn't been asked
                yield {**self._idle(turns[:-1]), **told, view.input: turn.question}
            return
        finally:
            if not whole:  # the page was left in the middle
                with contextlib.suppress(StudioError):
                    self.studio.chat.stop()
            self._talking.release()
        yield self._idle(_closed(turns))

    def _load(self, target_id: str) -> Generator[Updates, None, ChatTarget]:
        """Load what is talked to, telling how far it is. Raises StudioError."""
        stages: list[str] = []
        pool = ThreadPoolExecutor(1, thread_name_prefix="chat load")
        try:
            loading = pool.submit(self.studio.chat.open, target_id, stages.append)
            while True:
                with contextlib.suppress(FutureTimeout):
                    return loading.result(timeout=0.25)
                yield {self.view.status: _waits(stages[-1] if stages else say("chat.loading"))}
        finally:
            pool.shutdown(wait=False)  # whoever left the page need not be waited for

    def _answers(self, target: ChatTarget, turns: list[Turn], settings: tuple[Any, ...]) -> Iterator[Updates]:
        """The answers, piece by piece. Raises StudioError."""
        system, temperature, top_p, longest = settings
        turn, columns = turns[-1], COLUMNS if target.tuned else COLUMNS[:1]
        turn.answers = {column: Answer() for column in columns}
        told = {column: chatview.messages(turns, column, system or "") for column in columns}
        yield {**self._sides(turns), self.view.status: _waits(say("chat.answering"))}
        drawn = time.monotonic()
        for delta in self.studio.chat.stream(
            told, temperature=float(temperature), top_p=float(top_p), max_new_tokens=int(longest)
        ):
            answer = turn.answers[delta.column]
            answer.text += delta.text
            answer.tokens, answer.seconds, answer.done = delta.tokens, delta.seconds, delta.done
            answer.stopped = delta.done and self._halted.is_set()
            if time.monotonic() - drawn > _REDRAW:
                yield self._sides(turns)
                drawn = time.monotonic()

    # -- what they share ----------------------------------------------------------------------------------------------

    def _sides(self, turns: list[Turn], greeting: str = "") -> Updates:
        return {side: chatview.conversation(turns, column, greeting) for column, side in self.view.sides.items()}

    def _busy(self, turns: list[Turn]) -> Updates:
        view = self.view
        return {
            **self._sides(turns),
            view.turns: turns,
            view.problem: "",
            view.send: gr.update(visible=False),
            view.stop: gr.update(visible=True, interactive=True),
            view.again: gr.update(interactive=False),
            view.clear: gr.update(interactive=False),
        }

    def _idle(self, turns: list[Turn], target: ChatTarget | None = None) -> Updates:
        """Ready for the next question."""
        view, loaded = self.view, self.studio.chat.loaded
        status = say("chat.loaded", name=shown.line(loaded.title, 60)) if loaded is not None else ""
        return {
            **self._sides(turns, say("chat.greeting" if target is not None and target.tuned else "chat.greeting.one")),
            view.turns: turns,
            view.status: f'<p class="st-hint">{status}</p>' if status else "",
            view.problem: "",
            view.send: gr.update(visible=True),
            view.stop: gr.update(visible=False),
            view.again: gr.update(interactive=bool(turns)),
            view.clear: gr.update(interactive=bool(turns)),
            view.unload: gr.update(visible=loaded is not None),
        }


def _closed(turns: list[Turn]) -> list[Turn]:
    """The turns once nothing more is coming: what isn't done was stopped; what was never answered is left out."""
    last = turns[-1]
    for answer in last.answers.values():
        if not answer.done:
            answer.done = answer.stopped = True
    return turns if last.answers else turns[:-1]


def _waits(stage: str) -> str:
    return f'<p class="loading" role="status">{shown.line(stage)}</p>'


def _title(target: ChatTarget) -> str:
    return f"{target.title}, {target.note}" if target.note else target.title
