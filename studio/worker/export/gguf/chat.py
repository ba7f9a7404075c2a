"""A chat template as Ollama writes one: what stands before and after each kind of message.

In: a tokenizer. Out: the pieces, found by rendering conversations and taking them apart; None for templates that don't
render message by message. And the Modelfile made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_MARKS = {"system": "\x01S\x01", "user": "\x01U\x01", "assistant": "\x01A\x01"}


@dataclass(frozen=True)
class Turns:
    """(before, after) of each role's text; `head`: what a conversation without a system message begins with;
    `start`: what bids the model to answer.
    """

    head: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    start: str

    def render(self, messages: list[dict[str, str]]) -> str:
        """A conversation, ready to be answered."""
        has_system = messages[:1] and messages[0]["role"] == "system"
        text = "" if has_system else self.head
        for message in messages:
            before, after = getattr(self, message["role"])
            text += before + message["content"] + after
        return text + self.start


def take_apart(tokenizer: Any) -> Turns | None:
    """The pieces of a chat template, proven on a conversation of several turns; None where they can't be found."""
    if not tokenizer.chat_template:
        return None

    def render(*roles: str, start: bool = False) -> str:
        messages = [{"role": role, "content": _MARKS[role]} for role in roles]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=start))

    try:
        one, two, three = render("user"), render("user", "assistant"), render("user", "assistant", "user")
        start = render("user", start=True).removeprefix(one)
        user = _split(three.removeprefix(two), "user")
        assistant = _split(two.removeprefix(one), "assistant")
        if user is None or assistant is None or not one.endswith(user[0] + _MARKS["user"] + user[1]):
            return None
        head = one.removesuffix(user[0] + _MARKS["user"] + user[1])
        system = _system(render, user)
        turns = Turns(head, system, user, assistant, start)
        roles = ("user", "assistant", "user", "assistant", "user")
        messages = [{"role": role, "content": _MARKS[role]} for role in roles]
        return turns if turns.render(messages) == render(*roles, start=True) else None
    except Exception:  # noqa: BLE001 - a template is a program and may raise whatever it likes
        return None


def _system(render: Any, user: tuple[str, str]) -> tuple[str, str] | None:
    try:
        return _split(render("system", "user").removesuffix(user[0] + _MARKS["user"] + user[1]), "system")
    except Exception:  # noqa: BLE001 - Gemma's raises where there is a system message
        return None


def _split(text: str, role: str) -> tuple[str, str] | None:
    before, mark, after = text.partition(_MARKS[role])
    return (before, after) if mark and not any(m in before + after for m in _MARKS.values()) else None


def modelfile(file: str, tokenizer: Any, ends: list[str]) -> str:
    """Ollama's recipe for a GGUF file: where it is, how it is talked to, where its turns end."""
    lines = [f"FROM ./{file}"]
    turns = take_apart(tokenizer)
    if turns is not None:
        lines.append(f'TEMPLATE """{_template(turns)}"""')
    lines += [f"PARAMETER stop {_quoted(token)}" for token in ends]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def _template(turns: Turns) -> str:
    """The pieces in the language of Go's templates, as Ollama fills them: a list of messages with roles."""
    parts = []
    if turns.head:
        parts.append('{{ if not (and .Messages (eq (index .Messages 0).Role "system")) }}' + turns.head + "{{ end }}")
    parts.append("{{ range .Messages }}")
    roles = [("user", turns.user), ("assistant", turns.assistant), ("system", turns.system)]
    word = "if"
    for role, pieces in roles:
        if pieces is not None:
            parts.append(f'{{{{ {word} eq .Role "{role}" }}}}{pieces[0]}{{{{ .Content }}}}{pieces[1]}')
            word = "else if"
    parts.append("{{ end }}{{ end }}" + turns.start)
    return "".join(parts)
