"""Any valid config, for hypothesis: every knob at any value that it may have, made from the knobs themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import Knob, knobs
from studio.core.problems import PROBLEMS

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
    found: st.SearchStrategy[Any]
    if knob.path == "hardware.device":
        found = st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:1", "xpu:0"])
    elif knob.path == "adapter.target_modules":
        found = TEXTS.filter(bool) | st.lists(TEXTS, min_size=1, max_size=3)
    elif knob.path == "dataset.path":
        weighted = st.fixed_dictionaries({"path": TEXTS.filter(bool), "weight": st.none() | st.floats(0.01, 9)})
        found = TEXTS.filter(bool) | st.lists(TEXTS.filter(bool) | weighted, min_size=1, max_size=3)
    elif knob.path in ("dataset.validation_split", "dataset.test_split"):
        found = st.floats(0, 0.49) | st.integers(1, 10**6).map(float)
    elif knob.path == "dataset.exclude":
        found = st.lists(st.sampled_from(sorted(PROBLEMS)), max_size=3)
    elif knob.path == "dataset.exclude_rows":
        found = st.lists(st.integers(0, 10**9), max_size=3)
    elif knob.kind == "int":
        found = st.integers(int(knob.ge or 0), int(knob.le or 10**9))
    elif knob.kind == "float":
        least, most = knob.gt if knob.ge is None else knob.ge, knob.lt if knob.le is None else knob.le
        found = st.floats(least, most, exclude_min=knob.ge is None, exclude_max=knob.le is None and most is not None)
        found = found.filter(lambda number: abs(number) < float("inf"))
    elif knob.kind == "choice":
        found = st.sampled_from([{"true": True, "false": False}.get(choice, choice) for choice in knob.choices])
    elif knob.kind == "bool":
        found = st.booleans()
    elif knob.kind == "list":
        found = st.lists(st.sampled_from(knob.choices), max_size=3)
    elif knob.kind == "map":
        found = st.dictionaries(TEXTS, TEXTS, max_size=3)
    else:
        found = TEXTS if knob.optional else TEXTS.filter(bool)
    return st.none() | found if knob.optional else found


@st.composite
def any_config(draw: st.DrawFn) -> RunConfig:
    """A valid config: some knobs set, the others at their defaults."""
    known = knobs()
    data: dict[str, Any] = {}
    for knob in draw(st.lists(st.sampled_from(known), max_size=8, unique_by=lambda knob: knob.path)):
        section, _, name = knob.path.partition(".")
        data.setdefault(section, {})[name] = draw(values(knob))
    if "adapter" not in data and draw(st.booleans()):
        data["adapter"] = None
    try:
        return parse_config(data)
    except ConfigError as error:
        # The rule that ties knobs together; anything else would be a bound that the knob doesn't tell of.
        assert error.field == "model.quantization", error
        return parse_config({**data, "dataset": {}, "model": {}})
