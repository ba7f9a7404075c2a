"""An export as one zip file that is made while it is downloaded: nothing of it is ever on the disk twice.

In: a folder. Out: its files as stored entries (weights don't compress), piece by piece, and how many bytes that will
be. Entries and archives of more than 4 GB are ZIP64, as the standard library writes it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

PIECE = 2**20  # bytes read at once
# Bytes of a zip's parts, as its specification has them.
_LOCAL, _CENTRAL, _END = 30, 46, 22
_END_64, _LOCATOR_64 = 56, 20
_DESCRIPTOR, _DESCRIPTOR_64 = 16, 24  # after an entry's data: CRC and sizes, which aren't known before it
_EXTRA_LOCAL = 20  # an entry's 64-bit sizes: 2 numbers and a header
_LAST_DATE = (2107, 12, 31, 23, 59, 58)


class _Pieces:
    """What the archive writes, until it is taken. It can't be sought in, so that headers come before their data."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self.parts = b"".join(self.parts), []
        return taken


def files(folder: Path) -> list[Path]:
    """What goes into the archive: plain files, no links, nothing hidden."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    inside = (path for path in found if path.resolve().is_relative_to(folder.resolve()))
    return sorted(path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def stream(folder: Path, name: str) -> Iterator[bytes]:
    """The archive of a folder, its files under `name`/. Raises OSError where a file goes away meanwhile."""
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        for path in files(folder):
            entry = _entry(path, folder, name)
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=_is_large(entry.file_size)) as target:
                left = entry.file_size  # not a byte more, whatever the file has become: the length has been told
                while left and (data := source.read(min(PIECE, left))):
                    left -= len(data)
                    target.write(data)
                    yield pieces.take()
                if left:
                    raise OSError(5, "the file became shorter while it was read", str(path))
    yield pieces.take()


def length(folder: Path, name: str) -> int:
    """How many bytes `stream` will give, as long as no file changes."""
    offset = central = count = 0
    for path in files(folder):
        entry = _entry(path, folder, name)
        named, large = len(entry.filename.encode()), _is_large(entry.file_size)
        beyond = entry.file_size > zipfile.ZIP64_LIMIT, offset > zipfile.ZIP64_LIMIT
        extra = 4 + 8 * (2 * beyond[0] + beyond[1]) if any(beyond) else 0
        central += _CENTRAL + named + extra
        offset += _LOCAL + named + entry.file_size
        offset += _EXTRA_LOCAL + _DESCRIPTOR_64 if large else _DESCRIPTOR
        count += 1
    many = count > zipfile.ZIP_FILECOUNT_LIMIT or max(offset, central) > zipfile.ZIP64_LIMIT
    return offset + central + _END + (_END_64 + _LOCATOR_64 if many else 0)


def _is_large(size: int) -> bool:
    # The standard library asks for some room above, for the case that a file grows.
    return size * 1.05 > zipfile.ZIP64_LIMIT


def _entry(path: Path, folder: Path, name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo.from_file(path, f"{name}/{path.relative_to(folder).as_posix()}", strict_timestamps=False)
    entry.compress_type = zipfile.ZIP_STORED
    entry.date_time = min(entry.date_time, _LAST_DATE)
    return entry
