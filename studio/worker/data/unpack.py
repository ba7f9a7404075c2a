"""Compressed text files: read as a stream, or unpacked once into the cache so that any place can be reached.

In: a .gz or .zst file. Out: a binary stream that ends, with `torn` saying why, where the file is damaged; or the path
of the unpacked copy. What unpacks to absurd sizes, or to more than the disk has room for, is refused.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from studio.core.errors import DataError
from studio.worker.data.cache import cache_root, file_key

PACKED = {".gz", ".zst"}
_BOMB_RATIO, _BOMB_SIZE = 200, 2 * 2**30
_ROOM = 512 * 2**20  # left free on the disk


class Unpacking(io.RawIOBase):
    """The unpacked bytes of a file. Damage ends the stream early and is told in `torn`."""

    def __init__(self, path: Path) -> None:
        self.torn = ""
        self._name, self._packed, self._given = path.name, path.stat().st_size, 0
        self._file = path.open("rb")
        self._inner = _reader(path, self._file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self.torn:
            return 0
        try:
            block = self._inner(len(buffer))
        except (EOFError, OSError, zlib.error, ValueError) as error:
            self.torn = _torn(self._name, error)
            return 0
        except Exception as error:
            # zstandard's error has no base of its own to catch, and is imported only where it is needed.
            if type(error).__name__ != "ZstdError":
                raise
            self.torn = _torn(self._name, error)
            return 0
        buffer[: len(block)] = block
        self._given += len(block)
        if self._given > _BOMB_SIZE and self._given > _BOMB_RATIO * self._packed:
            raise DataError(
                f"{self._name} unpacks to over {_BOMB_RATIO} times its size, which no text does.",
                "Unpack it by hand if you trust it.",
            )
        return len(block)

    @property
    def place(self) -> int:
        """How many packed bytes have been read."""
        return 0 if self._file.closed else self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


class UnpackedStream(io.BufferedReader):
    """An Unpacking with lines."""

    def __init__(self, path: Path) -> None:
        self._unpacking = Unpacking(path)
        super().__init__(self._unpacking, 2**18)

    @property
    def torn(self) -> str:
        return self._unpacking.torn

    @property
    def place(self) -> int:
        return self._unpacking.place


def open_packed(path: Path, offset: int = 0) -> BinaryIO:
    """The unpacked bytes from `offset` on; everything before it is unpacked and dropped."""
    stream = UnpackedStream(path)
    while offset > 0 and (block := stream.read(min(offset, 2**20))):
        offset -= len(block)
    return cast(BinaryIO, stream)


def unpacked_copy(path: Path) -> Path:
    """Where the unpacked copy of a file is, or would be."""
    return cache_root() / file_key(path) / "unpacked"


def unpack(path: Path, progress: Callable[[str, int | None, int | None], None], stopped: Callable[[], bool]) -> bool:
    """Unpack a file into the cache; False where it was stopped. What comes before a damaged place is kept.

    The sentence about the damage is kept beside it. Raises DataError for bombs and full disks.
    """
    target = unpacked_copy(path)
    if target.exists():
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    part, size, done = target.with_name(f"unpacked.{os.getpid()}.part"), path.stat().st_size, 0
    try:
        with UnpackedStream(path) as stream, part.open("wb") as copy:
            while block := stream.read(2**20):
                if done % (64 * 2**20) == 0:
                    if shutil.disk_usage(target.parent).free < _ROOM:
                        raise _no_room(path)
                    progress(f"Unpacking {path.name}", stream.place, size)
                if stopped():
                    return False
                copy.write(block)
                done += len(block)
            torn = stream.torn
        target.with_name("torn").write_text(torn, encoding="utf-8")
        part.replace(target)
        return True
    except OSError as error:
        raise _no_room(path, error.strerror or str(error)) from None
    finally:
        part.unlink(missing_ok=True)


class _Copy(io.BufferedReader):
    """The unpacked copy, which ends where the packed file was damaged."""

    torn = ""


def open_copy(copy: Path, offset: int) -> BinaryIO:
    """The unpacked copy from an offset on."""
    stream = _Copy(io.FileIO(copy), 2**18)
    note = copy.with_name("torn")
    stream.torn = note.read_text(encoding="utf-8") if note.exists() else ""
    stream.seek(offset)
    return stream


def _reader(path: Path, file: BinaryIO) -> Callable[[int], bytes]:
    """Up to so many unpacked bytes; none at the end. EOFError where the file ends before its contents do."""
    # One step at a time: what was unpacked before a damaged place is given before it is told.
    return gzip.GzipFile(fileobj=file, mode="rb").read1 if path.suffix.lower() == ".gz" else _Frames(file).read


class _Frames:
    """The unpacked bytes of zstandard frames. Its own reader takes a file that was cut off for one that ends."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._file, self._unpacker = file, zstandard.ZstdDecompressor(max_window_size=2**27)
        self._frame = self._unpacker.decompressobj()
        self._begun = False
        self._packed, self._out = b"", b""

    def read(self, size: int) -> bytes:
        while not self._out:
            # A little at a time: it may unpack to thirty thousand times as much.
            packed = self._packed or self._file.read(2048)
            self._packed = b""
            if not packed:
                if self._begun:
                    raise EOFError("the file ends before its contents do")
                return b""
            self._begun = True
            self._out = self._frame.decompress(packed)
            if self._frame.eof:
                self._packed, self._begun = self._frame.unused_data, False
                self._frame = self._unpacker.decompressobj()
        block, self._out = self._out[:size], self._out[size:]
        return block


def _torn(name: str, error: Exception) -> str:
    return f"{name} breaks off or is damaged here ({error}): copy or download it again"


def _no_room(path: Path, why: str = "") -> DataError:
    return DataError(
        f"There is no room to unpack {path.name}{f' ({why})' if why else ''}.",
        "Free some space, or move the studio's folder with STUDIO_HOME.",
    )
