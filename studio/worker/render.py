"""A conversation written by a model's chat template, which is somebody else's program.

In: messages, tools, a tokenizer with its template. Out: the text, the same as `apply_chat_template(tokenize=False)`,
or TemplateError. Templates run in transformers' own sandbox and nowhere else; here it is bounded in time (`SECONDS`)
and in what it may make (`MOST` characters, small numbers where operations multiply). Knows no tokens.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from typing import Any

from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from transformers.utils import chat_template_utils

from studio.core.errors import TemplateError
from studio.core.example import Message
from studio.worker.deadline import TooLong, within

SECONDS = 5.0  # a conversation takes milliseconds
MOST = 25_000_000  # characters; more than the largest row has (LONGEST_LINE of core.rows)
_NUMBER = 100_000  # the largest that is raised to a power; jinja's own bound for range()
_WIDTH = re.compile(r"%(\([^)]*\))?[-+ #0.\d]*\d{5}|\{[^{}]*:[^{}]*\d{5}")
_WIDTH_GIVEN = re.compile(r"\{[^{}]*\{")
_NAMED_TWICE = re.compile(r"%\(|\{\w")

Span = tuple[int, int]  # characters [start, end) of the rendered text


def template_of(tokenizer: Any, tools: Sequence[Any] = ()) -> str:
    """The template that writes conversations; with tools, the one for tools where there are several."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = (template.get("tool_use") if tools else None) or template.get("default")
    if not template:
        raise TemplateError(
            "This model has no chat template, so a conversation can't be written the way it expects.",
            "Choose an instruct or chat model, or give rows of plain text or of prompt and completion.",
        )
    return str(template)


def render(tokenizer: Any, messages: Sequence[Message], *, tools: Sequence[Any] = (), ask: bool = False) -> str:
    """The conversation as the model reads it; with `ask`, up to where its next answer begins. Raises TemplateError."""
    return _written(tokenizer, messages, tools, ask, None)


def render_marked(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[str, list[Span]]:
    """The conversation, and what the template itself marks as the assistant's by {% generation %}."""
    spans: list[Span] = []
    return _written(tokenizer, messages, tools, False, spans), spans


def marks_answers(template: str) -> bool:
    """Whether a template has {% generation %} marks."""
    return re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", template) is not None


def _written(tokenizer: Any, messages: Sequence[Message], tools: Any, ask: bool, spans: list[Span] | None) -> str:
    template = template_of(tokenizer, tools)
    # As apply_chat_template prepares them; nothing but plain values reaches the template.
    given = [{key: value for key, value in message.items() if value is not None} for message in messages]
    given = chat_template_utils._alias_reasoning_fields(chat_template_utils._plain_template_data(given))
    values = {
        "messages": given,
        "tools": chat_template_utils._plain_template_data(list(tools)) if tools else None,
        "documents": None,
        "add_generation_prompt": ask,
        **tokenizer.special_tokens_map,
    }
    try:
        return within(SECONDS, lambda: _run(template, values, spans))
    except TooLong:
        problem = f"takes more than {SECONDS:g} seconds"
    except MemoryError:
        problem = "runs out of memory"
    except RecursionError:
        problem = "calls itself without end"
    except Exception as error:  # noqa: BLE001 - a template is somebody else's program and may raise anything
        problem = " ".join(str(error).split())[:160]
    raise TemplateError(
        f"The model's chat template can't write this conversation ({problem}).",
        "Leave the row out, or change its roles to what the model knows.",
    )


def _run(template: str, values: dict[str, Any], spans: list[Span] | None) -> str:
    compiled = _compiled(template)
    if spans is None:
        return str(compiled.render(**values))
    pieces: list[str] = []
    length = 0
    # The tracker reads what has been written so far, so each piece is in the list before the next one is made.
    with compiled.environment.activate_tracker(pieces, spans):
        for piece in compiled.generate(**values):
            pieces.append(piece)
            length += len(piece)
            _fits(length)
    return "".join(pieces)


@lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    """The template, compiled in a sandbox of transformers' making that is bounded besides."""
    # An environment of our own, since it is changed; of an empty template, since jinja calculates constants already
    # when it compiles, and this one is bounded by then.
    environment = chat_template_utils._cached_compile_jinja_template("").environment
    environment.intercepted_binops = frozenset(("+", "*", "**", "%"))
    environment.call_binop = _binop
    environment.concat = _joined
    environment.finalize = _writable
    environment.code_generator_class = _Code
    unbounded = environment.call

    def call(context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        if isinstance(getattr(method, "__self__", None), str):
            _bound_method(method.__self__, method.__name__, [*args, *kwargs.values()])
        return unbounded(context, function, *args, **kwargs)

    environment.call = call
    for name in _BOUND_FILTERS:
        environment.filters[name] = _bound_filter(name, environment.filters[name])
    return environment.from_string(template)


class _Code(CodeGenerator):
    """As jinja's, but `a ~ b` is joined by the environment, which counts."""

    def visit_Concat(self, node: Any, frame: Any) -> None:
        self.write("environment.concat((")
        for each in node.nodes:
            self.write("str(environment.finalize(")
            self.visit(each, frame)
            self.write(")), ")
        self.write("))")


# -- bounds: an operation of C code can't be ended from outside, so it never gets what would keep it busy --------------


def _fits(length: int) -> None:
    if length > MOST:
        raise SecurityError(f"it makes more than {MOST:,} characters")


def _joined(pieces: Iterable[str]) -> str:
    kept, length = [], 0
    for piece in pieces:
        length += len(piece)
        if length > MOST:
            _fits(length)
        kept.append(piece)
    return "".join(kept)


def _size(value: Any, left: int = MOST) -> int:
    """Roughly the characters of a value written out; a list within lists counts wherever it stands."""
    if isinstance(value, (list, tuple)):
        parts: Iterable[Any] = value
    elif isinstance(value, dict):
        parts = (part for pair in value.items() for part in pair)
    else:
        return len(value) if isinstance(value, str) else 8
    total = 2
    for part in parts:
        total += _size(part, left - total)
        _fits(total + MOST - left)
    return total


def _writable(value: Any) -> Any:
    if type(value) is not str:
        _size(value)
    return value


def _binop(context: Any, symbol: str, left: Any, right: Any) -> Any:
    if symbol == "+":
        if type(left) is type(right) is str and len(left) + len(right) <= MOST:  # by far the most
            return left + right
        if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _fits(len(left) + len(right))
        return left + right
    if symbol == "%":
        if isinstance(left, str):
            _bound_format(left, right)
        return left % right
    if symbol == "**":
        if abs(left) > _NUMBER or abs(right) > 64:
            raise SecurityError("it calculates too large a number")
        return left**right
    for many, count in ((left, right), (right, left)):
        if isinstance(many, (str, list, tuple)) and isinstance(count, int):
            _fits(len(many) * count)
        elif isinstance(many, int) and many.bit_length() > 512:
            raise SecurityError("it calculates too large a number")
    return operator.mul(left, right)


def _bound_times(value: Any, given: Iterable[Any]) -> None:
    """For what makes more of a value by a number, such as indent."""
    _fits(_size(value) * (1 + max((abs(each) for each in given if isinstance(each, int)), default=0)))


def _bound_format(form: str, given: Any) -> None:
    """Widths stand in the format, or among the values where it asks for them there."""
    if _WIDTH.search(form):
        raise SecurityError("it formats to too great a width")
    if "*" in form or _WIDTH_GIVEN.search(form):
        for each in given if isinstance(given, (list, tuple)) else [given]:
            if re.fullmatch(r"\s*\D?\d{5,}.*", str(each), re.DOTALL):
                raise SecurityError("it formats to too great a width")
    _fits(len(form) * (1 + _size(given)) if _NAMED_TWICE.search(form) else len(form) + _size(given))


def _bound_join(separator: str, values: Any) -> None:
    if isinstance(values, (list, tuple, str)):
        _fits(len(separator) * len(values) + _size(values))


def _bound_replace(text: str, given: Sequence[Any]) -> None:
    if len(given) >= 2:
        _fits(len(text) + text.count(str(given[0])) * len(str(given[1])))


def _bound_method(text: str, name: str, given: list[Any]) -> None:
    """A look at what a method of text is given, where it could make very much of very little."""
    if name in ("center", "ljust", "rjust", "zfill", "expandtabs"):
        _bound_times(text, given)
    elif name in ("format", "format_map"):
        _bound_format(text, given)
    elif name == "replace":
        _bound_replace(text, given)
    elif name == "join" and given:
        _bound_join(text, given[0])


_BOUND_FILTERS = (
    *("batch", "center", "format", "indent", "join", "pprint", "replace", "round", "slice", "string", "sum"),
    *("tojson", "wordwrap"),
)


def _bound_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a filter of that name."""
    first = int(hasattr(function, "jinja_pass_arg"))  # the environment or context stands before the value

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        value = args[first]
        given = [*args[first + 1 :], *kwargs.values()]
        if name == "join":
            value = value if isinstance(value, str) else list(value)
            _bound_join(str(given[0]) if given else "", value)
        elif name == "format":
            _bound_format(str(value), given)
        elif name == "replace":
            _bound_replace(str(value), given)
        elif name == "round":
            _fits(MOST // 1000 * max((abs(each) for each in given if isinstance(each, int)), default=0))
        elif name == "sum":
            if any(isinstance(each, (list, tuple)) for each in given):
                raise SecurityError("it adds up lists")
        else:
            _bound_times(value, given)
        return function(*args[:first], value, *args[first + 1 :], **kwargs)

    return bounded
