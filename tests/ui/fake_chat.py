"""A stand-in for `workspace.chat.Chat`: no worker, no model, the same manners.

In: what it should do (`endless`, `refuses`, `breaks`). Out: three words a column, or words until it is stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from studio.core.errors import StudioError
from studio.workspace.chat import ChatTarget, Delta


@dataclass
class FakeChat:
    """Answers word by word, where asked until it is stopped."""

    endless: bool = False
    refuses: str = ""
    breaks: str = ""
    loaded: ChatTarget | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    halted: threading.Event = field(default_factory=threading.Event)

    def open(self, target_id: str, progress: Any) -> ChatTarget:
        progress("Half of it is there")
        if self.refuses:
            raise StudioError(self.refuses)
        self.loaded = ChatTarget(target_id, "A run", "starter", target_id.startswith("run:"))
        return self.loaded

    def stream(self, conversations: dict[str, Any], **settings: Any) -> Iterator[Delta]:
        self.halted.clear()
        self.asked.append({**conversations, "settings": settings})
        count = 0
        for word in ("one ", "two ", "three") if not self.endless else iter(lambda: "on and ", None):
            for column in conversations:
                yield Delta(column, word, False, count := count + 1, 0.1)
            if self.breaks:
                raise StudioError(self.breaks)
            if self.halted.is_set():
                break
        for column in conversations:
            yield Delta(column, "", True, 10, 2.0)

    def stop(self) -> None:
        self.halted.set()

    def unload(self) -> None:
        self.loaded = None
