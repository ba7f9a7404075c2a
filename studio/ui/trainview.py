"""How the Train tab is laid out: the form at the left, this run and Start at the right.

In: the values to begin with. Out: a `TrainView` of components, not yet tied to anything. Its scripts are here too: a
pulse that asks for a new look when typing pauses, the buttons in advice, the way on to the run that was started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.ui import choices, shown
from studio.ui.form import ADAPTER, ADAPTERS, METHOD, PICKED, Form, classes, note
from studio.ui.gradio_import import gr
from studio.ui.text_forms import say

# Asks for a look at the form: when it appears, 100 ms after the last key, and at once when a field that was typed in is
# left or something was picked (LOOK).
_PULSE = """
const form = element.closest('.train-form');
let waiting = 0;
let typed = false;
const fire = (left) => { clearTimeout(waiting); trigger('input', { left }); };
const text = (target) => target.matches('input:not([role=combobox], [type=checkbox], [type=radio]), textarea');
form.addEventListener('input', (event) => {
  if (!text(event.target)) return;
  typed = true;
  clearTimeout(waiting);
  waiting = setTimeout(() => fire(false), 100);
});
form.addEventListener('focusout', (event) => {
  if (typed && text(event.target)) { typed = false; fire(true); }
});
form.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.matches('input') && text(event.target)) { typed = false; fire(true); }
});
form.addEventListener('studio:look', () => fire(true));
fire(true);

// Folds stay as they were left. Some come a moment after this runs, and some don't listen at once.
const kept = new Set(JSON.parse(localStorage.getItem('studio.folds') ?? '[]'));
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
element.closest('.train').addEventListener('click', (event) => {
  const button = event.target.closest('.fold > button');
  if (!button) return;
  setTimeout(() => {
    if (button.classList.contains('open')) kept.add(button.parentElement.id);
    else kept.delete(button.parentElement.id);
    localStorage.setItem('studio.folds', JSON.stringify([...kept]));
  });
});
"""
LOOK = "() => { document.querySelector('.train-form')?.dispatchEvent(new Event('studio:look')); }"
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

    form: Form = field(default_factory=Form)
    preset: Any = None
    base: Any = None
    faulty: Any = None
    pulse: Any = None
    effective: Any = None
    advice: Any = None
    card: Any = None
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
    def looks(self) -> list[Any]:
        own = [self.preset, self.card, self.effective, self.advice, self.yaml, self.command, self.problem, self.faulty]
        return [*own, *self.form.folds.values(), *self.form.inputs]

    @property
    def picked(self) -> list[Any]:
        """The dropdowns whose choices come from the workspace."""
        return [self.preset, *(self.form.controls[name] for name in PICKED)]

    @property
    def everything(self) -> list[Any]:
        return [*self.looks, self.base, self.run, self.name, self.save_name, self.saved]

    @property
    def picks(self) -> list[Any]:
        """The events of everything that is picked, not typed."""
        return [control.input for control in self.form.inputs if not isinstance(control, gr.Textbox)]


def build(values: Mapping[str, Any], preset: str) -> TrainView:
    """The tab's components, showing `values`."""
    view = TrainView(base=gr.State(f"preset:{preset}"), faulty=gr.State(""))
    with gr.Row(elem_classes=["train"]):
        with gr.Column(elem_classes=["train-form"], min_width=0):
            _what(view, values, preset)
            _how(view, values)
            _heading("train.more")
            view.form.add_folds(values)
            view.pulse = gr.HTML("", js_on_load=_PULSE, visible="hidden", apply_default_css=False)
        with gr.Column(elem_classes=["train-side"], min_width=0):
            _start(view)
            _take_away(view)
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
        view.form.add("model.name_or_path", values["model.name_or_path"], choices=choices.models())
        view.form.add("dataset.path", values["dataset.path"], choices=choices.datasets())
        view.form.controls[METHOD] = gr.Dropdown(
            [(say(f"train.method.{name}"), name) for name in ("sft",)],
            value=values[METHOD],
            label=say("train.method"),
            info=note(METHOD, say(f"train.method.{values[METHOD]}.note")),
            filterable=False,
            elem_id="knob-method",
            elem_classes=["knob"],
        )


def _how(view: TrainView, values: Mapping[str, Any]) -> None:
    _heading("train.how")
    view.form.controls[ADAPTER] = gr.Radio(
        [(say(f"train.adapter.{kind}"), kind) for kind in ADAPTERS],
        value=values[ADAPTER],
        label=say("train.adapter"),
        info=note(ADAPTER, say(f"train.adapter.{values[ADAPTER]}.note")),
        elem_id="knob-adapter",
        elem_classes=classes(ADAPTER),
    )
    with gr.Row(elem_classes=["knobs"]):
        for name in ("num_train_epochs", "learning_rate", "max_length"):
            view.form.add(f"training.{name}", values[f"training.{name}"])
    with gr.Row(elem_classes=["knobs", "batch"]):
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            view.form.add(f"training.{name}", values[f"training.{name}"])
        view.effective = gr.HTML("", js_on_load=None, apply_default_css=False, elem_classes=["effective"])
    view.advice = gr.HTML("", js_on_load=_MENDS, apply_default_css=False, elem_id="train-advice")


def _start(view: TrainView) -> None:
    view.card = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="train-card")
    view.name = gr.Textbox(
        label=say("train.name"), info=say("train.name.note"), max_lines=1, elem_id="train-name", elem_classes=["knob"]
    )
    view.problem = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="train-problem")
    view.start = gr.Button(say("train.start"), variant="primary", elem_id="train-start")
    view.run = gr.Textbox(visible=False)


def _take_away(view: TrainView) -> None:
    """The run as a file, as a command, as a preset."""
    copies = shown.COPIES % say("copied")
    with gr.Accordion(say("train.yaml"), open=False, elem_classes=["fold"], elem_id="fold-yaml"):
        view.yaml = gr.HTML("", js_on_load=copies, apply_default_css=False, elem_id="train-yaml")
    with gr.Accordion(say("train.command"), open=False, elem_classes=["fold"], elem_id="fold-command"):
        view.command = gr.HTML("", js_on_load=copies, apply_default_css=False, elem_id="train-command")
    with gr.Accordion(say("train.save"), open=False, elem_classes=["fold"], elem_id="fold-save"):
        view.save_name = gr.Textbox(label=say("train.save.name"), max_lines=1, elem_classes=["knob"])
        view.save = gr.Button(say("train.save.do"), elem_id="train-save")
        view.saved = gr.HTML("", js_on_load=None, apply_default_css=False)
