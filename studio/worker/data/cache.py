"""Where what was computed from data is kept, and how files are told apart.

In: paths. Out: folders under $STUDIO_HOME/cache/data. Losing them loses nothing but time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

_VERSION = "1"  # of what is kept: raised when its shape changes


def cache_root() -> Path:
    """The folder of all that is computed from data."""
    return Path(os.environ["STUDIO_HOME"]) / "cache" / "data"


def key_of(parts: Iterable[object]) -> str:
    """A short name for these things in this order."""
    return hashlib.sha256("\0".join([_VERSION, *map(str, parts)]).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_key(path: Path) -> str:
    """Another one once the file's path, size or time has changed."""
    stat = path.stat()
    return key_of((path.absolute(), stat.st_size, stat.st_mtime_ns))
