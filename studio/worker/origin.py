"""Which base an adapter was trained on: a fingerprint of that base's weights, kept in the adapter's folder.

In: a base's folder. Out: origin.json beside the adapter; whether another base is the same. The fingerprint is of what
can be read in milliseconds: of each safetensors file its header, its size, the first and the last megabyte of its
numbers. Two bases of one shape differ in it; one that somebody changed in the middle of a file on purpose needn't.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

from studio.core.inputs import ModelInput
from studio.core.job import read_json, write_text

FILE = "origin.json"
_WHAT = "SHA-256 of each safetensors file's header, size, first and last MB of numbers"
_SAMPLE = 2**20
_LARGEST_HEADER = 100 * 2**20  # safetensors' own limit


def fingerprint(base: Path) -> str:
    """Hexadecimal; "" for a folder without weights. Raises OSError, ValueError for files that are none."""
    total = hashlib.sha256()
    files = sorted(base.glob("*.safetensors"))
    for path in files:
        total.update(_of_file(path))
    return total.hexdigest() if files else ""


def _of_file(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _LARGEST_HEADER + 1
        if length > _LARGEST_HEADER:
            raise ValueError(f"{path.name} is no safetensors file")
        entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        found = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
        found.update(f"{size - 8 - length}".encode())
        found.update(file.read(_SAMPLE))
        file.seek(max(8 + length, size - _SAMPLE))
        found.update(file.read(_SAMPLE))
    return found.digest()


def keep_origin(base: Path, model: ModelInput, adapter: Path) -> None:
    """Write it into the adapter's folder. A base that can't be read any more costs the fingerprint, not the run."""
    name = Path(model.name).name if model.kind == "folder" else model.name  # no folders of this machine
    try:
        text = json.dumps({"base": name, "sha256": fingerprint(base), "of": _WHAT}, ensure_ascii=False, indent=1)
        write_text(adapter / FILE, text)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"no fingerprint of the base ({error})\n")


def is_other(base: Path, adapter: Path) -> bool | None:
    """Whether the adapter was trained on other weights than this base's; None where nobody can say."""
    kept = (read_json(adapter / FILE) or {}).get("sha256")
    if not isinstance(kept, str) or not kept:
        return None
    try:
        return fingerprint(base) != kept
    except (OSError, ValueError):
        return None
