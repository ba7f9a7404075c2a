"""When a tab is come to: at the opening of the page, and whenever it is chosen.

In: a handler. Out: an event; the handler runs then. To be called while a tab is built. Lists that other tabs or other
windows may have changed are read anew at that moment, instead of every second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from studio.ui.gradio_import import gr


def on_open(handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], *, at_load: bool = True) -> Any:
    """Run `handler` whenever the tab that is being built is chosen, with `at_load` at the opening of the page too.

    Returns the event, for what is to follow it.
    """
    from gradio.context import Context  # not exported by gradio itself

    root, block = Context.root_block, Context.block
    assert root is not None, "a tab is built inside a window"
    while block is not None and not isinstance(block, gr.Tab):
        block = block.parent
    triggers = [*([root.load] if at_load or block is None else []), *([block.select] if block is not None else [])]
    return gr.on(
        triggers, handler, list(inputs), list(outputs), queue=False, show_progress="hidden", api_visibility="private"
    )
