"""How the Data tab is laid out: datasets at the left, the chosen one's rows at the right.

In: nothing. Out: a `DataView` of components, empty until the tab is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studio.core.config import TrainingSection
from studio.ui import shown
from studio.ui.gradio_import import gr
from studio.ui.text_forms import say

LIGHTS = ("conversation", "raw", "trained")


def piece(name: str, js: str | None = None) -> Any:
    """A piece of the page that is filled with HTML of our own."""
    return gr.HTML("", elem_id=name, js_on_load=js, apply_default_css=False)


@dataclass
class DataView:
    """The components. `at`: the dataset's name and the row that is looked at, from 0."""

    at: Any
    start: Any
    list: Any
    upload: Any
    told: Any
    main: Any
    head: Any
    remove: Any
    ask: Any
    question: Any
    yes: Any
    keep: Any
    previous: Any
    next: Any
    where: Any
    go: Any
    rows: Any
    light: Any
    options: Any
    model: Any
    max_length: Any
    row_view: Any

    @property
    def paged(self) -> list[Any]:
        return [self.at, self.start, self.where, self.rows, self.previous, self.next, self.go, self.told]

    @property
    def everything(self) -> list[Any]:
        return [*self.paged, self.list, self.main, self.head, self.remove, self.ask, self.model]

    @property
    def looking(self) -> list[Any]:
        return [self.at, self.light, self.model, self.max_length]


def build() -> DataView:
    parts: dict[str, Any] = {"at": gr.State(("", 0)), "start": gr.State(0)}
    with gr.Row(elem_classes=["data"]):
        with gr.Column(elem_classes=["data-list"], min_width=0):
            parts["list"] = piece("data-list", shown.PICKS)
            parts["upload"] = gr.UploadButton(say("data.add"), elem_id="data-upload")
            gr.HTML(f'<p class="st-hint">{say("data.add.note")}</p>', js_on_load=None, apply_default_css=False)
            parts["told"] = piece("data-told")
        with gr.Column(elem_classes=["data-main"], min_width=0, visible=False) as parts["main"]:
            parts |= _about()
            parts |= _rows()
    return DataView(**parts)


def _about() -> dict[str, Any]:
    parts: dict[str, Any] = {"head": piece("data-head")}
    parts["remove"] = gr.Button(say("data.remove"), visible=False, size="sm", elem_id="data-remove")
    with gr.Row(visible=False, elem_classes=["ask"]) as parts["ask"]:
        parts["question"] = piece("data-question")
        parts["yes"] = gr.Button(
            say("data.remove.yes"), variant="stop", size="sm", min_width=0, elem_id="data-remove-yes"
        )
        parts["keep"] = gr.Button(say("data.remove.no"), size="sm", min_width=0)
    return parts


def _rows() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes=["pager"]):
        parts["previous"] = gr.Button(say("data.previous"), size="sm", min_width=0, elem_id="data-previous")
        parts["where"] = piece("data-where")
        parts["next"] = gr.Button(say("data.next"), size="sm", min_width=0, elem_id="data-next")
        parts["go"] = gr.Textbox(
            placeholder=say("data.go"),
            label=say("data.go"),
            show_label=False,
            max_lines=1,
            min_width=0,
            elem_id="data-go",
        )
    with gr.Row(elem_classes=["data-rows"]):
        parts["rows"] = piece("data-rows", shown.PICKS)
        with gr.Column(elem_classes=["data-row"], min_width=0):
            parts["light"] = gr.Radio(
                [(say(f"data.view.{light}"), light) for light in LIGHTS],
                value=LIGHTS[0],
                label=say("data.view"),
                show_label=False,
                elem_id="data-light",
                elem_classes=["knob", "segments"],
            )
            with gr.Row(visible=False, elem_classes=["knobs", "what"]) as parts["options"]:
                parts["model"] = gr.Dropdown(
                    ["starter"],
                    value="starter",
                    label=say("data.model"),
                    allow_custom_value=True,
                    elem_id="data-model",
                    elem_classes=["knob"],
                )
                parts["max_length"] = gr.Textbox(
                    str(TrainingSection().max_length),
                    label=say("data.max_length"),
                    max_lines=1,
                    elem_id="data-max-length",
                    elem_classes=["knob"],
                )
            parts["row_view"] = piece("data-row-view")
    return parts
