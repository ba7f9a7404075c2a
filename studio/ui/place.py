"""An empty place in a tab that the page's own scripts draw into.

In: the element's id. Out: a component that Gradio shows once and never touches again.
"""

from __future__ import annotations

from html import escape
from typing import Any

from studio.ui.gradio_import import gr


def place(name: str, text: str = "") -> Any:
    """A `<div id=name>` holding `text` until a script fills it."""
    return gr.HTML(f'<div id="{name}">{escape(text)}</div>', js_on_load=None, apply_default_css=False)
