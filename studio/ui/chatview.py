"""How the Chat tab looks: columns side by side, one input for both, and conversations as HTML.

In: turns. Out: components, HTML. What a model says is shown as plain text, like everything that isn't ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from studio.ui import shown
from studio.ui.gradio_import import gr
from studio.ui.text_forms import say

COLUMNS = ("base", "tuned")
TEMPERATURE, TOP_P, LONGEST = (0.0, 2.0), (0.05, 1.0), (16, 2048)
_MOST_SHOWN = 40_000  # characters of one answer


@dataclass
class Answer:
    """What a column said to a question. `seconds` since the question was put."""

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    done: bool = False
    stopped: bool = False


@dataclass
class Turn:
    """A question and the answers to it, by column."""

    question: str
    answers: dict[str, Answer] = field(default_factory=dict)


def messages(turns: Sequence[Turn], column: str, system: str) -> list[dict[str, str]]:
    """A column's side of the conversation, as a model is given it; the last question is unanswered."""
    told = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        told.append({"role": "user", "content": turn.question})
        answer = turn.answers.get(column)
        if answer is not None and turn is not turns[-1]:
            told.append({"role": "assistant", "content": answer.text})
    return told


def column_head(name: str, note: str) -> str:
    under = f'<span class="under">{shown.line(note, 80)}</span>' if note else ""
    return f"<h3>{shown.line(name, 60)}</h3>{under}"


def conversation(turns: Sequence[Turn], column: str, greeting: str) -> str:
    """A column's side of the conversation as bubbles."""
    if not turns:
        return f'<p class="greeting">{escape(greeting)}</p>'
    parts = []
    for turn in turns:
        parts.append(_bubble("user", say("chat.you"), turn.question, ""))
        answer = turn.answers.get(column)
        if answer is not None:
            parts.append(_bubble("assistant", "", answer.text, _speed(answer), writing=not answer.done))
    return f'<div class="bubbles">{"".join(parts)}</div>'


def _bubble(role: str, name: str, said: str, under: str, *, writing: bool = False) -> str:
    head = f"<h4>{escape(name)}</h4>" if name else ""
    foot = f'<p class="under num">{escape(under)}</p>' if under else ""
    state = ' aria-busy="true"' if writing else ""
    return f'<div class="bubble" data-role="{role}"{state}>{head}<p>{shown.text(said, _MOST_SHOWN)}</p>{foot}</div>'


def _speed(answer: Answer) -> str:
    if not answer.done or not answer.tokens or answer.seconds <= 0:
        return ""
    told = say("chat.speed", tokens=shown.count(answer.tokens), rate=f"{answer.tokens / answer.seconds:.1f}")
    return f"{told}, {say('chat.stopped')}" if answer.stopped else told


@dataclass
class ChatView:
    """The components; heads and sides by column."""

    turns: Any = None
    target: Any = None
    status: Any = None
    unload: Any = None
    heads: dict[str, Any] = field(default_factory=dict)
    sides: dict[str, Any] = field(default_factory=dict)
    tuned: Any = None
    problem: Any = None
    input: Any = None
    send: Any = None
    stop: Any = None
    again: Any = None
    clear: Any = None
    system: Any = None
    temperature: Any = None
    top_p: Any = None
    longest: Any = None

    @property
    def settings(self) -> list[Any]:
        return [self.system, self.temperature, self.top_p, self.longest]

    @property
    def talk(self) -> list[Any]:
        """What a question and its answers change."""
        buttons = [self.send, self.stop, self.again, self.clear, self.unload]
        return [self.turns, *self.sides.values(), self.status, self.problem, self.input, *buttons]

    @property
    def everything(self) -> list[Any]:
        return [*self.talk, self.target, self.tuned, *self.heads.values()]


def build() -> ChatView:
    view = ChatView(turns=gr.State([]))
    with gr.Column(elem_classes=["chat"], min_width=0):
        with gr.Row(elem_classes=["chat-top"]):
            view.target = gr.Dropdown(
                [], label=say("chat.target"), elem_id="chat-target", elem_classes=["knob"], interactive=True
            )
            view.status = _html("chat-status")
            view.unload = gr.Button(say("chat.unload"), size="sm", visible=False, min_width=0, elem_id="chat-unload")
        with gr.Row(elem_classes=["chat-columns"]):
            for column in COLUMNS:
                _column(view, column)
        _composer(view)
    return view


def _html(name: str, **more: Any) -> Any:
    return gr.HTML("", elem_id=name, js_on_load=None, apply_default_css=False, **more)


def _column(view: ChatView, column: str) -> None:
    with gr.Column(elem_classes=["chat-column"], min_width=0, visible=column == "base") as box:
        view.heads[column] = _html(f"chat-head-{column}")
        view.sides[column] = _html(f"chat-{column}", autoscroll=True, max_height="max(220px, calc(100vh - 390px))")
    if column == "tuned":
        view.tuned = box


def _composer(view: ChatView) -> None:
    view.problem = _html("chat-problem")
    with gr.Row(elem_classes=["composer"]):
        view.input = gr.Textbox(
            label=say("chat.input"),
            show_label=False,
            placeholder=say("chat.input.placeholder"),
            lines=1,
            max_lines=8,
            elem_id="chat-input",
        )
        view.send = gr.Button(say("chat.send"), variant="primary", min_width=0, elem_id="chat-send")
        view.stop = gr.Button(say("chat.stop"), visible=False, min_width=0, elem_id="chat-stop")
    with gr.Row(elem_classes=["chat-under"]):
        view.again = gr.Button(say("chat.again"), size="sm", interactive=False, min_width=0, elem_id="chat-again")
        view.clear = gr.Button(say("chat.clear"), size="sm", interactive=False, min_width=0, elem_id="chat-clear")
    with gr.Accordion(say("chat.settings"), open=False, elem_classes=["fold"], elem_id="fold-chat"):
        _settings(view)


def _settings(view: ChatView) -> None:
    with gr.Row(elem_classes=["knobs"]):
        view.system = gr.Textbox(
            label=say("chat.system"),
            info=say("chat.system.note"),
            lines=2,
            max_lines=8,
            elem_id="chat-system",
            elem_classes=["knob", "wide"],
        )
        view.temperature = _slider("temperature", TEMPERATURE, 0.7, 0.05)
        view.top_p = _slider("top_p", TOP_P, 0.95, 0.05)
        view.longest = _slider("max_new_tokens", LONGEST, 256, 16)


def _slider(name: str, bounds: tuple[float, float], value: float, step: float) -> Any:
    return gr.Slider(
        *bounds,
        value=value,
        step=step,
        label=say(f"chat.{name}"),
        info=say(f"chat.{name}.note"),
        buttons=[],
        elem_id=f"chat-{name}",
        elem_classes=["knob", "slide"],
    )
