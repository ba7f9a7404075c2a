"""Checkpoints that can be trusted: complete, verified, newest by step, rotated by step.

In: the folders transformers' Trainer writes. Out: a manifest in each complete one; the newest that verifies. The
Trainer itself promises none of this: it writes in place, finds the newest by number and deletes by modification time.
A folder without a valid manifest is set aside, never resumed from and never counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.core.job import read_json

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")
# Without these a run can't go on where it was; weights alone would restart the optimizer in silence.
_NEEDED = ("trainer_state.json", "optimizer.pt", "scheduler.pt")


def publish(folder: Path) -> None:
    """Verify a checkpoint just written and sign it with a manifest. Raises OSError or ValueError if it isn't whole."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            if path.suffix == ".safetensors":
                check_header(path)
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _digest(path)}
            sync(path)
    missing = [name for name in _NEEDED if name not in files]
    if missing or not any(name.endswith(".safetensors") for name in files):
        raise ValueError(f"the checkpoint lacks {', '.join(missing) or 'its weights'}")
    manifest = folder / MANIFEST
    temporary = manifest.with_suffix(".tmp")
    temporary.write_text(json.dumps({"step": step_of(folder), "files": files}, indent=1), encoding="utf-8")
    sync(temporary)
    temporary.replace(manifest)
    sync(folder)
    sync(folder.parent)


def newest(checkpoints: Path) -> Path | None:
    """The complete checkpoint with the highest step; partial or damaged ones above it are renamed aside."""
    for folder in _by_step(checkpoints):
        problem = verify(folder)
        if problem is None:
            return folder
        sys.stderr.write(f"{folder.name} is set aside: {problem}\n")
        aside = folder.with_name(f"broken-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    return None


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None if it is exactly what was signed."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict):
        return "it has no manifest: its saving was cut off"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}"
        if _digest(path) != expected["sha256"]:
            return f"{name} has changed since it was saved"
    return None


def rotate(checkpoints: Path, keep: int, best: int | None = None) -> None:
    """Delete all but the `keep` highest complete steps and the `best` one, the oldest first."""
    complete = [folder for folder in _by_step(checkpoints) if (folder / MANIFEST).exists()]
    for folder in reversed(complete[keep:]):
        if step_of(folder) != best:
            # The manifest goes first: a kill in the middle leaves a folder that nobody takes for whole.
            (folder / MANIFEST).unlink()
            shutil.rmtree(folder, ignore_errors=True)


def step_of(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    assert match, f"{folder} is not named like a checkpoint"
    return int(match[1])


def _by_step(checkpoints: Path) -> list[Path]:
    found = [path for path in checkpoints.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def check_header(path: Path) -> None:
    """Raises ValueError if a safetensors file's header doesn't account for every byte of it.

    The format: 8 bytes of little-endian header length, a JSON header with each tensor's [begin, end) offsets, the data.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{path.name} is cut off in its header")
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if 8 + length + max(ends, default=0) != size:
        raise ValueError(f"{path.name} is cut off: {size} bytes instead of {8 + length + max(ends, default=0)}")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(2**22):
            yield block


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # Windows can't open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish_folder(staging: Path, target: Path) -> None:
    """Give a finished folder its name: every file on the disk first, then one rename."""
    for path in staging.rglob("*"):
        if path.is_file():
            sync(path)
    sync(staging)
    staging.rename(target)
    sync(target.parent)
