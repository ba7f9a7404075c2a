"""A base with an adapter merged in, as a model to train on.

In: their folders. Out: a folder like any model's, there whole or not at all. The merging itself is the export's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from studio.core.errors import ModelError
from studio.worker.checkpoints import publish_folder
from studio.worker.export.merge import write_merged
from studio.worker.export.shards import Unstreamable
from studio.worker.export.source import Source


def merge_into(folder: Path, base: Path, adapter: Path, report: Callable[[str, int | None, int | None], None]) -> None:
    """Write base + adapter as `folder`. Raises ModelError; whatever `report` raises ends it with nothing left."""
    if not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"The adapter {adapter} is gone.", "Put it back, or choose another model.")
    staging = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    source = Source(base, adapter, "auto", report)
    try:
        try:
            write_merged(source, staging)
        except Unstreamable:
            from studio.worker.export.fallback import write_merged_whole

            for path in staging.iterdir():
                path.unlink()
            write_merged_whole(source, staging)
        publish_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
