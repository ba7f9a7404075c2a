"""The window's tabs, put together.

In: a `Studio`. Out: Gradio's Blocks. The header is the page's own (`page`), and so is what changes by itself: the
page's scripts ask `api` once a second and draw into the empty places that four of the tabs leave for them. Gradio
draws what is filled in and pressed on the others, each tab when it is first opened.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from studio.ui import chat, data, export, runs, system, train
from studio.ui.context import Studio
from studio.ui.gradio_import import gr
from studio.ui.page import FIRST_TAB, TABS
from studio.ui.text import say

_BUILDERS = {
    "data": data.build_tab,
    "train": train.build_tab,
    "runs": runs.build_tab,
    "chat": chat.build_tab,
    "export": export.build_tab,
    "system": system.build_tab,
}
# Tabs that can be given a run by the page's scripts: "Repeat with a change", "Chat".
HANDED_TO = ("train", "chat")
_REGISTER = "window.studio.register({tab!r}, (run) => {{ props.value = run; trigger('submit'); }});"


def build(studio: Studio) -> Any:
    """The whole window as gr.Blocks, not yet mounted."""
    with gr.Blocks(title=say("app.title"), analytics_enabled=False, delete_cache=(3600, 86400)) as window:
        studio = dataclasses.replace(studio, handoff={tab: _handoff(tab) for tab in HANDED_TO})
        # The tab bar that is seen is the page's own; "wrap" keeps every one of Gradio's hidden buttons pressable.
        with gr.Tabs(selected=FIRST_TAB, elem_id="studio-tabs", overflow_behavior="wrap"):
            for tab in TABS:
                with gr.Tab(say(f"tab.{tab}"), id=tab, elem_id=f"tab-{tab}"):
                    _BUILDERS[tab](studio)
    return window


def _handoff(tab: str) -> Any:
    return gr.HTML(
        "", elem_id=f"handoff-{tab}", visible="hidden", js_on_load=_REGISTER.format(tab=tab), apply_default_css=False
    )
