"""run.yaml and its like, read and written.

In: YAML text, dicts, `key=value` overrides. Out: a RunConfig (or ExportConfig), or a ConfigError that names the
field, what is wrong and the nearest known name. Knows YAML and pydantic's errors; decides nothing about what a run
does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from studio.core.config import TAGS, RunConfig
from studio.core.errors import ConfigError
from studio.core.knobs import sections_of, tag_of

C = TypeVar("C", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `2e-4` as text; people who type learning rates mean a number."""


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml: ten times as fast."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would take for a number."""


for _kind in (_Loader, _FastLoader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def _written(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML puts line breaks that ASCII doesn't know between single quotes, and then reads them back as spaces.
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if set(text) & set("\x85\u2028\u2029") else None
    )


_Dumper.add_representer(str, _written)


def _load(text: str) -> Any:
    """Raises YAMLError, ValueError, RecursionError. libyaml is kept from what may be nested deeply: it would crash."""
    flat = len(text) < 20_000 and sum(map(text.count, "[{-?")) < 200
    return yaml.load(text, Loader=_FastLoader if flat else _Loader)


def parse_config(data: Mapping[str, Any]) -> RunConfig:
    """Validate a whole or partial RunConfig; what it leaves out takes its default. Raises ConfigError."""
    return parse_as(RunConfig, data)


def parse_as(kind: type[C], data: Mapping[str, Any]) -> C:
    """Validate any config. Raises ConfigError for the first thing at fault, with its dotted path."""
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise _first_error(error, kind) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping. Raises ConfigError naming the file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("", f"There is no file {path}.", "Check the path; presets lie in presets/.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("", f"{path} can't be read ({error}).", "Give a YAML file in UTF-8.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """The mapping in a YAML text; `name` is what an error calls it."""
    try:
        data = _load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is no YAML"
        raise ConfigError("", f"{name}{line}: {problem}.", "Mend that line and try again.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError("", f"{name} holds no settings.", "Write them as `section: {knob: value}`.")
    return {str(key): value for key, value in data.items()}


def load_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The RunConfig in a file, with `key=value` overrides laid over it."""
    return parse_config(override(read_yaml(path), overrides))


def override(data: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` with `a.b=value` laid over it; a value is read as YAML, so `null`, `2e-4` and `[a, b]` work.

    Another method or adapter comes first, wherever it stands, and without the knobs of the one before.
    """
    result = dict(data)
    for assignment in sorted(assignments, key=lambda each: each.partition("=")[0].strip() not in _TAG_PATHS):
        path, sign, text = assignment.partition("=")
        if not sign or not path.strip():
            raise ConfigError("", f"--set {assignment} has no value.", "Write it as --set training.learning_rate=1e-4.")
        *sections, leaf = path.strip().split(".")
        place = result
        for section in sections:
            known = place.get(section)
            place[section] = dict(known) if isinstance(known, Mapping) else {}
            place = place[section]
        value = _scalar(text, path)
        if len(sections) == 1 and _is_another(sections[0], place, {leaf: value}):
            place.clear()
        place[leaf] = value
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, section by section: how a partial preset meets what is in the form.

    Another method or adapter replaces the one before, whose knobs it may not have.
    """
    result = _copy(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, dict) and isinstance(value, Mapping) and not _is_another(key, known, value):
            result[key] = merge(known, value)
        else:
            result[key] = value
    return result


def _is_another(section: str, known: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """Whether `over` chooses another method or adapter than there is."""
    for name, tag, usual in TAGS:
        if name == section and tag in over:
            return bool(over[tag] != known.get(tag, usual))
    return False


def config_to_yaml(config: BaseModel) -> str:
    """The whole config as YAML, in the order of its fields; `parse_config(parse_yaml(...))` gives it back."""
    return to_yaml(config.model_dump(mode="json"))


def to_yaml(data: Mapping[str, Any]) -> str:
    """Plain values as YAML that `parse_yaml` gives back as they were."""
    return str(yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


def changed(config: BaseModel) -> dict[str, Any]:
    """Dotted path -> value of every knob that differs from its default."""

    def walk(now: Any, default: Any, path: str) -> dict[str, Any]:
        if isinstance(now, dict) and isinstance(default, dict) and default:
            found: dict[str, Any] = {}
            for key, value in now.items():
                found |= walk(value, default.get(key), f"{path}.{key}" if path else key)
            return found
        return {} if now == default else {path: now}

    return walk(config.model_dump(mode="json"), type(config)().model_dump(mode="json"), "")


def _scalar(text: str, path: str) -> Any:
    try:
        return _load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(path, f"{text!r} is no value.", "Quote it as you would in YAML.") from None


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}


def _first_error(error: ValidationError, kind: type[BaseModel]) -> ConfigError:
    # An unknown key is what a person most likely mistyped, so it is told before what follows from it.
    found = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")[0]
    path = [str(part) for at, part in enumerate(found["loc"]) if not _is_union_tag(at, found["loc"])]
    if found["type"] == "extra_forbidden":
        return _unknown_key(path, kind, found["loc"])
    if found["type"] == "union_tag_invalid":
        return _unknown_tag(path[0], found["ctx"])
    value = found.get("input")
    shown = "" if isinstance(value, (dict, list)) or value is None else f" ({str(value)[:80]!r} was given)"
    message = found["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if found["type"] == "value_error":
        # A rule over several knobs opens its message with the path of the one to show it at.
        field = re.match(r"([a-z_]+(?:\.[a-z0-9_]+)*): ", message)
        where, told = (field[1], message[field.end() :]) if field else (".".join(path), message)
        return ConfigError(where, f"{told}.", "Change it and try again.")
    if found["type"] in _PLAIN:
        message = _PLAIN[found["type"]]
    return ConfigError(".".join(path), f"{message}{shown}.", "Change it and try again.")


# Where pydantic's own words speak of types that a person never sees.
_PLAIN = {
    "model_type": "should be a section of knobs",
    "model_attributes_type": "should be a section of knobs",
    "dict_type": "should be a mapping, `expected: yours`",
    "string_pattern_mismatch": "should be auto, cpu, mps, cuda, cuda:N, xpu or xpu:N",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
}


_TAGGED = {section: tag for section, tag, _ in TAGS}
_TAG_PATHS = {f"{section}.{tag}" for section, tag, _ in TAGS}


def _is_union_tag(at: int, place: tuple[int | str, ...]) -> bool:
    """Pydantic names the tried branch of a union in an error's place; people never wrote it."""
    part = place[at]
    if at == 1 and place[0] in _TAGGED:
        return True
    return isinstance(part, str) and (part in {"str", "bool", "list[str]"} or "[" in part)


def _unknown_tag(section: str, context: Mapping[str, Any]) -> ConfigError:
    known = [name.strip("'") for name in context["expected_tags"].split(", ")]
    near = difflib.get_close_matches(str(context["tag"]), known, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
    return ConfigError(f"{section}.{_TAGGED[section]}", f"there is no {section} {str(context['tag'])[:80]!r}.", hint)


def _unknown_key(path: list[str], kind: type[BaseModel], place: tuple[int | str, ...]) -> ConfigError:
    *sections, key = path
    section: Any = kind
    for name in sections:
        section = _section_of(section, name, place)
    known = list(section.model_fields) if section is not None else []
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        hint = f"Did you mean {'.'.join([*sections, near[0]])}?"
    elif others := _others_with(kind, sections, key):
        hint = f"Only {', '.join(others)} {'has' if len(others) == 1 else 'have'} it."
    else:
        elsewhere = _find_leaf(kind, key)
        hint = f"Did you mean {elsewhere}?" if elsewhere else f"Known here: {', '.join(known)}."
    return ConfigError(".".join(path), "there is no such knob.", hint)


def _section_of(section: Any, name: str, place: tuple[int | str, ...] = ()) -> Any:
    """The section of this name; of several, the one whose tag stands in an error's place, else the first."""
    field = section.model_fields.get(name) if section is not None else None
    found = sections_of(field) if field is not None else []
    chosen = [one for one in found if len(found) > 1 and tag_of(one) in place]
    return next(iter(chosen or found), None)


def _others_with(kind: type[BaseModel], sections: list[str], key: str) -> list[str]:
    """The methods or adapters that have this knob, where the chosen one hasn't."""
    if len(sections) != 1 or sections[0] not in _TAGGED:
        return []
    return [tag_of(one) for one in sections_of(kind.model_fields[sections[0]]) if key in one.model_fields]


def _find_leaf(kind: type[BaseModel], key: str) -> str | None:
    leaves = {
        leaf: f"{name}.{leaf}"
        for name, field in kind.model_fields.items()
        for one in sections_of(field)
        for leaf in one.model_fields
    }
    near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.6)
    return leaves[near[0]] if near else None
