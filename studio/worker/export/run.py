"""An export job: which run, to what, where; checked, written beside the target, then given its name.

In: a Job whose folder holds export.yaml, inputs.json and source.json. Out: the target folder, progress events, one
Ended with path, bytes, seconds, the peak of memory and the parity. How a format is written is in its module.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.core.errors import TargetError
from studio.core.job import read_json
from studio.worker.checkpoints import publish_folder
from studio.worker.export.adapter import copy_adapter
from studio.worker.export.card import write_card
from studio.worker.export.leftovers import clear_leftovers, staging_for
from studio.worker.export.merge import write_merged
from studio.worker.export.proof import compare_in_fresh_process
from studio.worker.export.shards import Unstreamable
from studio.worker.export.task import BETWEEN, Export
from studio.worker.job import Job, Stopped, peak_rss
from studio.worker.origin import is_other

Writer = Callable[[Export, Path], None]


def _write_adapter(task: Export, target: Path) -> None:
    copy_adapter(task.source, target)


def _write_merged(task: Export, target: Path) -> None:
    try:
        write_merged(task.source, target, task.combine)
    except Unstreamable as reason:
        from studio.worker.export.fallback import write_merged_whole

        task.note(f"It can't be merged a tensor at a time ({reason}); PEFT merges the whole model in memory instead.")
        for path in target.iterdir():
            path.unlink()
        write_merged_whole(task.source, target, task.combine)


# The libraries behind these take seconds and some hundred megabytes: only who needs them waits for them.
def _write_gguf(task: Export, target: Path) -> None:
    from studio.worker.export.gguf.export import write_gguf

    write_gguf(task, target)


def _write_gguf_lora(task: Export, target: Path) -> None:
    from studio.worker.export.gguf.export import write_gguf_lora

    write_gguf_lora(task, target)


def _write_ollama(task: Export, target: Path) -> None:
    from studio.worker.export.gguf.export import write_ollama

    write_ollama(task, target)


def _write_bnb(task: Export, target: Path) -> None:
    from studio.worker.export.bnb import write_bnb

    write_bnb(task, target)


WRITERS: dict[str, Writer] = {
    "adapter": _write_adapter,
    "merged": _write_merged,
    "gguf": _write_gguf,
    "gguf-lora": _write_gguf_lora,
    "ollama": _write_ollama,
    "bnb": _write_bnb,
}


def export(job: Job) -> None:
    """Do the export. Raises StudioError, Stopped; a target that isn't there whole isn't there at all."""
    job.starting(0)
    began = time.monotonic()
    task = Export(job)
    target = Path(task.config.out)
    _warn_of_another_base(task)
    clear_leftovers(target.parent, job.folder.path.parent)
    task.check_quantizer()
    _check_space(target, task.source.bytes_to_write(task.config.format, task.rounding(), task.written_type))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_for(target, job.folder.id)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        WRITERS[task.config.format](task, staging)
        seconds = round(time.monotonic() - began, 3)
        peak = peak_rss()
        job.check_stop()
        parity = _compare(task, staging)
        shutil.rmtree(staging / BETWEEN, ignore_errors=True)
        write_card(task, staging, parity)
        _publish(staging, target)
    except Stopped:
        job.end("stopped", "Cancelled; nothing was written.")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TargetError(
            f"The disk filled up while {target} was written; nothing of it was left.",
            "Free some space, or give a folder on another disk.",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not job.ended:
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        result: dict[str, Any] = {"path": str(target), "bytes": size, "seconds": seconds, "peak_rss": peak}
        if parity is not None:
            result["parity"] = parity
        job.end("finished", result=result)


def _warn_of_another_base(task: Export) -> None:
    """Shapes that fit are no proof: an adapter of this studio carries a fingerprint of its base's weights; of others,
    what they name as their base is all there is to go by.
    """
    if not task.source.is_adapter:
        return
    here = {Path(task.base_name).name, task.source.base.name}
    for folder in task.source.adapters:
        other = is_other(task.source.base, folder)
        if other:
            name = f"the adapter {folder.name}" if "run" not in task.where else "this run's adapter"
            task.note(
                f"The weights of {task.base_name} aren't those that {name} was trained on: their hashes differ, though "
                "their shapes fit. What comes out may be worse than either."
            )
        if other is not None or "run" in task.where:
            continue
        named = (read_json(folder / "adapter_config.json") or {}).get("base_model_name_or_path")
        if isinstance(named, str) and named and Path(named).name not in here:
            task.note(f"The adapter {folder.name} names {named} as its base, and is merged into {task.base_name}.")


def _compare(task: Export, staging: Path) -> dict[str, Any] | None:
    if not task.config.parity:
        return None
    return compare_in_fresh_process(task.job, task.parity_request(staging))


def _publish(staging: Path, target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise TargetError(f"{target} exists and isn't empty.", "Give a new or an empty folder.")
    if target.is_dir():
        target.rmdir()  # empty: what is renamed there must be all that is there
    publish_folder(staging, target)


def _check_space(target: Path, needed: int) -> None:
    place = next(parent for parent in (target, *target.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed * 1.02 + 2**20:
        raise TargetError(
            f"{place} has {free / 1e9:.1f} GB free, and the export needs {needed / 1e9:.1f} GB.",
            "Free some space, or give a folder on another disk.",
        )
