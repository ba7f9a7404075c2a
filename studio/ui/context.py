"""What every tab is built with.

In: the workspace's parts, made once by the server. Out: a `Studio`, handed to each tab's `build_tab`. Holds nothing
that belongs to one viewer: that lives in the page and the workspace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.workspace.chat import Chat
from studio.workspace.desk import DataDesk
from studio.workspace.estimating import Estimating
from studio.workspace.home import home
from studio.workspace.supervisor import Supervisor
from studio.workspace.sweeps import Sweeps


@dataclass(frozen=True)
class Studio:
    """`supervisor` acts on runs and reads them (`.runs`), `chat` talks to them and shows rows as trained on,
    `estimating` says what a run would take; without it nobody says. `sweeps` are the searches for better settings.

    `handoff[tab]` is the component through which the page's scripts give a run's id to a tab ("Repeat with a change",
    "Chat"): listen with `studio.handoff["chat"].submit(function, studio.handoff["chat"], outputs)`.
    """

    supervisor: Supervisor
    chat: Chat
    handoff: dict[str, Any] = field(default_factory=dict)
    estimating: Estimating | None = None
    sweeps: Sweeps | None = None

    @property
    def desk(self) -> DataDesk:
        """What is asked about datasets."""
        return self.supervisor.desk

    @property
    def home(self) -> Path:
        """Where state is kept."""
        return home()
