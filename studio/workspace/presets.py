"""Presets: partial RunConfigs ready to load, shipped with the studio or saved by its user.

In: names. Out: plain dicts that are laid over a config. A user's preset wins over a shipped one of the same name; a
shipped one is never written to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml, parse_config, read_yaml
from studio.core.errors import ConfigError
from studio.core.job import write_text
from studio.workspace.home import bundled, is_slug, plain_label, presets_dir, slug


@dataclass(frozen=True)
class PresetEntry:
    """A preset in the list: `title` is the first comment line of its file, without the `#`."""

    name: str
    title: str
    path: Path
    own: bool


def list_presets() -> list[PresetEntry]:
    """Every preset, the user's own after the shipped ones."""
    found = {path.stem: PresetEntry(path.stem, _title(path), path, False) for path in _yaml_files(bundled("presets"))}
    found |= {path.stem: PresetEntry(path.stem, _title(path), path, True) for path in _yaml_files(presets_dir())}
    return list(found.values())


def load_preset(name: str) -> dict[str, Any]:
    """What a preset sets, checked to be a valid (partial) RunConfig. Raises ConfigError."""
    entry = next((p for p in list_presets() if p.name == name), None)
    if entry is None:
        raise ConfigError(
            "", f"There is no preset {name!r}.", f"There are: {', '.join(p.name for p in list_presets())}."
        )
    data = read_yaml(entry.path)
    parse_config(data)
    return data


def save_preset(title: str, config: RunConfig) -> PresetEntry:
    """Keep a config as the user's preset; one of the same name is replaced only if it has the same title."""
    title = plain_label(title)
    if not title:
        raise ConfigError("", "A preset needs a name.", "Type one and save again.")
    path = presets_dir() / f"{slug(title)}.yaml"
    if path.exists() and _title(path) != title:
        raise ConfigError("", f"There is a preset {path.stem!r} already.", "Choose another name.")
    write_text(path, f"# {title}\n{config_to_yaml(config)}")
    return PresetEntry(path.stem, title, path, True)


def delete_preset(name: str) -> None:
    """Delete one of the user's own presets."""
    path = presets_dir() / f"{name}.yaml"
    if not is_slug(name) or not path.is_file():
        raise ConfigError("", f"There is no preset of yours named {name!r}.", "Shipped presets can't be deleted.")
    path.unlink()


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.yaml") if is_slug(path.stem))


def _title(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline(1000)
    except (OSError, UnicodeDecodeError):
        return path.stem
    return first[1:].strip() if first.startswith("#") else path.stem
