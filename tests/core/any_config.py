"""Any valid config, for hypothesis: every knob at any value that it may have, made from the knobs themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from studio.core.config import TAGS, RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import Knob, knobs, sections_of, tag_of
from studio.core.problems import PROBLEMS

REWARDS = ("exact_match", "contains", "json", "length:200", "format:a+", "model:run:x", "file:reward.py")

# What YAML might take for something else than text, beside anything else that can be typed.
TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "2e-4",
        "1e5",
        "null",
        "~",
        "yes",
        "0x1F",
        "1_000",
        "12:30",
        "2026-11-22",
        "- a",
        "a: b",
        "# a",
        "é\x85b",
        "a\u2028b",
        "\ufeff",
    ]
)


def values(knob: Knob) -> st.SearchStrategy[Any]:
    """Values that a knob may have."""
    found = _special(knob.path)
    if found is None:
        found = _numbers(knob) if knob.kind in ("int", "float") else _others(knob)
    return st.none() | found if knob.optional else found


def _special(path: str) -> st.SearchStrategy[Any] | None:
    """Of knobs whose fields say more than a type."""
    if path == "hardware.device":
        return st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:1", "xpu:0"])
    if path == "adapter.target_modules":
        return TEXTS.filter(bool) | st.lists(TEXTS, min_size=1, max_size=3)
    if path == "dataset.path":
        weighted = st.fixed_dictionaries({"path": TEXTS.filter(bool), "weight": st.none() | st.floats(0.01, 9)})
        return TEXTS.filter(bool) | st.lists(TEXTS.filter(bool) | weighted, min_size=1, max_size=3)
    if path in ("dataset.validation_split", "dataset.test_split"):
        return st.floats(0, 0.49) | st.integers(1, 10**6).map(float)
    if path == "dataset.exclude":
        return st.lists(st.sampled_from(sorted(PROBLEMS)), max_size=3)
    if path == "method.rewards":
        return st.lists(st.sampled_from(REWARDS), min_size=1, max_size=3)
    return None


def _numbers(knob: Knob) -> st.SearchStrategy[Any]:
    if knob.kind == "int":
        return st.integers(int(knob.ge or 0), int(knob.le or 10**9))
    least, most = knob.gt if knob.ge is None else knob.ge, knob.lt if knob.le is None else knob.le
    found = st.floats(least, most, exclude_min=knob.ge is None, exclude_max=knob.le is None and most is not None)
    return found.filter(lambda number: abs(number) < float("inf"))


def _others(knob: Knob) -> st.SearchStrategy[Any]:
    item: st.SearchStrategy[Any]
    item = {"int": st.integers(0, 10**9), "float": st.floats(0, 10**9), "text": TEXTS}[knob.item]
    if knob.kind == "choice":
        return st.sampled_from([{"true": True, "false": False}.get(choice, choice) for choice in knob.choices])
    if knob.kind == "bool":
        return st.booleans()
    if knob.kind == "list":
        return st.lists(st.sampled_from(knob.choices), min_size=knob.min_length, max_size=3)
    if knob.kind == "texts":
        return st.lists(item, min_size=knob.min_length, max_size=3)
    if knob.kind == "map":
        return st.dictionaries(TEXTS, item, max_size=3)
    return TEXTS if knob.optional else TEXTS.filter(bool)


@st.composite
def any_config(draw: st.DrawFn) -> RunConfig:
    """A valid config: some knobs set, the others at their defaults."""
    every = knobs()
    tags = {section: draw(st.sampled_from(_choices(section))) for section, _, _ in TAGS}
    known = [knob for knob in every if knob.of in ("", *tags.values())]
    data: dict[str, Any] = {section: {tag: tags[section]} for section, tag, _ in TAGS}
    for knob in draw(st.lists(st.sampled_from(known), max_size=8, unique_by=lambda knob: knob.path)):
        section, _, name = knob.path.partition(".")
        data.setdefault(section, {})[name] = draw(values(knob))
    if len(data["adapter"]) == 1 and draw(st.booleans()):
        data["adapter"] = None
    try:
        return parse_config(data)
    except ConfigError as error:
        # A rule that ties knobs together; anything else would be a bound that the knob doesn't tell of.
        assert isinstance(error.__context__, ValidationError), error
        assert {found["type"] for found in error.__context__.errors()} == {"value_error"}, error
        return parse_config({"training": {"seed": draw(st.integers(0, 10**9))}})


def _choices(section: str) -> list[str]:
    return [tag_of(one) for one in sections_of(RunConfig.model_fields[section])]
