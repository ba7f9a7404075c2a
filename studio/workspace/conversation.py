"""A conversation from a terminal: base and tuned answer the same questions, each remembering its own words.

In: what to talk to, questions. Out: text as it comes. The window has its own way; both use Chat.
"""

from __future__ import annotations

from collections.abc import Callable

from studio.workspace.chat import Chat, Message
from studio.workspace.home import is_slug, runs_dir
from studio.workspace.launcher import Launcher
from studio.workspace.runs import Runs


class Conversation:
    """Opened on a run's id or a model; `say` gets words about what is being done."""

    def __init__(self, target: str, say: Callable[[str], None]) -> None:
        self.chat = Chat(Launcher(standby=False), Runs())
        is_run = is_slug(target) and (runs_dir() / target / "run.yaml").is_file()
        said: set[str] = set()

        def progress(text: str) -> None:
            if text not in said:
                said.add(text)
                say(text)

        opened = self.chat.open(f"run:{target}" if is_run else target, progress)
        self.columns = ["base", "tuned"] if opened.tuned else ["base"]
        self.histories: dict[str, list[Message]] = {column: [] for column in self.columns}

    def ask(
        self, question: str, write: Callable[[str], None] | None, temperature: float, max_new_tokens: int
    ) -> dict[str, str]:
        """Put a question to every column; answers are written one after the other, each whole, and returned."""
        for history in self.histories.values():
            history.append({"role": "user", "content": question})
        answers = dict.fromkeys(self.columns, "")
        for delta in self.chat.stream(self.histories, temperature=temperature, max_new_tokens=max_new_tokens):
            answers[delta.column] += delta.text
        for column, text in answers.items():
            self.histories[column].append({"role": "assistant", "content": text})
            if write:
                write(f"{column}: {text}\n\n" if len(answers) > 1 else f"{text}\n\n")
        return answers

    def close(self) -> None:
        self.chat.unload()
