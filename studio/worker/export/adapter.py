"""Just the adapter, as PEFT saved it."""

from __future__ import annotations

import shutil
from pathlib import Path

from studio.core.errors import RunError
from studio.worker.export.source import Source


def copy_adapter(source: Source, target: Path) -> None:
    """Copy the adapter's files. Raises RunError for a run that trained the whole model."""
    if not source.is_adapter:
        raise RunError("This run trained the whole model; it has no adapter.", "Export it merged.")
    total, done = source.bytes_to_write("adapter"), 0
    for path in sorted(source.output.iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
            done += path.stat().st_size
            source.report("Copying the adapter", done, total)
