"""Where state is kept: one function decides, everything else asks it.

In: the environment variable STUDIO_HOME. Out: folders. Also finds what is shipped with the studio, and turns any name
into one that is safe as a folder's on every system.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from studio.core.errors import StudioError

_RESERVED = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}


def home() -> Path:
    """The studio's folder: $STUDIO_HOME, else ~/.studio. Made if it isn't there."""
    place = Path(os.environ.get("STUDIO_HOME") or Path.home() / ".studio")
    try:
        return _made(place.expanduser().absolute())
    except RuntimeError:
        raise StudioError(f"Nobody here is called {place.parts[0]}.", "Give another folder in STUDIO_HOME.") from None


def runs_dir() -> Path:
    return _made(home() / "runs")


def exports_dir() -> Path:
    return _made(home() / "exports")


def models_dir() -> Path:
    return _made(home() / "models")


def datasets_dir() -> Path:
    return _made(home() / "datasets")


def presets_dir() -> Path:
    return _made(home() / "presets")


def cache_dir() -> Path:
    """What can be computed anew: losing it costs time and nothing else."""
    return _made(home() / "cache")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudioError(
            f"The folder {folder} can't be made ({error.strerror}).",
            "Free some space or give another folder in the environment variable STUDIO_HOME.",
        ) from None
    return folder


def bundled(name: str) -> Path:
    """The folder `assets` or `presets` that comes with the studio: beside the package in a checkout, inside it in a
    wheel.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / name
    return checkout if checkout.is_dir() else package / "_bundled" / name


def existing(typed: str) -> Path | None:
    """What stands at a path that a person typed; None where nothing does, or where it can be no path."""
    try:
        path = Path(typed).expanduser()
        path.stat()
    except (OSError, ValueError, RuntimeError):  # too long; a NUL in it; `~somebody` who isn't here
        return None
    return path if typed else None


def plain_label(text: str) -> str:
    """A name as it is shown: the person's own, on one line, without what would command a terminal or has no bytes."""
    plain = "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in {"Cc", "Cs"})
    return " ".join(plain.translate({0xFFFE: None, 0xFFFF: None}).split())[:200].strip()


def slug(text: str, fallback: str = "untitled") -> str:
    """A folder name for any text: lower-case ASCII letters, digits and hyphens, at most 48 of them.

    The text itself is kept elsewhere as a label; two texts may share a slug.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-")
    return f"{words}-1" if words in _RESERVED else words or fallback


def is_slug(text: str) -> bool:
    """Whether a text can be nothing but the name of a folder: no separators, no dots in front, nothing odd."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text)) and ".." not in text
