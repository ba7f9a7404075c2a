"""A conversation from a terminal: base and tuned answer the same questions, each remembering its own words.

In: what to talk to, questions. Out: text as it comes. The window has its own way; both use Chat.
"""

from __future__ import annotations

from collections.abc import Callable

from studio.workspace.chat import Chat, Judgement, Message, target_of
from studio.workspace.launcher import Launcher
from studio.workspace.runs import Runs


class Conversation:
    """Opened on a run's id or a model; `say` gets words about what is being done."""

    def __init__(self, target: str, say: Callable[[str], None]) -> None:
        self.chat = Chat(Launcher(standby=False), Runs())
        said: set[str] = set()

        def progress(text: str) -> None:
            if text not in said:
                said.add(text)
                say(text)

        self._progress = progress
        opened = self.chat.open(target_of(target), progress)
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

    def best(
        self, question: str, reward: str, samples: int, temperature: float, max_new_tokens: int
    ) -> list[Judgement]:
        """Several answers to a question by what was trained, the best by a reward model first, which is remembered."""
        history = self.histories[self.columns[-1]]
        history.append({"role": "user", "content": question})
        found = self.chat.best(
            history, reward, samples, temperature=temperature, max_new_tokens=max_new_tokens, progress=self._progress
        )
        history.append({"role": "assistant", "content": found[0].text})
        return found

    def close(self) -> None:
        self.chat.unload()
