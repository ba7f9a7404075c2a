"""How the Train tab is laid out: the form at the left; whether it fits, and Start, at the right.

In: the values to begin with. Out: a `TrainView` of components, not yet tied to anything. Two dropdowns are Gradio's,
all other controls are drawn by the page's own script into places left for it: a component for each of more than two
hundred knobs would make the page slow to come. Scripts that tie the two together are here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.ui import choices, shown
from studio.ui.form import PICKED, note, read_page, title, written_page
from studio.ui.gradio_import import gr
from studio.ui.knobsheet import sheet
from studio.ui.place import place
from studio.ui.text_forms import say

# The form is drawn by assets/js/form.js: its values are this component's, and its `input` asks for a look.
_DRAWN = "window.studio.form({ props, trigger });"
# What the server says of the form comes here.
_TOLD = "watch('value', () => window.studio.told(props.value));"
# Folds of the right column stay as they were left, like those that the page draws. Some come a moment after this runs,
# and some don't listen at once.
_FOLDS = """
const kept = new Set(JSON.parse(localStorage.getItem('studio.folds.side') ?? '[]'));
const open = (names, tries) => {
  const left = names.filter((name) => {
    const button = document.querySelector(`#${name} > button`);
    if (button?.classList.contains('open')) return false;
    button?.click();
    return true;
  });
  if (left.length && tries) setTimeout(() => open(left, tries - 1), 200);
};
open([...kept], 15);
element.closest('.train').querySelector('.train-side').addEventListener('click', (event) => {
  const button = event.target.closest('.fold > button');
  if (!button) return;
  setTimeout(() => {
    if (button.classList.contains('open')) kept.add(button.parentElement.id);
    else kept.delete(button.parentElement.id);
    localStorage.setItem('studio.folds.side', JSON.stringify([...kept]));
  });
});
"""
LOOK = "() => window.studio.look()"
# What stands in the form, for what the page's own scripts say of it: told with every look, without a way to the server.
TELL = f"""(model, dataset, drawn) => {{
  window.studioForm = {{ ...JSON.parse(drawn), {json.dumps(PICKED[0])}: model, {json.dumps(PICKED[1])}: dataset }};
  window.dispatchEvent(new Event('studio:form'));
}}"""
# What scripts change in the two dropdowns: values by name, as a JSON object.
_TAKES = "window.studio.pick = (values) => { props.value = JSON.stringify(values); trigger('submit'); };"
TAKE = f"""(taken, ...values) => {{
  const changes = JSON.parse(taken);
  return {json.dumps(PICKED)}.map((name, place) => name in changes ? changes[name] : values[place]);
}}"""
_MENDS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-mend]');
  if (button) trigger('click', { mend: button.dataset.mend });
});"""
# Run in the page once a start has been answered: on to the run, or to the field at fault.
GO = """(run) => {
  if (run) window.studio.open('runs', run);
  else setTimeout(() => document.querySelector('.knob.bad')?.scrollIntoView({ block: 'center' }), 60);
}"""


@dataclass
class TrainView:
    """The components. `looks` change with every look at the form, `everything` when it is filled or started."""

    picks: dict[str, Any] = field(default_factory=dict)
    preset: Any = None
    base: Any = None
    faulty: Any = None
    drawn: Any = None
    told: Any = None
    taken: Any = None
    advice: Any = None
    card: Any = None
    waits: Any = None
    name: Any = None
    run: Any = None
    problem: Any = None
    start: Any = None
    yaml: Any = None
    command: Any = None
    save_name: Any = None
    save: Any = None
    saved: Any = None

    @property
    def inputs(self) -> list[Any]:
        """What stands in the form, in the order in which `read` expects it."""
        return [*self.picks.values(), self.drawn]

    def read(self, shown: Sequence[Any]) -> dict[str, Any]:
        """What an event handler was given for `inputs`, by name."""
        *picked, drawn = shown
        return read_page(dict(zip(self.picks, picked, strict=True)), drawn)

    @property
    def looks(self) -> list[Any]:
        told = [self.card, self.waits, self.advice, self.yaml, self.command, self.told]
        return [self.preset, *told, self.problem, self.faulty, *self.picks.values()]

    @property
    def picked(self) -> list[Any]:
        """The dropdowns whose choices come from the workspace."""
        return [self.preset, *self.picks.values()]

    @property
    def everything(self) -> list[Any]:
        return [*self.looks, self.base, self.run, self.name, self.save_name, self.saved]


def build(values: Mapping[str, Any], preset: str) -> TrainView:
    """The tab's components, showing `values`."""
    view = TrainView(base=gr.State(f"preset:{preset}"), faulty=gr.State(""))
    with gr.Row(elem_classes=["train"]):
        with gr.Column(elem_classes=["train-form"], min_width=0):
            _what(view, values, preset)
            _heading("train.how")
            place("form-how")
            view.advice = gr.HTML("", js_on_load=_MENDS, apply_default_css=False, elem_id="train-advice")
            _heading("train.more")
            place("form-more")
            place("sweep-view")
            hidden: dict[str, Any] = {"html_template": "", "visible": "hidden", "apply_default_css": False}
            view.drawn = gr.HTML(written_page(values), js_on_load=_DRAWN, **hidden, sheet=sheet())
            view.told = gr.HTML("", js_on_load=_TOLD, **hidden)
            view.taken = gr.HTML("", js_on_load=_TAKES, **hidden)
        with gr.Column(elem_classes=["train-side"], min_width=0):
            _start(view)
            _take_away(view)
            gr.HTML("", js_on_load=_FOLDS, **hidden)
    return view


def preset_note(base: str, sentence: str = "") -> str:
    """What stands at the dropdown of presets: the file that the form was filled from, and a sentence."""
    kind, _, name = base.partition(":")
    file = f"{name}.yaml" if kind == "preset" else "run.yaml"
    return f"`{file}` {sentence or say('train.preset.note')}"


def _heading(key: str) -> None:
    gr.HTML(f"<h2>{say(key)}</h2>", js_on_load=None, apply_default_css=False, elem_classes=["heading"])


def _what(view: TrainView, values: Mapping[str, Any], preset: str) -> None:
    _heading("train.what")
    with gr.Row(elem_classes=["knobs", "what"]):
        view.preset = gr.Dropdown(
            choices.presets(),
            value=preset,
            label=say("train.preset"),
            info=preset_note(f"preset:{preset}"),
            filterable=False,
            elem_id="preset",
            elem_classes=["knob"],
        )
        for name, offered in zip(PICKED, (choices.models(), choices.datasets()), strict=True):
            view.picks[name] = gr.Dropdown(
                offered,
                value=values[name],
                allow_custom_value=True,
                label=title(name),
                info=note(name),
                interactive=True,
                elem_id=f"knob-{name.replace('.', '-')}",
                elem_classes=["knob"],
            )
        place("form-method")
    place("fit-models")


def _start(view: TrainView) -> None:
    place("fit-view")
    view.name = gr.Textbox(
        label=say("train.name"),
        placeholder=say("train.name.note"),
        max_lines=1,
        elem_id="train-name",
        elem_classes=["knob"],
    )
    with gr.Column(elem_classes=["train-start"], min_width=0):
        place("fit-warning")
        view.problem = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="train-problem")
        view.waits = gr.HTML("", js_on_load=None, apply_default_css=False)
        view.start = gr.Button(say("train.start"), variant="primary", elem_id="train-start")
    view.run = gr.Textbox(visible=False)


def _take_away(view: TrainView) -> None:
    """The run in a few figures, as a file, as a command, as a preset."""
    copies = shown.COPIES % say("copied")
    with gr.Accordion(say("plan.title"), open=False, elem_classes=["fold"], elem_id="fold-run"):
        view.card = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="train-card")
    with gr.Accordion(say("train.yaml"), open=False, elem_classes=["fold"], elem_id="fold-yaml"):
        view.yaml = gr.HTML("", js_on_load=copies, apply_default_css=False, elem_id="train-yaml")
    with gr.Accordion(say("train.command"), open=False, elem_classes=["fold"], elem_id="fold-command"):
        view.command = gr.HTML("", js_on_load=copies, apply_default_css=False, elem_id="train-command")
    with gr.Accordion(say("train.save"), open=False, elem_classes=["fold"], elem_id="fold-save"):
        view.save_name = gr.Textbox(label=say("train.save.name"), max_lines=1, elem_classes=["knob"])
        view.save = gr.Button(say("train.save.do"), elem_id="train-save")
        view.saved = gr.HTML("", js_on_load=None, apply_default_css=False)
