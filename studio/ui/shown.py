"""Other people's words and numbers, made fit to be looked at.

In: rows of a dataset, a model's answers, names, counts. Out: HTML that holds nothing but the text itself, and short
numbers. What a text could do to the page or to the reading order of what stands beside it is taken from it: markup is
escaped, every piece is an island of its own direction, and characters that are not seen are shown by their number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from html import escape

# C0 and C1 controls but newline and tab; direction marks, embeddings, overrides and isolates; zero-width space and
# no-break space, line and paragraph separators, interlinear annotations, tags, private use, surrogates. The joiners of
# emoji and of Indic scripts stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e007f\U000f0000-\U0010ffff]"
)
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def text(value: str, most: int | None = None) -> str:
    """A text as HTML: escaped, in an isolate of its own direction, unseen characters visible, cut after `most`."""
    cut = most is not None and len(value) > most
    told = _UNSEEN.sub(_mark, escape(value[:most] if cut else value, quote=True))
    return f'<bdi class="foreign">{told}{"…" if cut else ""}</bdi>'


def plain(value: str, most: int = 200) -> str:
    """A text where there can be no HTML, as in a list to choose from: cut, unseen characters by their number."""
    told = _UNSEEN.sub(lambda found: f"[U+{ord(found.group()):04X}]", value[:most])
    return told + ("…" if len(value) > most else "")


def line(value: str, most: int = 160) -> str:
    """A text on one line, cut: for lists."""
    return text(" ".join(value[: most * 4].split()), most)


def _mark(found: re.Match[str]) -> str:
    character = found.group()
    name = unicodedata.name(character, "control character")
    return f'<span class="unseen" title="{escape(name.lower())}">U+{ord(character):04X}</span>'


def size(count: int) -> str:
    """Bytes in the unit that leaves them one to three digits before the point."""
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if value >= 10 or unit == _UNITS[0] else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes everything")


def count(value: int) -> str:
    """A count, its thousands set apart."""
    return f"{value:,}"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, the values as HTML, one under the other."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in pairs)
    return f'<dl class="st-facts">{rows}</dl>'


def problem(sentence: str) -> str:
    """What is wrong, said where it is; nothing for an empty sentence."""
    return f'<p class="st-error" role="alert">{text(sentence)}</p>' if sentence else ""


def empty(title: str, next_step: str, button: str = "") -> str:
    """An empty state: what is missing, and what to do next. `button` is HTML."""
    return f'<div class="st-empty"><h2>{escape(title)}</h2><p>{escape(next_step)}</p>{button}</div>'


def code(content: str, copy: str, label: str) -> str:
    """A block of code with a button that copies it; `COPIES` must run in the component that shows it."""
    return (
        f'<div class="code-block"><h4><span>{escape(label)}</span>'
        f'<button type="button" class="st-button small" data-copy>{escape(copy)}</button></h4>'
        f'<pre class="st-code" tabindex="0"><code>{escape(content)}</code></pre></div>'
    )


# js_on_load of a gr.HTML that shows code blocks.
COPIES = """element.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  const before = button.textContent;
  await navigator.clipboard.writeText(button.closest('.code-block').querySelector('code').textContent);
  button.textContent = '%s';
  setTimeout(() => { button.textContent = before; }, 1500);
});"""

# js_on_load of a gr.HTML that shows things to choose from: a click on one tells its event which.
PICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-pick]');
  if (button) trigger('click', { pick: button.dataset.pick });
});"""
