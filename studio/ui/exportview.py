"""How the exports there have been look: what was written, how far it is, whether it is the same model, where it goes.

In: export jobs of the workspace, their pushes. Out: HTML, a piece for each, in which everybody else's words are text.
The page's script puts the pieces into their places and gives their buttons something to do.
"""

from __future__ import annotations

from datetime import datetime
from html import escape
from pathlib import Path

from studio.core.events import Stage
from studio.core.inputs import Inputs
from studio.core.job import EventTail
from studio.core.progress import LIVE
from studio.ui import exportload, shown
from studio.ui.exportparityview import parity_html
from studio.ui.text_export import say
from studio.workspace.home import slug
from studio.workspace.push import Push
from studio.workspace.runs import ExportJob


def entry(job: ExportJob, push: Push | None, token: bool) -> str:
    """One export. `token`: whether the hub's library knows one."""
    status, path = job.state.status, place(job)
    made = written(job)
    gone = status == "finished" and not made
    stage = job.progress.stage
    doing = "comparing" if status == "running" and stage is not None and stage.name == "parity" else status
    state = say("export.gone") if gone else say(f"export.status.{doing}")
    below = ""
    if status in LIVE:
        below = f"{_notes(job)}{_progress(job)}"
    elif status != "finished":
        below = _cause(job)
    elif made:
        below = f"{_notes(job)}{parity_html(job)}{_loads(job, path)}{_away(job, push, token)}"
    else:
        below = f'<p class="cause st-hint">{escape(say("export.gone.note"))}</p>'
    return (
        f"<header><h3>{shown.line(label(job), 80)}</h3>"
        f'<span class="st-pill" data-status="{"" if gone else status}">{escape(state)}</span></header>'
        f'<p class="path"><span>{shown.text(str(path))}</span>{_copy_path(path) if made else ""}</p>'
        f'<p class="under num">{escape(", ".join(_facts(job, made)))}</p>{below}'
    )


def place(job: ExportJob) -> Path:
    """Where an export lies, or was to lie."""
    return Path(str(job.result.get("path") or job.config.out))


def written(job: ExportJob) -> bool:
    """Whether it is there."""
    return job.state.status == "finished" and place(job).is_dir()


def label(job: ExportJob) -> str:
    """The run's name and the format, with the number format where one was chosen."""
    kind = job.config.quantization
    return f"{run_name(job)}, {say(f'export.{job.config.format}.short')}{'' if kind == 'auto' else f' ({kind})'}"


def run_name(job: ExportJob) -> str:
    try:
        return Inputs.read(job.folder.inputs).label
    except (OSError, ValueError, KeyError, TypeError):
        return job.config.run


def when(job_id: str) -> str:
    """The time in a job's id, as people write it; nothing for an id that holds none."""
    try:
        return f"{datetime.strptime(job_id[:13], '%Y%m%d-%H%M'):%d %b %Y, %H:%M}".lstrip("0")
    except ValueError:
        return ""


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _copy_path(path: Path) -> str:
    words = escape(say("export.path.copy"))
    return f'<button type="button" class="st-button small" data-copy-text="{escape(str(path))}">{words}</button>'


def _facts(job: ExportJob, made: bool) -> list[str]:
    found = [when(job.id)]
    if made:
        result = job.result
        if isinstance(result.get("bytes"), int):
            found.append(shown.size(result["bytes"]))
        if isinstance(result.get("seconds"), (int, float)):
            found.append(say("export.facts.seconds", seconds=duration(result["seconds"])))
        if isinstance(result.get("peak_rss"), int):
            found.append(say("export.facts.peak", size=shown.size(result["peak_rss"])))
    return [fact for fact in found if fact]


def _notes(job: ExportJob) -> str:
    """What the worker had to say; what the comparison found is told there."""
    parity = job.result.get("parity")
    told = {*(parity.get("problems") or ()), parity.get("skipped")} if isinstance(parity, dict) else set()
    notes = [note.text for note in job.progress.notes if note.text not in told]
    return "".join(f'<p class="st-note warn">{shown.text(text, 400)}</p>' for text in notes)


# -- while it is written ----------------------------------------------------------------------------------------------


def _progress(job: ExportJob) -> str:
    stage = job.progress.stage
    told = stage.text if stage is not None else say("export.status.queued")
    done, total = (stage.done, stage.total) if stage is not None else (None, None)
    cancel = f'<button type="button" class="st-button small" data-cancel>{escape(say("export.cancel"))}</button>'
    return bar(shown.line(told), done, total, pace(job), cancel)


def bar(told: str, done: int | None, total: int | None, rate: float | None, button: str) -> str:
    """A line that says what is done, how far it is and how long it takes, over a bar. `told` and `button` are HTML."""
    figures = []
    share = min(100 * done / total, 100.0) if done is not None and total else 0.0
    if done is not None and total and total > 1:
        figures.append(f"{shown.size(done)} / {shown.size(total)}")
        if rate:
            figures.append(say("export.rate", size=shown.size(int(rate))))
            figures.append(say("export.left", time=duration((total - done) / rate)))
    return (
        f'<div class="export-live"><p class="loading" role="status">{told} '
        f'<span class="num">{escape(", ".join(figures))}</span></p>{button}'
        f'<span class="bar"><span class="fill" style="width: {share:.1f}%"></span></span></div>'
    )


def pace(job: ExportJob) -> float | None:
    """Bytes a second since the present stage began; None before there is a rate."""
    first: Stage | None = None
    last: Stage | None = None
    for event in EventTail(job.folder.events).read():
        if isinstance(event, Stage):
            if last is None or event.name != last.name or event.text != last.text:
                first = event
            last = event
    if first is None or last is None or first.done is None or last.done is None or last.t <= first.t:
        return None
    return (last.done - first.done) / (last.t - first.t) or None


def _cause(job: ExportJob) -> str:
    told = f"{job.state.cause} {job.state.hint}".strip()
    bad = " st-error" if job.state.status == "failed" else " st-hint"
    return f'<p class="cause{bad}">{shown.text(told, 500)}</p>' if told else ""


# -- and then ---------------------------------------------------------------------------------------------------------


def _loads(job: ExportJob, path: Path) -> str:
    copy = say("export.load.copy")
    blocks = "".join(shown.code(code, copy, title) for title, code in exportload.commands(job, path))
    return _fold("load", say("export.load"), f'<div class="inside">{blocks}</div>')


def _fold(name: str, title: str, inside: str) -> str:
    return f'<details class="st-fold" data-fold="{name}"><summary>{escape(title)}</summary>{inside}</details>'


def _away(job: ExportJob, push: Push | None, token: bool) -> str:
    href = f"api/export/jobs/{escape(job.id)}/zip"
    zipped = f'<a class="st-button small" href="{href}" download>{escape(say("export.zip"))}</a>'
    repo = push.repo if push is not None else slug(f"{run_name(job)} {job.config.format}")
    private = "no" if push is not None and not push.private else "yes"
    form = (
        f'<div class="inside" data-push-form data-repo="{escape(repo)}" data-private="{private}" '
        f'data-token="{"yes" if token else "no"}" data-again="{"yes" if push is not None else "no"}"></div>'
    )
    running = push is not None and push.state == "running"
    fold = _fold("push", say("export.push"), form)
    return f'{_pushed(push)}{"" if running else fold}<p class="away">{zipped}</p>'


def _pushed(push: Push | None) -> str:
    if push is None:
        return ""
    if push.state == "running":
        told = escape(say("export.push.preparing"))
        if push.total:
            told = escape(say("export.push.running", file=push.file or say("export.push.rest")))
        cancel = f'<button type="button" class="st-button small" data-push-stop>{escape(say("export.cancel"))}</button>'
        return bar(told, push.done, push.total, push.rate, cancel)
    if push.state == "finished":
        link = f'<a href="{escape(push.url)}" target="_blank" rel="noreferrer noopener">{escape(push.url)}</a>'
        return f'<p class="pushed">{escape(say("export.push.finished"))} {link}</p>'
    if push.state == "stopped":
        return f'<p class="st-hint">{escape(say("export.push.stopped"))}</p>'
    return f'<p class="st-error">{shown.text(f"{push.error} {push.hint}".strip(), 400)}</p>'
