"""Where LM Studio looks for models: in its own folder, as publisher/name/file.gguf.

In: the person's home. Out: a folder for a model there, or none where LM Studio isn't installed.
"""

from __future__ import annotations

from pathlib import Path

PUBLISHER = "finetuning-studio"
# Since version 0.3.9 the first; before, the second.
_FOLDERS = (".lmstudio/models", ".cache/lm-studio/models")


def models_folder() -> Path | None:
    """LM Studio's folder of models on this machine."""
    try:
        return next((place for name in _FOLDERS if (place := Path.home() / name).is_dir()), None)
    except (OSError, RuntimeError):  # no home
        return None


def place_for(name: str) -> Path | None:
    """A folder there that isn't taken, for a model of this name (a slug)."""
    folder = models_folder()
    if folder is None:
        return None
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next((place for each in names if not (place := folder / PUBLISHER / each).exists()), None)


def is_layout(path: Path) -> bool:
    """Whether LM Studio finds what lies in this folder: two levels below its own."""
    folder = models_folder()
    return folder is not None and path.parent.parent == folder


def hint(format: str, written: Path) -> Path | None:
    """For a GGUF file that was written elsewhere: where LM Studio, if it is here, would find its folder."""
    return place_for(written.name) if format == "gguf" and not is_layout(written) else None
