"""How the Export tab looks: what to export where, and every export there has been.

In: runs and export jobs of the workspace. Out: components, HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, get_args

from studio.core.config import ExportConfig
from studio.core.inputs import Inputs
from studio.core.progress import LIVE
from studio.ui import shown
from studio.ui.gradio_import import gr
from studio.ui.text_forms import say
from studio.workspace.runs import ExportJob

FORMATS = ("merged", "adapter")
DTYPES = get_args(ExportConfig.model_fields["dtype"].annotation)
_EMPTY = """element.addEventListener('click', (event) => {
  if (event.target.closest('[data-go]')) window.studio.open('train');
});"""


@dataclass
class ExportView:
    """The components. `suggested` is the target that was put in for the chosen run and format."""

    suggested: Any
    seen: Any
    timer: Any
    empty: Any
    form: Any
    run: Any
    format: Any
    dtype: Any
    out: Any
    problem: Any
    start: Any
    history: Any

    @property
    def choices(self) -> list[Any]:
        return [self.run, self.format, self.out, self.suggested]

    @property
    def everything(self) -> list[Any]:
        return [*self.choices, self.seen, self.timer, self.empty, self.form, self.problem, self.history]


def build() -> ExportView:
    parts: dict[str, Any] = {"suggested": gr.State(""), "seen": gr.State(""), "timer": gr.Timer(1.0, active=False)}
    parts["empty"] = gr.HTML("", elem_id="export-empty", js_on_load=_EMPTY, apply_default_css=False)
    with gr.Row(elem_classes=["export"]):
        with gr.Column(elem_classes=["export-form"], min_width=0, visible=False) as parts["form"]:
            parts |= _form()
        with gr.Column(elem_classes=["export-list"], min_width=0):
            js = f"{shown.PICKS}\n{shown.COPIES % say('copied')}"
            parts["history"] = gr.HTML("", elem_id="export-history", js_on_load=js, apply_default_css=False)
    return ExportView(**parts)


def _form() -> dict[str, Any]:
    return {
        "run": gr.Dropdown(
            [],
            label=say("export.run"),
            info=say("export.run.note"),
            elem_id="export-run",
            elem_classes=["knob"],
            interactive=True,
        ),
        "format": gr.Radio(
            cards(FORMATS),
            value=FORMATS[0],
            label=say("export.format"),
            elem_id="export-format",
            elem_classes=["knob", "tiles"],
        ),
        "dtype": gr.Dropdown(
            list(DTYPES),
            value=DTYPES[0],
            label=say("export.dtype"),
            info=say("export.dtype.note"),
            filterable=False,
            elem_id="export-dtype",
            elem_classes=["knob"],
        ),
        "out": gr.Textbox(
            label=say("export.out"),
            info=say("export.out.note"),
            max_lines=1,
            elem_id="export-out",
            elem_classes=["knob"],
        ),
        "problem": gr.HTML("", elem_id="export-problem", js_on_load=None, apply_default_css=False),
        "start": gr.Button(say("export.start"), variant="primary", elem_id="export-start"),
    }


def cards(formats: Sequence[str]) -> list[tuple[str, str]]:
    """The formats to choose from, each with a title line and what it is for."""
    return [(f"{say(f'export.{name}')}\n{say(f'export.{name}.note')}", name) for name in formats]


def history(jobs: Sequence[ExportJob]) -> str:
    """Every export, newest first, with the code that loads what is there."""
    head = f"<h2>{escape(say('export.history'))}</h2>"
    if not jobs:
        return f'{head}<p class="st-hint">{escape(say("export.history.none"))}</p>'
    return f'{head}<div class="exports">{"".join(_entry(job) for job in jobs)}</div>'


def _entry(job: ExportJob) -> str:
    status, path = job.state.status, Path(str(job.result.get("path") or job.config.out))
    made = status == "finished" and path.is_dir()
    size = job.result.get("bytes")
    gone = status == "finished" and not made
    state = say("export.gone") if gone else say(f"export.status.{status}")
    facts = [when(job.id), shown.size(size) if made and isinstance(size, int) else ""]
    below = _progress(job) if status in LIVE else _cause(job) if status != "finished" else ""
    return (
        f'<article class="st-card export-job"><header><h3>{shown.line(label(job), 80)}</h3>'
        f'<span class="st-pill" data-status="{"" if gone else status}">{escape(state)}</span></header>'
        f'<p class="path">{shown.text(str(path))}</p><p class="under num">{escape(", ".join(filter(None, facts)))}</p>'
        f"{below}{_loads(job, path) if made else ''}</article>"
    )


def label(job: ExportJob) -> str:
    """The run's name and the format."""
    try:
        name = Inputs.read(job.folder.inputs).label
    except (OSError, ValueError, KeyError, TypeError):
        name = job.config.run
    return f"{name}, {say(f'export.{job.config.format}').lower()}"


def when(job_id: str) -> str:
    """The time in a job's id, as people write it; nothing for an id that holds none."""
    try:
        return f"{datetime.strptime(job_id[:13], '%Y%m%d-%H%M'):%d %b %Y, %H:%M}".lstrip("0")
    except ValueError:
        return ""


def _progress(job: ExportJob) -> str:
    stage = job.progress.stage
    done, total = (stage.done, stage.total) if stage is not None else (None, None)
    share = min(100 * done / total, 100.0) if done is not None and total else 0.0
    told = stage.text if stage is not None else say("export.status.queued")
    figures = f"{shown.size(done)} / {shown.size(total)}" if done is not None and total else ""
    return (
        f'<div class="export-live"><p class="loading" role="status">{shown.line(told)} '
        f'<span class="num">{figures}</span></p>'
        f'<button type="button" class="st-button small" data-pick="{escape(job.id)}">'
        f"{escape(say('export.cancel'))}</button>"
        f'<span class="bar"><span class="fill" style="width: {share:.1f}%"></span></span></div>'
    )


def _cause(job: ExportJob) -> str:
    told = f"{job.state.cause} {job.state.hint}".strip()
    bad = " st-error" if job.state.status == "failed" else " st-hint"
    return f'<p class="cause{bad}">{shown.text(told, 500)}</p>' if told else ""


def _loads(job: ExportJob, path: Path) -> str:
    code = shown.code(snippet(job, path), say("copy"), say("export.load.python"))
    return f'<details class="st-fold"><summary>{escape(say("export.load"))}</summary>{code}</details>'


def snippet(job: ExportJob, path: Path) -> str:
    """Python that loads an export: whole with transformers, or the adapter onto its base with PEFT."""
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if job.config.format == "adapter":
        lines = ["from peft import PeftModel", *lines, f"base = AutoModelForCausalLM.from_pretrained({_base(job)!r})"]
        lines.append(f"model = PeftModel.from_pretrained(base, {str(path)!r})")
    else:
        lines.append(f"model = AutoModelForCausalLM.from_pretrained({str(path)!r})")
    return "\n".join([*lines, f"tokenizer = AutoTokenizer.from_pretrained({str(path)!r})"])


def _base(job: ExportJob) -> str:
    try:
        model = Inputs.read(job.folder.inputs).model
    except (OSError, ValueError, KeyError, TypeError):
        return job.config.run
    return model.path or model.name
